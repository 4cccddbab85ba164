"""Large-margin Gaussian mixture loss, L-GM (Wan et al., arXiv 1803.02988), with S = I and equal priors, as released.

With means m_c in the place of the last linear layer, and d_c = ||f - m_c||^2 / 2,

    L = CE of the logits -d_c, that of the true class being -d_y (1 + a), + l * mean of d_y        (equations 10 to 14)

Without the margin a the logits are those of the classifier: what is stored, judged and attacked. The released
TensorFlow code has a = 0.1 and l = 0.01, the Caffe code, for CIFAR-100, l = 0.1 and a doubled every 5,000 steps up to
0.3; in it the means learn twice as fast as the rest, with weight decay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.objectives.base import Objective, ParameterGroup, check_arguments
from robustbench_cmic.suite.objectives.features import LargeMarginGaussianObjective


class GaussianHead(nn.Module):
    """Features (N, d) -> -||f - m_c||^2 / 2, (N, C). Means start as the weights of a linear layer do (ours)."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        bound = features**-0.5
        self.means = nn.Parameter(torch.empty(classes, features).uniform_(-bound, bound))

    def forward(self, features: Tensor) -> Tensor:
        """By f . m - (f . f + m . m) / 2, without an array of N C d numbers; never above 0 but for rounding."""
        squares = features.square().sum(1, keepdim=True) + self.means.square().sum(1)
        return features @ self.means.T - squares / 2


class LargeMarginGaussian(Objective):
    """Cross entropy between Gaussians of the features with a margin, and the likelihood of the true one.

    Args:
        classes: C.
        margin: a, at least 0; it multiplies the distance to the true class's mean.
        likelihood: l, at least 0. Squared distances are of the order of d: too large, it draws all features together.
        lr_factor: how much faster the means learn.

    Raises:
        ValueError: a value that no suite may give.
    """

    owns_head = True

    def __init__(self, classes: int, margin: float = 0.1, likelihood: float = 0.01, lr_factor: float = 2.0) -> None:
        super().__init__()
        keys = {"name": "lgm", "margin": margin, "likelihood": likelihood, "lr_factor": lr_factor}
        check_arguments(LargeMarginGaussianObjective, classes, keys)
        self.classes = classes
        self.margin = margin
        self.likelihood = likelihood
        self.parameter_group = ParameterGroup(lr_factor=lr_factor, weight_decay=True)

    def make_head(self, features: int) -> nn.Module:
        """The means."""
        return GaussianHead(self.classes, features)

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce`, with the margin, and `distance`, the mean of d_y, and the `total`."""
        own = functional.one_hot(labels, self.classes).to(logits.dtype)
        ce = functional.cross_entropy(logits * (1 + self.margin * own), labels)
        distance = -logits.gather(1, labels[:, None]).mean()
        return {"total": ce + self.likelihood * distance, "ce": ce, "distance": distance}
