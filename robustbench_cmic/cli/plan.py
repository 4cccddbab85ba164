"""`plan` and `validate`: what a suite means, before anything is computed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tabulate import tabulate

from robustbench_cmic.cli.arguments import (
    LimitOption,
    OnlyOption,
    ResultsOption,
    SeedsOption,
    SuiteArgument,
    ToyOption,
    WorkOption,
    load,
    parsed_seeds,
)
from robustbench_cmic.data import DATASETS
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.plan.select import select
from robustbench_cmic.records.state import CellState, cell_states, is_blocked
from robustbench_cmic.run.resume import pending_cells
from robustbench_cmic.suite import shipped_suites
from robustbench_cmic.suite.attacks import NATIVE_ATTACKS
from robustbench_cmic.suite.models import ARCHITECTURES
from robustbench_cmic.suite.objectives import OBJECTIVES
from robustbench_cmic.suite.torchattacks import attack_modules


def plan(
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    work: WorkOption = None,
    seeds: SeedsOption = "",
    only: OnlyOption = [],  # noqa: B006
    limit: LimitOption = None,
    toy: ToyOption = False,
) -> None:
    """Show a suite's cells: what is done and what a run would do."""
    _show_plan(suite, results, work, seeds, only, limit, force=False, toy=toy)


def _show_plan(
    suite: str, results: Path, work: Path | None, seeds: str, only: list[str], limit: int | None, force: bool, toy: bool
) -> None:
    from robustbench_cmic.cli.plan import plan_table
    from robustbench_cmic.records.store import work_folder

    whole = make_plan(load(suite, toy).suite, limit)
    selection = select(whole, parsed_seeds(seeds), only)
    forced = selection.asked if force else set()
    print(plan_table(selection.cells, results / whole.suite, work_folder(results, work) / whole.suite, forced))


def validate(suite: SuiteArgument) -> None:
    """Check a suite file and say everything that is wrong with it."""
    loaded = load(suite)
    cells = make_plan(loaded.suite).cells
    trainings = sum(cell.kind == "train" for cell in cells)
    print(f"{loaded.path}: valid: {trainings} trainings, {len(cells) - trainings} evaluations")


def plan_table(cells: list[Cell], folder: Path, work: Path, forced: set[str]) -> str:
    """One line a cell, and how many will run. Records are judged as `run` does, but for the data's fingerprint."""
    found = cell_states(cells, folder) | {cell: CellState("missing") for cell in forced}
    pending = pending_cells(cells, found, work)
    states = [_state(cell, found, pending) for cell in cells]
    table = [[title(cell), state, cell.id] for cell, state in zip(cells, states, strict=True)]
    counts = ", ".join(f"{count} {state}" for state, count in Counter(s.split(":")[0] for s in states).items())
    return f"{tabulate(table, headers=['cell', 'state', 'id'])}\n\n{len(cells)} cells: {counts}"


def _state(cell: Cell, found: dict[str, CellState], pending: dict[str, str]) -> str:
    if is_blocked(cell, found):
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
