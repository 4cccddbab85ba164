"""Records -> tables. Reads a suite's results folder only; never imports torch; equal records give equal bytes."""

from __future__ import annotations

from pathlib import Path

from robustbench_cmic.record import write_atomically
from robustbench_cmic.report.board import Board, judge
from robustbench_cmic.report.flagged import flag_table
from robustbench_cmic.report.leaderboard import leaderboard
from robustbench_cmic.report.results import PLAN_FILE, ReportError, Results, read_results
from robustbench_cmic.report.rows import results_csv

__all__ = ["PLAN_FILE", "Board", "ReportError", "Results", "flag_table", "judge", "read_results", "write_report"]


def write_report(folder: Path) -> Board:
    """Write `results.csv` and `leaderboard.md` of a suite's results folder, atomically.

    Returns:
        What they were made of; `results.problems` says what was left out.

    Raises:
        ReportError: the folder holds no plan.
        OSError: the files cannot be written.
    """
    board = judge(read_results(folder))
    write_atomically(folder / "results.csv", results_csv(board.results, board.audit).encode())
    write_atomically(folder / "leaderboard.md", leaderboard(board).encode())
    return board
