"""Wilson intervals against scipy and a published example."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from robustbench_cmic.statistics import wilson_interval


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 7), (599, 599), (4821, 10000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_equals_scipy(successes: int, n: int, confidence: float) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3: 81 of 263.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(-1, 3, 0.95), (4, 3, 0.95), (0, 0, 0.95), (1, 3, 1.0)])
def test_nonsense_is_refused(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"should be|no proportion"):
        wilson_interval(successes, n, confidence)
