"""What the training loop asks of an objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from torch import Tensor, nn

from robustbench_cmic.suite.messages import UserError

TrainingOutputs = Callable[[], Iterator[tuple[Tensor, Tensor]]]
"""Logits and labels, batch by batch: in eval mode, without augmentation and gradients; attacked by an adversary."""


class ObjectiveError(UserError):
    """An objective that cannot be used; the message says why."""


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
