"""What a paired t-test over seeds is able to show, given the spread that was seen.

The test of n differences with standard deviation sd rejects a mean of 0 at a level where the mean lies beyond

    h = t_{n-1}(1 - level / 2) sd / sqrt(n)

to either side. Of a true difference delta, sqrt(n) mean / sd follows Student's noncentral t distribution with n - 1
degrees of freedom and noncentrality delta sqrt(n) / sd (Johnson & Welch 1940), and the test shows it with the power

    P(T'_{n-1}(delta sqrt(n) / sd) > t_{n-1}(1 - level / 2))

Rejections to the wrong side are not counted: at a power of 0.8 they are less probable than 0.003. The spread is taken
as it was seen; few seeds know it roughly, and so are these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustbench_cmic.statistics import LEVEL, PairedTTest

POWER = 0.8
"""With which a difference that can be shown is shown (Cohen 1988)."""
MOST_SEEDS = 1000
"""Of a suite: more are not looked for."""


def remaining_level(adjusted: Sequence[float]) -> float:
    """The level at which Holm's method tests what it does not reject (Holm 1979): LEVEL / (m - number rejected).

    Args:
        adjusted: the m p-values of a family as `holm` gives them; where all are rejected, the level is LEVEL.

    >>> remaining_level([0.01, 0.2, 0.2])
    0.025
    """
    return LEVEL / max(1, sum(p > LEVEL for p in adjusted))


def detectable_difference(test: PairedTTest, level: float, power: float = POWER) -> float | None:
    """The smallest true difference that as many seeds with this spread show with a given power, two-sided at a level.

    It is delta in the formula of the module, in the unit of the differences; larger than h, the least mean that is
    significant, which a true difference of h reaches every other time.

    Returns:
        None where the test has no spread to go by: with one seed, or where sd is 0.

    Raises:
        ValueError: a level or a power outside (0, 1).
    """
    _check(level, power)
    if not test.sd:
        return None
    from scipy.special import nctdtrinc, stdtrit

    df = test.n - 1
    noncentrality = float(nctdtrinc(df, 1 - power, stdtrit(df, 1 - level / 2)))
    return noncentrality * test.sd / math.sqrt(test.n)


def seeds_to_detect(difference: float, sd: float, level: float, power: float = POWER) -> int | None:
    """The least number of seeds that shows a true difference with a given power, two-sided at a level.

    Args:
        difference: in the unit of sd, positive.
        sd: standard deviation of the differences over seeds, positive.
        level: of the test, as that of `remaining_level`.
        power: probability to reject.

    Returns:
        At least 2; None where `MOST_SEEDS` are too few.

    Raises:
        ValueError: a difference or a spread that is not positive, or a level or a power outside (0, 1).
    """
    _check(level, power)
    if not (difference > 0 and sd > 0):
        raise ValueError(f"difference and spread should be positive, not {difference} and {sd}")
    from scipy.special import nctdtr, stdtrit

    for n in range(2, MOST_SEEDS + 1):
        if 1 - nctdtr(n - 1, difference * math.sqrt(n) / sd, stdtrit(n - 1, 1 - level / 2)) >= power:
            return n
    return None


def _check(level: float, power: float) -> None:
    if not (0 < level < 1 and 0 < power < 1):
        raise ValueError(f"level and power should be between 0 and 1, not {level} and {power}")
