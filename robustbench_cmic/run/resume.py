"""What of a plan is done already: judges the records and checkpoints on disk. Trusts none that does not fit."""

from __future__ import annotations

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import file_sha256
from robustbench_cmic.records.state import CellState, is_blocked
from robustbench_cmic.records.store import Store, product_sha256

_PRODUCTS = {"train": "weights", "attack": "adversarial examples"}
ALTERED = {kind: f"its {what} are not the recorded ones (the file's hash differs)" for kind, what in _PRODUCTS.items()}


def pending_cells(cells: list[Cell], states: dict[str, CellState], store: Store) -> dict[str, str]:
    """The cells that a run has to do, in order, each with the reason; `missing` ones need none.

    Args:
        cells: each after those that it depends on.
        states: how they stand, by id.
        store: the suite's files. Weights and adversarial examples that a pending attack needs and that are gone are
            made again, and so are those that are not the recorded ones.
    """
    pending = {
        cell.id: states[cell.id].why for cell in cells if not states[cell.id].is_final and not is_blocked(cell, states)
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
        if cell.id in pending:
            needed.update(cell.dependencies)
    return {cell.id: pending[cell.id] for cell in cells if cell.id in pending}
