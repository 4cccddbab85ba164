"""Curves over |B_c|, the extra images of every class that a step takes for the centroids of CMIC-DL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from robustbench_cmic.report.class_batches import SizeLine, SizeMeasure, find_size_lines, size_measures, stable_table
from robustbench_cmic.report.figures.drawing import FLAGGED_WORDS, Drawing, add_key, mark_flagged, new_figure
from robustbench_cmic.report.strokes import ink, stroke
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FROM_STEP = "step"
"""Under the mark of centroids that are taken from the step's own batch."""
_ASIDE = 0.06
"""Between lines, so that bars of one size do not cover each other."""


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
    sizes = sorted({size for line in lines.values() for size in line.sizes})
    has_step = any(line.from_step for line in lines.values())
    flagged = False
    for axes, measure in zip(every, measures, strict=True):
        for place, (title, line) in enumerate(lines.items()):
            aside = _ASIDE * (place - (len(lines) - 1) / 2)
            x = {size: where + aside for where, size in enumerate([*sizes, 0])}
            flagged |= _curve(axes, measure, line, x, _stroke(place, title))
        labels = [*map(str, sizes), *([_FROM_STEP] if has_step else [])]
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel("|B_c|")
        axes.set_ylabel(f"{measure.title} %" if measure.metric.unit == "%" else measure.title)
    add_key(figure, list(every), flagged)
    title = f"{summary.results.plan.suite}: over the size of class batches"
    return [Drawing("class-batches", title, _text(summary, lines, measures), figure)]


def _stroke(place: int, title: str) -> dict[str, Any]:
    own, dashes = stroke(place), ink(place)
    pattern = (0, tuple(0.5 * pixels for pixels in dashes)) if dashes else "solid"
    return {"color": own.color, "marker": own.marker, "linestyle": pattern, "linewidth": 1.3, "label": title}


def _curve(axes: Axes, measure: SizeMeasure, line: SizeLine, x: Mapping[int, float], style: dict[str, Any]) -> bool:
    """Means over seeds with a bar of one standard deviation; returns whether any number is flagged.

    `x` is where a size stands; 0 stands for the step's own batch.
    """
    scale = measure.metric.scale
    models = dict(line.sizes) | ({} if line.from_step is None else {0: line.from_step})
    drawn = {size: number for size, model in models.items() if (number := measure.numbers[model]).values}
    means = {size: scale * (number.mean or 0.0) for size, number in drawn.items()}
    curve = [size for size in means if size > 0]
    axes.plot([x[size] for size in curve], [means[size] for size in curve], **style)
    if 0 in means:
        axes.plot([x[0]], [means[0]], **{**style, "label": "_step"})
    for size, number in drawn.items():
        spread = scale * number.sd
        axes.vlines(x[size], means[size] - spread, means[size] + spread, color=style["color"], linewidth=1)
    flagged = [size for size, number in drawn.items() if number.flags]
    mark_flagged(axes, {**style, "zorder": 2}, [x[size] for size in flagged], [means[size] for size in flagged])
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
