"""Label smoothing (Szegedy et al., "Rethinking the Inception Architecture ...", arXiv 1512.00567, section 7).

    L = (1 - e) CE + e * mean over c of -log P(c)

with the mean over all C classes, as in the paper and in torch, or over the C - 1 wrong ones alone, as other code has
it. The second at e is the first at e C / (C - 1).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from robustbench_cmic.objectives.base import Objective, check_arguments
from robustbench_cmic.suite.objectives.logits import LabelSmoothingObjective


class LabelSmoothing(Objective):
    """Cross entropy with a part of the target on other classes.

    Args:
        classes: C, at least 2.
        smoothing: e, in [0, 1).
        convention: spread over `all` classes, or over the `wrong` ones alone.

    Raises:
        ValueError: a value that no suite may give.
    """

    def __init__(self, classes: int, smoothing: float = 0.1, convention: Literal["all", "wrong"] = "all") -> None:
        super().__init__()
        keys = {"name": "label_smoothing", "smoothing": smoothing, "convention": convention}
        check_arguments(LabelSmoothingObjective, classes, keys)
        self.classes = classes
        self.smoothing = smoothing
        self.wrong = convention == "wrong"

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce` and `spread`, the mean of -log P over the classes that the rest is on, and the `total`."""
        log_p = logits.log_softmax(1)
        own = log_p.gather(1, labels[:, None])[:, 0]
        others = log_p.sum(1) - own if self.wrong else log_p.sum(1)
        ce = -own.mean()
        spread = -others.mean() / (self.classes - self.wrong)
        return {"total": (1 - self.smoothing) * ce + self.smoothing * spread, "ce": ce, "spread": spread}
