"""Charts as plain data for Plotly: accuracy over eps, and the differences of a pair.

Plotly reads some HTML in its texts; what comes from a suite is escaped. Colours of the page are set by its script.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, NamedTuple

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.report.strokes import COLORS, Stroke, stroke
from robustbench_cmic.report.summary import SeedValues, Summary
from robustbench_cmic.report.tables import interval_text, spread
from robustbench_cmic.suite.fields import CLEAN, NORM_NAMES, Threat, format_eps

KINDS = {"claims": COLORS[0], "single attacks": COLORS[4], "withdrawn: flagged": "#8a8f98"}
"""Of differences, with their colours."""
OPENING = (WORST, "FGSM", "FGSM-margin")
"""What curves open with: one step on the loss, the same step on the margin between logits, and what survives all."""

plotly_text = partial(escape, quote=False)
"""A suite's own words for Plotly."""


class Choice(NamedTuple):
    """A model or an attack whose curves a reader may show or hide.

    Attributes:
        checked: whether they are drawn before anything is chosen.
        glyph, color: of a model's curves; empty for an attack.
    """

    name: str
    checked: bool
    glyph: str = ""
    color: str = ""


class Frames(NamedTuple):
    """An animation.

    Attributes:
        what: its steps are, such as `epoch`.
        traces: places of the traces that move.
        steps: of each its `label`, `x` and `y` of these traces, and `texts` of the layout's first annotations.
    """

    what: str
    traces: Sequence[int]
    steps: Sequence[Mapping[str, Any]]


class Chart(NamedTuple):
    """A chart.

    Attributes:
        id: of its element in the page.
        text: what it shows, in a sentence, for those who cannot see it.
        height: in pixels, without its key, where that grows with what is chosen.
        figure: Plotly's data and layout.
        curves: model and attack of each trace, to choose by; empty where there is nothing to choose.
        models, attacks: what may be chosen.
        frames: what moves over an animation.
        below: what stands below it, for those who cannot see it; empty where nothing does.
    """

    id: str
    text: str
    height: int
    figure: Mapping[str, Any]
    curves: Sequence[tuple[str, str]] = ()
    models: Sequence[Choice] = ()
    attacks: Sequence[Choice] = ()
    frames: Frames | None = None
    below: str = "The table below it holds the same numbers."


def opening_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a page opens with: the first pair, and the next one with the same first model.

    With a baseline and two readings of a method, that is both readings side by side.
    """
    known = list(pairs)
    return [pair for pair in known if pair[0] == known[0][0]][:2]


def curves(summary: Summary, norm: str) -> Chart:
    """Accuracy of every model over the radii of a norm, in the worst case and under each attack.

    It opens with the step on the loss, the step on the margin and the worst case of the models of `opening_pairs`;
    without a pair, of the first two.
    """
    results = summary.results
    threats = [threat for threat in results.threats if threat.norm == norm]
    labels = [WORST, *dict.fromkeys(label for threat in threats for label in summary.attacks(threat))]
    opened = {model for pair in opening_pairs(results.plan.pairs) for model in pair} or results.models[:2]
    traces, drawn = [], []
    for place, model in enumerate(results.models):
        for number, label in enumerate(labels):
            attacked = {threat: summary.values(model, label, threat) for threat in threats}
            if any(numbers.values for numbers in attacked.values()):
                points = {CLEAN: summary.values(model, "none", CLEAN)} | attacked
                curve = _curve(summary, model, label, points) | _drawn(stroke(place), number, points)
                traces.append(curve | {"visible": model in opened and label in OPENING})
                drawn.append((model, label))
    strokes = [(model, stroke(place)) for place, model in enumerate(results.models)]
    models = [Choice(model, model in opened, own.glyph, own.color) for model, own in strokes]
    attacks = [Choice(label, label in OPENING) for label in labels if any(label == own for _, own in drawn)]
    text = f"Accuracy of {len(results.models)} models over eps, {NORM_NAMES[norm]}."
    figure = plotly_figure(traces, _axes(norm, threats))
    return Chart(f"curves-{norm}", text, 400, figure, drawn, models, attacks)


def _axes(norm: str, threats: Sequence[Threat]) -> dict[str, Any]:
    ticks = sorted({0.0, *(threat.eps for threat in threats)})
    return {
        "xaxis_title_text": f"eps ({NORM_NAMES[norm]})",
        "xaxis_tickvals": ticks,
        "xaxis_ticktext": [format_eps(eps) for eps in ticks],
        "xaxis_zeroline": False,
        "yaxis_title_text": ACCURACY.head,
        "yaxis_rangemode": "tozero",
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0, "itemwidth": 40},
        "margin": {"t": 8, "r": 16, "l": 56, "b": 48},
    }


def _drawn(own: Stroke, attack: int, points: Mapping[Threat, SeedValues]) -> dict[str, Any]:
    """Line and markers of a curve."""
    return {
        "line": {"color": own.color, "dash": own.dash(attack), "width": 2 if attack else 3},
        "marker": markers(own, [bool(number.flags) for number in points.values()]),
    }


def markers(own: Stroke, flags: Sequence[bool]) -> dict[str, Any]:
    """Those of a curve's points: of flagged numbers they are open, and larger."""
    return {
        "color": own.color,
        "opacity": 1,
        "size": [11 if flagged else 8 for flagged in flags],
        "symbol": [f"{own.symbol}-open" if flagged else own.symbol for flagged in flags],
        "line": {"color": own.color, "width": [2 if flagged else 0 for flagged in flags]},
    }


