"""Builds a classifier: the architecture behind a normalisation layer, initialised from a seed."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.models.architectures import Shape
from robustbench_cmic.models.outputs import ModelError, PickLogits, output_problem
from robustbench_cmic.objectives import Objective
from robustbench_cmic.objectives.last_layer import put_head
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.models import ARCHITECTURES, Model
from robustbench_cmic.suite.signatures import one_line


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
    declared: Model,
    shape: Shape,
    classes: int,
    moments: tuple[Sequence[float], Sequence[float]],
    seed: int,
    to_train: bool = False,
    objective: Objective | None = None,
) -> nn.Sequential:
    """`Normalize` and a network, its weights drawn from `seed` or timm's own; the global random state is left alone.

    Whatever draws them, a constructor or the first forward pass, through torch, numpy or Python: the generators of all
    three start from the seed.

    Args:
        declared: of it `architecture`, `width`, `depth`, `stem`, `zero_init_residual`, `pretrained`, `normalization`
            and `logits`.
        shape: (C, H, W) of an image.
        classes: number of classes.
        moments: mean and standard deviation of the training images, per channel.
        seed: two models of one architecture and seed start from equal weights, whatever their objectives.
        to_train: another one like it is tried in training mode before.
        objective: one that owns the head, which replaces the last linear layer; its weights are drawn after the others.

    Raises:
        ModelError: the architecture cannot be built for these images, or timm's weights cannot be had.
        ObjectiveError: it has no last linear layer that could be replaced.
    """
    if ":" in declared.architecture:
        # What a module draws when it is imported must not depend on which cell a process does first.
        with seeded(derive_seed("import", declared.architecture)):
            _function(declared.architecture, shape)
    if not to_train:
        with seeded(seed):
            return _classifier(declared, shape, classes, moments, objective)
    with seeded(seed):
        tried = _classifier(declared, shape, classes, moments, objective)
        start = {name: value.clone() for name, value in tried.state_dict().items()}
        _try_training(tried, declared.architecture, shape, classes)
    with seeded(seed):
        model = _classifier(declared, shape, classes, moments, objective)
    _check_apart(declared.architecture, tried, start, model)
    return model


def _classifier(
    declared: Model,
    shape: Shape,
    classes: int,
    moments: tuple[Sequence[float], Sequence[float]],
    objective: Objective | None,
) -> nn.Sequential:
    network = _network(declared, shape, classes)
    if not isinstance(network, nn.Module):
        raise ModelError(f"{declared.architecture} should return a torch.nn.Module, not {type(network).__name__}")
    mean, std = moments
    if declared.normalization == "none":
        mean, std = [0.0] * shape[0], [1.0] * shape[0]  # which changes no bit
    elif declared.normalization is not None:
        mean, std = declared.normalization.mean, declared.normalization.std
    elif declared.pretrained:
        settings: Any = network.pretrained_cfg
        mean, std = settings["mean"], settings["std"]
    if not len(mean) == len(std) == shape[0]:
        given = f"it has {len(mean)} and {len(std)}"
        raise ModelError(f"`normalization` should have one mean and one deviation a channel, {shape[0]} each; {given}")
    model = nn.Sequential(Normalize(mean, std), network)
    if declared.logits is not None:  # behind the network, so that the names of its weights stay as they are
        model.append(PickLogits(declared.logits))
    _try_evaluating(model, declared.architecture, shape, classes)
    if objective is not None and objective.owns_head:
        put_head(model, torch.full((2, *shape), 0.5), objective.make_head)
        _try_evaluating(model, declared.architecture, shape, classes)
    state: dict[str, Any] = model.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):  # what `get_extra_state` returns
            what = f"{declared.architecture} has {own_names([key])[0]} of type {type(value).__name__} in its state dict"
            raise ModelError(f"{what}: only tensors are stored")
    return model


def _try_evaluating(model: nn.Sequential, name: str, shape: Shape, classes: int) -> None:
    """Two grey images through the model, so that what does not fit is told before anything is trained.

    A second pass shows whether evaluating changes the model. The first may: it makes the weights of lazy layers.
    """
    model.eval()
    _try(model, name, shape, classes, "")
    before = {key: value.clone() for key, value in model.named_buffers() if not nn.parameter.is_lazy(value)}
    _try(model, name, shape, classes, "")
    moved = [key for key, value in model.named_buffers() if key in before and not _same(before[key], value)]
    stuck = stays_in_training(model)
    model.train()
    if moved:
        what = f"changes {', '.join(own_names(moved)[:3])} with every image that it evaluates"
        raise ModelError(f"{name} {f'{stuck}, and ' if stuck else ''}{what}: there is no fixed model to judge")


def _try_training(model: nn.Sequential, name: str, shape: Shape, classes: int) -> None:
    """Two grey images through a model in training mode; it is of no use afterwards."""
    made = model.state_dict().keys()
    _try(model, name, shape, classes, " in training mode")
    late = [key for key in model.state_dict() if key not in made]
    late += [key for key, value in model.named_parameters() if nn.parameter.is_lazy(value)]
    if late:
        what = f"{name} makes {', '.join(own_names(late)[:3])} when it trains first"
        raise ModelError(f"{what}: all weights should be there when it is built, or after a forward pass in eval mode")


def _check_apart(name: str, tried: nn.Module, start: dict[str, Tensor], model: nn.Module) -> None:
    """That what a training changes is not shared by all networks that the architecture's function returns.

    Args:
        name: of the architecture.
        tried: one network, after a pass in training mode.
        start: its state before that pass.
        model: the next network.
    """
    trained = {key for key, value in tried.named_parameters() if value.requires_grad}
    state = tried.state_dict()
    changes = [key for key in state if key in trained or (key in start and not _same(start[key], state[key]))]
    places = {state[key].untyped_storage().data_ptr() for key in changes if state[key].numel() > 0}
    shared = [key for key, value in model.state_dict().items() if value.untyped_storage().data_ptr() in places]
    if shared:
        what = f"{name} returns {', '.join(own_names(shared)[:3])} that it has returned before, so that one training"
        raise ModelError(f"{what} would go on with what another has learned: make or copy them at every call")


def _try(model: nn.Sequential, name: str, shape: Shape, classes: int, mode: str) -> None:
    try:
        with torch.no_grad():
            problem = output_problem(model(torch.full((2, *shape), 0.5)), classes)
    except ModelError as error:
        raise ModelError(f"{name}{mode}: {error}") from None
    except Exception as error:  # whatever a model raises
        raise ModelError(f"{name} fails{mode} on images of {shape}: {one_line(error)}") from error
    if problem is not None:
        wanted = f"float logits of shape (N, {classes})"
        raise ModelError(f"{name} should return {wanted}{mode}; for 2 images it returned {problem}")


def _same(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and bool(torch.allclose(first, second, rtol=0, atol=0, equal_nan=True))


def own_names(names: Iterable[str]) -> list[str]:
    """Names within a classifier as within its network, which is what a user knows."""
    return ["the network itself" if name == "1" else name.removeprefix("1.") for name in names]


def layers_in_training(model: nn.Module) -> list[str]:
    """Names of layers in training mode, within the network of a classifier."""
    return own_names(name or "the model itself" for name, module in model.named_modules() if module.training)


def stays_in_training(model: nn.Module) -> str | None:
    """Of a classifier that was told to evaluate: which layers stay in training mode; None where none does."""
    layers = layers_in_training(model)
    return f"stays in training mode when it is told to evaluate ({', '.join(layers[:3])})" if layers else None


def _network(declared: Model, shape: Shape, classes: int) -> Any:
    name = declared.architecture
    place = ARCHITECTURES.get(name, name)
    if ":" not in place:
        return _timm(declared, shape, classes)
    build = _function(place, shape)
    try:
        return build(shape, classes, **declared.size)
    except Exception as error:  # whatever a user's own code raises
        raise ModelError(f"{name} failed for images of {shape}: {one_line(error)}") from error


def _function(place: str, shape: Shape) -> Any:
    """What builds a network; importing it runs the code of its module, which may raise anything."""
    try:
        return pkgutil.resolve_name(place)
    except Exception as error:
        raise ModelError(f"{place} failed for images of {shape}: {one_line(error)}") from error


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
