"""Intervals from resampled examples (the bootstrap, Efron 1979), and how replicates are packed into records.

All of it follows from records, so that a report answers at once and is the same bytes each time: nothing here imports
torch, and no random number depends on anything but its arguments.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def paired_accuracy_interval(
    only_first: int, only_second: int, n: int, confidence: float = 0.95, resamples: int = 9999
) -> tuple[float, float]:
    """Percentile interval of the paired bootstrap for a difference of accuracies (Efron 1979), second minus first.

    The difference, (only_second - only_first) / n, depends on how many examples are discordant and not on which, so
    drawing n examples with replacement is one draw of three counts,

        (only_first*, only_second*, rest*) ~ Multinomial(n; only_first / n, only_second / n, rest / n)

    Without discordant examples the interval is [0, 0], which says that the outcomes agree on these examples, not that
    the accuracies are equal; `mcnemar` then gives 1.

    Args:
        only_first: number of examples that only the first classifies correctly, as `discordant` counts them.
        only_second: the same for the second.
        n: number of examples, at least 1.
        confidence: coverage, in (0, 1).
        resamples: number of bootstrap samples, at least 1.

    Returns:
        Lower and upper end, differences of fractions in [-1, 1].

    Raises:
        ValueError: counts, confidence or resamples out of range.
    """
    rest = n - only_first - only_second
    if n < 1 or min(only_first, only_second, rest) < 0:
        raise ValueError(f"{only_first} and {only_second} are no counts among {n} examples")
    if resamples < 1:
        raise ValueError(f"there should be at least one resample, not {resamples}")
    import numpy as np

    # The stream of RandomState is the same in every version of numpy, that of default_rng is not (NEP 19); a report
    # made again elsewhere should be the same bytes.
    generator = np.random.RandomState(0)
    counts = generator.multinomial(n, [only_first / n, only_second / n, rest / n], size=resamples)
    return _percentiles((counts[:, 1] - counts[:, 0]) / n, confidence)


def paired_mean_interval(
    differences: ArrayLike, confidence: float = 0.95, resamples: int = 9999
) -> tuple[float, float]:
    """Percentile interval of the paired bootstrap for the mean of differences, one an example (Efron 1979).

    Where an example's difference is a mean over seeds there are few distinct values, and drawing n examples with
    replacement is one multinomial draw of how often each value occurs.

    Args:
        differences: one for each example, at least one, finite.
        confidence: coverage, in (0, 1).
        resamples: number of bootstrap samples, at least 1.

    Raises:
        ValueError: no difference, or confidence or resamples out of range.
    """
    import numpy as np

    values, counts = np.unique(np.asarray(differences, float), return_counts=True)
    n = counts.sum()
    if n == 0 or resamples < 1:
        raise ValueError(f"{n} differences and {resamples} resamples give no interval")
    drawn = np.random.RandomState(0).multinomial(n, counts / n, size=resamples)
    return _percentiles(drawn @ values / n, confidence)


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


def pack_replicates(values: Sequence[float]) -> str:
    """Numbers -> base64 of little-endian float32 (5.3 kB for 1000), NaN included; beyond float32 they are infinite."""
    largest = (2 - 2**-23) * 2.0**127
    held = [math.copysign(math.inf, value) if abs(value) > largest else value for value in values]
    return base64.b64encode(struct.pack(f"<{len(held)}f", *held)).decode("ascii")


def unpack_replicates(text: str) -> list[float]:
    """What `pack_replicates` packed, to the precision of float32.

    Raises:
        ValueError: not base64 of whole float32 numbers.

    >>> unpack_replicates(pack_replicates([0.5, -2.0]))
    [0.5, -2.0]
    """
    try:
        raw = base64.b64decode(text, validate=True)
        return [value for (value,) in struct.iter_unpack("<f", raw)]
    except (ValueError, struct.error) as error:
        raise ValueError(f"no packed replicates: {error}") from None


def _percentiles(values: ArrayLike, confidence: float) -> tuple[float, float]:
    """The two quantiles between which the middle `confidence` of the values lie, interpolated linearly."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence should be between 0 and 1, not {confidence}")
    import numpy as np

    low, high = np.quantile(np.asarray(values, float), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
