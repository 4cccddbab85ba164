"""Correlations against scipy, samples written out, and the coverage of the bootstrap over a simulated law."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, rankdata, spearmanr

from robustbench_cmic.report.correlation import (
    Paired,
    correlations,
    draws_of_models,
    percentile_interval,
    weighted_pearson,
    weighted_ranks,
    weighted_spearman,
)

Numbers = NDArray[np.float64]
RHO = 0.8


def law(generator: np.random.Generator, n: int) -> tuple[Numbers, Numbers]:
    """Two normal numbers of n networks whose correlation is `RHO`."""
    x, rest = generator.normal(size=(2, n))
    return x, RHO * x + np.sqrt(1 - RHO**2) * rest


def paired(x: Numbers, y: Numbers, of_x: Numbers | None = None, of_y: Numbers | None = None) -> Paired:
    return Paired(x, y, [str(place) for place in range(len(x))], of_x, of_y)


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_those_of_scipy(ties: bool) -> None:
    for seed in range(20):
        x, y = law(np.random.default_rng(seed), 13)
        if ties:
            x, y = x.round(), y.round()
        expected = float(pearsonr(x, y).statistic), float(spearmanr(x, y).statistic)
        assert correlations(x, y) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_weights_are_networks_written_out(ties: bool) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 50, 9))
    if ties:
        x, y = x.round(), y.round()
    weights = np.stack([np.bincount(generator.integers(9, size=9), minlength=9) for _ in range(50)]).astype(float)
    pearson, spearman = weighted_pearson(x, y, weights), weighted_spearman(x, y, weights)
    ranks = weighted_ranks(x, weights)
    for row in range(50):
        drawn = np.repeat(np.arange(9), weights[row].astype(int))
        np.testing.assert_array_equal(ranks[row, drawn], rankdata(x[row, drawn]))
        assert pearson[row] == pytest.approx(pearsonr(x[row, drawn], y[row, drawn]).statistic, abs=1e-9)
        assert spearman[row] == pytest.approx(spearmanr(x[row, drawn], y[row, drawn]).statistic, abs=1e-9)


def test_what_does_not_vary_has_no_correlation() -> None:
    steady, other = np.full(5, 0.1), np.arange(5.0)
    assert np.isnan([*correlations(steady, other), *correlations(other, steady)]).all()
    alone = np.array([[3.0, 0.0, 0.0, 0.0, 0.0]])
    assert np.isnan(weighted_pearson(other[None], other[None], alone)).all(), "one network, drawn again and again"


def test_models_are_drawn_whole() -> None:
    weights = draws_of_models(["a", "b", "a", "c"], 2000)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(1), 3)
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)
    np.testing.assert_array_equal(weights, draws_of_models(["x", "y", "x", "z"], 2000))


def test_intervals_over_networks_hold_the_correlation_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    held = []
    for _ in range(200):
        replicates = paired(*law(generator, 20)).replicates(networks=True, images=False, resamples=400)
        assert replicates is not None
        interval = percentile_interval(replicates)
        assert interval is not None
        held.append(interval[0] <= RHO <= interval[1])
    assert 0.88 <= np.mean(held) <= 0.98


def test_over_images_alone_networks_count_as_given() -> None:
    """Noise of images around 20 networks: images alone hold the correlation of these, not that of all networks."""
    generator = np.random.default_rng(2)
    own, whole, both = [], [], []
    for _ in range(100):
        x, y = law(generator, 20)
        seen = [values + 0.05 * generator.normal(size=20) for values in (x, y)]
        again = [values + 0.05 * generator.normal(size=(300, 20)) for values in seen]
        found = paired(*seen, *again)
        images, together = (found.replicates(networks, True, 300) for networks in (False, True))
        assert images is not None
        assert together is not None
        first, second = percentile_interval(images), percentile_interval(together)
        assert first is not None
        assert second is not None
        own.append(first[0] <= correlations(x, y)[0] <= first[1])
        whole.append(first[0] <= RHO <= first[1])
        both.append(second[0] <= RHO <= second[1])
    assert np.mean(own) >= 0.85
    assert np.mean(whole) <= 0.5
    assert 0.88 <= np.mean(both) <= 0.99


def test_replicates_over_images_are_put_around_what_was_measured() -> None:
    x, y = law(np.random.default_rng(3), 12)
    lowered = x - 5 * np.arange(12)  # as CMI is, in samples that repeat images
    found = paired(x, y, np.tile(lowered, (10, 1)), np.tile(y, (10, 1))).replicates(False, True, 10)
    np.testing.assert_allclose(found, correlations(x, y)[0])  # type: ignore[arg-type]


def test_samples_that_are_not_finite_are_left_out_and_without_any_there_is_no_interval() -> None:
    x, y = law(np.random.default_rng(4), 12)
    noisy = x + np.random.default_rng(5).normal(size=(10, 12))
    noisy[3, 2], noisy[7, 0] = np.nan, np.inf
    found = paired(x, y, noisy, np.tile(y, (10, 1)))
    assert [len(found.replicates(networks, True, 10)) for networks in (True, False)] == [8, 8]  # type: ignore[arg-type]
    assert paired(x, y, np.full((10, 12), np.nan), noisy).replicates(True, True, 10) is None
    assert paired(x, y).replicates(False, True, 10) is None
    assert percentile_interval(np.array([np.nan, 0.5])) is None
    assert percentile_interval(np.array([])) is None
