"""Looking at a run from another terminal: `status`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cmic.cli.arguments import INTERRUPTED, ResultsOption, WorkOption, fail, load
from robustbench_cmic.report import PLAN_FILE, ReportError
from robustbench_cmic.settings import work_folder

if TYPE_CHECKING:
    from robustbench_cmic.status import Status

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
    """Show whether a run is going on, how far it is, what failed, and where the records are."""
    folders = [_folder(results, suite)] if suite is not None else _all_folders(results)
    try:
        if watch:
            _watch(folders, work_folder(results, work), as_json)
        else:
            print(_shown(_look(folders, work_folder(results, work)), as_json))
    except ReportError as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _folder(results: Path, suite: str) -> Path:
    folder = results / suite
    return folder if os.path.isdir(folder) else results / load(suite).suite.suite  # noqa: PTH112 - see `report`


def _all_folders(results: Path) -> list[Path]:
    found = sorted(plan.parent for plan in results.glob(f"*/{PLAN_FILE}"))
    if not found:
        fail(f"{results} holds no results; `run` a suite first, or name another folder with --results")
    return found


def _look(folders: list[Path], work: Path) -> list[Status]:
    from robustbench_cmic.status import suite_status

    return [suite_status(folder, work / folder.name) for folder in folders]


def _shown(found: list[Status], as_json: bool) -> str:
    from robustbench_cmic.status_text import status_text

    if as_json:
        return json.dumps([status.model_dump(mode="json") for status in found])
    return "\n".join(status_text(status) for status in found)


def _watch(folders: list[Path], work: Path, as_json: bool) -> None:
    """Show again and again: in place on a terminal, else one after the other."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    with live or contextlib.nullcontext():
        while True:
            found = _look(folders, work)
            if live is not None:
                live.update(Text(_shown(found, as_json)), refresh=True)
            else:
                print(_shown(found, as_json), flush=True)
            if all(status.state != "running" for status in found):
                return
            time.sleep(WATCH_EVERY)
