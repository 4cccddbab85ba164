"""What is made of records: `report`, `audit`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import DONE, INCOMPLETE, ResultsOption, fail, load
from robustbench_cmic.report import Board, ReportError, flag_table, write_report


def report(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a suite with results.")],
    results: ResultsOption = Path("results"),
) -> None:
    """Write a suite's tables anew, from its records alone."""
    folder = results / suite
    if not os.path.isdir(folder):  # noqa: PTH112 - a name too long is no folder either, where Path raises
        folder = results / load(suite).suite.suite
    board = _written(folder)
    _tell(board.results.problems)
    print(f"{folder / 'leaderboard.md'}")
    print(f"{folder / 'results.csv'}")
    raise typer.Exit(INCOMPLETE if board.results.problems else DONE)


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


def _written(folder: Path) -> Board:
    """The board of a results folder, its tables written; exit 2 where there is none or they cannot be written."""
    try:
        return write_report(folder)
    except ReportError as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write to {folder}: {error.strerror or error}")


def _tell(problems: Iterable[str]) -> None:
    for problem in problems:
        print(problem, file=sys.stderr)
