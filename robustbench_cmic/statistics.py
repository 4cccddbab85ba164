"""What a number is worth: intervals and tests on counts, on seeds and on bootstrap replicates.

All of it follows from records, so that a report answers at once and is the same bytes each time: nothing here imports
torch, and no random number depends on anything but its arguments. Numpy and scipy are imported where they are needed,
of scipy only `scipy.special`: `scipy.stats` and statsmodels take seconds to import and add nothing to two formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, variance
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

LEVEL = 0.05
"""Significance level of every claim."""


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a proportion (Wilson 1927), without continuity correction.

    Of the mean over several models on the same n examples, whose successes need not be whole, it is a bound.

    Returns:
        Lower and upper end, fractions in [0, 1].

    Raises:
        ValueError: `successes` is not in 0 ... n, n is below 1, or `confidence` is not in (0, 1).

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


@dataclass(frozen=True)
class PairedTTest:
    """A paired t-test over seeds.

    Attributes:
        mean: of the differences, in their unit.
        sd: their standard deviation (n - 1), or the least that the resolution allows to claim; None for one seed.
        p: two-sided, of differences this large under a mean of 0; None for one seed, or where sd is 0.
        n: number of seeds.
    """

    mean: float
    sd: float | None
    p: float | None
    n: int


def discordant_pairs(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    """How many examples only the first, and only the second, classifies correctly; (n,) truth values of each.

    >>> import numpy as np
    >>> discordant_pairs(np.array([True, True, False]), np.array([False, True, True]))
    (1, 1)
    """
    return int((first & ~second).sum()), int((second & ~first).sum())


@lru_cache(maxsize=10_000)  # an audit asks again and again
def mcnemar(only_first: int, only_second: int, alternative: Literal["two-sided", "greater"] = "two-sided") -> float:
    """McNemar's test in its exact conditional form (McNemar 1947; Fagerland, Lydersen & Laake 2013).

    Where both classify equally well, an example that only one of them classifies correctly is either's with
    probability 1/2: X ~ Binomial(only_first + only_second, 1/2), and

        two-sided: p = min(1, 2 P(X <= min(only_first, only_second)))
        greater:   p = P(X >= only_first)

    The second asks whether the first classifies more correctly than chance explains. The test treats the two
    classifiers as given; it says nothing about other seeds.

    Returns:
        p in (0, 1] (0 where float64 holds nothing smaller); 1.0 where no example is discordant.

    Raises:
        ValueError: a count is negative, or there is no such alternative.

    >>> mcnemar(1, 7)
    0.0703125
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"{only_first} and {only_second} are no counts of examples")
    if alternative not in ("two-sided", "greater"):
        raise ValueError(f'alternative should be "two-sided" or "greater", not {alternative!r}')
    discordants = only_first + only_second
    if discordants == 0:
        return 1.0
    from scipy.special import bdtr

    if alternative == "greater":
        # X and discordants - X have the same distribution.
        return float(bdtr(only_second, discordants, 0.5))
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), discordants, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm's step-down method (Holm 1979), in the order given.

    With the m values sorted, p(1) <= ... <= p(m): adjusted p(i) = max over j <= i of min(1, (m - j + 1) p(j)).
    Rejecting where the adjusted value is at most alpha keeps the probability of any false rejection at most alpha,
    however the tests depend on one another.

    Raises:
        ValueError: a value outside [0, 1], or NaN.

    >>> holm([0.25, 0.5, 0.125])
    [0.5, 0.5, 0.375]
    """
    # These lines rather than statsmodels' `multipletests`: importing it takes longer than a whole report.
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"{p} is no probability")
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def paired_seed_test(differences: Sequence[float], resolution: float, overlap: float = 0.0) -> PairedTTest:
    """Student's paired t-test over seeds: is the mean of the differences 0 (Student 1908)?

        t = mean / (sd / sqrt(n)), with n - 1 degrees of freedom

    A difference of two accuracies over N examples is known only to multiples of 1 / N, so differences that are equal
    are equal to that resolution and no further; a sample variance of 0 would make them infinite evidence. A number
    rounded to multiples of r hides a variance of r^2 / 12 (uniform over its step; Sheppard 1898), the difference of
    two such numbers 2 r^2 / 12: the variance is taken to be at least that.
    Folds share most of what they learn from, and their differences are not independent: the variance of the mean is
    (1 / n + overlap) sd^2 in place of sd^2 / n (Nadeau & Bengio 2003, section 5); sd grows by as much.

    Args:
        differences: one for each seed, finite.
        resolution: step of the two measurements, in the unit of the differences; 0 for continuous ones.
        overlap: of folds the examples tested on, over those learned from; 0 for seeds on the same data.

    Raises:
        ValueError: no difference, one that is not finite, or a resolution or overlap that is negative or not finite.
    """
    n = len(differences)
    if n == 0 or not all(map(math.isfinite, differences)):
        raise ValueError(f"differences should be finite, and at least one, not {list(differences)}")
    for what, value in (("resolution", resolution), ("overlap", overlap)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{what} should be finite and not negative, not {value}")
    if n < 2:
        return PairedTTest(differences[0], None, None, n)
    mean = fmean(differences)
    sd = math.sqrt(max(variance(differences), 2 * resolution**2 / 12) * (1 + n * overlap))
    if sd == 0:
        return PairedTTest(mean, sd, None, n)
    from scipy.special import stdtr

    t = mean / (sd / math.sqrt(n))
    return PairedTTest(mean, sd, 2 * float(stdtr(n - 1, -abs(t))), n)


def equivalence_p(test: PairedTTest, margin: float) -> float | None:
    """P-value of two one-sided paired t-tests over seeds: is the mean within the margin of 0 (Schuirmann 1987)?

        p = max(P(T >= (mean + margin) / se), P(T <= (mean - margin) / se)) = P(T <= (|mean| - margin) / se)

    with se = sd / sqrt(n) and n - 1 degrees of freedom. It is below alpha where the t-interval of the mean with
    confidence 1 - 2 alpha lies within the margin.

    Returns:
        The larger of the two; None where the t-test has no p-value either.

    Raises:
        ValueError: a margin, in the unit of the differences, that is not positive.
    """
    if not margin > 0:
        raise ValueError(f"margin should be positive, not {margin}")
    if not test.sd:
        return None
    from scipy.special import stdtr

    return float(stdtr(test.n - 1, (abs(test.mean) - margin) / (test.sd / math.sqrt(test.n))))


def paired_accuracy_interval(differences: ArrayLike, seeds: int = 1, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the paired bootstrap for a difference of accuracies (Efron 1979), second minus first.

    It is that of all n^n resamples of the n examples, not of some that are drawn: the sum over a resample is a sum of n
    independent draws from the differences, and its distribution the n-fold convolution of theirs, worked out by the
    fast Fourier transform. Outcomes that agree on every example give [0, 0], which is no proof that the accuracies are
    equal; `mcnemar` then gives 1.

    Args:
        differences: (n,) of each example in how many seeds the second alone is right, less in how many the first alone;
            whole numbers in [-seeds, seeds].
        seeds: over how many seeds they are summed up; the interval is for the mean.
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper end, differences of fractions in [-1, 1].

    Raises:
        ValueError: no differences, others than those, or `confidence` is not in (0, 1).
    """
    import numpy as np

    given = np.asarray(differences, float)
    values, counts = np.unique(given, return_counts=True)
    if given.ndim != 1 or not len(given) or seeds < 1 or (values % 1 != 0).any():
        raise ValueError(f"not whole numbers, one an example, over {seeds} seeds")
    if abs(values).max() > seeds:
        raise ValueError(f"{abs(values).max():g} of {seeds} seeds cannot differ")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence should be between 0 and 1, not {confidence}")
    n, steps = len(given), (values - values[0]).astype(int)
    one = np.zeros(n * steps[-1] + 1)
    one[steps] = counts / n
    distribution = np.fft.irfft(np.fft.rfft(one) ** n, len(one)) if len(one) > 1 else one
    ends = np.searchsorted(distribution.cumsum(), [(1 - confidence) / 2, (1 + confidence) / 2])
    # The sum of all rounds to less than 1, so that an end asked for beyond it is the last value.
    low, high = (values[0] * n + ends.clip(max=len(one) - 1)) / (n * seeds)
    return float(low), float(high)


