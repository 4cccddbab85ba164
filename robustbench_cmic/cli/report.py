"""What is made of records: `report`, `audit`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from robustbench_cmic.cli.arguments import ResultsOption, fail, results_folder
from robustbench_cmic.records.files import unwritten
from robustbench_cmic.report import (
    FORMATS,
    STANDARD,
    ReportError,
    Summary,
    check_name,
    flag_table,
    folders_of,
    write_index,
    write_report,
)
from robustbench_cmic.run import DONE, INCOMPLETE, USAGE

Made = TypeVar("Made")


class Format(StrEnum):
    """What a report may be written as."""

    md = "md"
    csv = "csv"
    html = "html"
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
    """Write suites' tables anew, from their records alone. Of all, those that cannot be read are named (exit 1)."""
    folders = [results_folder(suite, results) for suite in suites] or folders_of(results)
    if not folders:
        fail(f"{results} holds no results of any suite; `run` one first")
    chosen = list(dict.fromkeys(form.value for form in formats)) or list(STANDARD)
    problems: list[str] = []
    boards = 0
    for folder in folders:
        try:
            check_name(folder)
            problems += _written(folder, chosen).results.problems
        except ReportError as error:
            if suites:
                raise
            problems.append(str(error))
            continue
        boards += 1
        for form in chosen:
            print(folder / FORMATS[form][0])
    if Format.html in formats and boards:
        index, left_out = _done(lambda: write_index(results), results)
        print(index)
        problems += left_out
    _tell(dict.fromkeys(problems))
    raise typer.Exit((INCOMPLETE if boards else USAGE) if problems else DONE)


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


def _written(folder: Path, formats: Sequence[str] = STANDARD) -> Summary:
    """The board of a results folder, its tables written."""
    return _done(lambda: write_report(folder, formats), folder)


def _done(work: Callable[[], Made], folder: Path) -> Made:
    """What `work` returns; exit 2 where it cannot be written to the folder."""
    try:
        return work()
    except OSError as error:
        fail(f"cannot write {unwritten(error, folder)}")


def _tell(problems: Iterable[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
