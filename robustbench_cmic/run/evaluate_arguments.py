"""What `evaluate` is given: checked, and as a run takes it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen, is_of_inference_mode
from robustbench_cmic.data.base import Data, Split
from robustbench_cmic.suite.fields import Norm, Threat, parse_number, radius_problem
from robustbench_cmic.suite.signatures import one_line

LARGEST_RADIUS = 1e6
"""Of L2: far beyond any image."""
_WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def integer(name: str, value: Any, least: int | None = None) -> int:
    """A whole number of any type; raises ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or (least is not None and number < least):
        raise ValueError(
            f"{name}: should be a whole number{'' if least is None else f' from {least} on'}, not {value!r}"
        )
    return number


def check_types(model: object, images: object, labels: object) -> None:
    """Raises ValueError where they are not a network and two tensors."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: should be a torch.nn.Module, not {type(model).__name__}")
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name}: should be a tensor, not {type(given).__name__}; torch.as_tensor makes one")
    if is_of_inference_mode(model):
        raise ValueError("model: its weights were made under torch.inference_mode: build or load it outside of that")


def checked_data(model: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> tuple[Data, int]:
    """Images and labels as a data set, on copies, and the number of classes; raises ValueError."""
    if images.ndim != 4 or not images.is_floating_point() or images.numel() == 0:
        raise ValueError(
            f"images: should be floats of (N, C, H, W) in [0, 1], not {images.dtype} of {tuple(images.shape)}"
        )
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        what = f"{low!r} to {high!r}" if low == low and high == high else "NaN"
        raise ValueError(f"images: should lie in [0, 1], and hold {what}; the model normalises by itself")
    if labels.shape != images.shape[:1] or labels.dtype not in _WHOLE:
        raise ValueError(f"labels: should be {len(images)} whole numbers, not {labels.dtype} of {tuple(labels.shape)}")
    copied = images.detach().to("cpu", torch.float32).clone().contiguous()
    classes = _classes(model, copied[:1].to(device))
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= classes:
        wrong = least if least < 0 else most
        raise ValueError(f"labels: should lie in 0 ... {classes - 1}, as the model has {classes} logits, not {wrong}")
    split = Split(copied.numpy(), labels.detach().to("cpu", torch.int64).clone().numpy())
    return Data(split, split, classes), classes


def _classes(model: nn.Module, image: Tensor) -> int:
    """The number of logits for one image (1, C, H, W)."""
    with frozen(model):
        try:
            logits = model(image.clone().requires_grad_() * 1)  # no leaf, which a model may not change in place
        except Exception as error:
            raise ValueError(f"model: fails on one image of {tuple(image.shape)}: {one_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1 or logits.shape[1] < 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model: should return logits (N, classes), and returns {shape} for one image")
    if not logits.requires_grad:
        raise ValueError("model: its logits are detached from the image, and attacks need gradients with respect to it")
    return logits.shape[1]


def radii_of(eps: Any, norm: Norm) -> list[float]:
    """One radius, or several; an array or a tensor of either."""
    return list(_radii(_listed(eps), norm))


def _listed(eps: Any) -> list[Any]:
    if isinstance(eps, str | bytes) or eps is None:
        return [eps]
    values = eps.tolist() if hasattr(eps, "tolist") else eps
    return list(values) if isinstance(values, Iterable) else [values]


def _radii(given: Sequence[Any], norm: Norm) -> Iterator[float]:
    for one in given:
        try:
            radius = parse_number(one) if isinstance(one, str) else float(one) if isinstance(one, Real) else 0.0
        except ValueError:
            radius = 0.0
        if not 0 < radius <= LARGEST_RADIUS or isinstance(one, bool):
            raise ValueError(f"eps: should be numbers above 0 such as 0.03 or '8/255', not {one!r}")
        if (problem := radius_problem(Threat(norm, radius))) is not None:
            raise ValueError(f"eps: {problem}")
        yield radius
    if not given:
        raise ValueError("eps: should be one number at least")