def _curve(summary: Summary, model: str, label: str, points: Mapping[Threat, SeedValues]) -> dict[str, Any]:
    """A line with its intervals, those of the figures for papers; where there is no number, it is broken."""
    intervals = [
        None
        if number.mean is None
        else summary.interval_over_examples(model, "none" if threat == CLEAN else label, threat)
        for threat, number in points.items()
    ]
    means = [None if number.mean is None else 100 * number.mean for number in points.values()]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{plotly_text(model)}, {plotly_text(label)}",
        "x": [threat.eps for threat in points],
        "y": means,
        "error_y": _bars(means, intervals),
        "hovertext": [
            _hover(model, label, threat, number, summary.results.seeds, interval)
            for (threat, number), interval in zip(points.items(), intervals, strict=True)
        ],
        "hoverinfo": "text",
    }


def _bars(means: Sequence[float | None], intervals: Sequence[tuple[float, float] | None]) -> dict[str, Any]:
    """From the low to the high end of each interval (fractions) around its mean (%); none where there is none."""
    drawn = list(zip(means, intervals, strict=True))
    lows = [None if mean is None or ends is None else mean - 100 * ends[0] for mean, ends in drawn]
    highs = [None if mean is None or ends is None else 100 * ends[1] - mean for mean, ends in drawn]
    return {"type": "data", "symmetric": False, "array": highs, "arrayminus": lows, "thickness": 1}


def _hover(
    model: str, label: str, threat: Threat, number: SeedValues, seeds: int, interval: tuple[float, float] | None
) -> str:
    where = "clean, eps 0" if threat == CLEAN else f"{label}, eps {format_eps(threat.eps)}"
    flags = f"flagged: {', '.join(number.flags)}" if number.flags else "not flagged"
    lines = [where, f"{ACCURACY.head}: {spread(number.values.values(), seeds)}"]
    lines += [] if interval is None else [f"95 % over examples: {' … '.join(map(ACCURACY.text, interval))}"]
    return "<br>".join([f"<b>{plotly_text(model)}</b>", *map(plotly_text, [*lines, flags])])


def forest(lines: Sequence[PairTest], names: tuple[str, str], identity: str) -> Chart | None:
    """The differences of a pair with their intervals over examples; None where there is none. NCMI has other units."""
    drawn = [line for line in lines if line.in_points and line.seeds]
    if not drawn:
        return None
    by_kind = {kind: {place: line for place, line in enumerate(drawn) if _kind(line) == kind} for kind in KINDS}
    traces = [_differences(kind, own) for kind, own in by_kind.items() if own]
    layout = {
        "xaxis_title_text": f"{plotly_text(names[1])}<br>minus {plotly_text(names[0])} (points)",
        "xaxis_zeroline": True,
        "xaxis_zerolinewidth": 2,
        "yaxis_tickvals": list(range(len(drawn))),
        "yaxis_ticktext": [
            f"<b>{plotly_text(x.name)}</b>" if _kind(x) == "claims" else plotly_text(x.name) for x in drawn
        ],
        "yaxis_range": [len(drawn) - 0.5, -0.5],
        "yaxis_automargin": True,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        "margin": {"t": 8, "r": 16, "l": 16, "b": 64},
    }
    text = f"Differences of {len(drawn)} accuracies, {names[1]} minus {names[0]}."
    return Chart(identity, text, 166 + 24 * len(drawn), plotly_figure(traces, layout))


def _kind(line: PairTest) -> str:
    return "withdrawn: flagged" if line.withdrawn else "claims" if line.claim else "single attacks"


def _differences(kind: str, lines: Mapping[int, PairTest]) -> dict[str, Any]:
    means = [100 * statistics.fmean(line.differences) for line in lines.values()]
    lows, highs, hover = [], [], []
    for mean, line in zip(means, lines.values(), strict=True):
        low, high = (mean, mean) if line.interval is None else (100 * end for end in line.interval)
        lows.append(mean - low)
        highs.append(high - mean)
        ends = interval_text(line, before="95 % over examples: ", otherwise="no interval")
        hover.append(f"<b>{plotly_text(line.name)}</b><br>{mean:+.1f} points<br>{ends}<br>{plotly_text(line.verdict)}")
    return {
        "type": "scatter",
        "mode": "markers",
        "name": kind,
        "x": means,
        "y": list(lines),
        "error_x": {"type": "data", "symmetric": False, "array": highs, "arrayminus": lows, "thickness": 2},
        "hovertext": hover,
        "hoverinfo": "text",
        "marker": {"color": KINDS[kind], "size": 9, "symbol": "square" if kind == "claims" else "circle"},
    }


def plotly_figure(traces: list[dict[str, Any]], layout: dict[str, Any]) -> Mapping[str, Any]:
    """The figure as Plotly's Python package checks and writes it."""
    import plotly.graph_objects as go  # a third of a second, which other formats do without

    common = {
        "autosize": True,
        "dragmode": False,
        "hovermode": "closest",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    figure: Mapping[str, Any] = go.Figure(data=traces, layout=layout | common).to_plotly_json()
    return figure
