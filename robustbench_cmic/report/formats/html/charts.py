"""Charts as plain data for Plotly: accuracy over eps, and the differences of a pair.

Plotly reads some HTML in its texts; what comes from a suite is escaped. Colours of the page are set by its script.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import ACCURACY, NCMI
from robustbench_cmic.report.pairs import NO_DISCORDANT, PairTest
from robustbench_cmic.report.summary import SeedValues, Summary
from robustbench_cmic.report.tables import percent
from robustbench_cmic.suite.fields import CLEAN, NORM_NAMES, Threat, format_eps

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
        """The attacks that may be drawn beside the worst case."""
        return [name for name in dict.fromkeys(self.series) if name != WORST]


def curves(summary: Summary, norm: str) -> Chart:
    """Accuracy of every model over the radii of a norm: the worst case and each attack."""
    results = summary.results
    threats = [threat for threat in results.threats if threat.norm == norm]
    labels = list(dict.fromkeys(label for threat in threats for label in summary.attacks(threat)))
    traces, series = [], []
    for place, model in enumerate(results.models):
        for number, label in enumerate([WORST, *labels]):
            attacked = {threat: summary.values(model, label, threat) for threat in threats}
            if any(numbers.values for numbers in attacked.values()):
                points = {CLEAN: summary.values(model, "none", CLEAN)} | attacked
                traces.append(_curve(model, label, points, results.seeds, (place, number)))
                series.append(label)
    ticks = sorted({0.0, *(threat.eps for threat in threats)})
    layout = {
        "xaxis": {
            "title": {"text": f"eps ({NORM_NAMES[norm]})"},
            "tickvals": ticks,
            "ticktext": [format_eps(eps) for eps in ticks],
            "zeroline": False,
        },
        "yaxis": {"title": {"text": ACCURACY.head}, "rangemode": "tozero"},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": -0.25},
        "margin": {"t": 16, "r": 16, "l": 56, "b": 48},
    }
    what = f"Accuracy of {len(results.models)} models over eps, {NORM_NAMES[norm]}."
    text = f"{what} The table below it holds the same numbers."
    return Chart(f"curves-{norm}", text, HEIGHT, _figure(traces, layout), series)


def _curve(
    model: str, label: str, points: Mapping[Threat, SeedValues], seeds: int, place: tuple[int, int]
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
        "x": [threat.eps for threat in points],
        "y": means,
        "error_y": {"type": "data", "array": [_deviation(number) for number in points.values()], "thickness": 1},
        "hovertext": [_hover(model, label, threat, number, seeds) for threat, number in points.items()],
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


def _hover(model: str, label: str, threat: Threat, number: SeedValues, seeds: int) -> str:
    where = "clean, eps 0" if threat == CLEAN else f"{label}, eps {format_eps(threat.eps)}"
    flags = f"flagged: {', '.join(number.flags)}" if number.flags else "not flagged"
    lines = [where, f"{ACCURACY.head}: {percent(number.values.values(), seeds)}", flags]
    return "<br>".join([f"<b>{_text(model)}</b>", *map(_text, lines)])


def forest(lines: Sequence[PairTest], names: tuple[str, str], identity: str) -> Chart | None:
    """The differences of a pair with their intervals over examples; None where there is none. NCMI has other units."""
    drawn = [line for line in lines if line.what != NCMI.title and line.seeds]
    if not drawn:
        return None
    kinds = {
        "claims": [line for line in drawn if line.claim and not line.withdrawn],
        "single attacks": [line for line in drawn if not line.claim and not line.withdrawn],
        "withdrawn: flagged": [line for line in drawn if line.withdrawn],
    }
    colors = {"claims": COLORS[0], "single attacks": COLORS[4], "withdrawn: flagged": GREY}
    traces = [
        _differences(name, [(drawn.index(line), line) for line in kind], colors[name])
        for name, kind in kinds.items()
        if kind
    ]
    title = f"{_text(names[1])} minus {_text(names[0])} (points)"
    layout = {
        "xaxis": {"title": {"text": title}, "zeroline": True, "zerolinewidth": 2},
        "yaxis": {
            "tickvals": list(range(len(drawn))),
            "ticktext": [_label(line) for line in drawn],
            "range": [len(drawn) - 0.5, -0.5],
            "automargin": True,
        },
        "hovermode": "closest",
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        "margin": {"t": 8, "r": 16, "l": 16, "b": 48},
    }
    counted = f"Differences of {len(drawn)} accuracies, {names[1]} minus {names[0]}."
    text = f"{counted} The table below it holds the same numbers."
    return Chart(identity, text, 150 + 24 * len(drawn), _figure(traces, layout))


def _differences(name: str, lines: Sequence[tuple[int, PairTest]], color: str) -> dict[str, Any]:
    means = [100 * statistics.fmean(line.differences) for _, line in lines]
    ends = [(mean, mean) if line.interval is None else (100 * line.interval[0], 100 * line.interval[1])
            for mean, (_, line) in zip(means, lines, strict=True)]  # fmt: skip
    hover = []
    for mean, (_, line) in zip(means, lines, strict=True):
        hover.append(f"<b>{_text(line.name)}</b><br>{mean:+.1f} points<br>{_interval(line)}<br>{_text(line.verdict)}")
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
        "hovertext": hover,
        "hoverinfo": "text",
        "marker": {"color": color, "size": 9, "symbol": "square" if name == "claims" else "circle"},
    }


def _interval(line: PairTest) -> str:
    if line.no_discordant:
        return NO_DISCORDANT
    if line.interval is None:
        return "no interval"
    return f"95 % over examples: {100 * line.interval[0]:+.1f} … {100 * line.interval[1]:+.1f}"


def _label(line: PairTest) -> str:
    return f"<b>{_text(line.name)}</b>" if line.claim and not line.withdrawn else _text(line.name)


def _text(text: str) -> str:
    """A suite's own words for Plotly."""
    return escape(text, quote=False)


def _figure(traces: list[dict[str, Any]], layout: dict[str, Any]) -> Mapping[str, Any]:
    """The figure as Plotly's Python package checks and writes it."""
    import plotly.graph_objects as go  # a third of a second, which other formats do without

    common = {"autosize": True, "dragmode": False, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
    figure: Mapping[str, Any] = go.Figure(data=traces, layout=layout | common).to_plotly_json()
    return figure
