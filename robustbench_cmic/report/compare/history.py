"""`nightly.csv`: one line for every reproduction of a suite, kept beside its recorded results."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from unicodedata import category

import filelock
from pydantic import BeforeValidator, PlainSerializer, ValidationError

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.provenance import processor_text
from robustbench_cmic.report.compare.certificate import Certificate, Overall, largest_change_points
from robustbench_cmic.suite.fields import Frozen

HISTORY_FILE = "nightly.csv"


def _must(hold: Callable[[str], object], problem: str) -> BeforeValidator:
    """Let a value pass if its text holds; `problem` follows the name of its column in messages."""

    def check(value: object) -> object:
        if not hold(str(value)):
            raise ValueError(problem)
        return value

    return BeforeValidator(check)


def _is_date(text: str) -> bool:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_change(text: str) -> bool:
    try:
        return -100 <= float(text) <= 100
    except ValueError:
        return False


_Plain = Annotated[str, _must(lambda text: not any(category(c) == "Cc" for c in text), "holds control characters")]
_Date = Annotated[str, _must(_is_date, "is no time in ISO 8601")]
_Count = Annotated[int, _must(re.compile("[0-9]{1,9}").fullmatch, "is no count")]
_Points = Annotated[float, _must(_is_change, "is no number from -100 to 100"), PlainSerializer("{:.3f}".format)]


class HistoryRow(Frozen):
    """One reproduction; the fields are the columns, in order.

    Attributes:
        date: UTC, ISO 8601, when the run began.
        commit, torch, device, processor: of the run.
        cells: judged, of which the next six are counts by verdict.
        flipped_examples: summed over cells.
        largest_change_points: of an accuracy, in percentage points, signed.
        seconds: wall time.
        verdict: of the whole, as in the certificate.
    """

    date: _Date
    commit: _Plain
    torch: _Plain
    device: _Plain
    processor: _Plain
    cells: _Count
    bit_identical: _Count
    same_predictions: _Count
    within_interval: _Count
    drifted: _Count
    missing: _Count
    failed: _Count
    flipped_examples: _Count
    largest_change_points: _Points
    seconds: _Count
    verdict: Overall

    def count(self, verdict: str) -> int:
        """How many cells have a verdict."""
        return int(getattr(self, _column(verdict)))


COLUMNS = tuple(HistoryRow.model_fields)


def _column(verdict: str) -> str:
    return verdict.replace("-", "_").replace(" ", "_")


def history_row(certificate: Certificate) -> HistoryRow:
    """A certificate as a line of the history.

    Raises:
        ValueError: its environment is described in words that no line may hold.
    """
    here = certificate.environment_here
    fields: dict[str, Any] = {
        "date": certificate.started,
        "commit": here.get("commit", ""),
        "torch": here.get("versions.torch", ""),
        "device": here.get("device", ""),
        "processor": processor_text(here),
        "cells": len(certificate.cells),
        "flipped_examples": sum(len(cell.flipped) for cell in certificate.cells),
        "largest_change_points": round(largest_change_points(certificate.cells), 3),
        "seconds": round(certificate.seconds),
        "verdict": certificate.verdict,
    } | {_column(verdict): n for verdict, n in certificate.counts.items()}
    try:
        return HistoryRow.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"the new line is none of a history: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """The first problem of a line; that of its date only where there is no other."""
    first = min(error.errors(), key=lambda problem: problem["loc"] == ("date",))
    return f"{first['loc'][0]} {first.get('ctx', {}).get('error', 'is none')}"


def read_history(folder: Path) -> list[HistoryRow]:
    """The lines so far, oldest first; none where there is no file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no history: it is empty, has other columns, or lines that `append_row` did not write.
    """
    try:
        text = (folder / HISTORY_FILE).read_text(encoding="utf-8")
        return _rows(list(csv.reader(io.StringIO(text), strict=True)))
    except FileNotFoundError:
        return []
    except (csv.Error, ValueError) as error:  # text that is no UTF-8 is a ValueError
        raise ValueError(f"it is no history of reproductions: {error}") from None


def _rows(lines: list[list[str]]) -> list[HistoryRow]:
    if not lines:
        raise ValueError("it is empty")
    if tuple(lines[0]) != COLUMNS:
        raise ValueError("its columns are others")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(COLUMNS):
            raise ValueError(f"in line {number}, there are {len(line)} columns, not {len(COLUMNS)}")
        try:
            rows.append(HistoryRow.model_validate(dict(zip(COLUMNS, line, strict=True))))
        except ValidationError as error:
            raise ValueError(f"in line {number}, {_problem(error)}") from None
    return rows


def append_row(folder: Path, row: HistoryRow) -> list[HistoryRow]:
    """Add a line, atomically, under the lock of the results folder.

    Returns:
        All lines.

    Raises:
        OSError, ValueError: see `read_history`; nothing was changed then.
    """
    with filelock.FileLock(folder / ".lock", timeout=60):
        rows = [*read_history(folder), row]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(line.model_dump() for line in rows)
        write_atomically(folder / HISTORY_FILE, text.getvalue().encode())
    return rows
