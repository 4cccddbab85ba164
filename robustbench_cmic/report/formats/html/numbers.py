"""Every row of results.csv with all that is known of where it came from, each fact once."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.report.about import parameters
from robustbench_cmic.report.formats.csv import Row, rows
from robustbench_cmic.report.frame import CLEAN, size_of
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import NOTHING
from robustbench_cmic.suite import shipped_suites
from robustbench_cmic.suite.toy import MARK, SUFFIX

INFORMATION = ("ncmi", "cmi", "separation")
SPENT = ("forwards", "backwards", "seconds")
Said = Callable[[object], str]
RECORD = "record"
AGAIN = "to run it again"
ELSEWHERE = "mine"


@dataclass(frozen=True)
class Entry:
    """One number.

    Attributes:
        row: as in results.csv.
        size: norm and eps in words; `clean` for the clean evaluation.
        flags: names, in the row's order.
        measured, spent: numbers, each with what its column is sorted by.
        facts: where it came from, as places in `Everything.facts`.
    """

    row: Row
    size: str
    flags: list[str]
    measured: list[tuple[str, object]]
    spent: list[tuple[str, object]]
    facts: list[int]


@dataclass(frozen=True)
class Everything:
    """All numbers, and the facts that they share: label and text."""

    entries: list[Entry]
    facts: list[tuple[str, str]]


def all_numbers(board: Summary) -> Everything:
    """A row for each row of results.csv."""
    known: dict[tuple[str, str], int] = {}
    said = _remembered()
    entries = []
    for row in rows(board):
        record = board.results.records[str(row["cell"])]
        facts = [known.setdefault(fact, len(known)) for fact in provenance(board, record, said)]
        ball = (str(row["norm"]), float(str(row["eps"])))
        size = "clean" if ball == CLEAN else size_of(ball)
        flags = [name for name in str(row["flags"]).split(";") if name]
        entries.append(Entry(row, size, flags, _measures(row, flags), _numbers(row, SPENT), facts))
    return Everything(entries, list(known))


def _measures(row: Row, flags: list[str]) -> list[tuple[str, object]]:
    """Number of examples, accuracy, interval, information."""
    accuracy = f"{_percent(row, 'accuracy')}{' †' if flags else ''}"
    interval = f"{_percent(row, 'ci_low')} … {_percent(row, 'ci_high')}"
    shown = [(accuracy, row.get("accuracy", "")), (interval, row.get("ci_low", ""))]
    return [*_numbers(row, ("n",)), *shown, *_numbers(row, INFORMATION)]


def _percent(row: Row, name: str) -> str:
    value = row.get(name)
    return f"{100 * value:.1f}" if isinstance(value, float) else NOTHING


def _numbers(row: Row, names: Sequence[str]) -> list[tuple[str, object]]:
    """Numbers to three digits; integers as they are."""
    found = []
    for name in names:
        value = row.get(name, "")
        found.append((NOTHING if value == "" else f"{value:.3g}" if isinstance(value, float) else str(value), value))
    return found


def _remembered() -> Said:
    """`parameters`, worked out once for equal ones: a suite's rows share most of theirs."""
    texts: dict[str, str] = {}

    def said(value: object) -> str:
        key = str(value)
        if key not in texts:
            texts[key] = parameters(value) if isinstance(value, dict) else key
        return texts[key]

    return said


def provenance(board: Summary, record: AnyRecord, said: Said) -> Iterator[tuple[str, str]]:
    """All that a record knows of where it came from, and the command that makes it again.

    Args:
        board: of the record's suite.
        record: of any kind.
        said: writes parameters as text.
    """
    cell = record.cell
    yield RECORD, f"{cell.id}.json"
    yield AGAIN, _command(board.results.plan, cell)
    yield "schema", record.schema_
    yield "status", f"{record.status}: {record.reason}" if record.reason else record.status
    yield from _declared(cell, said)
    yield from _measured(record)
    yield from _known(record.provenance, said)
    yield "timing", parameters({key: value for key, value in record.timing if value is not None})
    for label, sha256 in (
        ("data, sha256", record.dataset_sha256),
        ("weights, sha256", record.checkpoint_sha256),
        ("examples, sha256", record.examples_sha256 if isinstance(record, AttackRecord) else None),
        ("adversarial examples, sha256", record.images_sha256 if isinstance(record, AttackRecord) else None),
    ):
        if sha256 is not None:
            yield label, sha256
    for other, sha256 in record.inputs.items():
        yield f"made from {other}, sha256", sha256


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


def _declared(cell: Cell, said: Said) -> Iterator[tuple[str, str]]:
    """Model, training, attack and evaluation with all parameters."""
    parts: Iterable[tuple[str, Any]] = ((cell.declared.get("train") or {}) | cell.declared).items()
    for label, value in parts:
        if label not in ("train", "norm", "eps", "seed") and value not in (None, {}):
            yield label, said(value)


def _measured(record: AnyRecord) -> Iterator[tuple[str, str]]:
    if isinstance(record, AttackRecord) and record.status == "ok":
        passes = {"forwards": record.forwards, "backwards": record.backwards}
        yield "passes", parameters(passes | {"projected back": record.outside, "kept from smaller balls": record.kept})
        for part in record.parts:
            yield f"part {part.name}", parameters(part.model_dump(exclude={"name"}))


def _known(provenance: Mapping[str, Any], said: Said) -> Iterator[tuple[str, str]]:
    """Code, versions, machine: whatever the record holds."""
    for label, value in provenance.items():
        if label == "commit":
            changed = " with uncommitted changes" if provenance.get("dirty") else ""
            yield "code", "unknown (not run from a checkout)" if value is None else f"{value}{changed}"
        elif label != "dirty" and value is not None:
            yield label, said(value)
