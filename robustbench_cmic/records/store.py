"""Where every file of a suite lies, and its records: all that is needed to judge and repeat a number is in them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import CorruptRecordError, newer_file, read_json, write_atomically, write_json
from robustbench_cmic.records.locks import exclusive, is_held
from robustbench_cmic.records.packing import count_correct, unpack_replicates
from robustbench_cmic.records.schema import (
    RECORD_ADAPTER,
    RECORD_SCHEMA,
    AnyRecord,
    AttackRecord,
    AuditRecord,
    CalibratedMeasures,
    Measures,
    Timing,
)
from robustbench_cmic.statistics import wilson_interval

PLAN_FILE = "plan.json"


class Store:
    """Where every file of a suite lies. Everything else asks here.

    Attributes:
        results: the suite's results folder, such as `results/digits`: plan, records, pictures, tables.
        work: its work folder, for what is too big to keep and for what watches a run; by default `results.work/digits`,
            so that two results folders never share weights or resume states.
    """

    def __init__(self, results: Path, work: Path | None = None) -> None:
        self.results = results
        self.work = work or self.work_root(results.parent) / results.name
        self.plan = results / PLAN_FILE
        self.pictures_folder = results / "pictures"
        self.events = self.work / "events.jsonl"  # what happens in runs, see `run.watch.event_log`
        self.worker_log = self.work / "workers.log"  # what libraries print while cells run, and traces of crashes

    @classmethod
    def of_suite(cls, suite: str, results: Path, work: Path | None) -> Store:
        """The store of a suite, of the folders that hold those of all suites."""
        return cls(results / suite, cls.work_root(results, work) / suite)

    @staticmethod
    def work_root(results: Path, work: Path | None = None) -> Path:
        """The folder of all suites' work folders: `work`, or by default the one beside `results`."""
        place = Path(os.path.abspath(results))  # noqa: PTH100 - `resolve` would follow links
        return (work or place.parent / f"{place.name or 'results'}.work").absolute()

    def record(self, cell: str) -> Path:
        """The record of a cell."""
        return self.results / _record_name(cell)

    def pictures(self, cell: str) -> Path:
        """Pictures of what an attack did."""
        return self.pictures_folder / f"{cell}.json"

    def weights(self, cell: str) -> Path:
        """The weights that a training has left."""
        return self.work / f"{cell}.safetensors"

    def images(self, cell: str) -> Path:
        """The adversarial examples of an attack that a larger ball takes over."""
        return self.work / f"{cell}.images.safetensors"

    def resume_state(self, cell: str) -> Path:
        """Where an unfinished training stands."""
        return self.work / f"{cell}.state.safetensors"

    def product(self, cell: Cell) -> Path:
        """What a cell leaves for others: a training its weights, an attack its adversarial examples."""
        return self.weights(cell.id) if cell.kind == "train" else self.images(cell.id)

    def inputs(self, cell: Cell) -> list[Path]:
        """The files that a worker reads to run a cell, in the same order in every store; not all of them need exist.

        The last is the resume state of a training that an earlier run began. Data and given weights are read, too:
        where they lie stands in `Settings`.
        """
        trainings = [other for other in (cell.needs, cell.source) if other]
        needed = [path for other in trainings for path in (self.record(other), self.weights(other))]
        if cell.after is not None:
            needed += [self.record(cell.after), self.images(cell.after)]
        return [*needed, self.resume_state(cell.id)]

    def outputs(self, cell: Cell) -> list[Path]:
        """The files that a cell may leave, in the same order in every store, the record last.

        One that is not there afterwards, such as the resume state of a training that is done, is to be nowhere.
        """
        return [self.resume_state(cell.id), self.product(cell), self.pictures(cell.id), self.record(cell.id)]

    def write_outputs(self, cell: Cell, contents: Sequence[bytes | None]) -> None:
        """Bring here what a cell has left in another store.

        The record is written after all that it speaks of, and only then goes what is to be nowhere: killed in between,
        a training still has its resume state or is done.

        Args:
            cell: one that has ended.
            contents: those of `outputs`, in its order; None for one that is not there.

        Raises:
            OSError: a file cannot be written; nothing was removed then.
        """
        outputs = list(zip(self.outputs(cell), contents, strict=True))
        for path, content in outputs:
            if content is not None:
                path.parent.mkdir(exist_ok=True)
                write_atomically(path, content)
        for path, content in outputs:
            if content is None:
                path.unlink(missing_ok=True)

    def exclusive(self) -> AbstractContextManager[None]:
        """Create the folders and hold their locks, see `locks.exclusive`."""
        return exclusive(*dict.fromkeys((self.results, self.work)))

    def is_in_use(self) -> bool:
        """Whether a run is going on."""
        return is_held(self.results) or is_held(self.work)

    def quarantine(self, file: Path) -> Path:
        """Move a file that cannot be trusted out of the way, under a name that is free."""
        folder = self.work / "set-aside"
        folder.mkdir(parents=True, exist_ok=True)
        targets = (folder / f"{file.name}.{number}" for number in itertools.count(1))
        target = next(target for target in targets if not target.exists())
        shutil.move(file, target)
        return target

    def forget(self, cell: Cell) -> None:
        """Move what a cell has left out of the way, so that it is done again from the start."""
        for file in (self.record(cell.id), self.product(cell)):
            if file.exists():
                self.quarantine(file)
        self.resume_state(cell.id).unlink(missing_ok=True)

    def remove_temporary_files(self) -> None:
        """Remove what a run that was killed had half written."""
        for folder in (self.results, self.pictures_folder, self.work):
            for file in folder.glob(".*.tmp"):
                file.unlink(missing_ok=True)


