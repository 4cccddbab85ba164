"""What a network returns: logits, or something else in which they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from robustbench_cmic.suite.messages import UserError


class ModelError(UserError):
    """A model that cannot be built or does not fit its weights; the message says why."""


class PickLogits(nn.Module):
    """Takes the logits out of what the network before it returns; a tensor passes as it is.

    Args:
        key: the index of a tuple or list, the key of a dictionary, or the name of an attribute.
    """

    def __init__(self, key: int | str) -> None:
        super().__init__()
        self.key = key

    def forward(self, output: Any) -> Tensor:
        """The network's output -> (N, classes).

        Raises:
            ModelError: there is nothing of that name in it.
        """
        if isinstance(output, Tensor):
            return output
        try:
            by_name = isinstance(self.key, str) and not isinstance(output, Mapping)
            found: Tensor = getattr(output, str(self.key)) if by_name else output[self.key]
        except (AttributeError, LookupError, TypeError):
            raise ModelError(f"`logits: {self.key}` is not in its output, {_kind(output)}") from None
        return found


def output_problem(output: Any, classes: int) -> str | None:
    """What is wrong with a network's output for 2 images, to be read after "it returned"; None where nothing is."""
    if not isinstance(output, Tensor):
        found = next((key for key, value in _parts(output) if _is_logits(value, classes)), None)
        hint = "" if found is None else f"; `logits: {found}` would take these"
        return f"{_kind(output)}{hint}"
    if _is_logits(output, classes):
        return None
    shape = tuple(output.shape)
    return f"{shape}" if output.is_floating_point() else f"{shape} of {output.dtype}"


def _is_logits(value: Any, classes: int) -> bool:
    return isinstance(value, Tensor) and tuple(value.shape) == (2, classes) and value.is_floating_point()


def _parts(output: Any) -> Iterator[tuple[int | str, Any]]:
    """What an output consists of, by the keys that `PickLogits` takes."""
    if isinstance(output, Mapping):
        yield from ((key, value) for key, value in output.items() if isinstance(key, int | str))
    elif isinstance(output, tuple | list):
        yield from enumerate(output)
    elif is_dataclass(output):
        yield from ((field.name, getattr(output, field.name)) for field in fields(output))
    else:
        yield from vars(output).items() if hasattr(output, "__dict__") else ()


def _kind(output: Any) -> str:
    """`a tuple of 2`, `a dictionary of logits, features`, `a ModelOutput with logits, loss`."""
    if output is None:
        return "nothing"
    keys = [str(key) for key, _ in _parts(output)]
    if type(output) in (tuple, list):
        return f"a {type(output).__name__} of {len(keys)}"
    name = "dictionary" if type(output) is dict else type(output).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name} with {', '.join(keys[:8]) or 'nothing'}"
