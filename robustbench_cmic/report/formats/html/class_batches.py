"""Curves over |B_c| for Plotly, a chart a measure: the marks and bars of the figure for papers, to point at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_cmic.report.class_batches import (
    FROM_STEP,
    SizeMeasure,
    SizePoint,
    find_size_lines,
    size_axis,
    size_curves,
    size_measures,
)
from robustbench_cmic.report.formats.html.charts import Chart, markers, plotly_figure, plotly_text
from robustbench_cmic.report.strokes import stroke
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import seeds_text


def size_charts(summary: Summary) -> dict[str, Chart]:
    """By the head of each measure, such as `clean accuracy %`, its chart; none where the suite varies no |B_c|."""
    lines = find_size_lines(summary.results)
    ticks = size_axis(lines)
    charts = {}
    for number, measure in enumerate(size_measures(summary, lines)):
        curves = size_curves(measure, lines)
        traces = [_curve(summary, measure, title, own, place) for place, (title, own) in enumerate(curves.items())]
        text = f"{measure.head} over |B_c|, a line each for {'; '.join(lines)}."
        figure = plotly_figure(traces, _axes(measure, ticks))
        charts[measure.head] = Chart(f"class-batches-{number}", text, 360, figure)
    return charts


def _axes(measure: SizeMeasure, ticks: Mapping[int, str]) -> dict[str, Any]:
    return {
        "xaxis_title_text": "|B_c|",
        "xaxis_tickvals": list(range(len(ticks))),
        "xaxis_ticktext": list(ticks.values()),
        "xaxis_range": [-0.5, len(ticks) - 0.5],
        "xaxis_zeroline": False,
        "yaxis_title_text": plotly_text(measure.head),
        "yaxis_zeroline": False,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0, "itemwidth": 40},
        "margin": {"t": 8, "r": 16, "l": 64, "b": 48},
    }


def _curve(
    summary: Summary, measure: SizeMeasure, title: str, points: Sequence[SizePoint], place: int
) -> dict[str, Any]:
    """A line of means with bars of one standard deviation; it is broken before the mark of the step's own batch."""
    own = stroke(place)
    drawn: list[SizePoint | None] = [point for point in points if point.size]
    for point in points:
        drawn += [] if point.size else [None, point]
    bars = [None if point is None or not point.sd else point.sd for point in drawn]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plotly_text(title),
        "x": [None if point is None else point.x for point in drawn],
        "y": [None if point is None else point.mean for point in drawn],
        "error_y": {"type": "data", "array": bars, "thickness": 1},
        "hovertext": ["" if point is None else _hover(summary, measure, title, point) for point in drawn],
        "hoverinfo": "text",
        "line": {"color": own.color, "dash": own.dash(place), "width": 2},
        "marker": markers(own, [point is not None and bool(point.number.flags) for point in drawn]),
    }


def _hover(summary: Summary, measure: SizeMeasure, title: str, point: SizePoint) -> str:
    size = f"|B_c| {point.size}" if point.size else f"centroids from the {FROM_STEP}"
    flags = f"flagged: {', '.join(point.number.flags)}" if point.number.flags else "not flagged"
    lines = [size, f"{measure.head}: {seeds_text(point.number, summary, measure.metric)}", flags]
    return "<br>".join([f"<b>{plotly_text(title)}</b>", *map(plotly_text, lines)])
