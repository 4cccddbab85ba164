"""Outputs of the three most confused classes in a triangle, at the first, a middle and the last epoch, and at T."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustbench_cmic.report.figures.drawing import Drawing, new_figure
from robustbench_cmic.report.simplex import CORNERS, Look, SimplexModel, SimplexPictures, simplex_pictures
from robustbench_cmic.report.strokes import COLORS
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODELS_A_FIGURE = 4
CLASS_MARKERS = "o^s"
_PANEL = 1.75
"""Inches."""


def simplex_figures(summary: Summary) -> list[Drawing] | str:
    """A row a model, so many in each figure; columns are epochs, the last one again at the calibrated temperature."""
    pictures = simplex_pictures(summary)
    if isinstance(pictures, str):
        return pictures
    models = list(pictures.models.items())
    groups = [models[start : start + MODELS_A_FIGURE] for start in range(0, len(models), MODELS_A_FIGURE)]
    return [_of_models(summary, pictures, dict(group), number) for number, group in enumerate(groups, start=1)]


def _of_models(summary: Summary, pictures: SimplexPictures, models: dict[str, SimplexModel], number: int) -> Drawing:
    panels = {model: _panels(own) for model, own in models.items()}
    columns = max(map(len, panels.values()))
    figure = new_figure(_PANEL * columns + 0.3, (_PANEL + 0.25) * len(models), key=pictures.names)
    every = figure.subplots(len(models), columns, squeeze=False)
    for row, (model, looks) in zip(every, panels.items(), strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, (title, look) in zip(row, looks, strict=False):
            _triangle(axes, pictures, look)
            axes.set_title(title, fontsize=7.5)
        row[0].text(-0.14, 0.43, model, rotation=90, ha="right", va="center", fontsize=8)
    handles = every[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, title="class")
    title = f"{summary.results.plan.suite}: outputs of three classes over training"
    said = [f"{model}: {'; '.join(_said(title, look) for title, look in own)}." for model, own in panels.items()]
    return Drawing(f"simplex-{number}", title, " ".join([pictures.rule, *said]), figure)


def _panels(model: SimplexModel) -> list[tuple[str, Look]]:
    """What is drawn of a model, with its title in two lines."""
    looks = [*model.milestones, *([model.calibrated] if model.calibrated else [])]
    texts = [look.text(kept=model.selected and look.epoch == model.final.epoch) for look in looks]
    return [(text.replace(": ", "\n"), look) for text, look in zip(texts, looks, strict=True)]


def _said(title: str, look: Look) -> str:
    return f"{title.replace(chr(10), ', ')}, {look.astray} nearer another corner"


def _triangle(axes: Axes, pictures: SimplexPictures, look: Look) -> None:
    """The points, class by class, and the corners with the names of the classes."""
    x, y = zip(*CORNERS, CORNERS[0], strict=True)
    axes.plot(x, y, color="#8a8f98", linewidth=0.8, label="_edge", zorder=1)
    for place, name in enumerate(pictures.names):
        own = look.points[[each == place for each in pictures.places]]
        marks: dict[str, Any] = {"marker": CLASS_MARKERS[place], "s": 16, "alpha": 0.65, "linewidths": 0.4}
        axes.scatter(own[:, 0], own[:, 1], color=COLORS[place], edgecolors="white", label=name, zorder=2, **marks)
        at_top = place == 2
        position = (CORNERS[place][0], CORNERS[place][1] + (0.06 if at_top else -0.07))
        axes.text(*position, name, ha="center", va="bottom" if at_top else "top", fontsize=7.5)
    axes.set_aspect("equal")
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.16, 1.02)
