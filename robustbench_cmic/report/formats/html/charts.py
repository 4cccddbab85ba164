"""Charts as plain data for Plotly: accuracy over eps, and the differences of a pair.

Plotly reads some HTML in its texts; what comes from a suite is escaped. Colours of the page are set by its script.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from robustbench_cmic.report.frame import CLEAN, NORM_NAMES, Ball, models, size_of
from robustbench_cmic.report.pairs import NO_DISCORDANT, WITHDRAWN, PairTest
from robustbench_cmic.report.summary import RankedModel, SeedValues, Summary
from robustbench_cmic.report.tables import percent
from robustbench_cmic.suite.fields import format_eps

WORST = "worst case"
# Told apart in greys and by colour-blind eyes, and at least 3:1 on white and on the dark background.
COLORS = ("#2f7fc1", "#c8641b", "#2b8f6c", "#a65fb0", "#8a7a1f", "#c2476a", "#5b7088", "#4c8f1f")
DASHES = ("dot", "dash", "dashdot", "longdash", "longdashdot")
HEIGHT = 440
GREY = "#8a8f98"


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        id: of its element in the page.
        text: what it shows, in a sentence, for those who cannot see it.
        height: in pixels.
        figure: Plotly's data and layout.
        series: the attack that each trace is about, to choose by; empty where there is nothing to choose.
    """

    id: str
    text: str
    height: int
    figure: Mapping[str, Any]
    series: Sequence[str] = ()

    @property
    def choices(self) -> list[str]:
        """The attacks that may be shown beside the worst case."""
        return [name for name in dict.fromkeys(self.series) if name != WORST]


def curves(board: Summary, norm: str) -> Chart:
    """Accuracy of every model over the radii of a norm: the worst case and each attack."""
    inside = {ball: entries for ball, entries in board.standings.items() if ball[0] == norm}
    names = list(dict.fromkeys(name for entries in inside.values() for entry in entries for name in entry.attacks))
    clean = {entry.model: entry.accuracy for entry in board.clean}
    traces, series = [], []
    for place, model in enumerate(models(board.results)):
        own = {ball: entry for ball, entries in inside.items() for entry in entries if entry.model == model}
        for number, label in enumerate([WORST, *names]):
            points = {CLEAN: clean[model]} | {ball: _of(entry, label) for ball, entry in own.items()}
            if any(numbers.values for ball, numbers in points.items() if ball != CLEAN):
                traces.append(_curve(model, label, points, board.seeds, (place, number)))
                series.append(label)
    ticks = sorted({0.0} | {eps for _, eps in inside})
    layout = {
        "xaxis": {
            "title": {"text": f"eps ({NORM_NAMES[norm]})"},
            "tickvals": ticks,
            "ticktext": [format_eps(eps) for eps in ticks],
            "zeroline": False,
        },
        "yaxis": {"title": {"text": "accuracy %"}, "rangemode": "tozero"},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.25},
        "margin": {"t": 16, "r": 16, "l": 56, "b": 48},
    }
    text = f"Accuracy of {len(clean)} models over eps, {NORM_NAMES[norm]}. The table below it holds the same numbers."
    return Chart(f"curves-{norm}", text, HEIGHT, _figure(traces, layout), series)


def _of(entry: RankedModel, label: str) -> SeedValues:
    return entry.worst if label == WORST else entry.attacks.get(label, SeedValues({}))


def _curve(
    model: str, label: str, points: Mapping[Ball, SeedValues], seeds: int, place: tuple[int, int]
) -> dict[str, Any]:
    """A line with the standard deviation over seeds; where there is no number, it is broken."""
    index, attack = place
    color = COLORS[index % len(COLORS)]
    worst = label == WORST
    means = [None if number.mean is None else 100 * number.mean for number in points.values()]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{_text(model)}, {_text(label)}",
        "x": [eps for _, eps in points],
        "y": means,
        "error_y": {"type": "data", "array": [_deviation(number) for number in points.values()], "thickness": 1},
        "hovertext": [_said(model, label, ball, number, seeds) for ball, number in points.items()],
        "hoverinfo": "text",
        "visible": worst,
        "line": {
            "color": color,
            "width": 3 if worst else 1.5,
            "dash": "solid" if worst else DASHES[(attack - 1) % len(DASHES)],
        },
        "marker": {
            "color": color,
            "size": 8,
            "symbol": ["x-open" if number.flags else "circle" for number in points.values()],
        },
    }


