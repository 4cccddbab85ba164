"""Accuracy over eps, with intervals: one step on the loss, one step on the margin, and the worst case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from robustbench_cmic.report.class_batches import find_size_lines
from robustbench_cmic.report.figures.drawing import (
    FLAGGED_WORDS,
    Drawing,
    add_key,
    in_order,
    line_of,
    mark_flagged,
    new_figure,
)
from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.grid import find_grid
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.strokes import CROWDED
from robustbench_cmic.report.summary import SeedValues, Summary
from robustbench_cmic.suite.fields import CLEAN, NORM_NAMES, Threat, format_eps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = ("FGSM", "FGSM-margin", WORST)
"""By label, those that a suite has."""


def crowded(summary: Summary) -> str:
    """Why no curves of so many models are drawn; empty where they are."""
    models = len(summary.results.models)
    if models > CROWDED and find_grid(summary.results) is not None:
        return f"{models} models of a grid, whose maps tell more than as many curves"
    if models > CROWDED and (find_size_lines(summary.results) or summary.results.plan.settings):
        return f"{models} models, whose tables tell more than as many curves"
    return ""


def curve_figures(summary: Summary) -> list[Drawing] | str:
    """One figure a norm, one panel an attack, one line a model: means over seeds."""
    if why := crowded(summary):
        return why
    if not summary.results.threats:
        return "the suite attacks in no ball"
    norms = dict.fromkeys(threat.norm for threat in summary.results.threats)
    drawings = [drawing for norm in norms if (drawing := _of_norm(summary, norm)) is not None]
    return drawings or "nothing is measured in full yet"


def _of_norm(summary: Summary, norm: str) -> Drawing | None:
    threats = [threat for threat in summary.results.threats if threat.norm == norm]
    points = {
        label: {model: _points(summary, model, label, threats) for model in in_order(summary)} for label in PANELS
    }
    attacked = {
        label: {model: own for model, own in models.items() if any(own[threat].values for threat in threats)}
        for label, models in points.items()
    }
    panels = {label: models for label, models in attacked.items() if models}
    if not panels:
        return None
    figure = new_figure(3.3 * len(panels) + 0.4, 3.4, key=[*summary.results.models, FLAGGED_WORDS])
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    flagged = False
    for axes, (label, own) in zip(every, panels.items(), strict=True):
        for model, numbers in own.items():
            flagged |= _curve(axes, summary, model, label, numbers)
        axes.set_title(label)
        axes.set_xlabel(f"eps ({NORM_NAMES[norm]})")
        axes.set_xticks(ticks := [threat.eps for threat in (CLEAN, *threats)], [format_eps(eps) for eps in ticks])
        axes.tick_params("x", labelrotation=45 if len(ticks) > 5 else 0)
    every[0].set_ylabel(ACCURACY.head)
    every[0].set_ylim(-2, 102)
    add_key(figure, list(every), flagged)
    title = f"{summary.results.plan.suite}: accuracy over eps, {NORM_NAMES[norm]}"
    return Drawing(f"curves-{norm}", title, _text(summary, panels, norm), figure)


def _points(summary: Summary, model: str, label: str, threats: Sequence[Threat]) -> dict[Threat, SeedValues]:
    return {CLEAN: summary.values(model, "none", CLEAN)} | {
        threat: summary.values(model, label, threat) for threat in threats
    }


def _curve(axes: Axes, summary: Summary, model: str, label: str, numbers: Mapping[Threat, SeedValues]) -> bool:
    """A line with its intervals, broken where there is no number; returns whether a number is flagged."""
    line = line_of(summary, model)
    x = [threat.eps for threat in numbers]
    y = [float("nan") if number.mean is None else 100 * number.mean for number in numbers.values()]
    axes.plot(x, y, **line)
    for threat, number in numbers.items():
        if number.mean is not None:
            low, high = summary.interval_over_examples(model, "none" if threat == CLEAN else label, threat)
            axes.vlines(threat.eps, 100 * low, 100 * high, color=line["color"], linewidth=1, zorder=line["zorder"])
    flagged = [
        (threat.eps, 100 * number.mean)
        for threat, number in numbers.items()
        if number.flags and number.mean is not None
    ]
    mark_flagged(axes, line, [eps for eps, _ in flagged], [value for _, value in flagged])
    return bool(flagged)


def intervals_text(seeds: int) -> str:
    """What the bars of curves are, as a sentence: see `Summary.interval_over_examples`."""
    return "Bars: 95 % Wilson intervals over examples" + (", a bound for means over seeds." if seeds > 1 else ".")


def _text(summary: Summary, panels: Mapping[str, Mapping[str, Mapping[Threat, SeedValues]]], norm: str) -> str:
    models = list(next(iter(panels.values())))
    said = []
    for label, own in panels.items():
        for model in models[:2]:
            numbers = own.get(model, {})
            values = ", ".join(
                f"{ACCURACY.text(number.mean)} at {format_eps(threat.eps)}"
                for threat, number in numbers.items()
                if number.mean is not None
            )
            said.append(f"{model} under {label}: {values}.")
    seeds = summary.results.seeds
    over = "" if seeds == 1 else f", mean over {seeds} seeds"
    head = f"Accuracy in % over eps in {NORM_NAMES[norm]}{over}; a panel each for {', '.join(panels)}; a line each for"
    return " ".join([f"{head} {', '.join(models)}.", intervals_text(seeds), *said])
