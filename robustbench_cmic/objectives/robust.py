"""Robust training: what TRADES and MART add to a loss, and robust CMI with its second adversary.

With P_x = softmax(z(x)), x a clean image, x' what an adversary found near it, y the label, C classes, in nats:

    TRADES (Zhang et al., arXiv 1901.08573, equation 5)     w * mean of KL(P_x || P_x')
    MART (Wang et al., ICLR 2020, equations 8 to 10)        mean of -log(1 - max over k != y of P_x'(k))
                                                            + w * mean of (1 - P_x(y)) KL(P_x || P_x')

They are added to an objective at x (TRADES) or at x' (MART); with cross entropy that is the loss of the papers.
Gradients flow through P_x as well. The released code of MART has 1.0001 in place of the first 1 inside the logarithm,
which bounds it by 9.2; here the logarithm is taken of logits, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives.base import TrainingOutputs, check_arguments
from robustbench_cmic.objectives.cmic import Cmic
from robustbench_cmic.suite.objectives.base import DeclaredRobustCmi


def divergences(clean: Tensor, changed: Tensor) -> Tensor:
    """KL(P || P') of each row of logits (N, C) and (N, C): (N,). A class masked in both with -infinity is left out."""
    log_p, log_q = clean.log_softmax(1), changed.log_softmax(1)
    least = torch.finfo(log_p.dtype).min
    return (log_p.exp() * (log_p.clamp(min=least) - log_q.clamp(min=least))).sum(1)


def trades_terms(clean: Tensor, changed: Tensor, weight: float) -> dict[str, Tensor]:
    """The term `trades_kl`, unweighted, and the `total` of what TRADES adds, for logits (N, C) at x and at x'."""
    divergence = divergences(clean, changed).mean()
    return {"total": weight * divergence, "trades_kl": divergence}


def mart_terms(clean: Tensor, changed: Tensor, labels: Tensor, weight: float) -> dict[str, Tensor]:
    """The terms `mart_margin` and `mart_kl`, unweighted, and the `total` of what MART adds; logits as of TRADES."""
    own = functional.one_hot(labels, changed.shape[1]).bool()
    runner_up = changed.masked_fill(own, -torch.inf).argmax(1, keepdim=True)
    rest = changed.scatter(1, runner_up, -torch.inf)
    margin = (changed.logsumexp(1) - rest.logsumexp(1)).mean()
    doubt = -torch.expm1(clean.log_softmax(1).gather(1, labels[:, None])[:, 0])  # without cancellation
    divergence = (doubt * divergences(clean, changed)).mean()
    return {"total": margin + weight * divergence, "mart_margin": margin, "mart_kl": divergence}


class RobustCmi(Cmic):
    """Concentration and separation at images x'' of a second adversary, as ICLR2025-Robust-NCMI has them.

    Adds lambda * mean KL(P_x'' || Q_y) - beta * separation. x'' ascends KL(P || Q_y) - (beta / lambda) * separation.
    Centroids begin as the class means of the untrained network's clean outputs, and move with the outputs at x''. The
    gradient stops at log P_u, and the separation is a mean over unlike pairs, with the floor 1e-8.

    Args:
        classes: C.
        lambda_: weight of the concentration, above 0.
        beta: weight of the separation, at least 0.
        momentum: of the centroids.
        horizon: in place of a momentum, as of `Cmic`.

    Raises:
        ValueError: a value that no suite may give.
    """

    def __init__(
        self,
        classes: int,
        *,
        lambda_: float = 0.05,
        beta: float = 0.0,
        momentum: float | None = 0.9999,
        horizon: float | None = None,
    ) -> None:
        check_arguments(DeclaredRobustCmi, classes, {"lambda": lambda_, "beta": beta})
        super().__init__(
            classes,
            lambda_=lambda_,
            beta=beta,
            separation_gradient="first",
            separation_mean="unlike_pairs",
            floor=1e-8,
            momentum=momentum if horizon is None else None,
            horizon=horizon,
        )

    def begin_epoch(self, epoch: int, outputs: TrainingOutputs) -> None:
        """Before the first epoch the class means; `outputs` are of clean images here."""
        if epoch == 1:
            self.take_class_means(outputs)

    def ascended(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the second adversary raises, of each row (N,).

        The separation depends on all rows, so that a batch is attacked as a whole; in each row it counts once, and the
        mean over rows is the concentration - (beta / lambda) * separation.
        """
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        values = self._divergences(p, log_p, labels)
        if self.beta > 0:
            values = values - self.beta / self.lambda_ * self._separation(p, log_p, labels)
        return values

    def added(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms `robust_cmi` and `robust_separation`, unweighted, and the `total` of what is added, at x''."""
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        concentration, separation = (f(p, log_p, labels) for f in (self._concentration, self._separation))
        total = self.lambda_ * concentration
        if self.beta > 0:
            total = total - self.beta * separation
        return {"total": total, "robust_cmi": concentration, "robust_separation": separation}
