"""Every row of results.csv with where it came from, each fact once; the rest is in the record that the row links to."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.plan.command import suite_words
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.report.about import code_text, parameters
from robustbench_cmic.report.frame import plain_rows
from robustbench_cmic.report.metrics import ACCURACY, Metric
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import NOTHING
from robustbench_cmic.suite.fields import CLEAN, Threat

RECORD = "record"
AGAIN = "to run it again"


def all_numbers(summary: Summary) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """A row for each row of results.csv, and the facts that rows share.

    Returns:
        Rows: as in results.csv; with `size`, norm and eps in words; names of `raised` flags; `facts`, places in the
        second list, which says where numbers came from, by label and text.
    """
    places: dict[tuple[str, str], int] = {}
    rows = plain_rows(summary.frame)
    suite = suite_words(summary.results.plan)
    for row in rows:
        threat = Threat(row["norm"], row["eps"])
        facts = _origin(suite, summary.results.records[row["cell"]])
        row["size"] = "clean" if threat == CLEAN else str(threat)
        row["raised"] = [name for name in row["flags"].split(";") if name]
        row["facts"] = [places.setdefault(fact, len(places)) for fact in facts]
    return rows, list(places)


def number_text(metric: Metric, row: dict[str, Any]) -> str:
    """What the cell of a metric's column shows."""
    if metric.name == "ci_low":
        return " … ".join(ACCURACY.text(row[end]) if end in row else NOTHING for end in ("ci_low", "ci_high"))
    value = row.get(metric.name, "")
    text = NOTHING if value == "" else metric.text(value)
    return f"{text} †" if metric == ACCURACY and row["flags"] else text


def _origin(suite: Sequence[str], record: AnyRecord) -> Iterator[tuple[str, str]]:
    """Which record it is, the command that makes it again, and on which code, machine, weights and examples."""
    yield RECORD, f"{record.cell.id}.json"
    yield AGAIN, _command(suite, record.cell)
    yield "schema", record.schema_
    yield "status", f"{record.status}: {record.reason}" if record.reason else record.status
    for label, value in record.provenance.items():
        if label == "commit":
            yield "code", code_text(record.provenance)
        elif label != "dirty" and value is not None:
            yield label, parameters(value) if isinstance(value, dict) else str(value)
    yield "timing", parameters({key: value for key, value in record.timing if value is not None})
    hashes = {"weights": record.checkpoint_sha256, "examples": getattr(record, "examples_sha256", None)}
    yield from ((f"{label}, sha256", sha256) for label, sha256 in hashes.items() if sha256 is not None)


def _command(suite: Sequence[str], cell: Cell) -> str:
    """For a shell, beside the suite's file; results go to a folder of their own, so that none are overwritten."""
    evaluation = cell.declared.get("evaluation") or {}
    limit = ["--limit", str(evaluation.get("limit"))] if evaluation.get("by_command_line") else []
    words = ["run", *suite, "--only", cell.id, *limit, "--results", "mine"]
    return f"python -m robustbench_cmic {shlex.join(words)}"
