"""Temperatures against a search over a grid; scores against torchmetrics and by hand; cross-fitting; rescaling."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error

from robustbench_cmic.information.calibration import (
    example_scores,
    fit_temperature,
    measure_calibration,
    scale_logits,
    second_half,
)
from robustbench_cmic.information.measures import measure_information


def random_case(n: int, classes: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of a classifier that is right more often than not."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return scale * (torch.randn(n, classes, generator=generator) + 1.5 * nn.functional.one_hot(labels, classes)), labels


def nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    return float(nn.functional.cross_entropy(logits.double() / temperature, labels))


def best_of_grids(logits: Tensor, labels: Tensor, around: float) -> float:
    """The temperature of least NLL by search over finer and finer grids, each a hundred points across."""
    width = math.log(1e3)
    while width > 1e-6:
        grid = around * np.exp(np.linspace(-width, width, 101))
        around = min(grid.tolist(), key=lambda temperature: nll(logits, labels, temperature))
        width /= 20
    return around


@pytest.mark.parametrize("scale", [1e-4, 0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize(("n", "classes"), [(60, 2), (400, 10), (200, 50)])
def test_temperature_is_the_best_of_a_fine_grid(n: int, classes: int, scale: float) -> None:
    logits, labels = random_case(n, classes, scale)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(best_of_grids(logits, labels, scale), rel=1e-4)
    for other in (0.99, 1.01):
        assert nll(logits, labels, temperature) < nll(logits, labels, other * temperature)


@pytest.mark.parametrize("lead", [1e-4, 5.0, 1e4])
def test_temperature_of_two_classes_in_closed_form(lead: float) -> None:
    """Right k times out of n by one lead, the best probability is k / n, so that lead / T = log(k / (n - k))."""
    logits = torch.tensor([[lead, 0.0]]).repeat(1000, 1)
    for errors in (1, 100, 499):
        labels = (torch.arange(1000) < errors).long()
        expected = logits[0, 0].item() / math.log((1000 - errors) / errors)
        assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-8)


def test_one_error_among_leads_of_every_size() -> None:
    leads = torch.logspace(-4, 4, 500)
    logits = torch.stack([leads, torch.zeros(500)], 1)
    labels = torch.zeros(500, dtype=torch.int64)
    labels[200] = 1
    assert fit_temperature(logits, labels) == pytest.approx(best_of_grids(logits, labels, 1.0), rel=1e-4)


def test_a_temperature_follows_the_scale_of_logits() -> None:
    logits, labels = random_case(300, 7)
    of_one = fit_temperature(logits, labels)
    for factor in (2.0**-120, 2.0**-10, 2.0**10, 2.0**120):
        assert fit_temperature(factor * logits, labels) == pytest.approx(factor * of_one, rel=1e-9)


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = random_case(300, 7)
    whole = measure_calibration(logits, labels)
    monkeypatch.setattr("robustbench_cmic.information.calibration._CHUNK", 7 * 11)
    in_parts = measure_calibration(logits, labels)
    assert in_parts.temperatures == pytest.approx(whole.temperatures, rel=1e-9)
    for name in ("nll", "ece", "brier"):
        assert getattr(in_parts.native, name) == pytest.approx(getattr(whole.native, name), rel=1e-12)


def test_where_no_temperature_is_best() -> None:
    logits, labels = random_case(50, 4)
    right = logits + 20 * nn.functional.one_hot(labels, 4)
    assert fit_temperature(right, labels) == 0.0
    assert fit_temperature(-right, labels) == math.inf
    assert fit_temperature(torch.zeros(50, 4), labels) == math.inf
    assert fit_temperature(torch.full((50, 4), 1e4), labels) == math.inf
    for outputs, words in (
        (right, "no error in the first half"),
        (-right, "better than uniform outputs on the second"),
    ):
        measured = measure_calibration(outputs, labels)
        assert measured.calibrated is None
        assert measured.information is None
        assert words in measured.undefined
        assert math.isfinite(measured.native.nll)
    assert measure_calibration(logits, labels).undefined == ""


def test_one_half_without_a_temperature_leaves_all_uncalibrated() -> None:
    logits, labels = random_case(100, 4)
    second = second_half(labels)
    logits[second] += 20 * nn.functional.one_hot(labels[second], 4)
    measured = measure_calibration(logits, labels)
    assert measured.temperatures == (fit_temperature(logits[~second], labels[~second]), 0.0)
    assert measured.calibrated is None
    assert measured.undefined == "no error in the second half, where NLL falls without end as the temperature does"


def test_halves_alternate_within_each_class() -> None:
    assert second_half(torch.tensor([1, 0, 0, 1, 1, 0, 1])).tolist() == [True, False, True, False, True, False, False]
    labels = random_case(1001, 30)[1]
    second = second_half(labels)
    assert int(second.sum()) == 500
    first_counts, second_counts = Counter(labels[~second].tolist()), Counter(labels[second].tolist())
    assert {abs(first_counts[c] - second_counts[c]) for c in range(30)} <= {0, 1}


def test_what_is_measured_was_fitted_on_the_other_half() -> None:
    """Outputs of the first half changed, its own temperature changes, and what it is divided by does not."""
    logits, labels = random_case(200, 5)
    second = second_half(labels)
    before = measure_calibration(logits, labels)
    changed = logits.clone()
    changed[~second] *= torch.linspace(0.2, 2, int((~second).sum()))[:, None]
    after = measure_calibration(changed, labels)
    assert before.temperatures[0] != pytest.approx(after.temperatures[0], rel=1e-3)
    assert before.temperatures[1] == after.temperatures[1]
    scaled = scale_logits(changed, labels, after.temperatures)
    assert (scaled[~second] == changed[~second].double() / before.temperatures[1]).all()
    assert (scaled[second] == changed[second].double() / after.temperatures[0]).all()
    assert after.information == measure_information(scaled, labels)


def test_changed_labels_of_a_half_change_the_temperature_of_the_other_only() -> None:
    logits, labels = random_case(200, 5)
    # Two examples of the first half exchange their labels: as many of each class in the same places of its order.
    second = second_half(labels)
    first_places = (~second).nonzero()[:, 0].tolist()
    for one in first_places:
        other = next(place for place in first_places if labels[place] != labels[one])
        swapped = labels.clone()
        swapped[[one, other]] = labels[[other, one]]
        if torch.equal(second_half(swapped), second):
            break
    else:
        pytest.fail("no exchange leaves the halves as they are")
    before, after = measure_calibration(logits, labels), measure_calibration(logits, swapped)
    assert before.temperatures[0] != after.temperatures[0]
    assert before.temperatures[1] == after.temperatures[1]


def binned(p: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """ECE as defined, bin by bin; a confidence of 1 is the sixteenth."""
    confidence, right = p.max(1), p.argmax(1) == labels
    of_bin = np.floor(confidence * 15)
    inside = (of_bin == number for number in range(16))
    return sum(abs(float((right[some] - confidence[some]).sum())) for some in inside) / len(labels)


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 1e3])
def test_scores_equal_torchmetrics_and_torch(scale: float) -> None:
    logits, labels = random_case(500, 10, scale)
    measured = measure_calibration(logits, labels)
    assert measured.calibrated is not None
    for outputs, scores in (
        (logits.double(), measured.native),
        (scale_logits(logits, labels, measured.temperatures), measured.calibrated),
    ):
        p = outputs.softmax(1)
        ece = multiclass_calibration_error(p, labels, num_classes=10, n_bins=15, norm="l1")
        assert scores.ece == pytest.approx(float(ece), abs=1e-6), "torchmetrics adds up in float32"
        assert scores.ece == pytest.approx(binned(p.numpy(), labels.numpy()), abs=1e-12)
        assert scores.nll == pytest.approx(float(nn.functional.cross_entropy(outputs, labels)), rel=1e-12)
        squares = (p - nn.functional.one_hot(labels, 10)).square().sum(1).mean()
        assert scores.brier == pytest.approx(float(squares), rel=1e-12)
        assert scores.confidence == pytest.approx(float(p.amax(1).mean()), rel=1e-12)
        means = example_scores(outputs, labels).mean(0).tolist()
        assert means == pytest.approx([scores.nll, scores.confidence], rel=1e-12)


def test_scores_by_hand() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.05, 0.05, 0.9]], dtype=torch.float64)
    scores = measure_calibration(p.log(), torch.tensor([0, 1, 2, 2])).native
    # Bins of width 1/15: 0.7 twice, half of them right; 0.5, wrong; 0.9, right.
    assert scores.ece == pytest.approx(0.5 * 0.2 + 0.25 * 0.5 + 0.25 * 0.1, rel=1e-12)
    assert scores.confidence == pytest.approx(0.7, rel=1e-12)
    assert scores.nll == pytest.approx(-(math.log(0.7) + math.log(0.2) + math.log(0.4) + math.log(0.9)) / 4, rel=1e-12)
    brier = (0.09 + 0.04 + 0.01) + (0.49 + 0.64 + 0.01) + (0.01 + 0.25 + 0.36) + (0.0025 + 0.0025 + 0.01)
    assert scores.brier == pytest.approx(brier / 4, rel=1e-12)


def test_calibrated_scores_are_no_worse_where_the_halves_are_alike() -> None:
    logits, labels = random_case(200, 5, 6.0)
    measured = measure_calibration(logits.repeat_interleave(2, 0), labels.repeat_interleave(2))
    assert measured.calibrated is not None
    assert measured.temperatures[0] == pytest.approx(measured.temperatures[1], rel=1e-9)
    assert measured.calibrated.nll < measured.native.nll


def test_a_networks_last_layer_times_ten_moves_ncmi_and_leaves_it_calibrated() -> None:
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    torch.manual_seed(0)
    last = nn.Linear(32, 10)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), last)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(images[:1000]), labels[:1000]))
        optimizer.step()
    with torch.no_grad():
        before = network(images[1000:])
        last.weight.mul_(10)
        last.bias.mul_(10)
        after = network(images[1000:])
    assert 0.8 < float((before.argmax(1) == labels[1000:]).float().mean()) < 1
    assert torch.equal(before.argmax(1), after.argmax(1))
    native = [measure_information(logits, labels[1000:]).ncmi for logits in (before, after)]
    assert native[1] < 0.5 * native[0]
    first, second = (measure_calibration(logits, labels[1000:]) for logits in (before, after))
    assert first.information is not None
    assert second.information is not None
    assert second.information.ncmi == pytest.approx(first.information.ncmi, rel=1e-3)
    assert second.temperatures == pytest.approx([10 * temperature for temperature in first.temperatures], rel=1e-4)
    assert first.calibrated is not None
    assert second.calibrated is not None
    assert second.calibrated.nll == pytest.approx(first.calibrated.nll, rel=1e-3)
    assert second.native.nll > 2 * first.native.nll


@pytest.mark.parametrize("labels", [torch.tensor([0]), torch.tensor([], dtype=torch.int64)])
def test_too_few_examples_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"two at least|no examples"):
        measure_calibration(torch.zeros(len(labels), 3), labels)


def test_what_does_not_fit_is_refused() -> None:
    for measure in (fit_temperature, measure_calibration):
        with pytest.raises(ValueError, match="finite"):
            measure(torch.full((4, 2), torch.nan), torch.tensor([0, 1, 0, 1]))
        with pytest.raises(ValueError, match="integers"):
            measure(torch.zeros(4, 2), torch.zeros(4))
