"""Orthogonal projection loss, OPL (Ranasinghe et al., arXiv 2103.14021, equations 3 to 6).

With cosines of features over the pairs of a mini-batch, s the mean over pairs of one class (i != j), r that over pairs
of two classes:

    L = CE + w ((1 - s) + g * r)

Three versions of r are in circulation: the mean of the cosines (`signed`), as at the top of the authors' repository
`kahnchana/opl`, the mean of their absolute values (`absolute`), as in its CIFAR folder, whose script gives w = 1 and
g = 1/2, and the absolute value of their mean (`absolute_mean`). Behind a ReLU all cosines are at least 0, and the three
are one.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives.base import FeatureObjective, check_arguments
from robustbench_cmic.objectives.last_layer import unit_rows
from robustbench_cmic.suite.objectives.features import OplObjective


class Opl(FeatureObjective):
    """Cross entropy, and features of a class that are parallel, of two that are orthogonal.

    Args:
        classes: C.
        weight: w, at least 0.
        gamma: g, at least 0.
        unlike: which version of r.

    Raises:
        ValueError: a value that no suite may give.
    """

    def __init__(
        self,
        classes: int,
        weight: float = 1.0,
        gamma: float = 0.5,
        unlike: Literal["signed", "absolute", "absolute_mean"] = "absolute",
    ) -> None:
        super().__init__()
        check_arguments(OplObjective, classes, {"name": "opl", "weight": weight, "gamma": gamma, "unlike": unlike})
        self.classes = classes
        self.weight = weight
        self.gamma = gamma
        self.unlike = unlike

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """The terms `ce`, `like` (1 - s) and `unlike` (r), unweighted, and the `total`."""
        ce = functional.cross_entropy(logits, labels)
        rows = unit_rows(features)
        cosines = rows @ rows.T
        same = (labels[:, None] == labels).to(cosines.dtype)
        pairs = same.sum() - len(labels)  # of one class, but no image with itself
        # A batch in which every class is there once has no such pair, and nothing to lower.
        # The backward pass of `trace` reads from the device, which the capture of a step as a graph forbids.
        like = (pairs - ((same * cosines).sum() - cosines.diagonal().sum())) / pairs.clamp(min=1)
        others = 1 - same
        unlike = (others * (cosines.abs() if self.unlike == "absolute" else cosines)).sum() / others.sum().clamp(min=1)
        if self.unlike == "absolute_mean":
            unlike = unlike.abs()
        return {"total": ce + self.weight * (like + self.gamma * unlike), "ce": ce, "like": like, "unlike": unlike}
