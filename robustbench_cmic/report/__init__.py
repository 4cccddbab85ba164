"""Records -> tables. Reads a suite's results folder only; never imports torch; equal records give equal bytes."""

from __future__ import annotations

from pathlib import Path

from robustbench_cmic.record import write_atomically
from robustbench_cmic.report.leaderboard import leaderboard
from robustbench_cmic.report.results import PLAN_FILE, ReportError, Results, read_results
from robustbench_cmic.report.rows import results_csv

__all__ = ["PLAN_FILE", "ReportError", "Results", "read_results", "write_report"]


def write_report(folder: Path) -> Results:
    """Write `results.csv` and `leaderboard.md` of a suite's results folder, atomically.

    Returns:
        What was read, with what was left out in `problems`.

    Raises:
        ReportError: the folder holds no plan.
        OSError: the files cannot be written.
    """
    results = read_results(folder)
    write_atomically(folder / "results.csv", results_csv(results).encode())
    write_atomically(folder / "leaderboard.md", leaderboard(results).encode())
    return results
