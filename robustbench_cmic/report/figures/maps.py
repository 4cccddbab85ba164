"""Maps of suites whose models are a grid of two parameters, such as lambda and beta."""

from __future__ import annotations

import math
import re

from robustbench_cmic.report.figures.drawing import Drawing, heat, new_figure, write_in
from robustbench_cmic.report.grid import Grid, GridMeasure, find_grid, grid_measures
from robustbench_cmic.report.summary import Summary


def map_figures(summary: Summary) -> list[Drawing] | str:
    """One figure a measure, one map a facet, on one scale."""
    grid = find_grid(summary.results)
    if grid is None:
        return "the models are no grid of two numbers"
    measures = grid_measures(summary, grid)
    return [_of_measure(summary, grid, measure) for measure in measures] or "nothing is measured in full yet"


def _of_measure(summary: Summary, grid: Grid, measure: GridMeasure) -> Drawing:
    rows, columns, facets = grid.rows.labels, grid.columns.labels, len(measure.maps)
    figure = new_figure(facets * max(2.4, 0.8 * len(columns)) + 1.6, max(2.2, 0.55 * len(rows)) + 1.1)
    every = figure.subplots(1, facets, sharey=True, squeeze=False)[0]
    image = None
    for axes, drawn in zip(every, measure.maps, strict=True):
        image = heat(axes, [[math.nan if c.share is None else c.share for c in row] for row in drawn.cells], 0, 1)
        for row, cells in enumerate(drawn.cells):
            for column, cell in enumerate(cells):
                why = "diverged" if cell.kind == "diverged" else "incomplete"
                write_in(axes, row, column, f"{cell.value}\n{cell.detail}".strip(), cell.share, why)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_xlabel(grid.columns.name)
        axes.set_title(drawn.facet, fontsize=8)
    every[0].set_yticks(range(len(rows)), rows)
    every[0].set_ylabel(grid.rows.name)
    if measure.ends is not None and image is not None:
        bar = figure.colorbar(image, ax=list(every), ticks=[0, 1])
        bar.ax.set_yticklabels(measure.ends)
        bar.set_label(measure.title)
    title = f"{summary.results.plan.suite}: {measure.title} over {grid.rows.name} and {grid.columns.name}"
    said = [
        f"{drawn.facet + ', ' * bool(drawn.facet)}{grid.rows.name} {at}, {grid.columns.name} {across}: {cell.text}."
        for drawn in measure.maps
        for at, cells in zip(rows, drawn.cells, strict=True)
        for across, cell in zip(columns, cells, strict=True)
    ]
    text = " ".join([f"{measure.title}, mean and standard deviation over seeds; hatched where there is none.", *said])
    return Drawing(f"map-{_slug(measure.title)}", title, text, figure)


def _slug(title: str) -> str:
    """`worst case %, L-inf 8/255` as part of a file's name: `worst-case-l-inf-8-255`."""
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")
