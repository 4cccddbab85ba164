"""Charts of information measures for Plotly: error over NCMI, a point a network, and all of them over training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from robustbench_cmic.report.figures.ncmi_error import LineFit, fit_line, fit_text, networks
from robustbench_cmic.report.figures.training import (
    MEASURES_OF_EPOCHS,
    MeasuredEpoch,
    TrainingCurve,
    evaluated_models,
    measured_epochs,
    trained_models,
)
from robustbench_cmic.report.formats.html.charts import Chart, Choice, plotly_figure, plotly_text
from robustbench_cmic.report.metrics import NCMI_CALIBRATED
from robustbench_cmic.report.strokes import CROWDED, Stroke, stroke
from robustbench_cmic.report.summary import Summary

_FIT = {"line": {"color": "#8a8f98", "width": 2}, "band": "rgba(138, 143, 152, 0.25)"}
_MARKS = 8
"""On a line, at most."""
_GAP = 0.14
"""Between panels, as a share of the chart."""


def ncmi_chart(summary: Summary) -> Chart | None:
    """Error over NCMI at T on clean examples, with a line where there are enough networks; None without any."""
    import numpy as np

    found = networks(summary)
    if not found:
        return None
    x, y = (np.array([point[i] for own in found.values() for point in own]) for i in (0, 1))
    fit = fit_line(x, y)
    traces = [] if fit is None else _fitted(fit, float(x.min()), float(x.max()))
    for model, own in found.items():
        traces.append(_points(model, own, stroke(summary.results.models.index(model))))
        traces[-1]["showlegend"] = len(found) <= CROWDED
    layout = {
        "xaxis_title_text": f"{NCMI_CALIBRATED.head}, clean examples",
        "xaxis_zeroline": False,
        "yaxis_title_text": "error %",
        "yaxis_zeroline": False,
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0},
        "margin": {"t": 8, "r": 16, "l": 56, "b": 48},
    }
    text = f"Error over NCMI of {len(x)} networks. {fit_text(fit, len(x))}."
    return Chart("ncmi-error", text, 400, plotly_figure(traces, layout), below="")


def _fitted(fit: LineFit, low: float, high: float) -> list[dict[str, Any]]:
    """The line and, behind it, its interval."""
    import numpy as np

    along = np.linspace(low, high, 41)
    drawn = (along, fit.intercept + fit.slope * along, *fit.interval(along))
    x, line, below, above = (_short(each.tolist()) for each in drawn)
    common = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "hovertext": [], "legendgroup": "fit"}
    band = {"x": [*x, *x[::-1]], "y": [*below, *above[::-1]], "fill": "toself", "fillcolor": _FIT["band"]}
    return [
        common | band | {"name": "95 % of the line", "line": {"width": 0}, "showlegend": False},
        common | {"name": "line by least squares", "x": x, "y": line, "line": _FIT["line"]},
    ]


def _points(model: str, own: Sequence[tuple[float, float, bool]], drawn: Stroke) -> dict[str, Any]:
    """The networks of a model; what is flagged is open, and larger."""
    said = [
        f"<b>{plotly_text(model)}</b><br>NCMI at T {ncmi:.3g}<br>error {error:.1f} %{'<br>flagged' * doubt}"
        for ncmi, error, doubt in own
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plotly_text(model),
        "x": [ncmi for ncmi, _, _ in own],
        "y": [error for _, error, _ in own],
        "hovertext": said,
        "hoverinfo": "text",
        "marker": {
            "color": drawn.color,
            "opacity": 1,
            "size": [11 if doubt else 8 for _, _, doubt in own],
            "symbol": [f"{drawn.symbol}-open" if doubt else drawn.symbol for _, _, doubt in own],
        },
    }


def training_chart(summary: Summary) -> Chart | None:
    """CMI, separation, NCMI and error over epochs: a panel each, the mean over seeds as a line; None without any."""
    found = trained_models(summary)
    return None if isinstance(found, str) else _over_training(summary, found, "training")


def evaluated_chart(summary: Summary) -> Chart | None:
    """The same in eval mode, on the test images whose outputs were kept; None where none were, of all classes."""
    found = evaluated_models(summary)
    return _over_training(summary, found, "training-test") if found else None


def _over_training(summary: Summary, found: Mapping[str, Sequence[TrainingCurve]], name: str) -> Chart:
    models = summary.results.models
    opened = next(iter(summary.results.plan.pairs), models[:2])
    traces, drawn = [], []
    for panel, (head, measure) in enumerate(MEASURES_OF_EPOCHS.items()):
        for model, curves in found.items():
            for trace in _over_epochs(model, curves, head, measure, stroke(models.index(model))):
                axes = {"xaxis": f"x{panel + 1 if panel else ''}", "yaxis": f"y{panel + 1 if panel else ''}"}
                shown = trace.get("showlegend", True) and panel == 0
                traces.append(trace | axes | {"visible": model in opened, "showlegend": shown})
                drawn.append((model, ""))
    strokes = [(model, stroke(models.index(model))) for model in found]
    choices = [Choice(model, model in opened, own.glyph, own.color) for model, own in strokes]
    text = f"CMI, separation, NCMI and error of {len(found)} models over the epochs of training."
    return Chart(name, text, 560, plotly_figure(traces, _panels()), drawn, choices, below="")


def _panels() -> dict[str, Any]:
    layout: dict[str, Any] = {
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0},
        "margin": {"t": 8, "r": 16, "l": 56, "b": 48},
    }
    half = (1 - _GAP) / 2
    ends = ([0, half], [half + _GAP, 1])
    for place, head in enumerate(MEASURES_OF_EPOCHS):
        number, (row, column) = str(place + 1 if place else ""), divmod(place, 2)
        across = {"domain": ends[column], "anchor": f"y{number}", "title": {"text": "epoch" if row else ""}}
        up = {"domain": ends[1 - row], "anchor": f"x{number}", "title": {"text": head, "standoff": 4}}
        layout |= {f"xaxis{number}": across | {"zeroline": False}, f"yaxis{number}": up | {"zeroline": False}}
    return layout


def _over_epochs(
    model: str, curves: Sequence[TrainingCurve], head: str, measure: Callable[[MeasuredEpoch], float], drawn: Stroke
) -> list[dict[str, Any]]:
    """The mean over seeds, behind it the least and the greatest as a band, and each seed that diverged."""
    epochs, rows = measured_epochs(curves, measure)
    common = {"type": "scatter", "mode": "lines", "legendgroup": plotly_text(model), "hovertext": []}
    traces: list[dict[str, Any]] = []
    if rows and len(rows[0]) > 1:
        ends = [*map(min, rows), *map(max, rows[::-1])]
        band = {"x": [*epochs, *epochs[::-1]], "y": _short(ends), "fill": "toself", "line": {"width": 0}}
        look = {"fillcolor": drawn.color, "opacity": 0.2, "hoverinfo": "skip", "showlegend": False}
        traces.append(common | band | look | {"name": f"{plotly_text(model)}, all seeds"})
    if rows:
        means = _short([fmean(row) for row in rows])
        said = f"<b>{plotly_text(model)}</b><br>epoch %{{x}}<br>{head} %{{y}}<extra></extra>"
        line = {"color": drawn.color, "width": 2, "dash": drawn.dash(0)}
        marker = {"color": drawn.color, "symbol": drawn.symbol, "size": 7, "maxdisplayed": _MARKS}
        look = {"mode": "lines+markers", "line": line, "marker": marker, "hovertemplate": said}
        traces.append(common | look | {"name": plotly_text(model), "x": epochs, "y": means})
    for curve in (curve for curve in curves if curve.diverged):
        own = [(epoch.epoch, measure(epoch)) for epoch in curve.epochs]
        ended = {
            "mode": "lines+markers",
            "marker": {"symbol": "x", "size": [0] * (len(own) - 1) + [9], "color": drawn.color},
        }
        thin = {
            "x": [epoch for epoch, _ in own],
            "y": _short([value for _, value in own]),
            "line": {"color": drawn.color, "width": 1},
        }
        traces.append(common | thin | ended | {"name": f"{plotly_text(model)}, diverged", "hoverinfo": "name"})
    return traces


def _short(values: Sequence[float]) -> list[float | None]:
    """To four digits, as many as a chart shows; None, where the line breaks, for NaN."""
    return [None if value != value else float(f"{value:.4g}") for value in values]
