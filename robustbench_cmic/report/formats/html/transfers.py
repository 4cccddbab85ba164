"""The transfer matrix as a heat map for Plotly."""

from __future__ import annotations

from typing import Any

from robustbench_cmic.report.figures.transfers import transfer_numbers, transfer_text, transfers_asked
from robustbench_cmic.report.formats.html.charts import Chart, plotly_figure, plotly_text
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.strokes import HEAT, LIGHT
from robustbench_cmic.report.summary import SeedValues, Summary
from robustbench_cmic.suite.fields import Threat

_LONGEST = 28
"""Characters of a name beside the cells, for which longer ones leave no room; hovering tells the whole name."""


def transfer_charts(summary: Summary) -> list[Chart]:
    """One for each attack that transfers and each threat: rows are whose examples, columns whom they are tried on."""
    asked = transfers_asked(summary)
    return [_chart(summary, label, threat, number) for number, (label, threat) in enumerate(asked)]


def _chart(summary: Summary, label: str, threat: Threat, number: int) -> Chart:
    models = [plotly_text(model) for model in summary.results.models]
    numbers = transfer_numbers(summary, label, threat)
    said = [
        [
            f"examples of <b>{source}</b><br>on <b>{target}</b><br>{ACCURACY.head} {transfer_text(own)}"
            for target, own in zip(models, row, strict=True)
        ]
        for source, row in zip(models, numbers, strict=True)
    ]
    trace = {
        "type": "heatmap",
        "name": plotly_text(label),
        "z": [[None if own.mean is None else 100 * own.mean for own in row] for row in numbers],
        "zmin": 0,
        "zmax": 100,
        "hovertext": said,
        "hoverinfo": "text",
        "hoverongaps": False,
        "colorscale": HEAT,
        "xgap": 2,
        "ygap": 2,
        "showlegend": False,
        "colorbar": {"title": {"text": ACCURACY.head, "side": "right"}, "thickness": 12, "outlinewidth": 0},
    }
    ticks = {
        "tickvals": list(range(len(models))),
        "ticktext": [plotly_text(_short(model)) for model in summary.results.models],
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
    }
    layout = {
        "xaxis": ticks | {"tickangle": -35 if len(models) > 2 else 0, "title": {"text": "tried on"}},
        "yaxis": ticks | {"range": [len(models) - 0.5, -0.5], "title": {"text": "examples of"}},
        "margin": {"t": 8, "r": 8, "l": 16, "b": 16},
        "annotations": [_text(own, i, j) for i, row in enumerate(numbers) for j, own in enumerate(row)],
    }
    text = f"Accuracy of {len(models)} models on the adversarial examples of each: {label}, {threat}."
    height = 200 + 44 * len(models)
    return Chart(f"transfer-{number}", text, height, plotly_figure([trace], layout))


def _text(number: SeedValues, row: int, column: int) -> dict[str, Any]:
    """The number of a cell, white on the dark half of the scale and black on the light one; a dash has no cell."""
    color = {} if number.mean is None else {"font": {"color": "white" if number.mean < LIGHT else "black"}}
    return {"x": column, "y": row, "text": transfer_text(number), "showarrow": False} | color


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
