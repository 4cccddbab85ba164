"""`results.csv`: one row for each model x seed x attack x eps. Its columns and their order are a contract."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.summary import Summary

COLUMNS = (
    "suite", "dataset", "model", "architecture", "objective", "seed", "attack", "norm", "eps", "n", "accuracy",
    "ci_low", "ci_high", "cmi", "separation", "ncmi", "status", "flags", "forwards", "backwards", "seconds", "cell",
)  # fmt: skip

Row = dict[str, object]


def results_csv(board: Summary) -> str:
    """The file's text: planned cells in the plan's order, then limited evaluations, flagged `limited`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(board))
    return text.getvalue()


def rows(board: Summary) -> Iterator[Row]:
    """A row for each attack cell that has an outcome; cells not run yet have none."""
    results = board.results
    for cell in results.plan.of("attack"):
        row = _row(results, cell)
        if row is not None:
            yield row | {"flags": ";".join(dict.fromkeys(flag.name for flag in board.audit.of_cell(cell)))}
    for cell in results.limited:
        row = _row(results, cell)
        if row is not None:
            yield row | {"flags": "limited"}


def _row(results: Results, cell: Cell) -> Row | None:
    row: Row = {
        "suite": results.plan.suite,
        "dataset": results.plan.dataset,
        "model": cell.model,
        "architecture": cell.architecture,
        "objective": cell.objective,
        "seed": cell.seed,
        "attack": cell.attack,
        "norm": cell.norm,
        "eps": cell.eps,
        "cell": cell.id,
    }
    trainings = [results.records.get(other or "") for other in (cell.needs, cell.source)]
    training = next((record for record in trainings if record is not None and record.status != "ok"), None)
    if training is not None:
        # The training's record says why; its clean row carries its fate, the attacks on it were never begun.
        status = training.status if cell.attack == "none" else "skipped"
        return row | {"status": status, "cell": training.cell.id}
    record = results.records.get(cell.id)
    if not isinstance(record, AttackRecord):
        return None
    return row | {"status": record.status, "seconds": record.timing.seconds} | _measured(record)


def _measured(record: AttackRecord) -> Row:
    if record.information is None:
        return {}
    information = record.information
    return {
        "n": record.n,
        "accuracy": record.accuracy,
        "ci_low": record.ci_low,
        "ci_high": record.ci_high,
        "cmi": information.cmi,
        "separation": information.separation,
        "ncmi": "" if information.ncmi is None else information.ncmi,
        "forwards": record.forwards,
        "backwards": record.backwards,
    }
