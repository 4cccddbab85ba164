"""Measures at the extremes of what a network may return: everything that is measured can be stored and read again."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustbench_cmic.attacks.judge import AttackEvaluation
from robustbench_cmic.information.measures import measure_information
from robustbench_cmic.records.packing import unpack_replicates
from robustbench_cmic.records.schema import Calibration, Measures
from robustbench_cmic.run.jobs.attack import calibration_of, measured, replicates

LARGEST, SMALLEST = 3.4028234663852886e38, 1.401298464324817e-45
# Around -104 and -745 a probability is the last number above 0 in float32 and in float64, -88 and -708 the last normal.
VALUES = (0.0, 1.0, 87.0, 88.8, 103.2, 104.0, 708.4, 744.0, 744.8, 745.2, 1e3, 1e30, LARGEST, SMALLEST, 1e-38, 1e-7)
EXTREMES = (*VALUES, *(-value for value in VALUES), -math.inf)


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits (N, C), float32, some rows of equal or subnormal probabilities, and labels of few classes or of all."""
    classes, n = draw(st.integers(2, 4)), draw(st.integers(1, 7))
    number = st.sampled_from(EXTREMES) | st.floats(-750, 750, width=32)
    rows = draw(st.lists(st.lists(number, min_size=classes, max_size=classes), min_size=n, max_size=n))
    logits = torch.tensor(rows, dtype=torch.float32)
    logits[logits.isneginf().all(1)] = 0.0  # a model that masks every class has said nothing
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return logits, torch.tensor(labels)


@settings(max_examples=300, deadline=None)
@given(outputs())
def test_whatever_is_measured_can_be_stored(given: tuple[Tensor, Tensor]) -> None:
    logits, labels = given
    verdict = AttackEvaluation(logits.argmax(1) == labels, logits, None, 0, [])
    stored = measured(verdict, labels)
    Measures.model_validate(json.loads(json.dumps(stored["information"], allow_nan=False)))
    calibration = calibration_of(logits, labels)
    if calibration is not None:
        text = json.dumps(calibration.model_dump(mode="json"), allow_nan=False)
        assert Calibration.model_validate_json(text) == calibration
    assert len(unpack_replicates(replicates(logits, labels))) == 1000


@settings(max_examples=300, deadline=None)
@given(outputs())
def test_cmi_is_finite_and_at_most_what_counts_allow(given: tuple[Tensor, Tensor]) -> None:
    logits, labels = given
    found = measure_information(logits, labels)
    # KL(P || Q) with P <= n Q is at most log n, and so is every class's mean.
    for label, value in enumerate(found.class_cmi):
        n = int((labels == label).sum())
        assert (math.isnan(value) and n == 0) or 0 <= value <= math.log(max(n, 1)) + 1e-9
    assert 0 <= found.cmi <= math.log(len(labels)) + 1e-9


@pytest.mark.parametrize("lowest", [-744.5, -745.1])
def test_a_class_whose_mean_probability_rounds_to_0_has_a_finite_cmi(lowest: float) -> None:
    logits = torch.tensor([[0.0, lowest, -1.0], [0.0, -800.0, -1.0], [-3.0, 0.0, 0.0], [1.0, 0.0, 3.0]])
    exact = logits.clone()
    exact[:2, 1] = -math.inf  # its share of the sum is below 1e-320
    labels = torch.tensor([0, 0, 1, 2])
    assert measure_information(logits, labels).cmi == pytest.approx(measure_information(exact, labels).cmi, abs=1e-15)
