"""How the cells of a plan stand, and which are to be done; no record, no checkpoint is trusted that does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import CorruptRecordError, NewerFileError, file_sha256
from robustbench_cmic.records.schema import AnyRecord, TrainRecord
from robustbench_cmic.records.store import Store, product_sha256, read_record

_PRODUCTS = {"train": "weights", "attack": "adversarial examples"}
ALTERED = {kind: f"its {what} are not the recorded ones (the file's hash differs)" for kind, what in _PRODUCTS.items()}

WITHOUT_OUTPUTS = "its record has no outputs, which the suite asks for"


@dataclass(frozen=True)
class CellState:
    """How a cell stands: `missing` and `failed` ones are to run, `unusable` ones are to be set aside and run again.

    The record of a `newer` one, or of one that it needs, is from a newer version, which can read it: both are left.
    """

    state: Literal["done", "diverged", "missing", "failed", "unusable", "newer"]
    why: str = ""  # for `failed`, `unusable` and `newer`
    record: AnyRecord | None = None  # where there is a sound one

    @property
    def is_final(self) -> bool:
        """Nothing is to be done: a result, or a divergence, which is one too, or one of a newer version."""
        return self.state in ("done", "diverged", "newer")


def cell_states(cells: list[Cell], folder: Path, dataset_sha256: str | None = None) -> dict[str, CellState]:
    """How each cell stands, by id.

    Args:
        cells: each after those that it depends on.
        folder: the suite's results folder.
        dataset_sha256: fingerprint of the data now; None: do not compare.
    """
    store, states = Store(folder), dict[str, CellState]()
    for cell in cells:
        state = _cell_state(cell, store, dataset_sha256, states)
        if not state.is_final:
            newer = next((other for other in cell.dependencies if _is_newer(other, states)), None)
            state = state if newer is None else CellState("newer", f"it needs {newer}: {states[newer].why}")
        states[cell.id] = state
    return states


def _is_newer(cell: str, states: dict[str, CellState]) -> bool:
    return cell in states and states[cell].state == "newer"


def forced_cells(cells: list[Cell], asked: set[str], states: dict[str, CellState]) -> list[Cell]:
    """The cells among those asked for that can be done anew, in order: not those that need what stays `newer`.

    Args:
        cells: each after those that it depends on.
        asked: ids.
        states: how the cells stand, by id.
    """
    forced: dict[str, Cell] = {}
    for cell in cells:
        if cell.id in asked and all(o in forced or not _is_newer(o, states) for o in cell.dependencies):
            forced[cell.id] = cell
    return list(forced.values())


def _cell_state(cell: Cell, store: Store, dataset_sha256: str | None, others: dict[str, CellState]) -> CellState:
    try:
        record = read_record(store.record(cell.id))
    except FileNotFoundError:
        return CellState("missing")
    except NewerFileError as error:
        return CellState("newer", f"its record is {error}")
    except CorruptRecordError as error:
        return CellState("unusable", f"its record is corrupt: {error}")
    if record.cell != cell:
        return CellState("unusable", "its record declares another experiment")
    if record.status == "failed":
        return CellState("failed", record.reason, record)
    if dataset_sha256 is not None and record.dataset_sha256 != dataset_sha256:
        return CellState("unusable", "it was made with other data: the data set's fingerprint differs", record)
    training = others.get(cell.needs or "")
    # A training that failed again says nothing against the attacks on the one before.
    trained = training.record if training is not None and training.state == "done" else None
    if trained is not None and record.dataset_sha256 != trained.dataset_sha256:
        return CellState("unusable", "it was made with other data than its training", record)
    if trained is not None and record.checkpoint_sha256 != trained.checkpoint_sha256:
        return CellState("unusable", "it was made with another checkpoint than the one recorded now", record)
    for other, sha256 in record.inputs.items():
        made_from = others.get(other)
        if made_from is not None and made_from.state == "done" and product_sha256(made_from.record) != sha256:
            why = f"it was made from another result of {other} than the one recorded now"
            return CellState("unusable", why, record)
    return CellState("diverged" if record.status == "diverged" else "done", record.reason, record)


def _lacks_outputs(record: AnyRecord | None) -> bool:
    if not isinstance(record, TrainRecord) or record.status != "ok":
        return False
    return record.curve != [] and record.outputs is None


def blocked_cells(cells: list[Cell], states: dict[str, CellState]) -> set[str]:
    """The ids of cells of which a training that they need has diverged: nothing to attack, or to attack or begin with.

    Each of `cells` stands after those that it depends on.
    """
    blocked: set[str] = set()
    for cell in cells:
        trainings = [other for other in (cell.needs, cell.source) if other is not None]
        if any(states[other].state == "diverged" or other in blocked for other in trainings):
            blocked.add(cell.id)
    return blocked


def foreseen(
    cells: list[Cell], asked: set[str], store: Store, *, force: bool, outputs: bool, dataset_sha256: str | None = None
) -> tuple[dict[str, CellState], dict[str, str]]:
    """How cells stand for a run, those that it is forced to do anew as missing, and what it would do; changes nothing.

    Args:
        cells: each after those that it depends on.
        asked: ids of those that `force` does anew.
        store: the suite's files.
        force: as of the command line.
        outputs: see `pending_cells`.
        dataset_sha256: see `cell_states`.
    """
    states = cell_states(cells, store.results, dataset_sha256)
    if force:
        states |= {cell.id: CellState("missing") for cell in forced_cells(cells, asked, states)}
    return states, pending_cells(cells, states, store, outputs)


def pending_cells(
    cells: list[Cell], states: dict[str, CellState], store: Store, outputs: bool = False
) -> dict[str, str]:
    """The cells that a run has to do, in order, each with the reason; `missing` ones need none.

    Args:
        cells: each after those that it depends on.
        states: how they stand, by id.
        store: the suite's files. Weights and adversarial examples that a pending attack needs and that are gone are
            made again, and so are those that are not the recorded ones.
        outputs: trainings whose records keep no outputs for pictures are done again, too.
    """
    blocked = blocked_cells(cells, states)
    pending = {
        cell.id: states[cell.id].why for cell in cells if not states[cell.id].is_final and cell.id not in blocked
    }
    needed: set[str] = set()
    for cell in reversed(cells):  # what a cell depends on comes before it
        state = states[cell.id]
        expected = product_sha256(state.record) if state.state == "done" else None
        if expected is not None:
            sha256 = file_sha256(store.product(cell))
            if sha256 is None and cell.id in needed:
                pending[cell.id] = f"its {_PRODUCTS[cell.kind]} are not here, and an attack needs them"
            elif sha256 not in (None, expected):
                pending[cell.id] = ALTERED[cell.kind]
        if outputs and _lacks_outputs(state.record):
            pending.setdefault(cell.id, WITHOUT_OUTPUTS)
        if cell.id in pending:
            needed.update(cell.dependencies)
    return {cell.id: pending[cell.id] for cell in cells if cell.id in pending}
