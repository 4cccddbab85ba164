"""CMI, separation, NCMI and error over the epochs of training, as training records hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from robustbench_cmic.records.schema import Epoch, TrainRecord
from robustbench_cmic.report.figures.curves import crowded
from robustbench_cmic.report.figures.drawing import Drawing, add_key, in_order, line_of, new_figure
from robustbench_cmic.report.kept_outputs import KeptEpoch, kept_epochs
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MeasuredEpoch = Epoch | KeptEpoch
"""What is known of an epoch: from a record's curve, or from its kept outputs."""


class TrainingCurve(NamedTuple):
    """The epochs of one training, and whether it came to the end."""

    diverged: bool
    epochs: Sequence[MeasuredEpoch]


MEASURES_OF_EPOCHS: Mapping[str, Callable[[MeasuredEpoch], float]] = {
    "CMI (nats)": lambda epoch: epoch.cmi,
    "separation (nats)": lambda epoch: epoch.separation,
    "NCMI": lambda epoch: math.nan if epoch.ncmi is None else epoch.ncmi,
    "error %": lambda epoch: 100 * (1 - epoch.accuracy),
}
"""What is drawn, by the words of its axis."""
_MARKS = 8
"""Marks on a line, about."""


ON_BATCHES = "on the batches trained on while the weights moved"
IN_EVAL_MODE = "on the test images whose outputs were kept, in eval mode"


def training_figures(summary: Summary) -> list[Drawing] | str:
    """Figures of four panels: a line a model, the mean over seeds, and the least and greatest of them as a band.

    One on the batches trained on, as every record holds it; one in eval mode, where outputs of all classes were kept.
    """
    found, kept = trained_models(summary), evaluated_models(summary)
    title = f"{summary.results.plan.suite}: information over training"
    figures = []
    if kept:
        drawn = _drawn(summary, kept)
        figures.append(Drawing("training-test", f"{title}, in eval mode", _text(kept, IN_EVAL_MODE), drawn))
    if isinstance(found, str):
        return figures or found
    return [Drawing("training", title, _text(found, ON_BATCHES), _drawn(summary, found)), *figures]


def _drawn(summary: Summary, found: Mapping[str, Sequence[TrainingCurve]]) -> Figure:
    figure = new_figure(7.2, 5.0, key=[f"{model}, diverged" for model in found for _ in range(2)])
    every = figure.subplots(2, 2, sharex=True).flatten()
    for axes, (head, measure) in zip(every, MEASURES_OF_EPOCHS.items(), strict=True):
        for model, own in found.items():
            _line(axes, own, measure, line_of(summary, model))
        axes.set_ylabel(head)
    for axes in every[2:]:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    add_key(figure, list(every))
    return figure


def trained_models(summary: Summary) -> dict[str, list[TrainingCurve]] | str:
    """By model the curves of its trainings; or why no figure shows them."""
    if why := crowded(summary):
        return why
    found = {
        model: [TrainingCurve(record.status == "diverged", record.curve) for record in own if record.curve]
        for model, own in _trainings(summary).items()
    }
    return {model: own for model, own in found.items() if own} or "no record holds the epochs of a training"


def evaluated_models(summary: Summary) -> dict[str, list[TrainingCurve]]:
    """By model what kept outputs say, where they are of all classes; nothing of too many models for a figure."""
    if crowded(summary):
        return {}
    found = {
        model: [
            TrainingCurve(record.status == "diverged", epochs)
            for record in own
            if record.outputs is not None and (epochs := kept_epochs(record.outputs))
        ]
        for model, own in _trainings(summary).items()
    }
    return {model: own for model, own in found.items() if own}


def _trainings(summary: Summary) -> dict[str, list[TrainRecord]]:
    records = [record for record in summary.results.records.values() if isinstance(record, TrainRecord)]
    return {model: [record for record in records if record.cell.model == model] for model in in_order(summary)}


def measured_epochs(
    curves: Sequence[TrainingCurve], measure: Callable[[MeasuredEpoch], float]
) -> tuple[list[int], list[list[float]]]:
    """Epochs that all seeds have which came to the end, and of each the measure, seed by seed.

    Seeds need not have the same: each keeps the outputs of the epoch that was selected for it, too.
    """
    whole = [{epoch.epoch: epoch for epoch in curve.epochs} for curve in curves if not curve.diverged]
    epochs = [number for number in whole[0] if all(number in own for own in whole)] if whole else []
    return epochs, [[measure(own[number]) for own in whole] for number in epochs]


def _line(
    axes: Axes, curves: Sequence[TrainingCurve], measure: Callable[[MeasuredEpoch], float], line: dict[str, Any]
) -> None:
    """The seeds that came to the end as one line; each that diverged as a thin one that ends in a cross."""
    epochs, rows = measured_epochs(curves, measure)
    if rows:
        axes.plot(epochs, [fmean(row) for row in rows], **line, markevery=max(1, len(rows) // _MARKS))
        if len(rows[0]) > 1:
            band = {"color": line["color"], "alpha": 0.15, "linewidth": 0}
            axes.fill_between(epochs, [min(row) for row in rows], [max(row) for row in rows], **band)
    for curve in curves:
        if curve.diverged:
            epochs, values = [e.epoch for e in curve.epochs], [measure(e) for e in curve.epochs]
            thin: dict[str, Any] = {
                **line,
                "linewidth": 0.7,
                "marker": "x",
                "markersize": 7,
                "markevery": [len(epochs) - 1],
            }
            axes.plot(epochs, values, **{**thin, "label": f"{line['label']}, diverged"})


def _text(found: Mapping[str, Sequence[TrainingCurve]], measured: str) -> str:
    said = []
    for model, own in found.items():
        last = [curve.epochs[-1] for curve in own if not curve.diverged]
        diverged = sum(curve.diverged for curve in own)
        means = (f"{head} {fmean(map(measure, last)):.3g}" for head, measure in MEASURES_OF_EPOCHS.items() if last)
        ended = ", ".join([*means, *([f"diverged in {diverged} of {len(own)} seeds"] if diverged else [])])
        said.append(f"{model} ends at {ended}.")
    head = f"CMI, separation, NCMI and error over epochs, {measured}; means over"
    return " ".join([f"{head} seeds, with the least and the greatest as a band.", *said])
