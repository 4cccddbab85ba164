"""What of a plan is done already: judges the records and checkpoints on disk. Trusts none that does not fit."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustbench_cmic.plan import Cell
from robustbench_cmic.record import (
    AttackRecord,
    CorruptRecordError,
    TrainRecord,
    read_record,
    record_path,
)
from robustbench_cmic.settings import weights_file

ALTERED_WEIGHTS = "its weights are not the recorded ones (the file's hash differs)"

State = Literal["done", "diverged", "missing", "failed", "unusable"]


@dataclass(frozen=True)
class Standing:
    """How a cell stands.

    Attributes:
        state: `done` and `diverged` need nothing; `missing` and `failed` are to run; `unusable` is to be set aside
            and run again.
        why: for `failed` and `unusable`, the reason.
        record: the record, where there is a sound one.
    """

    state: State
    why: str = ""
    record: TrainRecord | AttackRecord | None = None

    @property
    def settled(self) -> bool:
        """Nothing is to be done: a result, or a divergence, which is one too."""
        return self.state in ("done", "diverged")


def standings(cells: list[Cell], folder: Path, dataset_sha256: str | None = None) -> dict[str, Standing]:
    """How each cell stands, by id.

    Args:
        cells: in an order in which trainings come before their attacks.
        folder: the suite's results folder.
        dataset_sha256: fingerprint of the data now; None: do not compare.
    """
    found: dict[str, Standing] = {}
    for cell in cells:
        found[cell.id] = _standing(cell, folder, dataset_sha256, found)
    return found


def _standing(cell: Cell, folder: Path, dataset_sha256: str | None, others: dict[str, Standing]) -> Standing:
    try:
        record = read_record(record_path(folder, cell.id))
    except FileNotFoundError:
        return Standing("missing")
    except CorruptRecordError as error:
        return Standing("unusable", f"its record is corrupt: {error}")
    if record.cell != cell:
        return Standing("unusable", "its record declares another experiment")
    if record.status == "failed":
        return Standing("failed", record.reason, record)
    if dataset_sha256 is not None and record.dataset_sha256 != dataset_sha256:
        return Standing("unusable", "it was made with other data: the data set's fingerprint differs", record)
    training = others.get(cell.needs or "")
    # A training that failed again says nothing against the attacks on the one before.
    trained = training.record if training is not None and training.state == "done" else None
    if trained is not None and record.dataset_sha256 != trained.dataset_sha256:
        return Standing("unusable", "it was made with other data than its training", record)
    if trained is not None and record.checkpoint_sha256 != trained.checkpoint_sha256:
        return Standing("unusable", "it was made with another checkpoint than the one recorded now", record)
    return Standing("diverged" if record.status == "diverged" else "done", record.reason, record)


def to_run(cells: list[Cell], found: dict[str, Standing], work: Path) -> dict[str, str]:
    """The cells that a run has to do, in order, each with the reason; `missing` ones need none.

    Args:
        cells: trainings before their attacks.
        found: their standings.
        work: the suite's work folder. Weights that a pending attack needs and that are gone are trained again, and so
            are weights that are not the recorded ones.
    """
    pending = {cell.id: found[cell.id].why for cell in cells if not found[cell.id].settled and not blocked(cell, found)}
    needed = {cell.needs for cell in cells if cell.id in pending}
    for cell in cells:
        record = found[cell.id].record
        if cell.kind == "train" and found[cell.id].state == "done" and record is not None:
            sha256 = file_sha256(weights_file(work, cell.id))
            if sha256 is None and cell.id in needed:
                pending[cell.id] = "its weights are not here, and an attack needs them"
            elif sha256 not in (None, record.checkpoint_sha256):
                pending[cell.id] = ALTERED_WEIGHTS
    return {cell.id: pending[cell.id] for cell in cells if cell.id in pending}


def blocked(cell: Cell, found: dict[str, Standing]) -> bool:
    """The training that the cell needs has diverged: there is nothing to attack."""
    return cell.needs is not None and found[cell.needs].state == "diverged"


def file_sha256(path: Path) -> str | None:
    """SHA-256 (hex) of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def set_aside(file: Path, work: Path) -> Path:
    """Move a file that cannot be trusted into the work folder's `set-aside`, under a name that is free."""
    folder = work / "set-aside"
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while (target := folder / f"{file.name}.{number}").exists():
        number += 1
    shutil.move(file, target)
    return target
