"""Large margin cosine loss, CosFace (Wang et al., arXiv 1801.09414, equation 4).

    L = CE of the logits s cos(f, W_c), that of the true class being s (cos(f, W_y) - m)

The head in the place of the last linear layer has unit rows W_c and no bias. Without the margin m the logits are
those of the classifier: what is stored, judged and attacked. s = 64 and m = 0.35 are for faces, with many classes;
logits of up to 64 saturate a softmax, and on small data s of 16 to 30 is more like it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.objectives.base import Objective, ParameterGroup, check_arguments
from robustbench_cmic.objectives.last_layer import unit_rows
from robustbench_cmic.suite.objectives.features import CosFaceObjective


class CosineHead(nn.Module):
    """Features (N, d) -> s cos(f, W_c), (N, C)."""

    def __init__(self, classes: int, features: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.randn(classes, features) * features**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(N, d) -> (N, C), in [-s, s]."""
        return self.scale * unit_rows(features) @ unit_rows(self.weight).T


class CosFace(Objective):
    """Cross entropy of scaled cosines, the true one lessened by a margin.

    Args:
        classes: C.
        scale: s, above 0.
        margin: m, in [0, 2].

    Raises:
        ValueError: a value that no suite may give.
    """

    owns_head = True
    parameter_group = ParameterGroup(weight_decay=True)

    def __init__(self, classes: int, scale: float = 64.0, margin: float = 0.35) -> None:
        super().__init__()
        check_arguments(CosFaceObjective, classes, {"name": "cosface", "scale": scale, "margin": margin})
        self.classes = classes
        self.scale = scale
        self.margin = margin

    def make_head(self, features: int) -> nn.Module:
        """The weights, whose rows count by their direction alone."""
        return CosineHead(self.classes, features, self.scale)

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The one term `margin_ce`, which is the `total`, and cross entropy without a margin, `ce`."""
        own = functional.one_hot(labels, self.classes).to(logits.dtype)
        loss = functional.cross_entropy(logits - self.scale * self.margin * own, labels)
        return {"total": loss, "margin_ce": loss, "ce": functional.cross_entropy(logits.detach(), labels)}
