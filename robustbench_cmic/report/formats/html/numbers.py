"""Every row of results.csv with where it came from, each fact once; the rest is in the record that the row links to."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.report.about import parameters
from robustbench_cmic.report.frame import plain_rows
from robustbench_cmic.report.metrics import ACCURACY, FOR_PEOPLE, Metric
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import NOTHING
from robustbench_cmic.suite import shipped_suites
from robustbench_cmic.suite.fields import CLEAN, Threat
from robustbench_cmic.suite.toy import MARK, SUFFIX

RECORD = "record"
AGAIN = "to run it again"
ELSEWHERE = "mine"


@dataclass(frozen=True)
class Entry:
    """One row.

    Attributes:
        row: as in results.csv.
        size: norm and eps in words; `clean` for the clean evaluation.
        flags: names, in the row's order.
        measured, spent: the numbers as texts, each with what its column is sorted by.
        facts: where they came from, as places in `Everything.facts`.
    """

    row: dict[str, Any]
    size: str
    flags: list[str]
    measured: list[tuple[str, object]]
    spent: list[tuple[str, object]]
    facts: list[int]


@dataclass(frozen=True)
class Everything:
    """All rows, and the facts that they share: label and text."""

    entries: list[Entry]
    facts: list[tuple[str, str]]


def all_numbers(summary: Summary) -> Everything:
    """A row for each row of results.csv."""
    places: dict[tuple[str, str], int] = {}
    entries = []
    for row in plain_rows(summary.frame):
        facts = _origin(summary.results.plan, summary.results.records[row["cell"]])
        threat = Threat(row["norm"], row["eps"])
        measured, spent = (
            [(_text(metric, row), row.get(metric.name, "")) for metric in FOR_PEOPLE if metric.spent is spent]
            for spent in (False, True)
        )
        size = "clean" if threat == CLEAN else str(threat)
        flags = [name for name in row["flags"].split(";") if name]
        entries.append(Entry(row, size, flags, measured, spent, [places.setdefault(f, len(places)) for f in facts]))
    return Everything(entries, list(places))


def _text(metric: Metric, row: dict[str, Any]) -> str:
    if metric.name == "ci_low":
        return " … ".join(ACCURACY.text(row[end]) if end in row else NOTHING for end in ("ci_low", "ci_high"))
    value = row.get(metric.name, "")
    text = NOTHING if value == "" else metric.text(value)
    return f"{text} †" if metric == ACCURACY and row["flags"] else text


def _origin(plan: Plan, record: AnyRecord) -> Iterator[tuple[str, str]]:
    """Which record it is, the command that makes it again, and on which code, machine, weights and examples."""
    yield RECORD, f"{record.cell.id}.json"
    yield AGAIN, _command(plan, record.cell)
    yield "schema", record.schema_
    yield "status", f"{record.status}: {record.reason}" if record.reason else record.status
    for label, value in record.provenance.items():
        if label == "commit":
            changed = " with uncommitted changes" if record.provenance.get("dirty") else ""
            yield "code", "unknown (not run from a checkout)" if value is None else f"{value}{changed}"
        elif label != "dirty" and value is not None:
            yield label, parameters(value) if isinstance(value, dict) else str(value)
    yield "timing", parameters({key: value for key, value in record.timing if value is not None})
    if record.checkpoint_sha256 is not None:
        yield "weights, sha256", record.checkpoint_sha256
    if isinstance(record, AttackRecord) and record.examples_sha256 is not None:
        yield "examples, sha256", record.examples_sha256


def _command(plan: Plan, cell: Cell) -> str:
    """For a shell, beside the suite's file; results go to a folder of their own, so that none are overwritten."""
    evaluation = cell.declared.get("evaluation") or {}
    limit = f" --limit {evaluation.get('limit')}" if evaluation.get("by_command_line") else ""
    suite = _suite(plan.suite, plan.description)
    return f"python -m robustbench_cmic run {suite} --only {shlex.quote(cell.id)}{limit} --results {ELSEWHERE}"


@functools.lru_cache(maxsize=1)  # asked for every row; which suites come along is looked up in the file system
def _suite(suite: str, description: str) -> str:
    """What `run` knows the suite by: the name of one that comes along, or a file, as far as a plan can tell."""
    at_toy_size = suite.endswith(SUFFIX) and MARK in description
    name = suite.removesuffix(SUFFIX) if at_toy_size else suite
    file = name if name in shipped_suites() else f"{name}.yaml"
    return f"{shlex.quote(file)} --toy" if at_toy_size else shlex.quote(file)
