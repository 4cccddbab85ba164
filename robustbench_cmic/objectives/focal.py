"""Focal loss (Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, equation 4).

    L = mean of -(1 - p_y)^g log p_y

without the factor alpha, which balances classes. Calibration work (Mukhoti et al., arXiv 2002.09437) fixes g = 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_cmic.objectives.base import Objective, check_arguments
from robustbench_cmic.suite.objectives.logits import FocalObjective


class Focal(Objective):
    """Cross entropy that cares less for examples that are right already.

    Args:
        classes: C.
        gamma: g, at least 0; 0 is cross entropy.

    Raises:
        ValueError: a value that no suite may give.
    """

    def __init__(self, classes: int, gamma: float = 2.0) -> None:
        super().__init__()
        check_arguments(FocalObjective, classes, {"name": "focal", "gamma": gamma})
        self.classes = classes
        self.gamma = gamma

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The `total`, and cross entropy, `ce`, which is not minimised."""
        log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
        # By expm1 without cancellation. Where p rounds to 1 the power of 0 has no finite slope for g < 1.
        rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
        return {"total": -(rest**self.gamma * log_p).mean(), "ce": -log_p.detach().mean()}
