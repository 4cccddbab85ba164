"""What seeds can show, against the noncentral t of scipy, statsmodels, and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import nct, t, ttest_1samp

from robustbench_cmic.report.power import (
    MOST_SEEDS,
    POWER,
    detectable_difference,
    remaining_level,
    seeds_to_detect,
)
from robustbench_cmic.statistics import PairedTTest, holm

LEVELS = (0.05, 0.05 / 6, 0.05 / 80)


def seen(sd: float, n: int) -> PairedTTest:
    return PairedTTest(0.0, sd, 1.0, n)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("level", LEVELS)
def test_the_detectable_difference_has_the_power_that_scipy_gives_it(n: int, level: float) -> None:
    found = detectable_difference(seen(0.01, n), level)
    assert found is not None
    critical = t.isf(level / 2, n - 1)
    assert found > critical * 0.01 / math.sqrt(n), "more than what is just significant"
    assert nct.sf(critical, n - 1, found * math.sqrt(n) / 0.01) == pytest.approx(POWER, abs=1e-4)


@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_detectable_difference_equals_statsmodels(n: int) -> None:
    power = pytest.importorskip("statsmodels.stats.power")
    for level in LEVELS:
        found = detectable_difference(seen(0.03, n), level) or 0
        # Rejections to the right side alone: those to the wrong one show nothing, and older scipy has no number there.
        told = power.TTestPower().power(found / 0.03, n, level / 2, alternative="larger")
        assert told == pytest.approx(0.8, abs=1e-6)


def test_the_detectable_difference_is_shown_four_times_in_five() -> None:
    draw = np.random.default_rng(0)
    for n in (3, 8):
        found = detectable_difference(seen(1.0, n), 0.02) or 0
        p = ttest_1samp(draw.normal(found, 1.0, (20_000, n)), 0, axis=1).pvalue
        assert (p < 0.02).mean() == pytest.approx(0.8, abs=0.012)  # four standard errors


@pytest.mark.parametrize("ratio", [0.2, 0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("level", LEVELS)
def test_so_many_seeds_and_no_fewer_are_needed(ratio: float, level: float) -> None:
    found = seeds_to_detect(ratio * 0.01, 0.01, level)
    assert found is not None
    powers = {n: nct.sf(t.isf(level / 2, n - 1), n - 1, ratio * math.sqrt(n)) for n in (found - 1, found) if n > 1}
    assert powers.pop(found) >= 0.8
    assert all(power < 0.8 for power in powers.values())
    # The two numbers of a verdict agree: so many seeds can show this difference, one fewer cannot.
    assert (detectable_difference(seen(0.01, found), level) or 0) <= ratio * 0.01 * (1 + 1e-6)
    if found > 2:
        assert (detectable_difference(seen(0.01, found - 1), level) or 0) > ratio * 0.01


def test_seeds_needed_equal_statsmodels() -> None:
    power = pytest.importorskip("statsmodels.stats.power")
    for ratio in (0.3, 0.8, 1.5):
        expected = power.TTestPower().solve_power(ratio, alpha=0.05, power=0.8, alternative="two-sided")
        assert seeds_to_detect(ratio, 1.0, 0.05) == math.ceil(expected)


def test_without_a_spread_or_with_too_much_there_is_no_number() -> None:
    assert detectable_difference(PairedTTest(0.1, None, None, 1), 0.05) is None
    assert detectable_difference(PairedTTest(0.1, 0.0, None, 3), 0.05) is None
    assert seeds_to_detect(0.001, 1.0, 0.05) is None
    edge = detectable_difference(seen(1.0, MOST_SEEDS), 0.05) or 0
    assert seeds_to_detect(edge * 1.0001, 1.0, 0.05) == MOST_SEEDS
    assert seeds_to_detect(edge * 0.9999, 1.0, 0.05) is None


def test_nonsense_is_refused() -> None:
    for difference, sd in ((0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="should be positive"):
            seeds_to_detect(difference, sd, 0.05)
    for level, power in ((0.0, 0.8), (1.0, 0.8), (0.05, 1.0)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            seeds_to_detect(1.0, 1.0, level, power)
        with pytest.raises(ValueError, match="between 0 and 1"):
            detectable_difference(seen(1.0, 3), level, power)


def test_the_remaining_level_is_where_holm_s_method_would_reject_one_more() -> None:
    others = [0.001, 0.004, 0.3, 0.6]
    for p in (0.2, 0.03):
        level = remaining_level(holm([*others, p]))
        assert level == pytest.approx(0.05 / 3)
        assert holm([*others, level * 0.999])[-1] <= 0.05 < holm([*others, level * 1.001])[-1]
    assert remaining_level([0.01]) == 0.05
    assert remaining_level([]) == 0.05
