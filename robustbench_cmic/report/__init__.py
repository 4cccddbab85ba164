"""Records -> tables. Reads a suite's results folder only; never imports torch; equal records give equal bytes."""

from __future__ import annotations

from pathlib import Path

from robustbench_cmic.audit import audit
from robustbench_cmic.record import write_atomically
from robustbench_cmic.report.flagged import flag_table
from robustbench_cmic.report.leaderboard import leaderboard
from robustbench_cmic.report.results import PLAN_FILE, ReportError, Results, read_results
from robustbench_cmic.report.rows import results_csv

__all__ = ["PLAN_FILE", "ReportError", "Results", "flag_table", "read_results", "write_report"]


def write_report(folder: Path) -> Results:
    """Write `results.csv` and `leaderboard.md` of a suite's results folder, atomically.

    Returns:
        What was read, with what was left out in `problems`.

    Raises:
        ReportError: the folder holds no plan.
        OSError: the files cannot be written.
    """
    results = read_results(folder)
    audited = audit(results.plan, results.records)
    write_atomically(folder / "results.csv", results_csv(results, audited).encode())
    write_atomically(folder / "leaderboard.md", leaderboard(results, audited).encode())
    return results
