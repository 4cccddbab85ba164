"""Builds a classifier: the architecture behind a normalisation layer, initialised from a seed."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.models.architectures import Shape
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.models import ARCHITECTURES, Model
from robustbench_cmic.suite.signatures import one_line


class ModelError(UserError):
    """A model that cannot be built or does not fit its weights; the message says why."""


class Normalize(nn.Module):
    """(x - mean) / std per channel; the first layer of every model, so that attacks see images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # A channel without variation carries nothing to scale.
        scale = [value if value > 0 else 1.0 for value in std]
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(scale, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1] -> normalised images of the same shape."""
        return (images - self.mean) / self.std


def build_model(
    declared: Model, shape: Shape, classes: int, moments: tuple[Sequence[float], Sequence[float]], seed: int
) -> nn.Sequential:
    """`Normalize` and a network, its weights drawn from `seed` or timm's own; the global random state is left alone.

    Args:
        declared: of it `architecture`, `stem`, `zero_init_residual`, `pretrained` and `normalization`.
        shape: (C, H, W) of an image.
        classes: number of classes.
        moments: mean and standard deviation of the training images, per channel.
        seed: two models of one architecture and seed start from equal weights, whatever their objectives.

    Raises:
        ModelError: the architecture cannot be built for these images, or timm's weights cannot be had.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(declared, shape, classes)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{declared.architecture} should return a torch.nn.Module, not {type(network).__name__}")
    mean, std = moments
    if declared.normalization is not None:
        mean, std = declared.normalization.mean, declared.normalization.std
    elif declared.pretrained:
        settings: Any = network.pretrained_cfg
        mean, std = settings["mean"], settings["std"]
    if not len(mean) == len(std) == shape[0]:
        raise ModelError(f"`normalization` should have {shape[0]} means and as many deviations, one a channel")
    model = nn.Sequential(Normalize(mean, std), network)
    _try(model, declared.architecture, shape, classes)
    return model


def _try(model: nn.Sequential, name: str, shape: Shape, classes: int) -> None:
    """Two grey images through the model, so that what does not fit is told before anything is trained."""
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(torch.full((2, *shape), 0.5))
    except Exception as error:  # whatever a model raises
        raise ModelError(f"{name} fails on images of {shape}: {one_line(error)}") from error
    model.train()
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if got != (2, classes) or not logits.is_floating_point():
        raise ModelError(f"{name} should return float logits of shape (N, {classes}); for 2 images it returned {got}")


def _network(declared: Model, shape: Shape, classes: int) -> Any:
    name = declared.architecture
    place = ARCHITECTURES.get(name, name)
    if ":" not in place:
        return _timm(declared, shape, classes)
    try:
        return pkgutil.resolve_name(place)(shape, classes)
    except Exception as error:  # whatever a user's own code raises
        raise ModelError(f"{name} failed for images of {shape}: {one_line(error)}") from error


def _timm(declared: Model, shape: Shape, classes: int) -> nn.Module:
    import timm

    name, pretrained = declared.architecture, declared.pretrained
    arguments: dict[str, Any] = {"num_classes": classes, "in_chans": shape[0]}
    settings = timm.get_pretrained_cfg(name)
    if settings is not None and settings.fixed_input_size:
        arguments["img_size"] = shape[1:]
    if not declared.zero_init_residual:
        arguments["zero_init_last"] = False
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm lets through what its models, the network and the hub raise
        what = "timm's weights cannot be had" if pretrained else "timm cannot build it"
        raise ModelError(f"{name} for images of {shape}: {what}: {one_line(error)}") from error
    if pretrained and settings is not None and classes != settings.num_classes:
        raise ModelError(f"{name}: timm's weights know {settings.num_classes} classes, the data has {classes}")
    return small_stem(network, shape[0]) if declared.stem == "small" else network


def small_stem(network: nn.Module, channels: int) -> nn.Module:
    """A ResNet of timm with the stem for 32x32 images (He et al. 2016, section 4.2): 3x3, stride 1, no max-pooling."""
    width = network.bn1.num_features  # type: ignore[union-attr]
    stem = nn.Conv2d(channels, width, kernel_size=3, stride=1, padding=1, bias=False)  # type: ignore[arg-type]
    # As timm initialises its convolutions; torch's default would give the stem another scale than the rest.
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    network.conv1 = stem
    network.maxpool = nn.Identity()
    return network


def fit_weights(model: nn.Sequential, weights: dict[str, Tensor], source: str) -> None:
    """Load given weights: of the whole classifier (`0.mean`, `1.…`), or of the network behind the normalisation.

    Raises:
        ModelError: names or shapes that do not fit, or weights that are not finite; the message names one.
    """
    whole = {"0.mean", "0.std"} <= weights.keys()
    target: nn.Module = model if whole else model[1]
    wanted = target.state_dict()
    for key in sorted(wanted.keys() ^ weights.keys()):
        what = f"lacks {key}" if key in wanted else f"holds {key}, which the architecture has not"
        raise ModelError(f"{source} {what}")
    for key, value in weights.items():
        if value.shape != wanted[key].shape:
            shapes = f"{tuple(value.shape)}, not {tuple(wanted[key].shape)}"
            raise ModelError(f"{source}: {key} has shape {shapes} as in the architecture")
        if value.is_floating_point() != wanted[key].is_floating_point():
            raise ModelError(f"{source}: {key} is of type {value.dtype}, not {wanted[key].dtype}")
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{source}: {key} is not finite everywhere")
    target.load_state_dict(weights)
