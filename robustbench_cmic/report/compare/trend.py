"""`nightly.svg`: the verdicts and the largest change of accuracy, night by night. Equal histories give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.report.compare.history import HistoryRow, column
from robustbench_cmic.report.compare.verdicts import VERDICTS

TREND_FILE = "nightly.svg"
_NIGHTS_SHOWN = 90
# Okabe & Ito 2008: told apart by readers with any kind of colour vision.
_COLOURS = ("#009E73", "#56B4E9", "#F0E442", "#D55E00", "#999999", "#000000")


def write_trend(folder: Path, suite: str, nights: Sequence[HistoryRow]) -> None:
    """Draw the last nights beside the history.

    Raises:
        OSError: the file cannot be written.
        ValueError: a line is none that `history.read_history` would return.
    """
    write_atomically(folder / TREND_FILE, trend_svg(suite, nights).encode())


def trend_svg(suite: str, nights: Sequence[HistoryRow]) -> str:
    """The picture: stacked counts of verdicts above, the size of the largest change of accuracy below."""
    import matplotlib as mpl  # takes half a second, and only the trend needs it
    from matplotlib.figure import Figure

    shown = nights[-_NIGHTS_SHOWN:]
    places = range(len(shown))
    title = f"Nightly reproductions of {suite}"
    with mpl.rc_context({"svg.hashsalt": "robustbench_cmic", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        below = [0] * len(shown)
        for verdict, colour in zip(VERDICTS, _COLOURS, strict=True):
            counts = [int(line[column(verdict)]) for line in shown]
            upper.bar(places, counts, bottom=below, color=colour, label=verdict)
            below = [a + b for a, b in zip(below, counts, strict=True)]
        upper.set_ylabel("cells")
        figure.suptitle(title)
        figure.legend(*upper.get_legend_handles_labels(), fontsize="small", ncols=6, loc="outside lower center")
        lower.plot(places, [abs(float(line["largest_change_points"])) for line in shown], marker="o", color="#0072B2")
        lower.set_ylabel("largest change of\naccuracy (points)")
        lower.set_ylim(bottom=0)
        every = max(1, len(shown) // 12)
        lower.set_xticks(places[::every], [line["date"][:10] for line in shown[::every]], rotation=45, ha="right")
        text = io.StringIO()
        description = "; ".join(f"{line['date'][:10]}: {line['verdict']}" for line in shown[-5:])
        metadata = {"Title": title, "Description": f"Latest: {description}", "Date": None, "Creator": None}
        figure.savefig(text, format="svg", metadata=metadata)
    return text.getvalue()
