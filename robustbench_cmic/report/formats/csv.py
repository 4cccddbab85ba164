"""`results.csv`, one row for each model x seed x attack x eps, and `models.csv`, one for each model x seed."""

from __future__ import annotations

from robustbench_cmic.report.frame import models_frame
from robustbench_cmic.report.metrics import COLUMNS
from robustbench_cmic.report.results import NOT_RUN
from robustbench_cmic.report.summary import Summary


def results_csv(summary: Summary) -> str:
    """The file's text: planned cells that have an outcome in the plan's order, then limited evaluations."""
    frame = summary.frame[summary.frame["status"] != NOT_RUN]
    return frame.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n")


def models_csv(summary: Summary) -> str:
    """The file's text: models in the suite's order, seed by seed."""
    frame = models_frame(summary.results, summary.frame, summary.audit)
    return frame.to_csv(index=False, lineterminator="\n")
