"""CMI / Gamma of the softmax, alone: what the measure NCMI of arXiv 2309.09123 becomes as a loss.

On a mini-batch B, with centroids Q_c that move as those of CMIC-DL do,

    L = (mean of KL(P_x || Q_y)) / ((1/|B|^2) sum over pairs with y(x) != y(u) of -P_x . log P_u)

Nothing in it ties an output to the class of its number: permuting the classes changes nothing. So it begins with
epochs of cross entropy, or with given weights. It is not the objective of arXiv 2601.02543, see `ncmi_alone`, and may
well diverge.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from robustbench_cmic.objectives.base import TrainingOutputs, check_arguments
from robustbench_cmic.objectives.cmic import Cmic
from robustbench_cmic.suite.objectives.logits import CmiOverGammaObjective

_LEAST = 1e-8
"""Least separation that the concentration is divided by."""


class CmiOverGamma(Cmic):
    """The ratio of concentration to separation, after epochs of cross entropy.

    Args:
        classes: C.
        separation_gradient: as of `Cmic`.
        floor: as of `Cmic`.
        momentum: of the centroids.
        warmup_epochs: of cross entropy, at the beginning.

    Raises:
        ValueError: a value that no suite may give.
    """

    ratio_weight: Tensor

    def __init__(
        self,
        classes: int,
        *,
        separation_gradient: Literal["both", "first"] = "both",
        floor: float = 1e-8,
        momentum: float = 0.99,
        warmup_epochs: int = 1,
    ) -> None:
        super().__init__(classes, separation_gradient=separation_gradient, floor=floor, momentum=momentum)
        check_arguments(CmiOverGammaObjective, classes, {"name": "cmi_over_gamma", "warmup_epochs": warmup_epochs})
        self.warmup_epochs = warmup_epochs
        # On the device: a step that a CUDA graph has recorded reads it anew.
        self.register_buffer("ratio_weight", torch.ones(()))

    def begin_epoch(self, epoch: int, outputs: TrainingOutputs) -> None:
        """Cross entropy or the ratio."""
        super().begin_epoch(epoch, outputs)
        self.ratio_weight.fill_(float(epoch > self.warmup_epochs))

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The `total`, and the terms `ce`, `cmi`, `separation`."""
        terms = super().forward(logits, labels)
        ratio = terms["cmi"] / terms["separation"].clamp(min=_LEAST)
        return terms | {"total": torch.where(self.ratio_weight > 0, ratio, terms["ce"])}
