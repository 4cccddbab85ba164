"""Squentropy (Hui, Belkin and Wright, "Cut your Losses with Squentropy", arXiv 2302.03952, equation 1).

    L = CE + mean of 1 / (C - 1) * sum over j != y of z_j^2

The logits of wrong classes are drawn to 0: there is nothing to tune.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives.base import Objective, check_arguments
from robustbench_cmic.suite.objectives.logits import SquentropyObjective


class Squentropy(Objective):
    """Cross entropy and the mean square of the wrong classes' logits.

    Args:
        classes: C, at least 2.

    Raises:
        ValueError: a value that no suite may give.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        check_arguments(SquentropyObjective, classes, {"name": "squentropy"})
        self.classes = classes

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and `square`, and their sum, the `total`."""
        ce = functional.cross_entropy(logits, labels)
        own = functional.one_hot(labels, logits.shape[1]).bool()
        # A class that a model masks has the logit -infinity, and no square.
        wrong = logits.masked_fill(own | logits.isneginf(), 0.0)
        square = wrong.square().sum(1).mean() / (self.classes - 1)
        return {"total": ce + square, "ce": ce, "square": square}
