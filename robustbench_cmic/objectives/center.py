"""Center loss (Wen, Zhang, Li and Qiao, "A Discriminative Feature Learning Approach ...", ECCV 2016).

Equation 5, with the sums over a mini-batch of m taken as means, so that the weight does not depend on its size:

    L = CE + (w / 2) (1/m) sum_i ||f_i - c_y(i)||^2

and after each step the centres move towards the features of their class (equation 4), without gradient:

    c_j <- c_j - a * sum_{i: y(i) = j} (c_j - f_i) / (1 + n_j)

Centres start at 0. In a common port they are weights, moved by SGD on the mean over the batch: C / B times slower.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.information.measures import class_sums
from robustbench_cmic.objectives.base import FeatureObjective, check_arguments
from robustbench_cmic.suite.objectives.features import CenterObjective


class CenterLoss(FeatureObjective):
    """Cross entropy and the squared distance of features to the centre of their class.

    Args:
        classes: C.
        weight: w, at least 0.
        rate: a, in [0, 1].

    Raises:
        ValueError: a value that no suite may give.
    """

    center: Tensor

    def __init__(self, classes: int, weight: float = 0.003, rate: float = 0.5) -> None:
        super().__init__()
        check_arguments(CenterObjective, classes, {"name": "center", "weight": weight, "rate": rate})
        self.classes = classes
        self.weight = weight
        self.rate = rate

    def prepare(self, features: int) -> None:
        """Row j of (C, d) is c_j."""
        self.register_buffer("center", torch.zeros(self.classes, features))

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """The terms `ce` and `center`, half the mean squared distance, unweighted, and the `total`."""
        ce = functional.cross_entropy(logits, labels)
        center = (features - self.center[labels]).square().sum(1).mean() / 2
        return {"total": ce + self.weight * center, "ce": ce, "center": center}

    @torch.no_grad()
    def update(self, _logits: Tensor, labels: Tensor, features: Tensor) -> None:  # type: ignore[override]
        """Equation 4; a class that is absent stays where it is."""
        counts = class_sums(torch.ones_like(features[:, :1]), labels, self.classes)
        sums = class_sums(features, labels, self.classes)
        self.center.sub_(self.rate * (counts * self.center - sums) / (1 + counts))
