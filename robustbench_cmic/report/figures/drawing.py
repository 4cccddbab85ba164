"""What all figures share: their style, how models are told apart in them, and how they become files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import escape

from robustbench_cmic.report.strokes import LIGHT, ink, stroke
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FILE_TYPES = ("svg", "png", "pdf")
FLAGGED_WORDS = "flagged (open)"
"""Of a key."""
MISSING = {"diverged": "////", "incomplete": "...."}
"""Hatches of what has no number, by why."""
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "font.size": 9,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.5,
    "legend.fontsize": 8,
    "lines.scale_dashes": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "svg.hashsalt": "robustbench_cmic",
    "text.parse_math": False,
}
_POINTS = 0.5
"""Of a pixel of dashes."""
_KEY_ROW, _KEY_LINE, _KEY_LETTER = 0.18, 0.85, 0.072
"""Inches that a row of a key is high, and that its lines and letters are wide."""


class Drawing(NamedTuple):
    """One figure.

    Attributes:
        name: of its files, behind the suite's, without suffix; the same for equal suites, whatever their numbers.
        title: what it is, in a few words.
        text: what it shows, in sentences, for those who cannot see it.
    """

    name: str
    title: str
    text: str
    figure: Figure


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's own defaults and the style of these figures, whatever a user has set."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def new_figure(width: float, height: float, key: Sequence[str] = ()) -> Figure:
    """An empty figure of this size in inches, which no window shows, and room below for a key of these words."""
    from matplotlib.figure import Figure

    rows = -(-len(key) // _columns(key, width))
    return Figure(figsize=(width, height + _KEY_ROW * rows))


def _columns(words: Sequence[str], width: float) -> int:
    """How many words of a key, and their lines, stand beside each other in a figure of this width."""
    longest = max(map(len, words), default=1)
    return max(1, min(4, int(width / (_KEY_LINE + _KEY_LETTER * longest))))


def rendered(drawing: Drawing, suffix: str) -> bytes:
    """A file of one of `FILE_TYPES`; without times, so that equal figures give equal bytes."""
    file, title, text = io.BytesIO(), drawing.title, drawing.text
    metadata: dict[str, dict[str, Any]] = {
        "svg": {"Date": None, "Creator": None},
        "png": {"Software": None, "Title": title, "Description": text},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Title": title, "Subject": text},
    }
    with styled():
        drawing.figure.savefig(file, format=suffix, metadata=metadata[suffix])
    return _told(file.getvalue(), drawing) if suffix == "svg" else file.getvalue()


def _told(svg: bytes, drawing: Drawing) -> bytes:
    """An SVG file with title and description, which screen readers read out in place of its shapes."""
    title, desc = (f"{drawing.name}-{part}" for part in ("title", "desc"))
    said = f'<title id="{title}">{escape(drawing.title)}</title>\n <desc id="{desc}">{escape(drawing.text)}</desc>'
    head = f'<svg role="img" aria-labelledby="{title} {desc}" '
    return re.sub(r"<svg ([^>]*)>", lambda found: f"{head}{found[1]}>\n {said}", svg.decode(), count=1).encode()


def in_order(summary: Summary) -> list[str]:
    """The models of the first pair, then all others, in the suite's order."""
    first = next(iter(summary.results.plan.pairs), ())
    return list(dict.fromkeys([*first, *summary.results.models]))


def line_of(summary: Summary, model: str, **changes: Any) -> dict[str, Any]:
    """Colour, marker and dashes of a model, for matplotlib; those of the first pair are thicker and on top."""
    place = summary.results.models.index(model)
    own, dashes = stroke(place), ink(place)
    leads = model in next(iter(summary.results.plan.pairs), summary.results.models[:2])
    return {
        "color": own.color,
        "marker": own.marker,
        "linestyle": (0, tuple(_POINTS * pixels for pixels in dashes)) if dashes else "solid",
        "linewidth": 1.8 if leads else 1.1,
        "markersize": 5,
        "zorder": 3 if leads else 2,
        "label": model,
    } | changes


def mark_flagged(axes: Axes, line: Mapping[str, Any], x: Sequence[float], y: Sequence[float]) -> None:
    """Open, larger marks over the points of flagged numbers."""
    if x:
        opened: dict[str, Any] = {
            "linestyle": "none",
            "markerfacecolor": "white",
            "markersize": 8,
            "markeredgewidth": 1.5,
        }
        axes.plot(x, y, **{**line, **opened, "label": "_flagged", "zorder": 4})


def add_key(figure: Figure, axes: Sequence[Axes], flagged: bool = False) -> None:
    """One key of all models under the figure."""
    from matplotlib.lines import Line2D

    handles: dict[str, Line2D] = {}
    for each in axes:
        for line in each.get_lines():
            if not str(line.get_label()).startswith("_"):
                handles.setdefault(str(line.get_label()), line)
    if flagged:
        open_mark: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": "white", "color": "#333333"}
        handles[FLAGGED_WORDS] = Line2D([], [], markersize=8, **open_mark)
    columns = min(_columns(list(handles), figure.get_figwidth()), len(handles))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=columns, handlelength=5, frameon=False
    )


def heat(axes: Axes, values: Sequence[Sequence[float]], low: float, high: float) -> Any:
    """A map of numbers in the shared scale; NaN stays white."""
    import numpy as np

    from robustbench_cmic.report.strokes import HEAT

    image = axes.imshow(np.array(values, float), cmap=HEAT, vmin=low, vmax=high, aspect="auto")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def write_in(axes: Axes, row: int, column: int, text: str, share: float | None, why: str = "incomplete") -> None:
    """The text of a cell of a map, readable on its colour; a cell without a number is hatched.

    `share` is the place of its number on the scale, 0 ... 1; None where there is none.
    """
    if share is None:
        from matplotlib.patches import Rectangle

        hatched: dict[str, Any] = {
            "facecolor": "#f2f2f2",
            "edgecolor": "#8a8f98",
            "hatch": MISSING[why],
            "linewidth": 0,
        }
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **hatched))
    color = "white" if share is not None and share < LIGHT else "black"
    backed: dict[str, Any] | None = {"facecolor": "#f2f2f2", "edgecolor": "none", "pad": 1} if share is None else None
    axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color, bbox=backed)
