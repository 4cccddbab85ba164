"""What is made of records: `report`, `audit`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import DONE, INCOMPLETE, ResultsOption, fail, load
from robustbench_cmic.report import ReportError, flag_table, write_report


def report(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a suite with results.")],
    results: ResultsOption = Path("results"),
) -> None:
    """Write a suite's tables anew, from its records alone."""
    folder = results / suite
    if not os.path.isdir(folder):  # noqa: PTH112 - a name too long is no folder either, where Path raises
        folder = results / load(suite).suite.suite
    try:
        found = write_report(folder)
    except ReportError as error:
        fail(error)
    except OSError as error:
        fail(f"cannot write to {folder}: {error.strerror or error}")
    for problem in found.problems:
        print(problem, file=sys.stderr)
    print(f"{folder / 'leaderboard.md'}")
    print(f"{folder / 'results.csv'}")
    raise typer.Exit(INCOMPLETE if found.problems else DONE)


def audit(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RECORDS", help="Results folders of suites, such as results/digits.")
    ],
) -> None:
    """Judge stored results again: which numbers are not to be believed, and why. Writes their tables anew, too."""
    problems: list[str] = []
    for folder in folders:
        try:
            found = write_report(folder)
        except ReportError as error:
            fail(error)
        except OSError as error:
            fail(f"cannot write to {folder}: {error.strerror or error}")
        print(flag_table(found))
        problems += found.problems
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(INCOMPLETE if problems else DONE)
