"""What is made of records: `report`, `audit`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import DONE, INCOMPLETE, ResultsOption, fail, load
from robustbench_cmic.report import FORMATS, PLAN_FILE, STANDARD, Board, ReportError, flag_table, write_report


class Format(StrEnum):
    """What a report may be written as."""

    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"


def report(
    suites: Annotated[
        list[str],
        typer.Argument(metavar="SUITE", help="Suite files, or names of suites with results; by default all."),
    ] = [],  # noqa: B006 - typer's way to say "none given"
    formats: Annotated[
        list[Format], typer.Option("--format", help="What to write; repeatable. [md and csv]", show_default=False)
    ] = [],  # noqa: B006
    results: ResultsOption = Path("results"),
) -> None:
    """Write suites' tables anew, from their records alone."""
    folders = [_folder(suite, results) for suite in suites] or _all_folders(results)
    problems: list[str] = []
    chosen = list(dict.fromkeys(form.value for form in formats)) or list(STANDARD)
    for folder in folders:
        problems += _written(folder, chosen).results.problems
        for form in chosen:
            print(folder / FORMATS[form][0])
    _tell(problems)
    raise typer.Exit(INCOMPLETE if problems else DONE)


def _folder(suite: str, results: Path) -> Path:
    """The results folder of a suite, by the suite's name or file."""
    folder = results / suite
    # `os`, since a name too long is no folder either, where Path raises.
    return folder if os.path.isdir(folder) else results / load(suite).suite.suite  # noqa: PTH112


def _all_folders(results: Path) -> list[Path]:
    found = sorted(file.parent for file in results.glob(f"*/{PLAN_FILE}"))
    return found or fail(f"{results} holds no results of any suite; `run` one first")


def audit(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RECORDS", help="Results folders of suites, such as results/digits.")
    ],
) -> None:
    """Judge stored results again: which numbers are not to be believed, and why. Writes their tables anew, too."""
    problems: list[str] = []
    for folder in folders:
        board = _written(folder)
        print(flag_table(board))
        problems += board.results.problems
    _tell(problems)
    raise typer.Exit(INCOMPLETE if problems else DONE)


def _written(folder: Path, formats: Sequence[str] = STANDARD) -> Board:
    """The board of a results folder, its tables written; exit 2 where there is none or they cannot be written."""
    try:
        return write_report(folder, formats)
    except ReportError as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write to {folder}: {error.strerror or error}")


def _tell(problems: Iterable[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
