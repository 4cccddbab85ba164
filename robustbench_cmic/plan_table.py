"""Tables for the terminal: what a plan holds and how it stands, and what suites may name."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tabulate import tabulate

from robustbench_cmic.cell import Cell, title
from robustbench_cmic.data import DATASETS
from robustbench_cmic.models import ARCHITECTURES
from robustbench_cmic.resume import Standing, blocked, standings, to_run
from robustbench_cmic.suite import shipped_suites
from robustbench_cmic.suite.library import attack_modules
from robustbench_cmic.suite.schema import OBJECTIVES
from robustbench_cmic.suite.schema_attacks import NATIVE_ATTACKS


def plan_table(cells: list[Cell], folder: Path, work: Path, forced: set[str]) -> str:
    """One line a cell, and how many will run. Records are judged as `run` does, but for the data's fingerprint."""
    found = standings(cells, folder) | {cell: Standing("missing") for cell in forced}
    pending = to_run(cells, found, work)
    states = [_state(cell, found, pending) for cell in cells]
    table = [[title(cell), state, cell.id] for cell, state in zip(cells, states, strict=True)]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(s.split(":")[0] for s in states).items())
    return f"{tabulate(table, headers=['cell', 'state', 'id'])}\n\n{len(cells)} cells: {counts}"


def _state(cell: Cell, found: dict[str, Standing], pending: dict[str, str]) -> str:
    if blocked(cell, found):
        return "skipped: its training diverged"
    if cell.id not in pending:
        return found[cell.id].state
    return f"to run again: {pending[cell.id]}" if pending[cell.id] else "to run"


def name_table() -> str:
    """Every name that a suite file may use, by kind."""
    kinds = {
        "suites": list(shipped_suites()),
        "datasets": list(DATASETS),
        "architectures": list(ARCHITECTURES),
        "objectives": list(OBJECTIVES),
        "attacks": list(NATIVE_ATTACKS),
        "attacks of torchattacks": [name for name in attack_modules() if name not in NATIVE_ATTACKS],
    }
    return "\n".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
