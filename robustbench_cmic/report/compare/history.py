"""`nightly.csv`: one line for every reproduction of a suite, kept beside its recorded results."""

from __future__ import annotations

import csv
import datetime
import io
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import filelock

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.provenance import processor_text
from robustbench_cmic.report.compare.certificate import Certificate, Overall, largest_change_points

HISTORY_FILE = "nightly.csv"
COLUMNS = (
    "date", "commit", "torch", "device", "processor", "cells", "bit_identical", "same_predictions", "within_interval",
    "drifted", "missing", "failed", "flipped_examples", "largest_change_points", "seconds", "verdict",
)  # fmt: skip
"""date: UTC, when the run began; commit, torch, device, processor: of the run; cells: judged, of which the next six are
counts by verdict; flipped_examples: summed over cells; largest_change_points: of an accuracy, in percentage points,
signed; seconds: wall time; verdict: of the whole, as in the certificate."""

_COUNTS = (*COLUMNS[COLUMNS.index("cells") : COLUMNS.index("largest_change_points")], "seconds")
_LONGEST_COUNT = 9

HistoryRow = dict[str, str]


def column(verdict: str) -> str:
    """The column that counts a verdict."""
    return verdict.replace("-", "_").replace(" ", "_")


def history_row(certificate: Certificate) -> HistoryRow:
    """A certificate as a line of the history."""
    here = certificate.environment_here
    counts = {column(verdict): str(n) for verdict, n in certificate.counts.items()}
    return counts | {
        "date": certificate.started,
        "commit": here.get("commit", ""),
        "torch": here.get("versions.torch", ""),
        "device": here.get("device", ""),
        "processor": processor_text(here),
        "cells": str(len(certificate.cells)),
        "flipped_examples": str(sum(len(cell.flipped) for cell in certificate.cells)),
        "largest_change_points": f"{largest_change_points(certificate.cells):.3f}",
        "seconds": f"{certificate.seconds:.0f}",
        "verdict": certificate.verdict,
    }


def read_history(folder: Path) -> list[HistoryRow]:
    """The lines so far, oldest first; none where there is no file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no history: it is empty, has other columns, or lines that `append_night` did not write.
    """
    file = folder / HISTORY_FILE
    try:
        lines = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8")), strict=True))
    except FileNotFoundError:
        return []
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"it is no history of reproductions: {error}") from None
    if not lines:
        raise ValueError("it is no history of reproductions: it is empty")
    if tuple(lines[0]) != COLUMNS:
        raise ValueError("it is no history of reproductions: its columns are others")
    for number, line in enumerate(lines[1:], 2):
        if wrong := next(_wrong(line), None):
            raise ValueError(f"it is no history of reproductions: in line {number}, {wrong}")
    return [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]


def _wrong(line: Sequence[str]) -> Iterator[str]:
    """What makes a line none of the history."""
    if len(line) != len(COLUMNS):
        yield f"there are {len(line)} columns, not {len(COLUMNS)}"
        return
    named = dict(zip(COLUMNS, line, strict=True))
    yield from (f"{name} holds control characters" for name, value in named.items() if not _plain(value))
    yield from (f"{name} is no count" for name in _COUNTS if not _is_count(named[name]))
    if not _is_change(named["largest_change_points"]):
        yield "largest_change_points is no number from -100 to 100"
    if not _is_date(named["date"]):
        yield "date is no time in ISO 8601"
    if named["verdict"] not in get_args(Overall):
        yield "verdict is none"


def _plain(text: str) -> bool:
    return not any(unicodedata.category(character) == "Cc" for character in text)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_COUNT


def _is_change(text: str) -> bool:
    try:
        return -100 <= float(text) <= 100
    except ValueError:
        return False


def _is_date(text: str) -> bool:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def append_night(folder: Path, line: HistoryRow) -> list[HistoryRow]:
    """Add a line, atomically, under the lock of the results folder.

    Returns:
        All lines.

    Raises:
        OSError, ValueError: see `read_history`, or the line is none; nothing was changed then.
    """
    if wrong := next(_wrong([line[name] for name in COLUMNS]), None):
        raise ValueError(f"the new line is none of a history: {wrong}")
    with filelock.FileLock(folder / ".lock", timeout=60):
        nights = [*read_history(folder), line]
        write_atomically(folder / HISTORY_FILE, _text(nights).encode())
    return nights


def _text(nights: Sequence[HistoryRow]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(nights)
    return text.getvalue()
