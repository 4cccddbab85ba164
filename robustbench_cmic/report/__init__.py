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
    "folders_of",
    "judge",
    "read_results",
    "write_index",
    "write_report",
]

PAGE = "index.html"


def _page(board: Board, folder: Path) -> str:
    # Imported where it is used: templates and charts take longer to import than a report to write.
    from robustbench_cmic.report.page import suite_page

    return suite_page(board, folder)


FORMATS: dict[str, tuple[str, Callable[[Board, Path], str]]] = {
    "md": ("leaderboard.md", lambda board, _: leaderboard(board)),
    "csv": ("results.csv", lambda board, _: results_csv(board)),
    "html": (PAGE, _page),
    "json": ("report.json", lambda board, _: document(board)),
    "latex": ("leaderboard.tex", lambda board, _: latex(board)),
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
        write_atomically(folder / name, make(board, folder).encode())
    return board


def folders_of(results: Path) -> list[Path]:
    """The results folders of suites in a folder, by name."""
    return sorted(file.parent for file in results.glob(f"*/{PLAN_FILE}"))


def write_index(results: Path) -> Path:
    """Write the page over all suites with results; returns its file.

    Raises:
        ReportError: the plan of one is damaged.
        OSError: the file cannot be written.
    """
    from robustbench_cmic.report.page import index_page

    boards = [(folder.name, judge(read_results(folder))) for folder in folders_of(results)]
    write_atomically(results / PAGE, index_page(boards).encode())
    return results / PAGE
