"""Records -> tables. Reads a suite's results folder only; never imports torch; equal records give equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustbench_cmic.record import write_atomically
from robustbench_cmic.report.board import Board, judge
from robustbench_cmic.report.document import document
from robustbench_cmic.report.flagged import flag_table
from robustbench_cmic.report.latex import latex
from robustbench_cmic.report.leaderboard import leaderboard
from robustbench_cmic.report.results import PLAN_FILE, ReportError, Results, read_results
from robustbench_cmic.report.rows import results_csv

__all__ = [
    "FORMATS",
    "PLAN_FILE",
    "STANDARD",
    "Board",
    "ReportError",
    "Results",
    "flag_table",
    "judge",
    "read_results",
    "write_report",
]


FORMATS: dict[str, tuple[str, Callable[[Board], str]]] = {
    "md": ("leaderboard.md", leaderboard),
    "csv": ("results.csv", results_csv),
    "json": ("report.json", document),
    "latex": ("leaderboard.tex", latex),
}
"""By name the file that a report is written to, and what makes its text."""
STANDARD = ("md", "csv")


def write_report(folder: Path, formats: Sequence[str] = STANDARD) -> Board:
    """Write the report of a suite's results folder into it, each file atomically.

    Args:
        folder: such as `results/digits`.
        formats: keys of `FORMATS`.

    Returns:
        What the report was made of; `results.problems` says what was left out.

    Raises:
        ReportError: the folder holds no plan.
        OSError: the files cannot be written.
    """
    board = judge(read_results(folder))
    for name, make in (FORMATS[form] for form in formats):
        write_atomically(folder / name, make(board).encode())
    return board
