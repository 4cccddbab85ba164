"""Losses that an attack raises: each maps logits (N, C) and labels (N,) to one value an example, (N,)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


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


def _largest_other(logits: Tensor, labels: Tensor) -> Tensor:
    own = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}
