"""Records -> tables. Reads a suite's results folder only; never imports torch; equal records give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pkgutil import resolve_name

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.report.folder import ReportError
from robustbench_cmic.report.results import Results, check_name, folders_of, of_own_making, read_results
from robustbench_cmic.report.summary import Summary, summarize

__all__ = [
    "FORMATS",
    "STANDARD",
    "ReportError",
    "Results",
    "Summary",
    "check_name",
    "folders_of",
    "of_own_making",
    "read_results",
    "summarize",
    "write_index",
    "write_report",
]

FORMATS = {
    "md": {"leaderboard.md": "markdown:leaderboard"},
    "csv": {"results.csv": "csv:results_csv", "models.csv": "csv:models_csv"},
    "html": {"index.html": "html:suite_page"},
    "json": {"report.json": "json:document"},
    "latex": {"leaderboard.tex": "latex:latex"},
}
"""By name the files that a report is written to, and the function of `formats` that makes the text of each."""
STANDARD = ("md", "csv")


def write_report(folder: Path, formats: Sequence[str] = STANDARD) -> Summary:
    """Write the report of a suite's results folder into it, each file atomically.

    Returns:
        What the report was made of; `results.problems` says what was left out.

    Raises:
        ReportError: the folder holds no plan, or what it holds is not of this version's making; nothing is written.
        OSError: the files cannot be written.
    """
    with of_own_making(folder):
        summary = summarize(read_results(folder))
        # Resolved here: pandas, templates and charts take longer to import than some commands to answer.
        makers = {file: name for form in formats for file, name in FORMATS[form].items()}
        texts = {file: resolve_name(f"{__name__}.formats.{name}")(summary).encode() for file, name in makers.items()}
    for file, text in texts.items():
        write_atomically(folder / file, text)
    return summary


def write_index(results: Path) -> tuple[Path, list[str]]:
    """Write the page over all suites with results.

    Returns:
        Its file, and sentences about folders that were left out since they cannot be reported.

    Raises:
        OSError: the file cannot be written.
    """
    from robustbench_cmic.report.formats.html import index_page

    summaries: list[tuple[str, Summary]] = []
    problems: list[str] = []
    for folder in folders_of(results):
        try:
            check_name(folder)
            with of_own_making(folder):
                summary = summarize(read_results(folder))
                index_page([(folder.name, summary)])  # alone, so that what is wrong with it spoils no other
            summaries.append((folder.name, summary))
        except ReportError as error:
            problems.append(str(error))
    write_atomically(results / "index.html", index_page(summaries).encode())
    return results / "index.html", problems