def paired_replicates_interval(
    first: Sequence[float], second: Sequence[float], estimate: float, confidence: float = 0.95
) -> tuple[float, float] | None:
    """Recentred percentile interval of second - first over paired bootstrap replicates (Efron 1979).

    A resample repeats examples, and a class of few examples seems more concentrated than it is: replicates of CMI
    centre about 1 / n_y below the estimate, so that their percentiles may not even hold it. What they tell is the
    spread; it is put around the estimate.

    Replicate k of both should come from the same resample of the same examples, as `bootstrap_ncmi` draws them: what
    an example does to both then cancels in the difference.

    Args:
        first: K replicates, in the unit of the result; where either of a pair is NaN (undefined for that resample) or
            infinite, the pair is left out.
        second: K replicates of the other, in the same order.
        estimate: second - first as measured.
        confidence: coverage, in (0, 1).

    Returns:
        Lower and upper end; None where no pair is left.

    Raises:
        ValueError: not the same number of replicates, or confidence out of range.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} replicates are not paired")
    pairs = zip(first, second, strict=True)
    differences = [b - a for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    if not differences:
        return None
    centre = fmean(differences)
    return _percentiles([value - centre + estimate for value in differences], confidence)


def _percentiles(values: ArrayLike, confidence: float) -> tuple[float, float]:
    """The two quantiles between which the middle `confidence` of the values lie, interpolated linearly."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence should be between 0 and 1, not {confidence}")
    import numpy as np

    low, high = np.quantile(np.asarray(values, float), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
