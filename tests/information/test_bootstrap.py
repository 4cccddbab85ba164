"""Bootstrap replicates of NCMI against samples written out; their pairing, intervals, coverage and packing."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_cmic.information import bootstrap as information_bootstrap
from robustbench_cmic.information.bootstrap import bootstrap_means, bootstrap_ncmi
from robustbench_cmic.information.measures import measure_information
from robustbench_cmic.records.packing import pack_replicates, unpack_replicates
from robustbench_cmic.seeding import resample_weights
from robustbench_cmic.statistics import paired_replicates_interval


def random_case(n: int, classes: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return scale * (torch.randn(n, classes, generator=generator) + one_hot(labels, classes)), labels


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return torch.nn.functional.one_hot(labels, classes).float()


def written_out(logits: Tensor, labels: Tensor, resamples: int) -> list[float]:
    """NCMI of each bootstrap sample, its examples repeated as often as they are drawn."""
    samples = (torch.from_numpy(weights) for weights in resample_weights(len(labels), resamples))
    rows = (torch.arange(len(labels)).repeat_interleave(weights) for weights in samples)
    return [measure_information(logits[sample], labels[sample]).ncmi for sample in rows]


def test_means_are_those_of_the_same_samples() -> None:
    values = torch.tensor([[1.0, -2.0], [4.0, 0.5], [9.0, 0.0]])
    samples = (torch.arange(3).repeat_interleave(torch.from_numpy(own)) for own in resample_weights(3, 50))
    expected = torch.stack([values[sample].double().mean(0) for sample in samples])
    torch.testing.assert_close(bootstrap_means(values, 50), expected, rtol=1e-12, atol=0)


def test_standard_error_of_a_mean_is_the_published_one() -> None:
    """The mouse data of Efron & Tibshirani 1993, An Introduction to the Bootstrap, tables 2.1 and 2.2.

    Survival of the seven treated mice: mean 86.86; its bootstrap standard error tends to 23.36 with many samples.
    """
    days = np.array([94, 197, 16, 38, 99, 141, 23])
    assert float(days.mean()) == pytest.approx(86.86, abs=0.005)
    means = [float(days @ weights) / 7 for weights in resample_weights(7, 20_000)]
    assert float(np.std(means)) == pytest.approx(23.36, rel=0.02)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e3])
@pytest.mark.parametrize(("n", "classes"), [(40, 3), (300, 10), (30, 25)])
def test_equals_measuring_the_samples_written_out(n: int, classes: int, scale: float) -> None:
    logits, labels = random_case(n, classes, scale)
    measured = bootstrap_ncmi(logits, labels, resamples=20)
    assert measured.dtype == torch.float64
    assert measured.tolist() == pytest.approx(written_out(logits, labels, 20), rel=1e-12)


def test_small_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = random_case(200, 5, 3.0)
    whole = bootstrap_ncmi(logits, labels, resamples=17)
    monkeypatch.setattr(information_bootstrap, "_WEIGHTS", 200 * 4)
    monkeypatch.setattr(information_bootstrap, "_BLOCK", 5 * 7)
    calls: list[int] = []
    ncmi = information_bootstrap._ncmi

    def spy(outputs: Tensor, members: Sequence[Tensor], weights: Tensor) -> Tensor:
        calls.append(len(weights))
        return ncmi(outputs, members, weights)

    monkeypatch.setattr(information_bootstrap, "_ncmi", spy)
    assert bootstrap_ncmi(logits, labels, resamples=17).tolist() == pytest.approx(whole.tolist(), rel=1e-12)
    assert calls == [4, 4, 4, 4, 1]
    monkeypatch.setattr(information_bootstrap, "_SUMS", 5 * 3)
    assert bootstrap_ncmi(logits, labels, resamples=17).tolist() == pytest.approx(whole.tolist(), rel=1e-12)
    assert calls[5:] == [3, 3, 3, 3, 3, 2]


def test_weights_are_n_draws_with_replacement() -> None:
    weights = np.array(list(resample_weights(50, 2000)))
    assert (weights.sum(1) == 50).all()
    # Binomial(50, 1/50): mean 1, variance 1 - 1/50, none at all with probability (1 - 1/50)^50.
    assert weights.mean(0) == pytest.approx(np.ones(50), abs=0.12)
    assert weights.var() == pytest.approx(1 - 1 / 50, rel=0.02)
    assert (weights == 0).mean() == pytest.approx((1 - 1 / 50) ** 50, rel=0.02)


def test_weights_depend_on_nothing_but_n_and_the_replicate() -> None:
    ten, twenty = list(resample_weights(30, 10)), list(islice(resample_weights(30, 20), 10))
    np.random.seed(1)  # noqa: NPY002 - the global stream is not theirs
    torch.manual_seed(1)
    again = list(resample_weights(30, 10))
    assert np.array_equal(ten, twenty)
    assert np.array_equal(ten, again)
    assert len({tuple(weights.tolist()) for weights in ten}) == 10
    # RandomState's stream does not change between versions of numpy: records made by different ones are paired.
    drawn = [[1, 0, 1, 1, 3, 0], [3, 0, 2, 0, 0, 1], [1, 1, 2, 0, 2, 0]]
    assert [weights.tolist() for weights in resample_weights(6, 3)] == drawn


def test_two_models_are_paired() -> None:
    """The same examples are drawn for both: nearly equal models differ by little in every replicate."""
    logits, labels = random_case(400, 5, 2.0)
    other = logits + 0.01 * random_case(400, 5, 1.0, seed=1)[0] + 0.05 * one_hot(labels, 5)
    first, second = bootstrap_ncmi(logits, labels, 200), bootstrap_ncmi(other, labels, 200)
    assert float((second - first).std()) < 0.1 * float(first.std())
    a, b = (unpack_replicates(pack_replicates(values.tolist())) for values in (first, second))
    difference = measure_information(other, labels).ncmi - measure_information(logits, labels).ncmi
    interval = paired_replicates_interval(a, b, difference)
    assert interval is not None
    assert interval[0] < difference < interval[1] < 0, "pulled towards their class, the outputs concentrate"


def test_resamples_of_one_class_have_no_ncmi() -> None:
    # One of three examples is of another class: (2/3)^3 of the samples miss it, (1/3)^3 hold nothing else.
    logits, labels = torch.tensor([[1.0, 0.3], [0.2, 0.9], [2.0, 0.1]]), torch.tensor([0, 0, 1])
    measured = bootstrap_ncmi(logits, labels, resamples=300)
    assert measured.tolist() == pytest.approx(written_out(logits, labels, 300), rel=1e-12, nan_ok=True)
    assert float(measured.isnan().double().mean()) == pytest.approx(1 / 3, abs=0.1)
    assert bootstrap_ncmi(logits, torch.tensor([1, 1, 1]), resamples=5).isnan().all()


def test_order_of_examples_is_part_of_the_pairing() -> None:
    """The k-th example is drawn as often wherever its class lies: sorting by class is undone."""
    logits, labels = random_case(60, 4, 2.0)
    relabelled = (labels + 1) % 4
    rolled = logits.roll(1, dims=1)
    assert bootstrap_ncmi(rolled, relabelled, 10).tolist() == pytest.approx(
        bootstrap_ncmi(logits, labels, 10).tolist(), rel=1e-12
    )


def test_labels_of_any_integer_type_and_logits_with_gradients() -> None:
    logits, labels = random_case(50, 4, 2.0)
    expected = bootstrap_ncmi(logits, labels, 5)
    for dtype in (torch.uint8, torch.int32):
        assert torch.equal(bootstrap_ncmi(logits, labels.to(dtype), 5), expected)
    with_gradient = bootstrap_ncmi(logits.requires_grad_(), labels, 5)
    assert torch.equal(with_gradient, expected)
    assert not with_gradient.requires_grad


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one resample"):
        bootstrap_ncmi(torch.zeros(3, 2), torch.tensor([0, 1, 1]), resamples=0)
    with pytest.raises(ValueError, match="labels should be from 0 to 1"):
        bootstrap_ncmi(torch.zeros(3, 2), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="finite"):
        bootstrap_ncmi(torch.full((3, 2), torch.nan), torch.tensor([0, 1, 1]))


def test_intervals_cover_and_replicates_spread_as_samples_do() -> None:
    """Samples of one population: their 95 % intervals hold its NCMI about as often as they say."""
    population = measure_information(*random_case(200_000, 3, 1.0, seed=99)).ncmi
    covered, spreads, measured = [], [], []
    for seed in range(150):
        logits, labels = random_case(200, 3, 1.0, seed=seed)
        replicates = bootstrap_ncmi(logits, labels, resamples=200)
        low, high = np.quantile(replicates.numpy(), [0.025, 0.975])
        covered.append(low <= population <= high)
        spreads.append(float(replicates.std()))
        measured.append(measure_information(logits, labels).ncmi)
    assert 0.88 <= np.mean(covered) <= 0.99
    assert np.mean(spreads) == pytest.approx(np.std(measured), rel=0.15)


def test_replicates_interval_equals_numpy_and_pairs() -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(size=1000)
    second = first + generator.normal(0.1, 0.01, size=1000)
    for confidence in (0.5, 0.9, 0.95):
        expected = np.quantile(second - first, [(1 - confidence) / 2, (1 + confidence) / 2])
        centre = float((second - first).mean())
        measured = paired_replicates_interval(first.tolist(), second.tolist(), centre, confidence)
        assert measured == pytest.approx(tuple(expected), rel=1e-12)
    interval = paired_replicates_interval(first.tolist(), second.tolist(), 0.5)
    assert interval is not None
    assert 0.47 < interval[0] < 0.5 < interval[1] < 0.53, "the spread of the pairs, around the estimate"


def test_the_interval_holds_its_estimate_where_classes_are_small() -> None:
    """Replicates repeat examples, so that ten examples of a class seem to agree more than they do."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(100).repeat(5)
    logits = torch.randn(500, 100, generator=generator)
    logits[torch.arange(500), labels] += 6
    replicates = bootstrap_ncmi(logits, labels, resamples=200)
    sharper = bootstrap_ncmi(3 * logits, labels, resamples=200)
    estimate = measure_information(3 * logits, labels).ncmi - measure_information(logits, labels).ncmi
    raw = np.quantile((sharper - replicates).numpy(), [0.025, 0.975])
    assert not raw[0] < estimate < raw[1], "or this test shows nothing"
    interval = paired_replicates_interval(replicates.tolist(), sharper.tolist(), estimate)
    assert interval is not None
    assert interval[0] < estimate < interval[1]


