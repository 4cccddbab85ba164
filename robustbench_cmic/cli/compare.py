"""`compare`: results beside results."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import tell
from robustbench_cmic.report import Results, read_results
from robustbench_cmic.run import DIFFERENT, DONE, INCOMPLETE
from robustbench_cmic.run.console import show_text

REASONS_SHOWN = 20
FailOn = StrEnum("FailOn", ["drift", "regression"])
"""When `compare` exits 3."""
TextFormat = StrEnum("TextFormat", ["text", "md", "json"])


def compare(
    old: Annotated[Path, typer.Argument(metavar="A", help="Results folder of a suite, such as results/digits.")],
    new: Annotated[Path, typer.Argument(metavar="B", help="The folder to compare with it, such as mine/digits.")],
    fail_on: Annotated[
        FailOn | None,
        typer.Option(help="Exit 3 where outcomes differ or are gone; or where B is significantly worse than A."),
    ] = None,
    form: Annotated[TextFormat, typer.Option("--format", help="How to print it.")] = TextFormat.text,
) -> None:
    """Compare two results folders: which cells differ, by how much, and whether that is more than chance.

    Exits 1 where damaged records were left out, or where --fail-on had nothing to compare.
    """
    from robustbench_cmic.report.compare.changes import compare_folders
    from robustbench_cmic.report.compare.text import comparison_text

    left, right = read_folder(old), read_folder(new)
    comparison = compare_folders(left, right)
    if form is TextFormat.json:
        # In ASCII: what would steer a terminal is escaped, and any encoding will do.
        print(json.dumps(json.loads(comparison.model_dump_json()), indent=1))
    else:
        show_text(comparison_text(comparison, markdown=form is TextFormat.md))
    reasons = {None: [], FailOn.drift: comparison.drift, FailOn.regression: comparison.regression}[fail_on]
    messages = reasons[:REASONS_SHOWN]
    if len(reasons) > REASONS_SHOWN:
        messages.append(f"and {len(reasons) - REASONS_SHOWN} more (--format json names all)")
    empty = fail_on is not None and not any(cell.common and cell.kind == "attack" for cell in comparison.cells)
    if empty:
        messages.append("not a single evaluation has a result on both sides: nothing was compared")
    tell(f"{fail_on}: {message}" for message in messages)
    lacking = empty or bool(left.problems or right.problems)
    raise typer.Exit(DIFFERENT if reasons else INCOMPLETE if lacking else DONE)


def read_folder(folder: Path) -> Results:
    """The results in a folder; what was left out of them is told."""
    results = read_results(folder)
    tell(results.problems)
    return results
