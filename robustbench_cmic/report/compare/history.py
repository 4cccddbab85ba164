"""`nightly.csv` and `nightly.svg` beside the recorded results: every reproduction, one line each, and their picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import filelock
from pydantic import Field, PlainSerializer, ValidationError

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.provenance import processor_text
from robustbench_cmic.report.compare.certificate import VERDICTS, Certificate, Overall
from robustbench_cmic.suite.fields import Frozen
from robustbench_cmic.suite.files import read_regular

HISTORY_FILE, TREND_FILE = "nightly.csv", "nightly.svg"
_MAX_NIGHTS = 90
# Okabe & Ito 2008: told apart by readers with any kind of colour vision.
_COLOURS = ("#009E73", "#56B4E9", "#F0E442", "#D55E00", "#999999", "#000000")

# The descriptions say what is wrong with other values.
_Plain = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$", description="holds control characters")]
_Date = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.+-]+Z?)?$", description="is no time in ISO 8601")
]
_Count = Annotated[int, Field(ge=0, lt=10**9, description="is no count")]
_Change = Field(ge=-100, le=100, description="is no number from -100 to 100")


def _three_digits(value: float) -> str:
    return f"{value:.3f}"


_Points = Annotated[float, _Change, PlainSerializer(_three_digits)]


class HistoryRow(Frozen):
    """One reproduction; the fields are the columns, in order.

    Attributes:
        date: UTC, when the run began.
        cells: judged, of which the next six are counts by verdict.
        flipped_examples: summed over cells.
        largest_change_points: of an accuracy, in percentage points, signed.
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
    verdict: Overall = Field(description="is none")


HISTORY_COLUMNS = tuple(HistoryRow.model_fields)
_COUNTERS = {verdict: verdict.replace("-", "_").replace(" ", "_") for verdict in VERDICTS}
"""The column that counts a verdict."""


def add_to_history(certificate: Certificate, folder: Path) -> list[str]:
    """Add a reproduction to the history of a results folder, and draw it; returns what stood in the way."""
    failure = f"{folder / HISTORY_FILE} is left as it was"
    try:
        rows = append_row(folder, history_row(certificate))
        failure = f"{folder / TREND_FILE} is not drawn"
        write_atomically(folder / TREND_FILE, trend_svg(certificate.suite, rows).encode())
    except (OSError, ValueError) as error:
        return [f"{failure}: {error}"]
    return []


def history_row(certificate: Certificate) -> HistoryRow:
    """A certificate as a line of the history.

    Raises:
        ValueError: its environment is described in words that no line may hold.
    """
    here, cells = certificate.environment_here, certificate.cells
    largest = max([cell.change_points for cell in cells], key=abs, default=0.0)
    fields: dict[str, Any] = {
        "date": certificate.started,
        "commit": here.get("commit", ""),
        "torch": here.get("versions.torch", ""),
        "device": here.get("device", ""),
        "processor": processor_text(here),
        "cells": len(cells),
        "flipped_examples": sum(len(cell.flipped) for cell in cells),
        "largest_change_points": round(largest, 3),
        "seconds": round(certificate.seconds),
        "verdict": certificate.verdict,
    }
    fields |= {_COUNTERS[name]: certificate.counts[name] for name in VERDICTS}
    return _row(fields, "the new line is none of a history:")


def _row(fields: Mapping[str, Any], what: str) -> HistoryRow:
    """A checked line; the error is about its first problem, and that of its date only if there is no other."""
    try:
        return HistoryRow.model_validate(fields)
    except ValidationError as error:
        column = str(min(error.errors(), key=lambda problem: problem["loc"] == ("date",))["loc"][0])
        raise ValueError(f"{what} {column} {HistoryRow.model_fields[column].description}") from None


def read_history(folder: Path) -> list[HistoryRow]:
    """The lines so far, oldest first; none where there is no file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no history: it is empty, has other columns, or lines that `append_row` did not write.
    """
    rows = []
    try:
        text = read_regular(folder / HISTORY_FILE).decode()
        lines = list(csv.reader(io.StringIO(text), strict=True))
        if not lines:
            raise ValueError("it is empty")
        if tuple(lines[0]) != HISTORY_COLUMNS:
            raise ValueError("its columns are others")
        for number, line in enumerate(lines[1:], 2):
            if len(line) != len(HISTORY_COLUMNS):
                raise ValueError(f"in line {number}, there are {len(line)} columns, not {len(HISTORY_COLUMNS)}")
            rows.append(_row(dict(zip(HISTORY_COLUMNS, line, strict=True)), f"in line {number},"))
    except FileNotFoundError:
        return []
    except (csv.Error, ValueError) as error:  # text that is no UTF-8 is a ValueError
        raise ValueError(f"it is no history of reproductions: {error}") from None
    return rows


def append_row(folder: Path, row: HistoryRow) -> list[HistoryRow]:
    """Add a line, atomically, under the lock of the results folder; returns all lines.

    Raises:
        OSError, ValueError: see `read_history`; nothing was changed then.
    """
    with filelock.FileLock(folder / ".lock", timeout=60):
        rows = [*read_history(folder), row]
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(line.model_dump() for line in rows)
        write_atomically(folder / HISTORY_FILE, text.getvalue().encode())
    return rows


def trend_svg(suite: str, rows: Sequence[HistoryRow]) -> str:
    """The last nights: stacked counts of verdicts above, the size of the largest change of accuracy below."""
    import matplotlib as mpl  # takes half a second, and only the trend needs it
    from matplotlib.figure import Figure

    rows = rows[-_MAX_NIGHTS:]
    places = range(len(rows))
    title = f"Nightly reproductions of {suite}"
    with mpl.rc_context({"svg.hashsalt": "robustbench_cmic", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        below = [0] * len(rows)
        for verdict, colour in zip(VERDICTS, _COLOURS, strict=True):
            counts = [getattr(row, _COUNTERS[verdict]) for row in rows]
            upper.bar(places, counts, bottom=below, color=colour, label=verdict)
            below = [a + b for a, b in zip(below, counts, strict=True)]
        upper.set_ylabel("cells")
        figure.suptitle(title)
        figure.legend(*upper.get_legend_handles_labels(), fontsize="small", ncols=6, loc="outside lower center")
        lower.plot(places, [abs(row.largest_change_points) for row in rows], marker="o", color="#0072B2")
        lower.set_ylabel("largest change of\naccuracy (points)")
        lower.set_ylim(bottom=0)
        every = max(1, len(rows) // 12)
        lower.set_xticks(places[::every], [row.date[:10] for row in rows[::every]], rotation=45, ha="right")
        text = io.StringIO()
        description = "; ".join(f"{row.date[:10]}: {row.verdict}" for row in rows[-5:])
        metadata = {"Title": title, "Description": f"Latest: {description}", "Date": None, "Creator": None}
        figure.savefig(text, format="svg", metadata=metadata)
    return text.getvalue()
