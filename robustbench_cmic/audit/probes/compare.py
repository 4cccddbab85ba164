"""Whether two passes gave the same logits, but for rounding."""

from __future__ import annotations

import torch
from torch import Tensor

TOLERANCE = 1e-4
"""Of differences between logits, as a part of their spread: above what rounding does, below what noise does."""


def differ(first: Tensor, second: Tensor) -> Tensor:
    """(N,) truth values: the logits (N, C) of an example are not the same, NaN included."""
    # The largest over the median logit: one extreme logit, as of a class that is masked out, must not hide the others.
    masked = first.isneginf()
    typical = first.masked_fill(masked, torch.nan).nanmedian(1).values
    scale = (first.amax(1) - typical).clamp(min=1e-12)
    # Two classes that are as good as equal have no spread; that of the other examples says what is little.
    scale = torch.maximum(scale, 0.1 * scale.nanmedian())
    allowed = torch.maximum(scale[:, None], first.abs() * 1e-2)
    near = (first - second).abs() <= TOLERANCE * allowed
    near = torch.where(masked, second.isneginf(), near)
    # Another decision is another answer, unless the two classes are as good as equal: attacks end there.
    there = second.argmax(1, keepdim=True)
    lead = (first.amax(1, keepdim=True) - first.gather(1, there))[:, 0]
    return ~near.all(1) | (lead > 0.1 * TOLERANCE * allowed.gather(1, there)[:, 0])
