"""CMI, separation, NCMI and error over the epochs of training, as training records hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from robustbench_cmic.records.schema import Epoch, TrainRecord
from robustbench_cmic.report.figures.curves import crowded
from robustbench_cmic.report.figures.drawing import Drawing, add_key, in_order, line_of, new_figure
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES_OF_EPOCHS: Mapping[str, Callable[[Epoch], float]] = {
    "CMI (nats)": lambda epoch: epoch.cmi,
    "separation (nats)": lambda epoch: epoch.separation,
    "NCMI": lambda epoch: math.nan if epoch.ncmi is None else epoch.ncmi,
    "error %": lambda epoch: 100 * (1 - epoch.accuracy),
}
"""What is drawn, by the words of its axis."""
_MARKS = 8
"""Marks on a line, about."""


def training_figures(summary: Summary) -> list[Drawing] | str:
    """One figure of four panels: a line a model, the mean over seeds, and the least and greatest of them as a band."""
    found = trained_models(summary)
    if isinstance(found, str):
        return found
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
    title = f"{summary.results.plan.suite}: information over training"
    return [Drawing("training", title, _text(found), figure)]


def trained_models(summary: Summary) -> dict[str, list[TrainRecord]] | str:
    """By model the trainings that have a curve; or why no figure shows them."""
    if why := crowded(summary):
        return why
    records = [
        record for record in summary.results.records.values() if isinstance(record, TrainRecord) and record.curve
    ]
    found = {model: own for model in in_order(summary) if (own := [r for r in records if r.cell.model == model])}
    return found or "no record holds the epochs of a training"


def measured_epochs(
    records: Sequence[TrainRecord], measure: Callable[[Epoch], float]
) -> tuple[list[int], list[list[float]]]:
    """Epochs that all seeds have which came to the end, and of each the measure, seed by seed."""
    whole = [record.curve for record in records if record.status == "ok"]
    length = min(map(len, whole), default=0)
    epochs = [epoch.epoch for epoch in whole[0][:length]] if whole else []
    return epochs, [[measure(curve[place]) for curve in whole] for place in range(length)]


def _line(axes: Axes, records: Sequence[TrainRecord], measure: Callable[[Epoch], float], line: dict[str, Any]) -> None:
    """The seeds that came to the end as one line; each that diverged as a thin one that ends in a cross."""
    epochs, rows = measured_epochs(records, measure)
    if rows:
        axes.plot(epochs, [fmean(row) for row in rows], **line, markevery=max(1, len(rows) // _MARKS))
        if len(rows[0]) > 1:
            band = {"color": line["color"], "alpha": 0.15, "linewidth": 0}
            axes.fill_between(epochs, [min(row) for row in rows], [max(row) for row in rows], **band)
    for record in records:
        if record.status == "diverged":
            epochs, values = [e.epoch for e in record.curve], [measure(e) for e in record.curve]
            thin: dict[str, Any] = {
                **line,
                "linewidth": 0.7,
                "marker": "x",
                "markersize": 7,
                "markevery": [len(epochs) - 1],
            }
            axes.plot(epochs, values, **{**thin, "label": f"{line['label']}, diverged"})


def _text(found: Mapping[str, Sequence[TrainRecord]]) -> str:
    said = []
    for model, own in found.items():
        last = [record.curve[-1] for record in own if record.status == "ok"]
        diverged = sum(record.status == "diverged" for record in own)
        means = (f"{head} {fmean(map(measure, last)):.3g}" for head, measure in MEASURES_OF_EPOCHS.items() if last)
        ended = ", ".join([*means, *([f"diverged in {diverged} of {len(own)} seeds"] if diverged else [])])
        said.append(f"{model} ends at {ended}.")
    head = "CMI, separation, NCMI and error over epochs, on the batches trained on while the weights moved; means over"
    return " ".join([f"{head} seeds, with the least and the greatest as a band.", *said])
