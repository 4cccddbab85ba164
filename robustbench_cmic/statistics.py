"""Intervals for proportions. Nothing here imports torch or scipy: reports answer at once."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), without continuity correction.

    Args:
        successes: how many of the examples are correct, 0 ... n.
        n: number of examples, at least 1.
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper end, fractions in [0, 1].

    Raises:
        ValueError: counts or confidence out of range.

    >>> wilson_interval(81, 263)
    (0.25528851..., 0.36620957...)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes out of {n} is no proportion")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence should be between 0 and 1, not {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    proportion = successes / n
    scale = 1 + z * z / n
    centre = (proportion + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    # At the ends the formula is exact in theory, one rounding away in practice.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high
