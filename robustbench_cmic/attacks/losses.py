"""Losses that an attack raises: each maps logits (N, C) and labels (N,) to one value an example, (N,).

The targeted ones take the classes to reach, (N,), as well. All are without unit but for those in nats: `ce`,
`scaled_ce`, `log_odds`, `cmic`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, C), labels (N,) -> (N,)."""
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Logits (N, C), labels (N,), classes to reach (N,) -> (N,)."""

SCALED_RANGE = 10.0
"""Between the largest and the smallest logit, in `scaled_ce`: float32 rounds softmax to 1 from about 17 on."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y, with gradient p - e_y in the logits.

    Once z_y leads by about 17, float32 rounds p_y to 1: the own-class half of the gradient becomes exactly 0, what is
    left points to the runner-up only, and the sign step follows that wrong direction. Beyond a lead of about 104 all
    of it is 0.
    """
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Max over j != y of z_j, minus z_y (Carlini & Wagner 2017, f_6): positive exactly where misclassified."""
    own = logits.gather(1, labels[:, None])[:, 0]
    return _largest_other(logits, labels) - own


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, (max over j != y of z_j - z_y) / (z_(1) - z_(3)) (Croce & Hein 2020, eq. 6).

    Invariant to shifting and scaling the logits, so that logits pushed far apart do not stall it.

    Raises:
        ValueError: fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(
            "the loss 'dlr' needs at least 3 classes: it divides by the gap between the first and third logit"
        )
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def scaled_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of s z with s = 10 / (max z - min z), each example's own and held fixed in the gradient.

    No lead exceeds 10, so that float32 never saturates, however far apart the logits are (compare the rescaling of
    Yu & Xu 2023, MIFPE). Logits that are all equal are left as they are. For two classes it is a fixed function of
    the sign of the lead, its gradient still that of the lead.
    """
    return cross_entropy(logits * _scale(logits), labels)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Log sum over j != y of exp z_j, minus z_y: the log of (1 - p_y) / p_y, in nats.

    Cross entropy is log(1 + exp(.)) of it, strictly increasing: the gradients of the two differ by the factor 1 - p_y
    alone, their signs and unit vectors are equal, and so is every comparison of two values. But this gradient,
    softmax over the other classes minus e_y, never vanishes, where float32 rounds 1 - p_y to 0.
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    return _without(logits, labels).logsumexp(1) - own


def cmic(logits: Tensor, labels: Tensor, centroids: Tensor | None = None) -> Tensor:
    """KL(P || Q_y) - min over j != y of KL(P || Q_j), P = softmax(z), in nats: against what CMIC-DL training lowers.

    CMIC-DL (arXiv 2309.09123, Algorithm 1) draws the outputs of a class to its centroid Q_y and away from the others;
    this pulls an output from its own centroid to the nearest other one. Values are float64. The gradient in the logits
    is computed in closed form, per example divided by its largest entry, and only then rounded to the logits' type:
    gradients of 1e-60, or below all of float64, keep their direction, which is all that the steps of PGD use.

    Args:
        logits: (N, C).
        labels: (N,).
        centroids: (C, C) float64, row y the centroid Q_y, see `class_centroids`.

    Raises:
        ValueError: no centroids, not (C, C) of them, or fewer than two classes.
    """
    distances = _cross_entropies(logits, _log_centroids(centroids, logits))
    nearest = _without(distances.neg(), labels).argmax(1)
    return cmic_targeted(logits, labels, nearest, centroids)


def ce_targeted(logits: Tensor, _: Tensor, targets: Tensor) -> Tensor:
    """Log softmax(z)_t."""
    return -cross_entropy(logits, targets)


def margin_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """z_t - z_y."""
    return (logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None]))[:, 0]


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce & Hein 2020, eq. 7).

    Raises:
        ValueError: fewer than four classes.
    """
    if logits.shape[1] < 4:
        raise ValueError(
            "the targeted loss 'dlr' needs at least 4 classes: it divides by the gap between the first logit and the "
            "third and fourth"
        )
    top = logits.topk(4, dim=1).values
    return margin_targeted(logits, labels, targets) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def scaled_ce_targeted(logits: Tensor, _: Tensor, targets: Tensor) -> Tensor:
    """Log softmax(s z)_t, with the scale s of `scaled_ce`."""
    return -scaled_ce(logits, targets)


def log_odds_targeted(logits: Tensor, _: Tensor, targets: Tensor) -> Tensor:
    """Log p_t / (1 - p_t): log softmax(z)_t raised, without its saturation."""
    return -log_odds(logits, targets)


def cmic_targeted(logits: Tensor, labels: Tensor, targets: Tensor, centroids: Tensor | None = None) -> Tensor:
    """KL(P || Q_y) - KL(P || Q_t), with the gradient and the errors of `cmic`."""
    log_q = _log_centroids(centroids, logits)
    weights = log_q[targets] - log_q[labels]  # the entropy of P cancels: the loss is their mean under P
    log_p = logits.detach().double().log_softmax(1)
    value = (log_p.exp() * weights).sum(1)
    return value + ((logits - logits.detach()) * _mean_gradient(log_p, weights).to(logits)).sum(1).double()


