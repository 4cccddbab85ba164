"""`plan` and `validate`: what a suite means, before anything is computed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import robustbench_cmic.cli.arguments as arguments
from robustbench_cmic.audit.rules_attacks import MIN_EXAMPLES
from robustbench_cmic.cli.cost import show_cost
from robustbench_cmic.data import load_data
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.plan.select import select
from robustbench_cmic.records.state import CellState, blocked_cells, foreseen
from robustbench_cmic.records.store import Store
from robustbench_cmic.run import USAGE
from robustbench_cmic.run.console import show, show_text
from robustbench_cmic.run.options import Options
from robustbench_cmic.suite import Suite, SuiteError
from robustbench_cmic.suite.messages import UserError, printable


def plan(
    suite: arguments.SuiteArgument,
    results: arguments.ResultsOption = Path("results"),
    work: arguments.WorkOption = None,
    seeds: arguments.SeedsOption = "",
    only: arguments.OnlyOption = [],  # noqa: B006
    shard: arguments.ShardOption = None,
    settings: arguments.SetOption = [],  # noqa: B006
    name_as: arguments.AsOption = None,
    limit: arguments.LimitOption = None,
    data: arguments.DataOption = None,
    toy: arguments.ToyOption = False,
    cost: Annotated[
        bool, typer.Option("--cost", help="Show what cells take: passes, operations, and time on this device.")
    ] = False,
    rate: Annotated[
        list[str],
        typer.Option(metavar="FLOPS", help="With --cost: operations a second, such as 1e14 or train=1e14; repeatable."),
    ] = [],  # noqa: B006
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --cost: where a step is measured; by default auto.")
    ] = None,
) -> None:
    """Show a suite's cells: what is done and what a run would do, or what it would cost."""
    loaded = arguments.load(suite, toy, arguments.data_folder(data), settings, name_as)
    options = Options(
        results=results,
        work=work,
        seeds=arguments.parsed_seeds(seeds),
        only=only,
        shard=arguments.parsed_shard(shard),
        limit=limit,
        file=loaded.path,
    )
    for name, is_given in (("--rate", rate != []), ("--device", device is not None)):
        if is_given and not cost:
            arguments.fail(f"{name}: goes with --cost")
    if cost:
        show_cost(loaded.suite, replace(options, data=data, device="auto" if device is None else device), rate)
    else:
        show_plan(loaded.suite, options)


def validate(
    suites: Annotated[
        list[str], typer.Argument(metavar="SUITE", help="Suite files, or names of suites that come along.")
    ],
    data: arguments.DataOption = None,
    settings: arguments.SetOption = [],  # noqa: B006
) -> None:
    """Check suite files, and the weights and tables that they name, and say everything that is wrong with them.

    Every one is checked; exit 2 where any is wrong.
    """
    wrong = 0
    for suite in suites:
        try:
            with _modules_of_its_own(several=len(suites) > 1):
                _validate(suite, arguments.data_folder(data), settings)
        except UserError as error:
            arguments.tell([error])
            wrong += 1
    if wrong and len(suites) > 1:
        arguments.tell([f"{wrong} of {len(suites)} suites are wrong"])
    if wrong:
        raise typer.Exit(USAGE)


def _validate(suite: str, folder: Path, settings: list[str]) -> None:
    loaded = arguments.load(suite, data=folder, settings=settings)
    if any(model.file_key for model in loaded.suite.models):
        # Imported where it is needed: torch takes seconds, and other suites are checked without it.
        from robustbench_cmic.run.given import image_facts, weights_problems

        facts = image_facts(loaded.suite.dataset, folder.absolute())
        if problems := weights_problems(loaded.suite, facts):
            raise SuiteError(loaded.path, loaded.located(problems))
        if facts is None:
            label = loaded.suite.dataset.label
            note = f"note: the data of {label} cannot be read, so that only a run shows whether the weights fit"
            arguments.tell([f"{loaded.path}: {note}"])
    dataset = loaded.suite.dataset
    if dataset.tabular and dataset.absence(folder.absolute()) is None:
        data = load_data(dataset, folder.absolute())  # small, and what is wrong with a table is told here
        rows = len(data.test.labels)
        if loaded.suite.attacks and loaded.suite.audit != "off" and rows < MIN_EXAMPLES:
            note = (
                f"note: {rows} test rows: below {MIN_EXAMPLES} the audit flags every number under attack (few-examples)"
            )
            arguments.tell([f"{loaded.path}: {note}"])
    cells = make_plan(loaded.suite).cells
    trainings = sum(cell.kind == "train" for cell in cells)
    show(f"{loaded.path}: valid: {trainings} trainings, {len(cells) - trainings} evaluations")


@contextlib.contextmanager
def _modules_of_its_own(several: bool) -> Iterator[None]:
    """Of several suites each has the modules beside it, and not those of the same names beside the one before."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    if several:
        folders = [os.path.join(os.path.abspath(folder), "") for folder in sys.path[len(path) :]]  # noqa: PTH100, PTH118
        for name in set(sys.modules) - modules:
            files = [getattr(sys.modules[name], "__file__", None) or "", *getattr(sys.modules[name], "__path__", ())]
            if any(str(file).startswith(folder) for file in files for folder in folders):
                del sys.modules[name]
        sys.path[:] = path


def show_plan(suite: Suite, options: Options) -> None:
    """Print what a run with these options would do: one line a cell, and how many will run.

    Records are judged as `run` does, but for the data's fingerprint.
    """
    from tabulate import tabulate

    from robustbench_cmic.report.folder import claimed

    whole = make_plan(suite, options.limit)
    cells, asked = select(whole, options.seeds, options.only, options.shard)
    store = Store.of_suite(whole.suite, options.results, options.work)
    states, pending = foreseen(cells, asked, store, force=options.force, outputs=suite.outputs is not None)
    blocked = blocked_cells(cells, states)
    texts = [
        "skipped: its training diverged" if cell.id in blocked else _state_text(cell, states, pending) for cell in cells
    ]
    table = [[printable(title(cell)), printable(text), cell.id] for cell, text in zip(cells, texts, strict=True)]
    counts = ", ".join(f"{count} {text}" for text, count in Counter(text.split(":")[0] for text in texts).items())
    if whole.changes:
        show(f"{whole.suite}: {options.file}, changed by --set: {', '.join(whole.changes)}", "")
    show_text(f"{tabulate(table, headers=['cell', 'state', 'id'])}\n\n{len(cells)} cells: {counts}")
    try:
        claimed(store.results, whole if options.limit is None else make_plan(suite), options.file)
    except UserError as error:
        arguments.tell([f"`run` would refuse: {error}"])


def _state_text(cell: Cell, states: dict[str, CellState], pending: dict[str, str]) -> str:
    if cell.id not in pending:
        state = states[cell.id]
        return f"{state.state}: {state.why}" if state.state == "newer" else state.state
    return f"to run again: {pending[cell.id]}" if pending[cell.id] else "to run"