def test_replicates_that_are_undefined_are_left_out_in_pairs() -> None:
    nan, inf = math.nan, math.inf
    first, second = [0.0, nan, 10.0, 0.0, inf], [1.0, 5.0, nan, 3.0, 7.0]
    assert paired_replicates_interval(first, second, 2.0, 0.5) == (1.5, 2.5)
    assert paired_replicates_interval([nan], [1.0], 0.0) is None
    assert paired_replicates_interval([], [], 0.0) is None
    assert paired_replicates_interval([2.0], [1.0], -1.0) == (-1.0, -1.0)
    with pytest.raises(ValueError, match="not paired"):
        paired_replicates_interval([1.0], [1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="confidence"):
        paired_replicates_interval([1.0], [1.0], 0.0, 0.0)


def test_replicates_are_packed_as_little_endian_float32() -> None:
    values = np.random.default_rng(4).random(1000)
    text = pack_replicates(values.tolist())
    assert len(text) == 5336
    assert text == base64.b64encode(values.astype("<f4").tobytes()).decode()
    assert unpack_replicates(text) == values.astype(np.float32).tolist()
    assert unpack_replicates(pack_replicates([])) == []
    odd = unpack_replicates(pack_replicates([math.nan, 1e300, -1e300, 3.4028234663852886e38]))
    assert math.isnan(odd[0])
    assert odd[1:] == [math.inf, -math.inf, 3.4028234663852886e38]


@pytest.mark.parametrize("text", ["AAA", "AAAA", "?" * 8, "ä" * 8])
def test_what_is_no_packed_replicates_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no packed replicates"):
        unpack_replicates(text)
