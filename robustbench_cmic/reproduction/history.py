"""`nightly.csv`: one line for every reproduction of a suite, kept beside its recorded results."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import filelock

from robustbench_cmic.record import write_atomically
from robustbench_cmic.reproduction.certificate import Certificate, largest_change_points

HISTORY_FILE = "nightly.csv"
COLUMNS = (
    "date", "commit", "torch", "device", "cells", "bit_identical", "same_predictions", "within_interval", "drifted",
    "missing", "failed", "flipped_examples", "largest_change_points", "seconds", "verdict",
)  # fmt: skip
"""date: UTC, when the run began; commit, torch, device: of the run; cells: judged, of which the next six are counts by
verdict; flipped_examples: summed over cells; largest_change_points: of an accuracy, in percentage points, signed;
seconds: wall time; verdict: of the whole, as in the certificate."""

Night = dict[str, str]


def column(verdict: str) -> str:
    """The column that counts a verdict."""
    return verdict.replace("-", "_").replace(" ", "_")


def night(certificate: Certificate) -> Night:
    """A certificate as a line of the history."""
    here = certificate.environment_here
    counts = {column(verdict): str(n) for verdict, n in certificate.counts.items()}
    return counts | {
        "date": certificate.started,
        "commit": here.get("commit", ""),
        "torch": here.get("versions.torch", ""),
        "device": here.get("device", ""),
        "cells": str(len(certificate.cells)),
        "flipped_examples": str(sum(len(cell.flipped) for cell in certificate.cells)),
        "largest_change_points": f"{largest_change_points(certificate.cells):.3f}",
        "seconds": f"{certificate.seconds:.0f}",
        "verdict": certificate.verdict,
    }


def read_history(folder: Path) -> list[Night]:
    """The lines so far, oldest first; none where there is no file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no history: other columns, or lines that are not whole.
    """
    try:
        text = (folder / HISTORY_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or tuple(lines[0]) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines):
        raise ValueError(f"{folder / HISTORY_FILE} is no history of reproductions: its columns are others")
    return [dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]]


def append_night(folder: Path, line: Night) -> list[Night]:
    """Add a line, atomically, under the lock of the results folder.

    Returns:
        All lines.

    Raises:
        OSError, ValueError: see `read_history`; nothing was changed then.
    """
    with filelock.FileLock(folder / ".lock", timeout=60):
        nights = [*read_history(folder), line]
        write_atomically(folder / HISTORY_FILE, _text(nights).encode())
    return nights


def _text(nights: Sequence[Night]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(nights)
    return text.getvalue()
