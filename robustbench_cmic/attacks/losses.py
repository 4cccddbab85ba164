"""Losses that an attack raises: each maps logits z (N, C) and labels y (N,) to one value an example, (N,).

With `targets` t (N,) the loss is the targeted one, which leads to class t. All are without unit but for those in nats:
`ce`, `scaled_ce`, `log_odds`, `cmic`.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.information.measures import integer_labels


class AttackLoss(Protocol):
    """A loss with all that it needs besides logits, labels and targets filled in."""

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None, /) -> Tensor:
        """Logits (N, C), labels (N,) and, if the attack is targeted, the classes to reach (N,) -> (N,)."""


SCALED_RANGE = 10.0
"""Between the largest and the smallest logit, in `scaled_ce`: float32 rounds softmax to 1 from about 17 on."""


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """-log softmax(z)_y, with gradient p - e_y in the logits; targeted: log softmax(z)_t.

    Once z_y leads by about 17, float32 rounds p_y to 1: the own-class half of the gradient becomes exactly 0, what is
    left points to the runner-up only, and the sign step follows that wrong direction. Beyond a lead of about 104 all
    of it is 0.
    """
    if targets is not None:
        return -cross_entropy(logits, targets)
    return functional.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Max over j != y of z_j, minus z_y (Carlini & Wagner 2017, f_6); targeted: z_t - z_y.

    The untargeted one is positive exactly where the example is misclassified.
    """
    other = _without(logits, labels).amax(1) if targets is None else _of_class(logits, targets)
    return other - _of_class(logits, labels)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio, (max over j != y of z_j - z_y) / (z_(1) - z_(3)) (Croce & Hein 2020, eq. 6).

    Targeted: (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (eq. 7). Invariant to shifting and scaling the logits, so
    that logits pushed far apart do not stall it. Where the divisor is infinite, since a model masks classes with
    -infinity, it is the margin.

    Raises:
        ValueError: fewer than three classes, four if targeted.
    """
    if targets is None:
        name, least, gap = "loss 'dlr'", 3, "first and third logit"
    else:
        name, least, gap = "targeted loss 'dlr'", 4, "first logit and the third and fourth"
    if logits.shape[1] < least:
        raise ValueError(f"the {name} needs at least {least} classes: it divides by the gap between the {gap}")
    top = logits.topk(least, dim=1).values
    third = top[:, 2] if targets is None else 0.5 * (top[:, 2] + top[:, 3])
    divisor = top[:, 0] - third + 1e-12
    return margin(logits, labels, targets) / torch.where(divisor.isinf(), torch.ones_like(divisor), divisor)


def scaled_ce(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross entropy of s z with s = 10 / (max z - min z), each example's own and held fixed in the gradient.

    Targeted: log softmax(s z)_t. No lead exceeds 10, so that float32 never saturates, however far apart the logits are
    (compare the rescaling of Yu & Xu 2023, MIFPE). Logits that are all equal are left as they are. For two classes it
    is a fixed function of the sign of the lead, its gradient still that of the lead.
    """
    highest = logits.detach().amax(1, keepdim=True)
    lowest = logits.detach().masked_fill(logits.isneginf(), torch.inf).amin(1, keepdim=True)
    spread = highest - lowest
    # Below 1e-37 the quotient would overflow float32; such logits are as good as equal.
    scale = torch.where(spread > 1e-37, SCALED_RANGE / spread, torch.ones_like(spread))
    return cross_entropy(logits * scale, labels, targets)


def log_odds(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Log sum over j != y of exp z_j, minus z_y: the log of (1 - p_y) / p_y, in nats; targeted: log p_t / (1 - p_t).

    Cross entropy is log(1 + exp(.)) of it, strictly increasing: the gradients of the two differ by the factor 1 - p_y
    alone, their signs and unit vectors are equal, and so is every comparison of two values. But this gradient,
    softmax over the other classes minus e_y, never vanishes, where float32 rounds 1 - p_y to 0.
    """
    if targets is not None:
        return -log_odds(logits, targets)
    return _without(logits, labels).logsumexp(1) - _of_class(logits, labels)


def cmic(logits: Tensor, labels: Tensor, targets: Tensor | None = None, *, centroids: Tensor | None = None) -> Tensor:
    """KL(P || Q_y) - min over j != y of KL(P || Q_j), P = softmax(z), in nats: against what CMIC-DL training lowers.

    Targeted: KL(P || Q_y) - KL(P || Q_t). CMIC-DL (arXiv 2309.09123, Algorithm 1) draws the outputs of a class to its
    centroid Q_y and away from the others; this pulls an output from its own centroid to another, the nearest if there
    is no target. Values are float64. The gradient in the logits is computed in closed form, per example divided by its
    largest entry, and only then rounded to the logits' type: gradients of 1e-60, or below all of float64, keep their
    direction, which is all that the steps of PGD use.

    Raises:
        ValueError: no `centroids`, see `class_centroids`, not (C, C) of them, or fewer than two classes.
    """
    centroids, classes = _given(centroids), logits.shape[1]
    if classes < 2:
        raise ValueError("the loss 'cmic' needs at least 2 classes: it compares the centroids of two")
    if centroids.shape != (classes, classes):
        expected, got = (classes, classes), tuple(centroids.shape)
        raise ValueError(f"centroids should have shape {expected} for logits of {classes} classes, not {got}")
    # Floored at float64's smallest normal number.
    log_q = centroids.to(logits.device, torch.float64).clamp(min=torch.finfo(torch.float64).tiny).log()
    log_p = logits.detach().double().log_softmax(1)
    if targets is None:  # KL(P || Q_j) is least where the mean of log Q_j under P is largest
        targets = _without(logits.detach().double().softmax(1) @ log_q.T, labels).argmax(1)
    weights = log_q[targets] - log_q[labels]  # the entropy of P cancels: the loss is their mean under P
    value = (log_p.exp() * weights).sum(1)
    # Not a number where a class is masked with -infinity, which has no gradient.
    nothing = (logits - logits.detach()).masked_fill(logits.isneginf(), 0.0)
    return value + (nothing * _mean_gradient(log_p, weights).to(logits)).sum(1).double()


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


def _given(centroids: Tensor | None) -> Tensor:
    if centroids is None:
        raise ValueError("the loss 'cmic' needs the class centroids of the model: pass `centroids`, (C, C)")
    return centroids


def _of_class(values: Tensor, classes: Tensor) -> Tensor:
    """(N,): of values (N, C) each example's at its class, (N,)."""
    return values.gather(1, classes[:, None])[:, 0]


def _without(values: Tensor, classes: Tensor) -> Tensor:
    """Values (N, C) with -infinity at each example's class, (N,)."""
    return values.masked_fill(functional.one_hot(classes, values.shape[1]).bool(), -torch.inf)


def top_other_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` classes (fewer where there are fewer) with the largest logits but the label's: (N, k), best first."""
    return _without(logits, labels).topk(min(count, logits.shape[1] - 1), dim=1).indices


def class_centroids(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Q_y = mean of softmax(z) over the examples of class y (arXiv 2309.09123); uniform for a class without any.

    (N, classes) logits and (N,) labels -> (classes, classes) float64; each row sums to one.
    """
    labels = integer_labels(labels)
    sums = torch.zeros(classes, classes, dtype=torch.float64, device=logits.device)
    sums.index_add_(0, labels, logits.detach().double().softmax(1))
    counts = torch.bincount(labels, minlength=classes)[:, None].to(sums)
    return torch.where(counts > 0, sums / counts.clamp(min=1), torch.full_like(sums, 1 / classes))


LOSSES: dict[str, AttackLoss] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "scaled_ce": scaled_ce,
    "log_odds": log_odds,
    "cmic": cmic,
}


def make_loss(name: str, centroids: Tensor | None = None) -> AttackLoss:
    """The loss of that name, a key of `LOSSES`, its centroids (C, C) filled in.

    Raises:
        ValueError: `cmic` without centroids, or with rows that are no probabilities.
    """
    if name != "cmic":
        return LOSSES[name]
    centroids = _given(centroids)
    sums = centroids.double().sum(1)
    if not (bool((centroids >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-6)):
        raise ValueError("centroids should be probabilities: rows of values at least 0 that sum to one")
    return partial(cmic, centroids=centroids)
