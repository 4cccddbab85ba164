"""What an attack function does for whoever calls it directly, outside of the harness."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen, is_of_inference_mode
from robustbench_cmic.information.measures import check_labels, integer_labels

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def called_directly(attack: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """An attack with the parameters `model`, `images` and `labels`, made fit for callers of all sorts.

    A model in training mode is in eval mode meanwhile, and every module of it as before afterwards. A model in eval
    mode is left alone, so that modules of it which are in training mode on purpose stay so. Labels may be integers of
    any type. Under `torch.inference_mode`, which forbids gradients, the attack leaves that mode for its time and works
    on copies of tensors that were made in it.

    Raises:
        ValueError: labels that are no integers, or no classes of the model; or a model whose weights were made under
            `torch.inference_mode`: no gradient passes through those.
    """
    signature = inspect.signature(attack)

    @functools.wraps(attack)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Returned:
        bound = signature.bind(*args, **kwargs)
        with torch.inference_mode(False), _evaluating(bound.arguments["model"]):
            given: dict[str, Any] = {name: _usual(value) for name, value in bound.arguments.items()}
            given["labels"] = integer_labels(given["labels"])
            # Who is told how many classes there are compares labels, and logits, with that.
            labels = None if "classes" in given else given["labels"]
            with _first_logits(given["model"], functools.partial(_check_classes, labels)) as model:
                bound.arguments.update(given | {"model": model})
                return attack(*bound.args, **bound.kwargs)

    return call


def _usual(value: Any) -> Any:
    """A tensor that gradients may pass through; everything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


@contextlib.contextmanager
def _first_logits(model: Any, check: Callable[[object], None]) -> Iterator[Any]:
    """The model, which hands what it returns first to `check`, before the attack sees it."""
    if isinstance(model, torch.jit.ScriptModule):  # which takes no hooks
        yield model
        return
    if not isinstance(model, nn.Module):
        yield _checked(model, check)
        return

    def look(_module: object, _inputs: object, outputs: object) -> None:
        hook.remove()
        check(outputs)

    hook = model.register_forward_hook(look)
    try:
        yield model
    finally:
        hook.remove()


def _checked(function: Callable[[Tensor], Tensor], check: Callable[[object], None]) -> Callable[[Tensor], Tensor]:
    """A function of images whose outputs are checked, each time."""

    def call(images: Tensor) -> Tensor:
        outputs = function(images)
        check(outputs)
        return outputs

    return call


def _check_classes(labels: Tensor | None, outputs: object) -> None:
    """Without this, an index is out of range somewhere in the attack; on a GPU that ends the process."""
    # What else a model may return is for others to say.
    if labels is not None and isinstance(outputs, Tensor) and outputs.ndim == 2:
        check_labels(labels, outputs.shape[1])


@contextlib.contextmanager
def _evaluating(model: object) -> Iterator[None]:
    """The model in eval mode, if it was in training mode; any function of images passes for a model."""
    if not isinstance(model, nn.Module):
        yield
        return
    if is_of_inference_mode(model):
        raise ValueError(
            "the model's weights were made under torch.inference_mode, and no gradient passes through them: build or "
            "load the model outside of it"
        )
    with frozen(model) if model.training else contextlib.nullcontext():
        yield
