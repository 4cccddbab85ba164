"""What the record of a clean evaluation holds of calibration."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.information.bootstrap import bootstrap_means, bootstrap_ncmi
from robustbench_cmic.information.calibration import example_scores, measure_calibration, scale_logits
from robustbench_cmic.records.files import CorruptRecordError, write_json
from robustbench_cmic.records.packing import pack_replicates, unpack_replicates
from robustbench_cmic.records.schema import AttackRecord, Calibration
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.jobs.attack import calibration_of
from tests.conftest import TINY_SUITE
from tests.in_process import carried_out


def outputs(n: int, classes: int = 5, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    return scale * (torch.randn(n, classes, generator=generator) + nn.functional.one_hot(labels, classes)), labels


def plain(calibration: Calibration) -> dict[str, object]:
    """It as JSON, which knows no NaN and no infinity, and read back."""
    text = json.dumps(calibration.model_dump(mode="json"), allow_nan=False)
    assert Calibration.model_validate_json(text) == calibration
    loaded: dict[str, object] = json.loads(text)
    return loaded


def test_record_holds_what_was_measured_and_replicates_of_the_scaled_logits() -> None:
    logits, labels = outputs(200)
    measured, held = measure_calibration(logits, labels), calibration_of(logits, labels)
    assert held is not None
    assert held.calibrated is not None
    assert measured.information is not None
    assert measured.calibrated is not None
    assert held.temperatures == measured.temperatures
    assert (held.nll, held.ece, held.brier) == (measured.native.nll, measured.native.ece, measured.native.brier)
    assert held.calibrated.ncmi == measured.information.ncmi
    assert held.calibrated.nll == measured.calibrated.nll
    replicates = torch.tensor(unpack_replicates(held.calibrated.ncmi_replicates))
    expected = bootstrap_ncmi(scale_logits(logits, labels, measured.temperatures), labels)
    assert torch.equal(replicates, expected.float())
    scaled = scale_logits(logits, labels, measured.temperatures)
    for outputs_, of, scores in ((logits, held, measured.native), (scaled, held.calibrated, measured.calibrated)):
        assert of.confidence == scores.confidence
        nll, confidence = bootstrap_means(example_scores(outputs_, labels)).float().T
        assert of.nll_replicates == pack_replicates(nll.tolist())
        assert of.confidence_replicates == pack_replicates(confidence.tolist())
    plain(held)


@pytest.mark.parametrize("case", ["right", "wrong", "constant", "huge", "tiny", "one class"])
def test_no_nan_and_no_infinity_reaches_a_record(case: str) -> None:
    logits, labels = outputs(100)
    whole = {
        "right": (logits + 1e4 * nn.functional.one_hot(labels, 5), labels),
        "wrong": (logits - 1e4 * nn.functional.one_hot(labels, 5), labels),
        "constant": (torch.zeros(100, 5), labels),
        "huge": (1e37 * logits, labels),
        "tiny": (1e-37 * logits, labels),
        "one class": (logits, torch.zeros_like(labels)),
    }
    held = calibration_of(*whole[case])
    assert held is not None
    plain(held)
    defined = case in ("huge", "tiny")
    assert (held.calibrated is not None, held.undefined == "") == (defined, defined)
    assert (None in held.temperatures) is not defined


def test_one_class_present_has_a_temperature_and_no_ncmi() -> None:
    logits = torch.tensor([[1.0, 0.0]]).repeat(8, 1)
    logits[:2] *= -1
    held = calibration_of(logits, torch.zeros(8, dtype=torch.int64))
    assert held is not None
    assert held.calibrated is not None
    assert held.calibrated.ncmi is None
    assert all(math.isnan(value) for value in unpack_replicates(held.calibrated.ncmi_replicates))
    plain(held)


def test_a_single_example_is_not_calibrated() -> None:
    assert calibration_of(torch.tensor([[1.0, 0.0]]), torch.tensor([0])) is None


def test_clean_evaluations_alone_are_calibrated_and_records_from_before_stay_valid(tmp_path: Path) -> None:
    suite = tmp_path / "tiny.yaml"
    suite.write_text(TINY_SUITE)
    records = [record for record in carried_out(suite, tmp_path / "results") if isinstance(record, AttackRecord)]
    assert {record.cell.attack: record.calibration is not None for record in records} == {
        "none": True, "FGSM": False, "PGD": False,
    }  # fmt: skip
    clean = next(record for record in records if record.cell.attack == "none")
    assert clean.calibration is not None
    assert clean.calibration.calibrated is not None
    file = Store(tmp_path / "results").record(clean.cell.id)
    payload = clean.model_dump(mode="json")
    write_json(file, {name: value for name, value in payload.items() if name != "calibration"})
    before = read_record(file)
    assert before == clean.model_copy(update={"calibration": None})
    calibration = payload["calibration"]
    for changed, message in (
        ({"calibrated": calibration["calibrated"] | {"ncmi": 0.5}}, "NCMI is not CMI / separation"),
        ({"calibrated": calibration["calibrated"] | {"ncmi_replicates": "?"}}, "bootstrap of NCMI cannot be read"),
        ({"calibrated": None}, "not calibrated with one"),
        ({"temperatures": [1.0, None]}, "without a temperature"),
        ({"temperatures": [1.0, 0.0]}, "greater than 0"),
    ):
        write_json(file, payload | {"calibration": calibration | changed})
        with pytest.raises(CorruptRecordError, match=message):
            read_record(file)
