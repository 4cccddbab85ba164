"""`nightly.svg`: the verdicts and the largest change of accuracy, night by night. Equal histories give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.report.compare.history import HistoryRow
from robustbench_cmic.report.compare.verdicts import VERDICTS

TREND_FILE = "nightly.svg"
_MAX_NIGHTS = 90
# Okabe & Ito 2008: told apart by readers with any kind of colour vision.
_COLOURS = ("#009E73", "#56B4E9", "#F0E442", "#D55E00", "#999999", "#000000")


def write_trend(folder: Path, suite: str, rows: Sequence[HistoryRow]) -> None:
    """Draw the last nights beside the history.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(folder / TREND_FILE, trend_svg(suite, rows).encode())


def trend_svg(suite: str, rows: Sequence[HistoryRow]) -> str:
    """The picture: stacked counts of verdicts above, the size of the largest change of accuracy below."""
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
            counts = [row.count(verdict) for row in rows]
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
