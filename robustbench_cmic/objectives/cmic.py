"""CMIC-DL: cross entropy constrained in conditional mutual information (Yang et al., arXiv 2309.09123, Algorithm 1).

On a mini-batch B, with one centroid Q_c for each class, in nats:

    J = CE + lambda * (1/|B|) sum_x KL(P_x || Q_y) - beta * (1/|B|^2) sum over pairs with y(x) != y(u) of H(P_x, P_u)

with H(P_x, P_u) = -P_x . log P_u. Read literally, both factors are differentiated. In the code that the authors have
published the gradient stops at log P_u (`pair_wise_CE` of iclr2024mcmi/ICLRMCMI, say), and the mean is over the unlike
pairs alone. Through log P_u the reward does not vanish when the softmax saturates; through P_x alone it does.

With lambda = -a < 0 and beta = 0 it is MCMI (Ye et al., "Bayes Conditional Distribution Estimation for Knowledge
Distillation Based on Conditional Mutual Information", arXiv 2401.08732): J = CE - a * concentration, which raises CMI,
for a teacher whose outputs tell more than its label. It goes on from trained weights, with the class means over the
training set as centroids (`fixed`), and may collapse from random ones. The authors' code has a = 0.15 to 0.25, and 20
epochs at a rate that falls from 0.05 along a cosine.

Optimised in turn: with Q fixed, one step on the weights; with the weights fixed, Q_c <- m Q_c + (1 - m) mean of P
over examples of class c.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.information.measures import InformationSums, class_sums, separation_by_class
from robustbench_cmic.objectives.base import Objective, TrainingOutputs, check_arguments
from robustbench_cmic.suite.objectives import CmicObjective


class Cmic(Objective):
    """The CMIC-DL objective and its centroids, a module of logits (N, C) and labels (N,).

    Where lambda and beta are both 0 the loss is cross entropy, bit for bit. As written in the paper the separation
    term is unbounded: it rewards log P -> -inf. Below `floor` the logarithm gives no gradient any more. The defaults
    are the formula as printed; `suite.objectives.PRESETS` has the settings of both readings.

    Args:
        classes: C.
        lambda_: weight of the concentration; below 0 it is undone.
        beta: weight of the separation, at least 0.
        separation_gradient: of -P_x . log P_u, `both` factors are differentiated, or the `first` alone, P_x.
        separation_mean: over `all_pairs`, whose sum is divided by |B|^2, or over the `unlike_pairs` alone.
        floor: least probability inside the separation term, in (0, 1).
        centroids: what `update` is given: the step's own `batch`, or extra `class_batches`; or `fixed`, the class means
            that `begin_epoch` computes.
        momentum: how much of a centroid an update keeps, in [0, 1].
        horizon: in place of a momentum m, the number 1 / (1 - m) of steps that a centroid looks back on, as a share of
            the training's steps, which `begin` has to be told.
        class_batch_size: extra examples of every class that `update` wants; only for `class_batches`.
        class_batch_mode: the model's mode for them.
        refresh: when `fixed` centroids are computed: `once`, or at the start of each `epoch`.
        label_smoothing: of the cross-entropy term.

    Raises:
        ValueError: a value that no suite may give, such as a word that none of these keys knows.
    """

    centroid: Tensor

    def __init__(
        self,
        classes: int,
        *,
        lambda_: float = 0.7,
        beta: float = 0.4,
        separation_gradient: Literal["both", "first"] = "both",
        separation_mean: Literal["all_pairs", "unlike_pairs"] = "all_pairs",
        floor: float = 1e-8,
        centroids: Literal["batch", "class_batches", "fixed"] = "batch",
        momentum: float | None = 0.99,
        horizon: float | None = None,
        class_batch_size: int = 8,
        class_batch_mode: Literal["eval", "train"] = "eval",
        refresh: Literal["once", "epoch"] = "once",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        keys: dict[str, Any] = {
            "lambda": lambda_,
            "beta": beta,
            "separation_gradient": separation_gradient,
            "floor": floor,
        }
        keys |= {"separation_mean": separation_mean, "centroids": centroids, "momentum": momentum, "horizon": horizon}
        keys |= {"class_batch_size": class_batch_size, "class_batch_mode": class_batch_mode, "refresh": refresh}
        check_arguments(CmicObjective, classes, keys | {"name": "cmic", "label_smoothing": label_smoothing})
        self.classes = classes
        self.lambda_ = lambda_
        self.beta = beta
        self.detached = separation_gradient == "first"
        self.unlike = separation_mean == "unlike_pairs"
        self.log_floor = math.log(floor)
        self.fixed = centroids == "fixed"
        self.momentum = momentum
        self.horizon = horizon
        self.class_examples = class_batch_size if centroids == "class_batches" else 0
        self.class_mode = class_batch_mode
        self.refresh = refresh
        self.label_smoothing = label_smoothing
        # Q starts uniform (the paper); row c is Q_c.
        self.register_buffer("centroid", torch.full((classes, classes), 1 / classes))

    def begin(self, steps: int) -> None:
        """The momentum that looks back on `horizon` of these steps: 1 / (1 - m) = horizon * steps, at least one."""
        if self.horizon is not None:
            self.momentum = 1 - 1 / max(self.horizon * steps, 1.0)

    def begin_epoch(self, epoch: int, outputs: TrainingOutputs) -> None:
        """`fixed` centroids: the mean of P over the training examples of each class; one without any stays uniform."""
        if self.fixed and (self.refresh == "epoch" or epoch == 1):
            self.take_class_means(outputs)

    def take_class_means(self, outputs: TrainingOutputs) -> None:
        """Q_c: the mean of P over the training examples of class c; one without any is uniform."""
        sums = InformationSums.zeros(self.classes, self.centroid.device)
        for logits, labels in outputs():
            sums.add(logits, labels)
        counts = sums.counts[:, None]
        self.centroid.copy_(torch.where(counts > 0, sums.p / counts.clamp(min=1), 1 / self.classes))

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `ce`, `cmi` and `separation`, unweighted, and the `total`."""
        ce = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        concentration = self._concentration(p, log_p, labels)
        separation = self._separation(p, log_p, labels)
        total = ce
        # A term of weight 0 stays out of the graph: where it overflows, 0 times it would be NaN.
        if self.lambda_ != 0:
            total = total + self.lambda_ * concentration
        if self.beta > 0:
            total = total - self.beta * separation
        return {"total": total, "ce": ce, "cmi": concentration, "separation": separation}

    def _concentration(self, p: Tensor, log_p: Tensor, labels: Tensor) -> Tensor:
        """(1/|B|) sum_x KL(P_x || Q_y), Q fixed."""
        return self._divergences(p, log_p, labels).mean()

    def _divergences(self, p: Tensor, log_p: Tensor, labels: Tensor) -> Tensor:
        """KL(P_x || Q_y) of each row, Q fixed. No centroid entry reaches 0: it begins at 1/C and decays by m."""
        log_q = self.centroid.clamp(min=torch.finfo(self.centroid.dtype).tiny).log()
        # 0 log 0 is 0, for classes that a model masks with -infinity.
        return (p * (log_p.clamp(min=torch.finfo(log_p.dtype).min) - log_q[labels])).sum(1)

    def _separation(self, p: Tensor, log_p: Tensor, labels: Tensor) -> Tensor:
        """Mean over pairs of different labels of -P_x . max(log P_u, log floor), or their sum over |B|^2."""
        floored = log_p.clamp(min=self.log_floor)
        if self.detached:
            floored = floored.detach()
        sums = separation_by_class(class_sums(p, labels, self.classes), class_sums(floored, labels, self.classes))
        if not self.unlike:
            return sums.sum() / len(labels) ** 2
        alike = (labels[:, None] == labels).sum()
        return sums.sum() / (len(labels) ** 2 - alike).clamp(min=1)  # a batch of one class has no such pair

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Q_c <- m Q_c + (1 - m) mean of P over the examples of class c, for every class present."""
        if self.fixed:
            return
        assert self.momentum is not None, "a horizon becomes a momentum when a training begins"
        p = logits.float().softmax(1)
        counts = class_sums(torch.ones_like(p[:, :1]), labels, self.classes)
        means = class_sums(p, labels, self.classes) / counts.clamp(min=1)
        moved = self.momentum * self.centroid + (1 - self.momentum) * means
        self.centroid.copy_(torch.where(counts > 0, moved, self.centroid))
