"""`status`: a run, seen from another terminal."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import AsOption, ResultsOption, SetOption, WorkOption, fail, results_folder, tell
from robustbench_cmic.records.store import Store
from robustbench_cmic.report import ReportError, check_name, folders_of
from robustbench_cmic.run import INCOMPLETE, USAGE
from robustbench_cmic.run.console import show_text

WATCH_EVERY = 2.0  # seconds


def status(
    suite: Annotated[
        str | None, typer.Argument(metavar="[SUITE]", help="The name of a suite with results, or its file; none: all.")
    ] = None,
    results: ResultsOption = Path("results"),
    work: WorkOption = None,
    settings: SetOption = [],  # noqa: B006 - typer's way to say "none given"
    name_as: AsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a JSON array, one object a suite.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 s, until no run is going on.")] = False,
) -> None:
    """Show whether a run is going on, how far it is, what failed, and where the records are.

    Results that cannot be read are named, and the others shown (exit 1); exit 2 where there are no others.
    """
    if suite is None and (settings or name_as is not None):
        fail("--set and --as change a suite: name its file")
    folders = folders_of(results) if suite is None else [results_folder(suite, results, settings, name_as)]
    if not folders:
        fail(f"{results} holds no results; `run` a suite first, or name another folder with --results")
    stores = [Store.of_suite(folder.name, results, work) for folder in folders]
    states, text, problems = _watch(stores, as_json) if watch else _look(stores, as_json)
    if states and not watch:
        show_text(text)
    tell(problems)
    if problems:
        raise typer.Exit(INCOMPLETE if states else USAGE)


def _look(stores: list[Store], as_json: bool) -> tuple[list[str], str, list[str]]:
    """The states of suites, how they stand as text, and sentences about those that cannot be read."""
    from robustbench_cmic.run.watch.status import status_text, suite_status

    statuses, problems = [], []
    for store in stores:
        try:
            check_name(store.results)
            statuses.append(suite_status(store))
        except ReportError as error:
            problems.append(str(error))
    plain = json.dumps([status.model_dump(mode="json") for status in statuses])
    text = plain if as_json else "\n".join(map(status_text, statuses))
    return [status.state for status in statuses], text, problems


def _watch(stores: list[Store], as_json: bool) -> tuple[list[str], str, list[str]]:
    """Show again and again: in place on a terminal, else one after the other; returns the last look."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    with live or contextlib.nullcontext():
        while True:
            states, text, problems = _look(stores, as_json)
            if live is not None:
                live.update(Text(text), refresh=True)
            elif states:
                show_text(text)
            if "running" not in states:
                return states, text, problems
            time.sleep(WATCH_EVERY)
