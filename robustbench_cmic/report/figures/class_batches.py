"""Curves over |B_c|, the extra images of every class that a step takes for the centroids of CMIC-DL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from robustbench_cmic.report.class_batches import (
    SizeLine,
    SizeMeasure,
    SizePoint,
    find_size_lines,
    size_axis,
    size_curves,
    size_measures,
    stable_table,
)
from robustbench_cmic.report.figures.drawing import FLAGGED_WORDS, Drawing, add_key, mark_flagged, new_figure
from robustbench_cmic.report.strokes import ink, stroke
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def class_batch_figures(summary: Summary) -> list[Drawing] | str:
    """One figure, one panel a measure, one line for models that differ in |B_c| alone."""
    lines = find_size_lines(summary.results)
    if not lines:
        return "the suite does not vary |B_c|"
    measures = size_measures(summary, lines)
    if not measures:
        return "nothing is measured in full yet"
    figure = new_figure(3.3 * len(measures) + 0.4, 3.2, key=[*lines, FLAGGED_WORDS])
    every = figure.subplots(1, len(measures), squeeze=False)[0]
    ticks = size_axis(lines)
    flagged = False
    for axes, measure in zip(every, measures, strict=True):
        for place, (title, points) in enumerate(size_curves(measure, lines).items()):
            flagged |= _curve(axes, points, _stroke(place, title))
        axes.set_xticks(range(len(ticks)), list(ticks.values()))
        axes.set_xlabel("|B_c|")
        axes.set_ylabel(measure.head)
    add_key(figure, list(every), flagged)
    title = f"{summary.results.plan.suite}: over the size of class batches"
    return [Drawing("class-batches", title, _text(summary, lines, measures), figure)]


def _stroke(place: int, title: str) -> dict[str, Any]:
    own, dashes = stroke(place), ink(place)
    pattern = (0, tuple(0.5 * pixels for pixels in dashes)) if dashes else "solid"
    return {"color": own.color, "marker": own.marker, "linestyle": pattern, "linewidth": 1.3, "label": title}


def _curve(axes: Axes, points: Sequence[SizePoint], style: dict[str, Any]) -> bool:
    """Means over seeds with a bar of one standard deviation; returns whether any number is flagged."""
    curve = [point for point in points if point.size]
    axes.plot([point.x for point in curve], [point.mean for point in curve], **style)
    for point in points:
        if not point.size:
            axes.plot([point.x], [point.mean], **{**style, "label": "_step"})
    for point in points:
        axes.vlines(point.x, point.mean - point.sd, point.mean + point.sd, color=style["color"], linewidth=1)
    flagged = [point for point in points if point.number.flags]
    mark_flagged(axes, {**style, "zorder": 2}, [point.x for point in flagged], [point.mean for point in flagged])
    return bool(flagged)


def _text(summary: Summary, lines: Mapping[str, SizeLine], measures: list[SizeMeasure]) -> str:
    seeds = summary.results.seeds
    said = [
        f"{title}, {measure.title}: "
        + ", ".join(
            f"{measure.metric.text(number.mean)} at {size}"
            for size, model in line.sizes.items()
            if (number := measure.numbers[model]).mean is not None
        )
        + "."
        for title, line in lines.items()
        for measure in measures
    ]
    said += [f"{row[0]}: smallest stable size {row[-1]}." for row in stable_table(summary).rows]
    head = f"Means over {seeds} seeds with one standard deviation, over |B_c|; a line each for {'; '.join(lines)}."
    return " ".join([head, *said])
