"""NCMI alone, without cross entropy (arXiv 2601.02543), as the code of `Linfeng-Ye/NCMI` has it.

No linear layer: of the features f, with mu a running mean of them and T a temperature,

    u = (f - mu) / (T ||f - mu||),    P = sigmoid(u) / sum of sigmoid(u) over the d features        ("sigmax")

is a distribution over features. With a distribution Q_c for each class, C of them and d >= C,

    L = mean over x of KL(P_x || Q_y) / ((1/C) sum over c != y of KL(Q_c || P_x))

which is a mean of ratios, and not CMI / Gamma. The decision is argmin_c KL(P || Q_c) with Q_c the mean of P over the
training images of class c. So the head returns -KL(P || Q_c) as logits, and attacks see the function that is judged.

In the released trainer the Q of the loss never move: they are sigmax of 10 at feature c and 0 elsewhere (`targets`).
With `means` they are those of the decision, computed after each epoch, which is our reading of what was meant.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.information.measures import class_sums
from robustbench_cmic.objectives.base import FeatureObjective, TrainingOutputs, check_arguments
from robustbench_cmic.objectives.last_layer import ObjectiveError, unit_rows
from robustbench_cmic.suite.objectives.features import NcmiObjective

_LEAST = 1e-8
"""Least separation of an image from the other classes that its concentration is divided by."""


class SigmaxHead(nn.Module):
    """Features (N, d) -> -KL(P || Q_c), (N, C), with the running mean of the features and the class means Q.

    Args:
        classes: C.
        features: d.
        temperature: T.
        momentum: how much of mu a batch in training mode keeps; the first batch sets it.
    """

    mean: Tensor
    batches: Tensor
    target: Tensor
    centroid: Tensor

    def __init__(self, classes: int, features: int, temperature: float, momentum: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("batches", torch.zeros(()))
        self.register_buffer("target", _log_sigmax(10 * torch.eye(classes, features)).exp())
        self.register_buffer("centroid", self.target.clone())

    def log_p(self, features: Tensor) -> Tensor:
        """(N, d) -> log P, (N, d)."""
        return _log_sigmax(unit_rows(features - self.mean) / self.temperature)

    def forward(self, features: Tensor) -> Tensor:
        """(N, d) -> (N, C), at most 0 but for rounding; in training mode the batch moves the running mean first."""
        if self.training:
            self._move(features.detach())
        # P and Q are so alike that logits differ by thousandths, where float32 rounds the sums by millionths.
        log_p = self.log_p(features.double())
        p = log_p.exp()
        logits = p @ self.centroid.double().log().T - (p * log_p).sum(1, keepdim=True)
        return logits.to(features.dtype)

    @torch.no_grad()
    def _move(self, features: Tensor) -> None:
        mean = features.mean(0)
        moved = self.momentum * self.mean + (1 - self.momentum) * mean
        self.mean.copy_(torch.where(self.batches == 0, mean, moved))
        self.batches.add_(1)


def _log_sigmax(u: Tensor) -> Tensor:
    logs = functional.logsigmoid(u)
    return logs - logs.logsumexp(1, keepdim=True)


class Ncmi(FeatureObjective):
    """The mean ratio of concentration to separation of the features' distributions.

    Args:
        classes: C.
        temperature: T, above 0.
        momentum: of the running mean of the features, in [0, 1].
        centroids: Q of the loss: the released `targets`, or the class `means` of the last epoch.

    Raises:
        ValueError: a value that no suite may give.
    """

    owns_head = True

    def __init__(
        self,
        classes: int,
        temperature: float = 0.2,
        momentum: float = 0.9999,
        centroids: Literal["targets", "means"] = "targets",
    ) -> None:
        super().__init__()
        keys = {"name": "ncmi_alone", "temperature": temperature, "momentum": momentum, "centroids": centroids}
        check_arguments(NcmiObjective, classes, keys)
        self.classes = classes
        self.temperature = temperature
        self.momentum = momentum
        self.means = centroids == "means"

    def make_head(self, features: int) -> nn.Module:
        """The distributions.

        Raises:
            ObjectiveError: fewer features than classes, which leave none of its own for each.
        """
        if features < self.classes:
            what = f"{features} features, fewer than the {self.classes} classes"
            raise ObjectiveError(f"ncmi_alone gives every class a feature of its own; this network has {what}")
        return SigmaxHead(self.classes, features, self.temperature, self.momentum)

    def forward(self, _logits: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """The `total`, and the means of numerator and denominator, `concentration` and `distance`."""
        head = self.head
        assert isinstance(head, SigmaxHead)
        log_p = head.log_p(features)
        p = log_p.exp()
        q = head.centroid if self.means else head.target
        log_q = q.log()
        concentration = (p * (log_p - log_q[labels])).sum(1)
        apart = (q * log_q).sum(1) - log_p @ q.T
        others = 1 - functional.one_hot(labels, self.classes).to(apart.dtype)
        distance = (apart * others).sum(1) / self.classes
        total = (concentration / distance.clamp(min=_LEAST)).mean()
        return {"total": total, "concentration": concentration.mean(), "distance": distance.mean()}

    @torch.no_grad()
    def end_epoch(self, _epoch: int, outputs: TrainingOutputs) -> None:
        """Q_c of the decision: the mean of P over the training images of class c; its target where there is none."""
        head = self.head
        assert isinstance(head, SigmaxHead)
        sums = torch.zeros_like(head.centroid, dtype=torch.float64)
        counts = sums[:, :1].clone()
        for _, labels, features in outputs():
            p = head.log_p(features).exp().double()
            sums += class_sums(p, labels, self.classes)
            counts += class_sums(torch.ones_like(p[:, :1]), labels, self.classes)
        head.centroid.copy_(torch.where(counts > 0, sums / counts.clamp(min=1), head.target))