def _record_name(cell: str) -> str:
    return f"{cell}.json"


def product_sha256(record: AnyRecord | None) -> str | None:
    """The recorded hash of `Store.product`; None where there is no such file."""
    if isinstance(record, AttackRecord):
        return record.images_sha256
    return record.checkpoint_sha256 if record is not None and record.kind == "train" else None


def write_record(folder: Path, record: AnyRecord) -> None:
    """Write a record into a suite's results folder."""
    write_json(Store(folder).record(record.cell.id), record.model_dump(mode="json"))


def failed_record(suite: str, cell: Cell, reason: str, provenance: dict[str, Any], timing: Timing) -> AnyRecord:
    """The record of a cell that ended without a result."""
    facts = {"suite": suite, "status": "failed", "reason": reason, "provenance": provenance, "timing": timing}
    return RECORD_ADAPTER.validate_python({"kind": cell.kind, "cell": cell, **facts})


def read_record(path: Path) -> AnyRecord:
    """Read and check a record.

    Raises:
        NewerFileError: whole, and from a newer version than this one.
        CorruptRecordError: not whole, altered, of another schema, under another cell's name, or with numbers that
            do not follow from its outcomes.
        FileNotFoundError: there is no such record.
    """
    payload = read_json(path)
    try:
        record = RECORD_ADAPTER.validate_python(payload)
    except ValidationError as error:
        if (newer := newer_file(payload, RECORD_SCHEMA, error)) is not None:
            raise newer from None
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        raise CorruptRecordError(f"not of schema {RECORD_SCHEMA}: {where}: {first['msg']}") from None
    if record.kind != record.cell.kind:
        raise CorruptRecordError(f"it is of kind {record.kind}, its cell of kind {record.cell.kind}")
    if path.name != _record_name(record.cell.id):
        raise CorruptRecordError(f"it is the record of {record.cell.id}, under another name")
    if isinstance(record, AttackRecord) and record.status == "ok":
        _check_numbers(record)
    if isinstance(record, AuditRecord):
        _check_audit(record)
    return record


def _check_numbers(record: AttackRecord) -> None:
    """A checksum shows that a record is as it was written; that its numbers follow from its outcomes shows more."""
    n, information = record.n, record.information
    if not n or information is None:
        raise CorruptRecordError("it holds no measurement although its status is ok")
    correct = count_correct(record.outcomes or "", n)
    if (record.accuracy, record.ci_low, record.ci_high) != (correct / n, *wilson_interval(correct, n)):
        raise CorruptRecordError("its accuracy or interval does not follow from its outcomes")
    without = record.without_normalization
    if without is not None and without.accuracy != (correct + without.gained - without.lost) / n:
        raise CorruptRecordError("its accuracy without normalisation does not follow from its outcomes")
    _check_ncmi(information, record.ncmi_replicates or "")
    calibration = record.calibration
    if calibration is not None:
        if (calibration.calibrated is None) != (None in calibration.temperatures):
            raise CorruptRecordError("it is calibrated without a temperature, or not calibrated with one")
        if calibration.calibrated is not None:
            _check_ncmi(calibration.calibrated, calibration.calibrated.ncmi_replicates)


def _check_ncmi(measures: Measures | CalibratedMeasures, replicates: str) -> None:
    if measures.ncmi != (measures.cmi / measures.separation if measures.separation > 0 else None):
        raise CorruptRecordError("its NCMI is not CMI / separation")
    try:
        unpack_replicates(replicates)
    except ValueError as error:
        raise CorruptRecordError(f"its bootstrap of NCMI cannot be read: {error}") from None


def _check_audit(record: AuditRecord) -> None:
    """Outcomes for all of the audit's examples, which are places among the evaluated ones."""
    if any(place < 0 for place in record.positions) or record.positions != sorted(set(record.positions)):
        raise CorruptRecordError("its positions are not ascending places")
    for check in record.checks:
        if check.outcomes is not None:
            count_correct(check.outcomes, len(record.positions))
