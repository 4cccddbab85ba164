"""`plan` and `validate`: what a suite means, before anything is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

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
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.plan.select import select
from robustbench_cmic.records.state import CellState, cell_states, is_blocked, pending_cells
from robustbench_cmic.records.store import Store
from robustbench_cmic.run.options import Options
from robustbench_cmic.suite import Suite


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
    loaded = load(suite, toy)
    options = Options(results=results, work=work, seeds=parsed_seeds(seeds), only=only, limit=limit)
    show_plan(loaded.suite, options)


def show_plan(suite: Suite, options: Options) -> None:
    """Print what a run with these options would do."""
    whole = make_plan(suite, options.limit)
    selection = select(whole, options.seeds, options.only)
    forced = selection.asked if options.force else set()
    print(plan_table(selection.cells, Store.of_suite(whole.suite, options.results, options.work), forced))


def validate(suite: SuiteArgument) -> None:
    """Check a suite file and say everything that is wrong with it."""
    loaded = load(suite)
    cells = make_plan(loaded.suite).cells
    trainings = sum(cell.kind == "train" for cell in cells)
    print(f"{loaded.path}: valid: {trainings} trainings, {len(cells) - trainings} evaluations")


def plan_table(cells: list[Cell], store: Store, forced: Collection[str]) -> str:
    """One line a cell, and how many will run. Records are judged as `run` does, but for the data's fingerprint."""
    from tabulate import tabulate

    states = cell_states(cells, store.results) | {cell: CellState("missing") for cell in forced}
    pending = pending_cells(cells, states, store)
    texts = [_state_text(cell, states, pending) for cell in cells]
    table = [[title(cell), text, cell.id] for cell, text in zip(cells, texts, strict=True)]
    counts = ", ".join(f"{count} {text}" for text, count in Counter(text.split(":")[0] for text in texts).items())
    return f"{tabulate(table, headers=['cell', 'state', 'id'])}\n\n{len(cells)} cells: {counts}"


def _state_text(cell: Cell, states: dict[str, CellState], pending: dict[str, str]) -> str:
    if is_blocked(cell, states):
        return "skipped: its training diverged"
    if cell.id not in pending:
        return states[cell.id].state
    return f"to run again: {pending[cell.id]}" if pending[cell.id] else "to run"
