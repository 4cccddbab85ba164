"""What the training loop asks of an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from robustbench_cmic.suite.messages import UserError, problems_of

TrainingOutputs = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Logits and labels, batch by batch: in eval mode, without augmentation and gradients; attacked by an adversary."""


class ObjectiveError(UserError):
    """An objective that cannot be used; the message says why."""


def check_arguments(declaration: type[BaseModel], classes: int, keys: dict[str, Any]) -> None:
    """Check what an objective is made with, in a loop of a user's own too, as a suite that declares it is checked.

    Args:
        declaration: of the objective in suites.
        classes: number of classes, at least 2.
        keys: by their names in suites.

    Raises:
        ValueError: the first that is wrong, and what would be right.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"classes: should be a whole number of at least 2, not {classes!r}")
    try:
        declaration.model_validate(keys)
    except ValidationError as error:
        problem = problems_of(error, keys, declaration)[0]
        raise ValueError(f"{'.'.join(map(str, problem.location))}: {problem.message}") from None


class Objective(nn.Module):
    """A loss over a mini-batch, with state that is updated between steps.

    State lives in buffers, so that it is stored and restored with the rest of a training.

    Attributes:
        classes: number of classes.
        class_examples: how many extra examples of every class `update` wants after each step; 0: the step's own.
        class_mode: the model's mode for these; in `train` mode they enter running statistics.
    """

    classes: int
    class_examples = 0
    class_mode: Literal["eval", "train"] = "eval"

    def begin(self, steps: int) -> None:
        """Called before a training begins or goes on, with the number of its steps from beginning to end."""

    def begin_epoch(self, epoch: int, outputs: TrainingOutputs) -> None:
        """Called before each epoch, counted from 1; `outputs` yields the whole training set's, where it is called."""

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, scalars, for logits (N, C) and labels (N,); `total` is what is minimised."""
        raise NotImplementedError

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Called after each step with detached outputs: of the step itself, or of the extra class examples."""
