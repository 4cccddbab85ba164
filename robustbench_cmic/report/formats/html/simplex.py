"""Outputs of three classes in a triangle for Plotly: over the epochs as an animation, and at the end at T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robustbench_cmic.report.formats.html.charts import Chart, Frames, plotly_figure, plotly_text
from robustbench_cmic.report.simplex import CORNERS, Look, SimplexModel, SimplexPictures
from robustbench_cmic.report.strokes import COLORS

MODELS_A_CHART = 2
_SYMBOLS = ("circle", "triangle-up", "square")
_EDGE = "#8a8f98"
_ROW = 330
"""Pixels that a model's row is high."""


def simplex_charts(pictures: SimplexPictures) -> list[Chart]:
    """A row a model, so many in each chart: on the left it moves through the epochs, on the right the end at T.

    It moves through the epochs that all models of the chart have: each keeps that which was selected for it, too.
    """
    models = list(pictures.models.items())
    groups = [models[start : start + MODELS_A_CHART] for start in range(0, len(models), MODELS_A_CHART)]
    return [_chart(pictures, dict(group), number) for number, group in enumerate(groups)]


def _chart(pictures: SimplexPictures, models: Mapping[str, SimplexModel], number: int) -> Chart:
    traces: list[dict[str, Any]] = []
    moving: list[int] = []
    epochs = _common_epochs(models)
    shown = {
        model: (_look(own, epochs[-1]) if epochs else own.looks[-1], own.calibrated) for model, own in models.items()
    }
    for row, looks in enumerate(shown.values()):
        for column, look in enumerate(looks):
            if look is not None:
                axes = 2 * row + column
                traces.append(_edges(axes))
                first = len(traces)
                traces += _points(pictures, look, axes, key=not row and not column)
                moving += [] if column else range(first, len(traces))
    text = f"Outputs of three classes in a triangle over training: {', '.join(models)}."
    figure = plotly_figure(traces, _layout(pictures, models, shown))
    steps = [_step(pictures, models, epoch) for epoch in epochs]
    frames = Frames("epoch", moving, steps) if steps else None
    return Chart(f"simplex-{number}", text, _ROW * len(models) + 30, figure, frames=frames, below="")


def _common_epochs(models: Mapping[str, SimplexModel]) -> list[int]:
    return sorted(set.intersection(*({look.epoch for look in own.looks} for own in models.values())))


def _look(own: SimplexModel, epoch: int) -> Look:
    return next(look for look in own.looks if look.epoch == epoch)


def _step(pictures: SimplexPictures, models: Mapping[str, SimplexModel], epoch: int) -> dict[str, Any]:
    looks = {model: _look(own, epoch) for model, own in models.items()}
    own_points = [_of_class(pictures, look, k) for look in looks.values() for k in range(3)]
    return {
        "label": str(epoch),
        "x": [x for x, _ in own_points],
        "y": [y for _, y in own_points],
        "texts": [_title(model, looks[model], own) for model, own in models.items()],
    }


def _title(model: str, look: Look, own: SimplexModel) -> str:
    epoch, overlap = look.text(own.selected and look.epoch == own.final.epoch).split(": ")
    return f"<b>{plotly_text(model)}</b><br>{epoch}<br>{overlap}"


def _of_class(pictures: SimplexPictures, look: Look, place: int) -> tuple[list[float], list[float]]:
    own = look.points[[each == place for each in pictures.places]].round(3).tolist()
    return [x for x, _ in own], [y for _, y in own]


def _axis(letter: str, axes: int) -> str:
    return f"{letter}{axes + 1 if axes else ''}"


def _edges(axes: int) -> dict[str, Any]:
    x, y = zip(*CORNERS, CORNERS[0], strict=True)
    line = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": _EDGE, "width": 1}, "name": "edges"}
    quiet = {"hoverinfo": "skip", "hovertext": [], "showlegend": False}
    return line | quiet | {"xaxis": _axis("x", axes), "yaxis": _axis("y", axes)}


def _points(pictures: SimplexPictures, look: Look, axes: int, key: bool) -> list[dict[str, Any]]:
    """The points of each class; `key`: they stand in the legend for all others."""
    traces = []
    for place, name in enumerate(pictures.names):
        x, y = _of_class(pictures, look, place)
        mark = {"symbol": _SYMBOLS[place], "size": 8, "opacity": 0.75, "color": COLORS[place]}
        told = {"name": f"class {plotly_text(name)}", "hoverinfo": "name", "hovertext": [], "showlegend": key}
        points = {"type": "scatter", "mode": "markers", "x": x, "y": y, "cliponaxis": False}
        traces.append(
            points
            | told
            | {"marker": mark | {"line": {"width": 0}}, "legendgroup": str(place)}
            | {"xaxis": _axis("x", axes), "yaxis": _axis("y", axes)}
        )
    return traces


def _layout(
    pictures: SimplexPictures,
    models: Mapping[str, SimplexModel],
    shown: Mapping[str, tuple[Look, Look | None]],
) -> dict[str, Any]:
    """Titles come first among the annotations: those on the left, by model, are what an animation changes."""
    titles: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0, "itemsizing": "constant"},
        "margin": {"t": 8, "r": 8, "l": 8, "b": 8},
    }
    height = 1 / len(models)
    for row, (model, own) in enumerate(models.items()):
        top = 1 - row * height
        for column, look in enumerate(shown[model]):
            axes, ends = 2 * row + column, (0.0, 0.48) if not column else (0.52, 1.0)
            common = {"visible": False, "fixedrange": True}
            layout["xaxis" + _axis("", axes)] = common | {"domain": ends, "range": [-0.12, 1.12], "constrain": "domain"}
            layout["yaxis" + _axis("", axes)] = common | {
                "domain": [top - height, top - 0.2 * height],
                "range": [-0.14, 1.0],
                "scaleanchor": _axis("x", axes),
                "constrain": "domain",
                "constraintoward": "top",
                "anchor": _axis("x", axes),
            }
            place = {"xref": "paper", "yref": "paper", "x": sum(ends) / 2, "y": top - 0.01}
            still = {"showarrow": False, "yanchor": "top", "xanchor": "center"}
            text = f"<b>{plotly_text(model)}</b><br>no T" if look is None else _title(model, look, own)
            (others if column else titles).append(place | still | {"text": text})
            others += [] if look is None else _corners(pictures.names, axes)
    return layout | {"annotations": [*titles, *others]}


def _corners(names: Sequence[str], axes: int) -> list[dict[str, Any]]:
    refs = {"xref": _axis("x", axes), "yref": _axis("y", axes), "showarrow": False}
    return [
        refs | {"x": x, "y": y, "text": plotly_text(name), "yshift": 12 if y else -12}
        for name, (x, y) in zip(names, CORNERS, strict=True)
    ]
