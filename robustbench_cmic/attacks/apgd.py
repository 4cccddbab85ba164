"""Auto-PGD, native: PGD that chooses its step size by itself (Croce & Hein 2020, Algorithm 1); L-inf and L2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.losses import AttackLoss, dlr, make_loss, margin
from robustbench_cmic.attacks.pgd import DrawNoise, LossGradient, loss_and_gradient, run_in_turn, steepest_ascent
from robustbench_cmic.attacks.threat import check_threat, normalized, project
from robustbench_cmic.suite.fields import Threat

MOMENTUM = 0.75
RHO = 0.75
"""Rho: at least this share of the steps between two checkpoints should have raised the loss."""


@called_directly
def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    noise: DrawNoise,
    *,
    steps: int = 100,
    loss: str = "log_odds",
    targets: int = 0,
    centroids: Tensor | None = None,
) -> Tensor:
    """APGD (Croce & Hein 2020, Algorithm 1), with one random start, or one for each target.

    A step goes from x_k, with u_k = project(x_k + eta s(grad)), s as in PGD, to
    x_{k+1} = project(x_k + 0.75 (u_k - x_k) + 0.25 (x_k - x_{k-1})). At checkpoints eta, at first 2 eps, is halved,
    and the search goes on from the best point so far, where too few steps raised the loss (condition 1), or neither
    eta nor the best loss changed since the last checkpoint (condition 2). The defaults are APGD-CE with a loss that
    orders points as cross entropy does, without its saturation; `loss="dlr"` with targets is APGD-T.

    Of the noise only the direction counts: starts lie on the surface of the ball, as in the authors' code. A run makes
    `steps` steps, at least 1. With fewer than three classes, four if targeted, `dlr` becomes `margin`. All else is as
    for `pgd.pgd`.

    Returns:
        An example's first misclassified iterate, whatever the target, or the point of highest loss in its last run.
    """
    check_threat(threat)
    if steps < 1 or targets < 0:
        raise ValueError(f"steps should be at least 1 and targets at least 0, not {steps} and {targets}")
    images = images.detach()
    raised = _dlr_or_margin if loss == "dlr" else make_loss(loss, centroids)

    def one_run(number: int, active: Tensor, towards: Tensor | None) -> tuple[Tensor, Tensor]:
        starts = project(threat, images, images + normalized(noise(number), threat.norm) * threat.eps)[active]
        at = loss_and_gradient(model, starts, labels[active], towards, raised)
        search = _Search.begin(images[active], labels[active], towards, starts, at, threat.eps)
        return _run(model, search, at.misclassified, threat, steps, raised)

    return run_in_turn(model, images, labels, one_run, targets=targets)


def _dlr_or_margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    least = 3 if targets is None else 4
    return (margin if logits.shape[1] < least else dlr)(logits, labels, targets)


def checkpoints(steps: int) -> list[int]:
    """Numbers of steps after which the step size is reconsidered (section 3.2 of the paper, in whole steps).

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), rounded as in the authors' code: the
    distances are rounded down, not the sums.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    distance, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    points = []
    point = distance
    while point <= steps:
        points.append(point)
        distance = max(distance - shrink, least)
        point += distance
    return points


@dataclass
class _Search:
    """Where the search stands, for the N examples not broken yet."""

    index: Tensor  # (N,) which of the run's examples they are
    labels: Tensor  # (N,)
    targets: Tensor | None  # (N,)
    images: Tensor  # (N, C, H, W), as are the next five
    point: Tensor
    previous: Tensor
    gradient: Tensor
    best_point: Tensor
    best_gradient: Tensor
    loss: Tensor  # (N,), as are the next four
    best_loss: Tensor
    best_before: Tensor  # best loss at the last checkpoint
    halved_before: Tensor  # the step size was halved at the last checkpoint
    rises: Tensor  # steps since the last checkpoint that raised the loss
    step: Tensor  # (N, 1, 1, 1) step size

    @classmethod
    def begin(
        cls, images: Tensor, labels: Tensor, targets: Tensor | None, starts: Tensor, at: LossGradient, eps: float
    ) -> _Search:
        index = torch.arange(len(images), device=images.device)
        loss = at.losses.nan_to_num(-torch.inf)
        # Condition 2 cannot hold at the first checkpoint, hence "halved".
        halved, rises = torch.ones_like(index, dtype=torch.bool), torch.zeros_like(index)
        step = torch.full_like(images[:, :1, :1, :1], 2 * eps)
        points = (starts, starts, at.gradient, starts, at.gradient)
        return cls(index, labels, targets, images, *points, loss, loss, loss, halved, rises, step)

    def keep(self, kept: Tensor) -> None:
        """Only the examples at these positions, (M,), from here on."""
        for name, value in vars(self).items():
            if value is not None:
                setattr(self, name, value[kept])

    def move(self, point: Tensor, at: LossGradient) -> None:
        self.previous, self.point, self.gradient = self.point, point, at.gradient
        self.rises = self.rises + (at.losses > self.loss)
        self.loss = at.losses
        better = at.losses > self.best_loss
        self.best_loss = torch.where(better, at.losses, self.best_loss)
        wide = better.reshape(self.step.shape)
        self.best_point = torch.where(wide, point, self.best_point)
        self.best_gradient = torch.where(wide, at.gradient, self.best_gradient)

    def reconsider(self, distance: int) -> None:
        """Halve step sizes at a checkpoint, `distance` steps after the last one.

        As in the authors' code: condition 1 has <= (the paper <), and the loss of the step after a return to the best
        point is compared with that of the step before.
        """
        halve = (self.rises <= RHO * distance) | (~self.halved_before & (self.best_before >= self.best_loss))
        wide = halve.reshape(self.step.shape)
        self.step = torch.where(wide, self.step / 2, self.step)
        self.point = torch.where(wide, self.best_point, self.point)
        self.gradient = torch.where(wide, self.best_gradient, self.gradient)
        self.rises = torch.zeros_like(self.rises)
        self.halved_before, self.best_before = halve, self.best_loss


def _run(
    model: nn.Module, search: _Search, broken: Tensor, threat: Threat, steps: int, loss: AttackLoss
) -> tuple[Tensor, Tensor]:
    """One run, some of its starts misclassified: the points to return, (N, C, H, W), and which are it now, (N,)."""
    result, broken = search.point.clone(), broken.clone()
    search.keep((~broken).nonzero()[:, 0])
    last, checks = 0, set(checkpoints(steps))
    for done in range(1, steps + 1):
        if len(search.index) == 0:
            break
        # Algorithm 1, line 7 and 8; the first step has no momentum.
        momentum = 1.0 if done == 1 else MOMENTUM
        ahead = search.point + search.step * steepest_ascent(search.gradient, threat.norm)
        ahead = project(threat, search.images, ahead)
        moved = momentum * (ahead - search.point) + (1 - momentum) * (search.point - search.previous)
        point = project(threat, search.images, search.point + moved)
        at = loss_and_gradient(model, point, search.labels, search.targets, loss)
        search.move(point, at)
        left = (~at.misclassified).nonzero()[:, 0]  # the only time in a step that the host waits for a GPU
        if len(left) < len(point):
            # The points of those that stay are overwritten in the end.
            result[search.index], broken[search.index] = point, at.misclassified
            search.keep(left)
        if done in checks:
            search.reconsider(done - last)
            last = done
    result[search.index] = search.best_point
    return result, broken
