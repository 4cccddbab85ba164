"""What of a plan is done already: judges the records and checkpoints on disk. Trusts none that does not fit."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustbench_cmic.cell import Cell
from robustbench_cmic.record import CorruptRecordError, read_record, record_path
from robustbench_cmic.record_schema import AnyRecord, AttackRecord, TrainRecord
from robustbench_cmic.settings import images_file, weights_file

_PRODUCTS = {"train": "weights", "attack": "adversarial examples"}
ALTERED = {kind: f"its {what} are not the recorded ones (the file's hash differs)" for kind, what in _PRODUCTS.items()}

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
    record: AnyRecord | None = None

    @property
    def settled(self) -> bool:
        """Nothing is to be done: a result, or a divergence, which is one too."""
        return self.state in ("done", "diverged")


def standings(cells: list[Cell], folder: Path, dataset_sha256: str | None = None) -> dict[str, Standing]:
    """How each cell stands, by id.

    Args:
        cells: each after those that it depends on.
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
    for other, sha256 in record.inputs.items():
        made_from = others.get(other)
        if made_from is not None and made_from.state == "done" and product_sha256(made_from.record) != sha256:
            return Standing("unusable", f"it was made from another result of {other} than the one recorded now", record)
    return Standing("diverged" if record.status == "diverged" else "done", record.reason, record)


def to_run(cells: list[Cell], found: dict[str, Standing], work: Path) -> dict[str, str]:
    """The cells that a run has to do, in order, each with the reason; `missing` ones need none.

    Args:
        cells: each after those that it depends on.
        found: their standings.
        work: the suite's work folder. Weights and adversarial examples that a pending attack needs and that are gone
            are made again, and so are those that are not the recorded ones.
    """
    pending = {cell.id: found[cell.id].why for cell in cells if not found[cell.id].settled and not blocked(cell, found)}
    needed: set[str] = set()
    for cell in reversed(cells):  # what a cell depends on comes before it
        standing = found[cell.id]
        expected = product_sha256(standing.record) if standing.state == "done" else None
        if expected is not None:
            sha256 = file_sha256(product_file(cell, work))
            if sha256 is None and cell.id in needed:
                pending[cell.id] = f"its {_PRODUCTS[cell.kind]} are not here, and an attack needs them"
            elif sha256 not in (None, expected):
                pending[cell.id] = ALTERED[cell.kind]
        if cell.id in pending:
            needed.update(cell.dependencies)
    return {cell.id: pending[cell.id] for cell in cells if cell.id in pending}


def product_file(cell: Cell, work: Path) -> Path:
    """What a cell leaves for others: a training its weights, an attack the adversarial examples for larger balls."""
    return weights_file(work, cell.id) if cell.kind == "train" else images_file(work, cell.id)


def product_sha256(record: AnyRecord | None) -> str | None:
    """The recorded hash of `product_file`; None where there is no such file."""
    if isinstance(record, TrainRecord):
        return record.checkpoint_sha256
    return record.images_sha256 if isinstance(record, AttackRecord) else None


def blocked(cell: Cell, found: dict[str, Standing]) -> bool:
    """A training that the cell needs has diverged: there is nothing to attack, or nothing to attack with."""
    return any(found[other].state == "diverged" for other in (cell.needs, cell.source) if other is not None)


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
