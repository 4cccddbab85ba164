"""Records -> tables. Reads a suite's results folder only; never imports torch; equal records give equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.store import PLAN_FILE
from robustbench_cmic.report.formats.csv import results_csv
from robustbench_cmic.report.formats.json import document
from robustbench_cmic.report.formats.latex import latex
from robustbench_cmic.report.formats.markdown import flag_table, leaderboard
from robustbench_cmic.report.results import ReportError, Results, check_name, of_own_making, read_results
from robustbench_cmic.report.summary import Summary, summarize

__all__ = [
    "FORMATS",
    "PLAN_FILE",
    "STANDARD",
    "ReportError",
    "Results",
    "Summary",
    "check_name",
    "flag_table",
    "folders_of",
    "of_own_making",
    "read_results",
    "summarize",
    "write_index",
    "write_report",
]

PAGE = "index.html"


def _page(board: Summary, folder: Path) -> str:
    # Imported where it is used: templates and charts take longer to import than a report to write.
    from robustbench_cmic.report.formats.html import suite_page

    return suite_page(board, folder)


FORMATS: dict[str, tuple[str, Callable[[Summary, Path], str]]] = {
    "md": ("leaderboard.md", lambda board, _: leaderboard(board)),
    "csv": ("results.csv", lambda board, _: results_csv(board)),
    "html": (PAGE, _page),
    "json": ("report.json", lambda board, _: document(board)),
    "latex": ("leaderboard.tex", lambda board, _: latex(board)),
}
"""By name the file that a report is written to, and what makes its text."""
STANDARD = ("md", "csv")


def write_report(folder: Path, formats: Sequence[str] = STANDARD) -> Summary:
    """Write the report of a suite's results folder into it, each file atomically.

    Args:
        folder: such as `results/digits`.
        formats: keys of `FORMATS`.

    Returns:
        What the report was made of; `results.problems` says what was left out.

    Raises:
        ReportError: the folder holds no plan, or what it holds is not of this version's making; nothing is written.
        OSError: the files cannot be written.
    """
    with of_own_making(folder):
        board = summarize(read_results(folder))
        texts = {name: make(board, folder).encode() for name, make in (FORMATS[form] for form in formats)}
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return board


def folders_of(results: Path) -> list[Path]:
    """The results folders of suites in a folder, by name."""
    return sorted(file.parent for file in results.glob(f"*/{PLAN_FILE}"))


def write_index(results: Path) -> tuple[Path, list[str]]:
    """Write the page over all suites with results.

    Returns:
        Its file, and sentences about folders that were left out since they cannot be reported.

    Raises:
        OSError: the file cannot be written.
    """
    from robustbench_cmic.report.formats.html import index_page

    boards: list[tuple[str, Summary]] = []
    problems: list[str] = []
    for folder in folders_of(results):
        try:
            check_name(folder)
            with of_own_making(folder):
                board = summarize(read_results(folder))
                index_page([(folder.name, board)])  # alone, so that what is wrong with it spoils no other
            boards.append((folder.name, board))
        except ReportError as error:
            problems.append(str(error))
    write_atomically(results / PAGE, index_page(boards).encode())
    return results / PAGE, problems
