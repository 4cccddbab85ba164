"""What the training loop asks of an objective."""

from __future__ import annotations

from torch import Tensor, nn

from robustbench_cmic.suite.messages import UserError


class ObjectiveError(UserError):
    """An objective that cannot be used; the message says why."""


class Objective(nn.Module):
    """A loss over a mini-batch, with state that is updated between steps.

    State lives in buffers, so that it is stored and restored with the rest of a training.

    Attributes:
        classes: number of classes.
        class_examples: how many extra examples of every class `update` wants after each step; 0: the step's own.
    """

    classes: int
    class_examples = 0

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, scalars, for logits (N, C) and labels (N,); `total` is what is minimised."""
        raise NotImplementedError

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Called after each step with detached outputs: of the step itself, or of the extra class examples."""
