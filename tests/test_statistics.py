"""Intervals and tests against published worked examples, scipy, statsmodels and exact distributions."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest, bootstrap, multinomial, ttest_1samp
from scipy.stats import t as student_t

from robustbench_cmic.statistics import (
    PairedTTest,
    discordant_pairs,
    equivalence_p,
    holm,
    mcnemar,
    paired_accuracy_interval,
    paired_seed_test,
    wilson_interval,
)
from tests.conftest import ROOT


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 7), (599, 599), (4821, 10000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(successes: int, n: int, confidence: float) -> None:
    expected = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_interval(successes, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "n", "published"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, published: tuple[float, float]) -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    low, high = wilson_interval(successes, n)
    assert (round(low, 4), round(high, 4)) == published


@pytest.mark.parametrize(("successes", "n", "confidence"), [(-1, 3, 0.95), (4, 3, 0.95), (0, 0, 0.95), (1, 3, 1.0)])
def test_wilson_refuses_nonsense(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"should be|no proportion"):
        wilson_interval(successes, n, confidence)


@pytest.mark.parametrize(
    ("only_first", "only_second", "digits", "published"),
    [
        # Fagerland, Lydersen & Laake (2013), table 1: airway hyper-responsiveness of 21 children, 1 / 1 / 7 / 12;
        # their supplement's 2 binomcdf(1, 8, 1/2).
        (1, 7, 3, 0.070),
        # Armitage & Berry (1994), p. 127: two media for culturing tuberculosis; p as StatsDirect prints it.
        (12, 2, 4, 0.0129),
        # The exact p of VassarStats in the tests of statsmodels.
        (121, 59, 6, 0.000004),
        (70, 59, 6, 0.378688),
        (80, 59, 6, 0.089452),
        (30, 60, 6, 0.00206),
        (10, 30, 6, 0.002221),
        (10, 10, 6, 1.0),
    ],
)
def test_mcnemar_gives_published_values(only_first: int, only_second: int, digits: int, published: float) -> None:
    assert round(mcnemar(only_first, only_second), digits) == published
    assert mcnemar(only_second, only_first) == mcnemar(only_first, only_second)


COUNTS = [(0, 1), (1, 0), (0, 12), (5, 5), (5, 6), (86, 150), (150, 86), (3, 900), (5000, 5200), (60000, 40000)]


@pytest.mark.parametrize(("only_first", "only_second"), COUNTS)
def test_mcnemar_equals_the_binomial_test(only_first: int, only_second: int) -> None:
    n = only_first + only_second
    assert mcnemar(only_first, only_second) == pytest.approx(binomtest(only_first, n).pvalue, rel=1e-9)
    greater = binomtest(only_first, n, alternative="greater").pvalue
    assert mcnemar(only_first, only_second, alternative="greater") == pytest.approx(greater, rel=1e-9)


def test_mcnemar_by_hand() -> None:
    # Four heads of four tosses; at least three of four.
    assert mcnemar(4, 0) == 2 / 16
    assert mcnemar(4, 0, alternative="greater") == 1 / 16
    assert mcnemar(0, 4, alternative="greater") == 1
    assert mcnemar(3, 1, alternative="greater") == 5 / 16
    assert (mcnemar(0, 0), mcnemar(0, 0, alternative="greater")) == (1.0, 1.0)


def test_mcnemar_equals_statsmodels() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    # Agresti (1990), p. 350: approval of the President's performance in two surveys.
    expected = tables.mcnemar([[794, 150], [86, 570]], exact=True).pvalue
    assert mcnemar(150, 86) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="no counts"):
        mcnemar(-1, 3)
    with pytest.raises(ValueError, match="alternative should be"):
        mcnemar(1, 3, alternative="less")


def test_discordant_counts_examples() -> None:
    draw = random.Random(0)
    first, second = ([draw.random() < share for _ in range(1000)] for share in (0.7, 0.4))
    pairs = list(zip(first, second, strict=True))
    counted = discordant_pairs(np.array(first), np.array(second))
    assert counted == (pairs.count((True, False)), pairs.count((False, True)))
    assert discordant_pairs(np.zeros(3, bool), np.zeros(3, bool)) == (0, 0)
    with pytest.raises(ValueError, match="broadcast"):
        discordant_pairs(np.zeros(3, bool), np.zeros(2, bool))


@pytest.mark.parametrize(
    ("p_values", "published"),
    [
        # Documentation of pingouin.
        ([0.50, 0.003, 0.32, 0.054, 0.0003], [0.64, 0.012, 0.64, 0.162, 0.0015]),
        # Documentation of stdlib's padjust.
        ([0.319, 0.201, 0.4, 0.374, 0.113], [0.957, 0.804, 0.957, 0.957, 0.565]),
        # R's pairwise.prop.test of its smokers, as in the tests of statsmodels.
        (
            [
                0.00533824886503131,
                0.8327574849753566,
                0.1880573726722516,
                0.002026764254350234,
                0.1309487516334318,
                0.1076118730631731,
            ],
            [
                0.02669124432515654,
                0.8327574849753566,
                0.4304474922526926,
                0.0121605855261014,
                0.4304474922526926,
                0.4304474922526926,
            ],
        ),
        ([], []),
        ([0.2], [0.2]),
        ([0.6, 0.6], [1.0, 1.0]),
        ([0.0, 1.0], [0.0, 1.0]),
    ],
)
def test_holm_gives_published_values(p_values: list[float], published: list[float]) -> None:
    assert holm(p_values) == pytest.approx(published, rel=1e-12)


def test_holm_equals_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    draw = random.Random(1)
    for count in (1, 2, 7, 40):
        p_values = [draw.choice([0.01, draw.random() ** 3]) for _ in range(count)]
        assert holm(p_values) == pytest.approx(multitest.multipletests(p_values, method="holm")[1], rel=1e-12)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_probability(p: float) -> None:
    with pytest.raises(ValueError, match="no probability"):
        holm([0.5, p])


def outcomes_differ(only_first: int, only_second: int, n: int) -> list[int]:
    return [-1] * only_first + [1] * only_second + [0] * (n - only_first - only_second)


def quantiles(pmf: dict[int, Fraction], confidence: float) -> tuple[int, int]:
    """The least values that at least (1 - confidence) / 2 and (1 + confidence) / 2 of a distribution do not exceed."""
    found = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        total = Fraction(0)
        for value in sorted(pmf):
            total += pmf[value]
            if total >= share:
                found.append(value)
                break
    return found[0], found[1]


@pytest.mark.parametrize(
    ("differences", "seeds"),
    [([-1, 0, 0, 1, 1], 1), ([2, 0, 0, -1], 2), ([3, 3, 1, 0, -2], 3), ([1, 1, 1], 1), ([0, 0], 4), ([-1], 1)],
)
@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95, 1 - 1e-12])
def test_accuracy_interval_is_that_of_every_resample(differences: list[int], seeds: int, confidence: float) -> None:
    n = len(differences)
    pmf: dict[int, Fraction] = {}
    for resample in product(differences, repeat=n):
        pmf[sum(resample)] = pmf.get(sum(resample), Fraction(0)) + Fraction(1, n**n)
    low, high = quantiles(pmf, confidence)
    measured = paired_accuracy_interval(differences, seeds, confidence)
    assert measured == pytest.approx((low / (n * seeds), high / (n * seeds)), abs=1e-15)


@pytest.mark.parametrize(("only_second", "n"), [(12, 100), (1, 30), (7, 7), (0, 360), (2500, 10_000)])
def test_accuracy_interval_of_one_side_is_binomial(only_second: int, n: int) -> None:
    low, high = binom(n, only_second / n).ppf([0.025, 0.975]) / n
    assert paired_accuracy_interval(outcomes_differ(0, only_second, n)) == pytest.approx((low, high), abs=1e-15)
    assert paired_accuracy_interval(outcomes_differ(only_second, 0, n)) == pytest.approx((-high, -low), abs=1e-15)


@pytest.mark.parametrize(("only_first", "only_second", "n"), [(10, 25, 360), (40, 13, 200), (300, 360, 1000)])
def test_accuracy_interval_of_two_sides_is_multinomial(only_first: int, only_second: int, n: int) -> None:
    counts = np.arange(n + 1)
    joint = multinomial(n, [only_first / n, only_second / n, 1 - (only_first + only_second) / n])
    a, b = np.meshgrid(counts, counts)
    held = a + b <= n
    probabilities = joint.pmf(np.stack([a[held], b[held], n - a[held] - b[held]], -1))
    cdf = np.bincount(b[held] - a[held] + n, probabilities).cumsum()
    expected = (np.searchsorted(cdf, [0.025, 0.975]) - n) / n
    assert paired_accuracy_interval(outcomes_differ(only_first, only_second, n)) == pytest.approx(expected, abs=1e-15)


def test_accuracy_interval_equals_scipy_on_outcomes_of_three_seeds() -> None:
    draws = np.random.default_rng(0)
    first, second = draws.random((3, 360)) < 0.8, draws.random((3, 360)) < 0.85
    differences = second.astype(int).sum(0) - first.astype(int).sum(0)
    expected = bootstrap(
        (differences / 3,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(1)
    ).confidence_interval
    measured = paired_accuracy_interval(differences, 3)
    # Of 9,999 draws an end is off by about 3 % of the standard deviation, and by a step where the two round apart.
    spread = differences.std() / 3 / math.sqrt(360)
    assert measured == pytest.approx((expected.low, expected.high), abs=1 / (3 * 360) + 0.1 * spread)


def test_accuracy_interval_is_the_same_everywhere() -> None:
    # Nothing is drawn, so that the report of a committed record is these bytes with every version of numpy.
    assert paired_accuracy_interval(outcomes_differ(10, 25, 360)) == (4 / 360, 27 / 360)
    assert paired_accuracy_interval(outcomes_differ(0, 0, 360)) == (0, 0)


def test_accuracy_interval_refuses_nonsense() -> None:
    for nonsense in ([], [[1, 0]], [0.5], [math.nan]):
        with pytest.raises(ValueError, match="not whole numbers"):
            paired_accuracy_interval(nonsense)
    with pytest.raises(ValueError, match="over 0 seeds"):
        paired_accuracy_interval([0], 0)
    with pytest.raises(ValueError, match="3 of 2 seeds cannot differ"):
        paired_accuracy_interval([0, -3], 2)
    with pytest.raises(ValueError, match="confidence"):
        paired_accuracy_interval([0, 1], confidence=1.0)


SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]


def test_seed_test_gives_the_published_value() -> None:
    # Student (1908): hours of sleep under two soporifics; as R prints it, t = 4.0621, p = 0.002833.
    test = paired_seed_test(SLEEP, resolution=0.1)
    assert (round(test.mean, 2), round(test.p or 0, 6), test.n) == (1.58, 0.002833, 10)
    assert round(test.mean / ((test.sd or 0) / math.sqrt(10)), 4) == 4.0621
    mirrored = paired_seed_test([-value for value in SLEEP], resolution=0.1)
    assert (mirrored.mean, mirrored.p) == (-test.mean, test.p)


def test_seed_test_equals_scipy() -> None:
    draw = random.Random(2)
    for n in (2, 3, 5, 30):
        differences = [draw.gauss(0.01, 0.03) for _ in range(n)]
        expected = ttest_1samp(differences, 0)
        test = paired_seed_test(differences, resolution=1e-4)
        assert test.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert test.sd == pytest.approx(np.std(differences, ddof=1), rel=1e-12)


def test_folds_that_overlap_are_less_evidence_than_seeds() -> None:
    # Nadeau & Bengio 2003: the variance of the mean is (1 / n + overlap) s^2; five folds: (1/5 + 1/4) s^2.
    differences = [0.01, 0.03, 0.02, 0.05, 0.04]
    s = float(np.std(differences, ddof=1))
    test = paired_seed_test(differences, resolution=1e-9, overlap=1 / 4)
    assert (test.sd or 0) / math.sqrt(5) == pytest.approx(math.sqrt(1 / 5 + 1 / 4) * s)
    assert test.p == pytest.approx(2 * student_t.sf(0.03 / (math.sqrt(0.45) * s), 4))
    assert (test.p or 0) > (paired_seed_test(differences, resolution=1e-9).p or 0)
    with pytest.raises(ValueError, match="overlap"):
        paired_seed_test(differences, 0.0, overlap=-1.0)


def test_equal_differences_are_evidence_to_the_resolution_only() -> None:
    r = 1 / 360
    test = paired_seed_test([r, r, r], resolution=r)
    assert test.sd == pytest.approx(r / math.sqrt(6), rel=1e-12)
    # t = sqrt(3) sqrt(6), with 2 degrees of freedom: p = 1 - t / sqrt(2 + t^2).
    assert test.p == pytest.approx(1 - math.sqrt(18 / 20), rel=1e-12)
    assert paired_seed_test([0.0, 0.0, 0.0], resolution=r).p == 1.0
    assert paired_seed_test([0.5, 0.5], resolution=0) == PairedTTest(0.5, 0.0, None, 2)


def test_one_seed_is_no_test() -> None:
    assert paired_seed_test([0.25], resolution=0.01) == PairedTTest(0.25, None, None, 1)


@pytest.mark.parametrize(
    ("differences", "resolution", "message"),
    [
        ([], 0.1, "at least one"),
        ([0.1, math.nan], 0.1, "finite"),
        ([0.1], -1.0, "resolution"),
        ([0.1], math.inf, "resolution"),
    ],
)
def test_seed_test_refuses_nonsense(differences: list[float], resolution: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_seed_test(differences, resolution)


def test_equivalence_equals_statsmodels() -> None:
    weightstats = pytest.importorskip("statsmodels.stats.weightstats")
    draw = random.Random(3)
    for n in (2, 3, 5, 30):
        for mean in (-0.03, 0.0, 0.01, 0.05):
            first = [draw.random() for _ in range(n)]
            second = [value + draw.gauss(mean, 0.01) for value in first]
            differences = [b - a for a, b in zip(first, second, strict=True)]
            expected, *_ = weightstats.ttost_paired(np.array(second), np.array(first), -0.02, 0.02)
            assert equivalence_p(paired_seed_test(differences, 0), 0.02) == pytest.approx(expected, rel=1e-9)


def test_equivalence_is_the_interval_of_90_percent_within_the_margin() -> None:
    draw = random.Random(4)
    found = []
    for _ in range(200):
        differences = [draw.gauss(draw.uniform(-0.02, 0.02), 0.01) for _ in range(4)]
        low, high = ttest_1samp(differences, 0).confidence_interval(0.9)
        found.append(low > -0.02 and high < 0.02)
        p = equivalence_p(paired_seed_test(differences, 0), 0.02)
        assert p is not None
        assert (p < 0.05) == found[-1]
    assert 20 < sum(found) < 180


def test_equivalence_needs_a_spread_and_a_margin() -> None:
    assert equivalence_p(paired_seed_test([0.1], 0.01), 0.02) is None
    assert equivalence_p(paired_seed_test([0.0, 0.0], 0.0), 0.02) is None
    # Equal to 1/360: se = 1 / 360 / sqrt(6) / sqrt(3), t = 0.02 / se; two degrees of freedom in closed form.
    t = -0.02 * 360 * math.sqrt(18)
    p = equivalence_p(paired_seed_test([0.0, 0.0, 0.0], 1 / 360), 0.02)
    assert p == pytest.approx((1 + t / math.sqrt(t * t + 2)) / 2, rel=1e-9)
    for margin in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="margin should be positive"):
            equivalence_p(PairedTTest(0.0, 1.0, 1.0, 3), margin)


def test_importing_costs_nothing() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'statsmodels'}"
    code = f"import sys, robustbench_cmic.statistics; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    uses = "s.mcnemar(3, 9), s.paired_accuracy_interval([0, 1]), s.paired_seed_test([1, 2, 4], 0.1), s.holm([0.1])"
    uses += ", s.equivalence_p(s.paired_seed_test([1, 2, 4], 0.1), 2), p.seeds_to_detect(1, 1, 0.05)"
    uses += ", p.detectable_difference(s.paired_seed_test([1, 2, 4], 0.1), 0.05)"
    heavy = "{'torch', 'scipy.stats', 'statsmodels'}"
    modules = "sys, robustbench_cmic.report.power as p, robustbench_cmic.statistics as s"
    code = f"import {modules}; {uses}; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