def _mean_gradient(log_p: Tensor, weights: Tensor) -> Tensor:
    """Gradient of sum_c p_c a_c in the logits, p_c (a_c - p . a), divided by its largest entry: (N, C) float64.

    With m the likeliest class and d = a - a_m it is p_c (d_c - p . d), of which only m's own entry, -p_m (p . d), has
    p . d for a leading term. Dividing every other p by the largest of them keeps all terms clear of underflow.
    """
    top = log_p.argmax(1, keepdim=True)
    others = log_p.scatter(1, top, -torch.inf)
    second = others.amax(1, keepdim=True)
    ratios = (others - second).exp()  # p_c over the second largest p, 0 for m
    differences = weights - weights.gather(1, top)
    total = (ratios * differences).sum(1, keepdim=True)
    gradient = ratios * (differences - second.exp() * total)
    gradient.scatter_(1, top, -log_p.gather(1, top).exp() * total)
    largest = gradient.abs().amax(1, keepdim=True)
    return gradient / torch.where(largest > 0, largest, torch.ones_like(largest))


def _log_centroids(centroids: Tensor | None, logits: Tensor) -> Tensor:
    """Log Q (C, C), floored at float64's smallest normal number, on the device of the logits."""
    classes = logits.shape[1]
    if centroids is None:
        raise ValueError("the loss 'cmic' needs the class centroids of the model: pass `centroids`, (C, C)")
    if classes < 2:
        raise ValueError("the loss 'cmic' needs at least 2 classes: it compares the centroids of two")
    if centroids.shape != (classes, classes):
        expected, got = (classes, classes), tuple(centroids.shape)
        raise ValueError(f"centroids should have shape {expected} for logits of {classes} classes, not {got}")
    return centroids.to(logits.device, torch.float64).clamp(min=torch.finfo(torch.float64).tiny).log()


def _cross_entropies(logits: Tensor, log_q: Tensor) -> Tensor:
    """H(P, Q_j) for every class j, (N, C): KL(P || Q_j) plus the entropy of P, the same for all j."""
    return -(logits.detach().double().softmax(1) @ log_q.T)


def _scale(logits: Tensor) -> Tensor:
    """(N, 1): what `scaled_ce` multiplies the logits by."""
    lowest, highest = logits.detach().aminmax(dim=1, keepdim=True)
    spread = highest - lowest
    # Below 1e-37 the quotient would overflow float32; such logits are as good as equal.
    return torch.where(spread > 1e-37, SCALED_RANGE / spread, torch.ones_like(spread))


def _without(values: Tensor, labels: Tensor) -> Tensor:
    """(N, C) with -infinity at each example's own class."""
    own = functional.one_hot(labels, values.shape[1]).bool()
    return values.masked_fill(own, -torch.inf)


def _largest_other(logits: Tensor, labels: Tensor) -> Tensor:
    return _without(logits, labels).amax(1)


def top_other_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` classes (fewer where there are fewer) with the largest logits but the label's: (N, k), best first."""
    return _without(logits, labels).topk(min(count, logits.shape[1] - 1), dim=1).indices


def class_centroids(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Q_y = mean of softmax(z) over the examples of class y (arXiv 2309.09123); uniform for a class without any.

    Args:
        logits: (N, classes).
        labels: (N,) integers below `classes`.
        classes: their number.

    Returns:
        (classes, classes) float64; each row sums to one.
    """
    probabilities = logits.detach().double().softmax(1)
    sums = torch.zeros(classes, classes, dtype=torch.float64, device=logits.device)
    sums.index_add_(0, labels, probabilities)
    counts = torch.bincount(labels, minlength=classes)[:, None].to(sums)
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.full_like(sums, 1 / classes))


LOSSES: dict[str, Loss] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "scaled_ce": scaled_ce,
    "log_odds": log_odds,
    "cmic": cmic,
}

TARGETED_LOSSES: dict[str, TargetedLoss] = {
    "ce": ce_targeted,
    "margin": margin_targeted,
    "dlr": dlr_targeted,
    "scaled_ce": scaled_ce_targeted,
    "log_odds": log_odds_targeted,
    "cmic": cmic_targeted,
}


def make_loss(name: str, centroids: Tensor | None = None) -> Loss:
    """The loss of that name, a key of `LOSSES`, its centroids filled in.

    Raises:
        ValueError: `cmic` without centroids.
    """
    if name != "cmic":
        return LOSSES[name]
    return partial(cmic, centroids=_checked(centroids))


def make_targeted_loss(name: str, centroids: Tensor | None = None) -> TargetedLoss:
    """The targeted loss of that name, a key of `TARGETED_LOSSES`, its centroids filled in.

    Raises:
        ValueError: `cmic` without centroids.
    """
    if name != "cmic":
        return TARGETED_LOSSES[name]
    return partial(cmic_targeted, centroids=_checked(centroids))


def _checked(centroids: Tensor | None) -> Tensor:
    if centroids is None:
        raise ValueError("the loss 'cmic' needs the class centroids of the model: pass `centroids`, (C, C)")
    sums = centroids.double().sum(1)
    if not (bool((centroids >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-6)):
        raise ValueError("centroids should be probabilities: rows of values at least 0 that sum to one")
    return centroids
