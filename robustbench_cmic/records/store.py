"""Records: what a finished cell leaves behind, as typed, versioned JSON that carries its own checksum.

Everything needed to judge and repeat a number is in its record, the outcome of every example included, so that
tables, intervals and tests are pure functions of records. Nothing here imports torch.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import CorruptRecordError, read_json, write_json
from robustbench_cmic.records.packing import count_correct, unpack_replicates
from robustbench_cmic.records.schema import (
    ADAPTER,
    KINDS,
    SCHEMA,
    AnyRecord,
    AttackRecord,
    AuditRecord,
    Timing,
    TrainRecord,
)
from robustbench_cmic.statistics import wilson_interval


def failed_record(suite: str, cell: Cell, reason: str, provenance: dict[str, Any], timing: Timing) -> AnyRecord:
    """The record of a cell that ended without a result."""
    return KINDS[cell.kind](
        suite=suite, cell=cell, status="failed", reason=reason, provenance=provenance, timing=timing
    )


def record_path(folder: Path, cell: str) -> Path:
    """Where the record of a cell lies in a suite's results folder."""
    return folder / f"{cell}.json"


def write_record(folder: Path, record: AnyRecord) -> None:
    """Write a record into a suite's results folder, atomically."""
    write_json(record_path(folder, record.cell.id), record.model_dump(mode="json"))


def read_record(path: Path) -> AnyRecord:
    """Read and check a record.

    Raises:
        CorruptRecordError: not whole, altered, of another schema, under another cell's name, or with numbers that
            do not follow from its outcomes.
        FileNotFoundError: there is no such record.
    """
    payload = read_json(path)
    try:
        record = ADAPTER.validate_python(payload)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        raise CorruptRecordError(f"not of schema {SCHEMA}: {where}: {first['msg']}") from None
    if record.kind != record.cell.kind:
        raise CorruptRecordError(f"it is of kind {record.kind}, its cell of kind {record.cell.kind}")
    if path != record_path(path.parent, record.cell.id):
        raise CorruptRecordError(f"it is the record of {record.cell.id}, under another name")
    if isinstance(record, AttackRecord) and record.status == "ok":
        _check_numbers(record)
    if isinstance(record, AuditRecord):
        _check_probe(record)
    return record


def _check_numbers(record: AttackRecord) -> None:
    """A checksum shows that a record is as it was written; that its numbers follow from its outcomes shows more."""
    n, information = record.n, record.information
    if not n or information is None:
        raise CorruptRecordError("it holds no measurement although its status is ok")
    correct = count_correct(record.outcomes or "", n)
    if (record.accuracy, record.ci_low, record.ci_high) != (correct / n, *wilson_interval(correct, n)):
        raise CorruptRecordError("its accuracy or interval does not follow from its outcomes")
    if information.ncmi != (information.cmi / information.separation if information.separation > 0 else None):
        raise CorruptRecordError("its NCMI is not CMI / separation")
    try:
        unpack_replicates(record.ncmi_replicates or "")
    except ValueError as error:
        raise CorruptRecordError(f"its bootstrap of NCMI cannot be read: {error}") from None


def _check_probe(record: AuditRecord) -> None:
    """Outcomes for all of the audit's examples, which are places among the evaluated ones."""
    if any(place < 0 for place in record.positions) or record.positions != sorted(set(record.positions)):
        raise CorruptRecordError("its positions are not ascending places")
    for check in record.checks:
        if check.outcomes is not None:
            count_correct(check.outcomes, len(record.positions))


PLAN_FILE = "plan.json"


def product_file(cell: Cell, work: Path) -> Path:
    """What a cell leaves for others: a training its weights, an attack the adversarial examples for larger balls."""
    return weights_file(work, cell.id) if cell.kind == "train" else images_file(work, cell.id)


def product_sha256(record: AnyRecord | None) -> str | None:
    """The recorded hash of `product_file`; None where there is no such file."""
    if isinstance(record, TrainRecord):
        return record.checkpoint_sha256
    return record.images_sha256 if isinstance(record, AttackRecord) else None


def quarantine(file: Path, work: Path) -> Path:
    """Move a file that cannot be trusted into the work folder's `set-aside`, under a name that is free."""
    folder = work / "set-aside"
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := folder / f"{file.name}.{number}").exists():
        number += 1
    shutil.move(file, target)
    return target


def weights_file(work: Path, cell: str) -> Path:
    """Where the weights of a training lie in a suite's work folder."""
    return work / f"{cell}.safetensors"


def images_file(work: Path, cell: str) -> Path:
    """Where the adversarial examples of an attack lie that a larger ball takes over."""
    return work / f"{cell}.images.safetensors"


def resume_file(work: Path, cell: str) -> Path:
    """Where the resume state of an unfinished training lies."""
    return work / f"{cell}.state.safetensors"


def work_folder(results: Path, work: Path | None) -> Path:
    """`work`, or its default: beside the results folder, so that two results folders never share checkpoints."""
    place = Path(os.path.abspath(results))  # noqa: PTH100 - `resolve` would follow links
    return (work or place.parent / f"{place.name or 'results'}.work").absolute()