def _deviation(number: SeedValues) -> float | None:
    return 100 * statistics.stdev(number.values.values()) if len(number.values) > 1 else None


def _said(model: str, label: str, ball: Ball, number: SeedValues, seeds: int) -> str:
    where = "clean, eps 0" if ball == CLEAN else f"{label}, eps {format_eps(ball[1])}"
    flags = f"flagged: {', '.join(number.flags)}" if number.flags else "not flagged"
    said = [f"accuracy %: {percent(number.values.values(), seeds)}", flags]
    return "<br>".join([f"<b>{_text(model)}</b>", _text(where), *(_text(line) for line in said)])


def forest(lines: Sequence[PairTest], names: tuple[str, str], identity: str) -> Chart | None:
    """The differences of a pair with their intervals over examples; None where there is none. NCMI has other units."""
    shown = [line for line in lines if line.what != "NCMI" and line.seeds]
    if not shown:
        return None
    kinds = {
        "claims": [line for line in shown if line.claim and not _withdrawn(line)],
        "single attacks": [line for line in shown if not line.claim and not _withdrawn(line)],
        "withdrawn: flagged": [line for line in shown if _withdrawn(line)],
    }
    colors = {"claims": COLORS[0], "single attacks": COLORS[4], "withdrawn: flagged": GREY}
    traces = [
        _differences(name, [(shown.index(line), line) for line in kind], colors[name])
        for name, kind in kinds.items()
        if kind
    ]
    title = f"{_text(names[1])} minus {_text(names[0])} (points)"
    layout = {
        "xaxis": {"title": {"text": title}, "zeroline": True, "zerolinewidth": 2},
        "yaxis": {
            "tickvals": list(range(len(shown))),
            "ticktext": [_label(line) for line in shown],
            "range": [len(shown) - 0.5, -0.5],
            "automargin": True,
        },
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        "margin": {"t": 8, "r": 16, "l": 16, "b": 48},
    }
    counted = f"Differences of {len(shown)} accuracies, {names[1]} minus {names[0]}."
    text = f"{counted} The table below it holds the same numbers."
    return Chart(identity, text, 150 + 24 * len(shown), _figure(traces, layout))


def _withdrawn(line: PairTest) -> bool:
    return line.verdict.startswith(WITHDRAWN)


def _differences(name: str, lines: Sequence[tuple[int, PairTest]], color: str) -> dict[str, Any]:
    means = [100 * statistics.fmean(seed.difference for seed in line.seeds.values()) for _, line in lines]
    ends = [(mean, mean) if line.interval is None else (100 * line.interval[0], 100 * line.interval[1])
            for mean, (_, line) in zip(means, lines, strict=True)]  # fmt: skip
    said = []
    for mean, (_, line) in zip(means, lines, strict=True):
        said.append(f"<b>{_where(line)}</b><br>{mean:+.1f} points<br>{_interval(line)}<br>{_text(line.verdict)}")
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": means,
        "y": [place for place, _ in lines],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
            "arrayminus": [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
            "thickness": 2,
        },
        "hovertext": said,
        "hoverinfo": "text",
        "marker": {"color": color, "size": 9, "symbol": "square" if name == "claims" else "circle"},
    }


def _interval(line: PairTest) -> str:
    if line.alike:
        return NO_DISCORDANT
    if line.interval is None:
        return "no interval"
    return f"95 % over examples: {100 * line.interval[0]:+.1f} … {100 * line.interval[1]:+.1f}"


def _label(line: PairTest) -> str:
    return f"<b>{_where(line)}</b>" if line.claim and not _withdrawn(line) else _where(line)


def _where(line: PairTest) -> str:
    return "clean" if line.ball == CLEAN else _text(f"{line.what}, {size_of(line.ball)}")


def _text(text: str) -> str:
    """A suite's own words for Plotly."""
    return escape(text, quote=False)


def _figure(traces: list[dict[str, Any]], layout: dict[str, Any]) -> Mapping[str, Any]:
    """The figure as Plotly's Python package checks and writes it."""
    import plotly.graph_objects as go  # a third of a second, which other formats do without

    common = {"autosize": True, "dragmode": False, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
    figure: Mapping[str, Any] = go.Figure(data=traces, layout=layout | common).to_plotly_json()
    return figure
