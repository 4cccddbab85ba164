"""Looking at a run from another terminal: `status`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cmic.cli.arguments import INCOMPLETE, USAGE, ResultsOption, WorkOption, fail, load
from robustbench_cmic.records.store import work_folder
from robustbench_cmic.report import PLAN_FILE, ReportError, check_name

if TYPE_CHECKING:
    from robustbench_cmic.run.watch.status import Status


WATCH_EVERY = 2.0
"""Seconds between two looks."""


def status(
    suite: Annotated[
        str | None, typer.Argument(metavar="[SUITE]", help="The name of a suite with results, or its file; none: all.")
    ] = None,
    results: ResultsOption = Path("results"),
    work: WorkOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a JSON array, one object a suite.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every 2 s, until no run is going on.")] = False,
) -> None:
    """Show whether a run is going on, how far it is, what failed, and where the records are.

    Results that cannot be read are named, and the others shown (exit 1); exit 2 where there are no others.
    """
    folders = [_folder(results, suite)] if suite is not None else _all_folders(results)
    if watch:
        found, problems = _watch(folders, work_folder(results, work), as_json)
    else:
        found, problems = _look(folders, work_folder(results, work))
        if found:
            print(_shown(found, as_json))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        raise typer.Exit(INCOMPLETE if found else USAGE)


def _folder(results: Path, suite: str) -> Path:
    folder = results / suite
    return folder if os.path.isdir(folder) else results / load(suite).suite.suite  # noqa: PTH112 - see `report`


def _all_folders(results: Path) -> list[Path]:
    found = sorted(plan.parent for plan in results.glob(f"*/{PLAN_FILE}"))
    if not found:
        fail(f"{results} holds no results; `run` a suite first, or name another folder with --results")
    return found


def _look(folders: list[Path], work: Path) -> tuple[list[Status], list[str]]:
    """How suites stand, and sentences about those that cannot be read."""
    from robustbench_cmic.run.watch.status import suite_status

    found, problems = [], []
    for folder in folders:
        try:
            check_name(folder)
            found.append(suite_status(folder, work / folder.name))
        except ReportError as error:
            problems.append(str(error))
    return found, problems


def _shown(found: list[Status], as_json: bool) -> str:
    from robustbench_cmic.run.watch.status_text import status_text

    if as_json:
        return json.dumps([status.model_dump(mode="json") for status in found])
    return "\n".join(status_text(status) for status in found)


def _watch(folders: list[Path], work: Path, as_json: bool) -> tuple[list[Status], list[str]]:
    """Show again and again: in place on a terminal, else one after the other; returns the last look."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    with live or contextlib.nullcontext():
        while True:
            found, problems = _look(folders, work)
            if live is not None:
                live.update(Text(_shown(found, as_json)), refresh=True)
            elif found:
                print(_shown(found, as_json), flush=True)
            if all(status.state != "running" for status in found):
                return found, problems
            time.sleep(WATCH_EVERY)
