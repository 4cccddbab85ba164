"""Results folders made up from a suite and the outcomes of its attacks: what reports are tried on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.files import write_json
from robustbench_cmic.records.packing import pack_outcomes, pack_replicates
from robustbench_cmic.records.probed import Forward, Outputs
from robustbench_cmic.records.schema import (
    AnyRecord,
    AttackRecord,
    AuditRecord,
    CalibratedMeasures,
    Calibration,
    Measures,
    Timing,
    TrainRecord,
)
from robustbench_cmic.records.store import PLAN_FILE, failed_record, write_record
from robustbench_cmic.report import Summary, read_results, summarize
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite import load_suite

TIMING = Timing(started="2026-01-01T00:00:00+00:00", seconds=1.5)
PROVENANCE = {"commit": "a" * 40, "dirty": True, "versions": {"torch": "2.8"}, "platform": "P", "device": "cpu"}

HEAD = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: a, architecture: mlp, objective: {name: ce}}
  - {id: b, architecture: mlp, objective: {name: cmic}}
pairs: [[a, b]]
seeds: [0, 1, 2]
"""

Outcome = Callable[[Cell], Sequence[bool] | None]
"""What became of each example; None: there is no record of the cell."""


def planned(tmp_path: Path, text: str, **options: Any) -> Plan:
    file = tmp_path / "made.yaml"
    file.write_text(text)
    return make_plan(load_suite(file).suite, **options)


def train_record(cell: Cell, **changes: Any) -> TrainRecord:
    fields: dict[str, Any] = {
        "suite": "made", "cell": cell, "status": "ok", "provenance": PROVENANCE, "timing": TIMING,
        "checkpoint_sha256": "c",
    }  # fmt: skip
    return TrainRecord.model_validate(fields | changes)


def attack_record(cell: Cell, correct: Sequence[bool], **changes: Any) -> AttackRecord:
    low, high = wilson_interval(sum(correct), len(correct))
    record = AttackRecord(
        suite="made", cell=cell, status="ok", provenance=PROVENANCE, timing=TIMING, n=len(correct),
        accuracy=sum(correct) / len(correct), ci_low=low, ci_high=high, outcomes=pack_outcomes(correct),
        information=measures(0.5), outside=0, forwards=7 * len(correct), backwards=6 * len(correct),
        checkpoint_sha256="c", calibration=calibration(0.25) if cell.attack == "none" else None,
    )  # fmt: skip
    return record.model_copy(update=changes)


def measures(cmi: float, separation: float = 2.0) -> Measures:
    ncmi = cmi / separation if separation else None
    return Measures(cmi=cmi, separation=separation, ncmi=ncmi, class_cmi=[cmi], class_separation=[separation])


def calibration(ncmi: float | None, replicates: Sequence[float] | None = None) -> Calibration:
    """At a temperature of 4 with this NCMI (None: undefined, the classes are not apart); one replicate unless given."""
    separation = 0.0 if ncmi is None else 4.0
    calibrated = CalibratedMeasures(
        cmi=0.1 if ncmi is None else 4.0 * ncmi, separation=separation, ncmi=ncmi, nll=0.5, ece=0.01, brier=0.25,
        ncmi_replicates=pack_replicates([math.nan if ncmi is None else ncmi] if replicates is None else replicates),
    )  # fmt: skip
    return Calibration(nll=0.75, ece=0.125, brier=0.375, temperatures=(2.0, 8.0), calibrated=calibrated)


def audit_record(cell: Cell, examples: int = 10, **changes: Any) -> AuditRecord:
    """An audit that found nothing wrong."""
    record = AuditRecord(
        suite="made", cell=cell, status="ok", provenance=PROVENANCE, timing=TIMING, checkpoint_sha256="c",
        positions=list(range(examples)), forward_pass=Forward(repeat=0, companions=0, training=[]),
        outputs=Outputs(probabilities=False, saturated=0, at_bound=1, median_lead=5.0),
    )  # fmt: skip
    return record.model_copy(update=changes)


def fill(folder: Path, plan: Plan, outcome: Outcome, **changes: Any) -> Path:
    """Write a plan and a record of each of its cells; `changes` are of the attacks' records."""
    folder.mkdir(exist_ok=True)
    write_json(folder / PLAN_FILE, plan.model_dump(mode="json"))
    for cell in plan.cells:
        record: AnyRecord | None = None
        if cell.kind == "train":
            record = train_record(cell)
        elif cell.kind == "audit":
            record = audit_record(cell)
        elif (correct := outcome(cell)) is not None:
            record = attack_record(cell, correct, **changes)
        if record is not None:
            write_record(folder, record)
    return folder


def replace(folder: Path, cell: Cell, **changes: Any) -> None:
    """Write another record of a cell: failed or diverged, where `changes` say so."""
    record = failed_record("made", cell, "because", PROVENANCE, TIMING)
    write_record(folder, record.model_copy(update=changes))


def read(folder: Path) -> Summary:
    return summarize(read_results(folder))


def cell_of(plan: Plan, model: str, seed: int, attack: str, eps: float | None = None) -> Cell:
    """A training (`attack` is `train`), an audit (`audit`) or an attack."""
    (cell,) = [
        cell
        for cell in plan.cells
        if (cell.model, cell.seed, cell.attack or cell.kind) == (model, seed, attack) and eps in (None, cell.eps)
    ]
    return cell


def bits(text: str) -> list[bool]:
    return [letter == "1" for letter in text]
