"""Targeted FAB, native: Fast Adaptive Boundary attack (Croce & Hein 2020b, arXiv 1907.02044); L-inf and L2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.losses import margin
from robustbench_cmic.attacks.model import seems_misclassified
from robustbench_cmic.attacks.pgd import loss_and_gradient, run_in_turn
from robustbench_cmic.attacks.threat import check_threat, violations
from robustbench_cmic.suite.fields import Threat

BIAS = 0.1
"""Alpha_max: the largest share that the projection of the image itself has in a step."""
OVERSHOOT = 1.05
"""Eta: a step goes this far beyond the hyperplane."""
BACKWARD = 0.9
"""Beta: from a misclassified point the search goes back towards the image, to this share of the way."""
STEP_ENTRIES = 2**25
"""Entries of images that are projected together: about 15 tensors of float64 each, 4 GiB. Others wait their turn."""


@called_directly
def fab(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, *, steps: int = 100, targets: int = 9
) -> Tensor:
    """FAB-T as AutoAttack runs it (Croce & Hein 2020, arXiv 2003.01690): from the image, one run for each target.

    A step linearises z_t - z_y where the search stands, projects point and image onto the hyperplane on which that is
    zero, within the box, and goes to a mean of the two, a little beyond (Algorithm 1). FAB looks for the shortest
    perturbation; here the first one inside the ball ends the search. There is no randomness.

    A run makes `steps` steps, at least 1, of two passes forward and one back. Model, images, labels and `targets`, at
    least 1, are as for `pgd.pgd`.

    Returns:
        An example's first misclassified point in the ball, or its image.
    """
    check_threat(threat)
    if steps < 1 or targets < 1:
        raise ValueError(f"steps and targets should be at least 1, not {steps} and {targets}")
    images = images.detach()

    def one_run(_: int, active: Tensor, towards: Tensor | None) -> tuple[Tensor, Tensor]:
        assert towards is not None
        return _run(model, images[active], labels[active], towards, threat, steps)

    return run_in_turn(model, images, labels, one_run, targets=targets)


def _run(
    model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor, threat: Threat, steps: int
) -> tuple[Tensor, Tensor]:
    """One run: the points to return, (N, C, H, W), and which of them are misclassified inside the ball, (N,)."""
    result = images.clone()
    broken = torch.zeros_like(labels, dtype=torch.bool)
    index = torch.arange(len(images), device=images.device)
    point, shape = images, (-1, *[1] * (images.ndim - 1))
    for _ in range(steps):
        at = loss_and_gradient(model, point, labels, targets, margin)
        point = _step(point, images, at.gradient, at.losses, threat.norm)
        wrong = seems_misclassified(model, point, labels)
        inside = wrong & ~violations(threat, images, point, tolerance=0.0)
        # Adversarial, but too far away: back towards the image.
        too_far = (wrong & ~inside).reshape(shape)
        closer = torch.where(too_far, images + BACKWARD * (point - images), point)
        left = (~inside).nonzero()[:, 0]  # the only time in a step that the host waits for a GPU
        if len(left) < len(index):
            result[index], broken[index] = torch.where(inside.reshape(shape), point, images), inside
            index, images, labels, targets, closer = (x[left] for x in (index, images, labels, targets, closer))
            if len(index) == 0:
                break
        point = closer
    return result, broken


def _step(point: Tensor, images: Tensor, gradient: Tensor, value: Tensor, norm: str) -> Tensor:
    """Algorithm 1, line 7 to 10: the next point, in the box."""
    rows = max(STEP_ENTRIES // images[0].numel(), 1)
    parts = (torch.split(each, rows) for each in (point, images, gradient, value))
    return torch.cat([_moved(p, x, w, z, norm) for p, x, w, z in zip(*parts, strict=True)])


def _moved(point: Tensor, images: Tensor, gradient: Tensor, value: Tensor, norm: str) -> Tensor:
    """`_step` for a few examples."""
    x, x0, w = (each.flatten(1).double() for each in (point, images, gradient))
    gap = -value.double()
    from_point = to_hyperplane(x, w, gap, norm)
    from_image = to_hyperplane(x0, w, gap - (w * (x0 - x)).sum(1), norm)
    order = torch.inf if norm == "linf" else 2
    near, far = (torch.linalg.vector_norm(each, order, dim=1, keepdim=True) for each in (from_point, from_image))
    share = (near / (near + far).clamp(min=1e-8)).clamp(max=BIAS)
    moved: Tensor = (x + OVERSHOOT * from_point) * (1 - share) + (x0 + OVERSHOOT * from_image) * share
    return moved.clamp(0, 1).reshape(point.shape).to(point)


def to_hyperplane(points: Tensor, normals: Tensor, gaps: Tensor, norm: str) -> Tensor:
    """The shortest way from points in the box onto hyperplanes, within the box (section 2.2 of the FAB paper).

    Minimises the norm of d subject to w . d = gap and 0 <= x + d <= 1. Entries of d grow together, at speed 1 for
    L-inf and |w_i| for L2, each until it meets the box; w . d grows with them, piecewise linearly, and the piece in
    which it reaches the gap is found by sorting. Where the hyperplane does not meet the box, d leads to the corner
    closest to it.

    Args:
        points: (N, D) in [0, 1]; float64, in which no square of a float32 gradient vanishes.
        normals: w, (N, D).
        gaps: (N,), what w . d should be.
        norm: `linf` or `l2`.

    Returns:
        d, (N, D); entries where w is zero are zero.
    """
    # `masked_fill`, not `where`, which would wait for a GPU to copy a number of the host's.
    w = normals * (1 - 2 * (gaps < 0).to(normals))[:, None]
    still = w == 0
    gap = gaps.abs()[:, None]
    steep = w.abs()
    room = torch.where(w > 0, 1 - points, points) * ~still
    speed = torch.ones_like(w) if norm == "linf" else steep
    # When an entry meets the box; never where it does not move.
    until, order = (room / speed.masked_fill(still, 1.0)).masked_fill(still, torch.inf).sort(dim=1)
    finished = (steep * room).gather(1, order)
    moving = (steep * speed).gather(1, order)
    before = finished.cumsum(1) - finished  # of w . d, from entries that stopped before this one
    rate = moving.flip(1).cumsum(1).flip(1)  # of those that have not
    reached = before + until.nan_to_num(posinf=0.0) * rate
    reached = reached.masked_fill(until.isinf(), torch.inf).cummax(1).values
    piece = torch.searchsorted(reached, gap).clamp(max=points.shape[1] - 1)
    growth = rate.gather(1, piece)
    time = (gap - before.gather(1, piece)).clamp(min=0) / torch.where(growth > 0, growth, torch.ones_like(growth))
    # Beyond the last entry to move there is no such piece: all go to the box.
    time = time.masked_fill(~(growth > 0), torch.inf)
    lengths = torch.minimum((time * speed).masked_fill(still, 0.0), room)
    return lengths * w.sign()
