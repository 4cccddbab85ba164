"""Outputs of three classes as points of a triangle, over training: from what trainings keep, for every format.

The three classes are chosen by a rule: those that a network trained with cross entropy confuses most, for all models of
a suite the same. Softmax of three logits is what the three probabilities are when they are made to sum to one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from robustbench_cmic.records.schema import KeptOutputs, TrainRecord
from robustbench_cmic.report.kept_outputs import kept_logits, softmax_rows
from robustbench_cmic.report.summary import Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CORNERS = ((0.0, 0.0), (1.0, 0.0), (0.5, math.sqrt(3) / 2))
"""Of an equilateral triangle of side 1: where an output is sure of the first, second, third class."""
SPOT = 0.01
"""Points that are equal when rounded to this share of a side are drawn on one another."""


class Look(NamedTuple):
    """The points of one network at one time.

    Attributes:
        epoch: after which the network answered so.
        temperature: by which logits were divided.
        points: (N, 2), in the order of `SimplexPictures.places`.
        overlapping: how many of them share their spot with another.
        astray: how many of them are nearer another corner than their own.
    """

    epoch: int
    temperature: float
    points: NDArray[np.float64]
    overlapping: int
    astray: int

    def text(self, kept: bool = False) -> str:
        """`epoch 5: 30 of 60 points overlap`; `kept`: these weights were kept, and are not those of the last epoch."""
        at = "" if self.temperature == 1 else f", T = {self.temperature:.3g}"
        return f"epoch {self.epoch}{' (kept)' * kept}{at}: {self.overlapping} of {len(self.points)} points overlap"


class SimplexModel(NamedTuple):
    """A model over its training.

    Attributes:
        looks: at temperature 1, by epoch.
        final: of these, that of the weights that were kept; `selected` where a selection kept them.
        calibrated: the same network at the temperature of its clean evaluation; None where it has none.
    """

    looks: list[Look]
    final: Look
    selected: bool
    calibrated: Look | None

    @property
    def milestones(self) -> list[Look]:
        """The first, a middle and the final one; of short trainings fewer."""
        middle = min(self.looks, key=lambda look: abs(look.epoch - (self.looks[0].epoch + self.looks[-1].epoch) / 2))
        chosen = {look.epoch: look for look in (self.looks[0], middle)}
        chosen.pop(self.final.epoch, None)
        return [*chosen.values(), self.final]


class SimplexPictures(NamedTuple):
    """What a suite's pictures show.

    Attributes:
        reference: the model that chose the classes.
        names: of the three classes.
        of: how many classes there were to choose from.
        places: for each point its class, 0 ... 2.
        models: in order of presentation.
    """

    reference: str
    seed: int
    names: tuple[str, str, str]
    of: int
    places: list[int]
    models: Mapping[str, SimplexModel]

    @property
    def rule(self) -> str:
        """How the classes and the images were chosen, in a sentence."""
        classes = f"classes {self.names[0]}, {self.names[1]} and {self.names[2]}"
        which = "the three of which outputs were kept"
        if self.of > 3:
            network = f"{self.reference} of seed {self.seed}"
            which = f"of {self.of} the three that {network} confuses most at the end of its training"
        return f"Test images of {classes}, {which}; a point each, its place is the softmax of the three logits."


def most_confused(confusion: NDArray[np.float64]) -> tuple[int, int, int]:
    """The three classes among which most is confused: the six numbers off the diagonal have the greatest sum.

    Args:
        confusion: (C, C), of row's examples what goes to column; C at least 3. The lowest labels win ties.
    """
    import numpy as np

    both = confusion + confusion.T
    best, chosen = -math.inf, (0, 1, 2)
    for first in range(len(both) - 2):
        others = both[first, first + 1 :]
        sums = others[:, None] + others[None, :] + both[first + 1 :, first + 1 :]
        sums[np.tril_indices(len(sums))] = -math.inf
        second, third = np.unravel_index(int(sums.argmax()), sums.shape)
        if sums[second, third] > best:
            best = float(sums[second, third])
            chosen = (first, first + 1 + int(second), first + 1 + int(third))
    return chosen


def simplex_points(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) logits -> (N, 2): the softmax as weights of `CORNERS`."""
    import numpy as np

    return np.asarray(softmax_rows(logits) @ np.array(CORNERS))


def overlapping(points: NDArray[np.float64]) -> int:
    """How many of the points (N, 2) share their spot with another, see `SPOT`."""
    import numpy as np

    _, counts = np.unique(np.round(points / SPOT), axis=0, return_counts=True)
    return int(counts[counts > 1].sum())


def simplex_pictures(summary: Summary) -> SimplexPictures | str:
    """Those of the lowest seed whose reference kept outputs; or why there are none, as the rest of a sentence."""
    import numpy as np

    chosen = _reference(summary)
    if chosen is None:
        return "no training kept outputs, which `outputs` of `training` asks for"
    reference, outputs = chosen.cell, chosen.outputs
    assert outputs is not None
    if sum(count > 0 for count in outputs.counts) < 3:
        return "there are fewer than three classes"
    labels = np.repeat(np.arange(len(outputs.counts)), outputs.counts)
    final = kept_logits(outputs)[_final_place(chosen)]
    given = softmax_rows(final)
    confusion = np.array(
        [given[labels == k].mean(0) if count else 0 * given[0] for k, count in enumerate(outputs.counts)]
    )
    triple = most_confused(confusion)
    inside = np.isin(labels, triple)
    places = np.searchsorted(triple, labels[inside])
    models = {
        model: _model(summary, record, triple, inside, places)
        for model, record in _records(summary, reference.seed)
        if _alike(record.outputs, outputs)
    }
    names = tuple(outputs.names[k] if outputs.names else str(outputs.classes[k]) for k in triple)
    three, of = (names[0], names[1], names[2]), sum(count > 0 for count in outputs.counts)
    return SimplexPictures(reference.model, reference.seed, three, of, places.tolist(), models)


def _records(summary: Summary, seed: int) -> Iterator[tuple[str, TrainRecord]]:
    """The models of the first pair, then all others, with their records of a seed that hold outputs."""
    first = next(iter(summary.results.plan.pairs), ())
    trainings = {(cell.model, cell.seed): cell.id for cell in summary.results.plan.of("train")}
    for model in dict.fromkeys([*first, *summary.results.models]):
        record = summary.results.records.get(trainings.get((model, seed), ""))
        if isinstance(record, TrainRecord) and record.status == "ok" and record.outputs and record.outputs.epochs:
            yield model, record


def _reference(summary: Summary) -> TrainRecord | None:
    """Of a model with plain cross entropy, if any model has it."""
    found: list[TrainRecord] = []
    for seed in sorted({cell.seed for cell in summary.results.plan.cells}):
        found += [record for _, record in _records(summary, seed)]
    plain = [record for record in found if record.cell.objective == "ce" and not _smoothing(record)]
    return next(iter([*plain, *found]), None)


def _smoothing(record: TrainRecord) -> float:
    return float(record.cell.declared["objective"].get("label_smoothing", 0))


def _alike(outputs: KeptOutputs | None, other: KeptOutputs) -> bool:
    """They are of the same classes and examples."""
    fields = {"classes", "counts", "examples_sha256"}
    return outputs is not None and outputs.model_dump(include=fields) == other.model_dump(include=fields)


def _final_place(record: TrainRecord) -> int:
    """Which of the kept epochs is that of the weights that were kept."""
    assert record.outputs is not None
    epochs = record.outputs.epochs
    return epochs.index(record.selected_epoch) if record.selected_epoch in epochs else len(epochs) - 1


def _model(
    summary: Summary,
    record: TrainRecord,
    triple: tuple[int, int, int],
    inside: NDArray[np.bool_],
    places: NDArray[np.int64],
) -> SimplexModel:
    assert record.outputs is not None
    logits = kept_logits(record.outputs)[:, inside][:, :, list(triple)]

    def look(place: int, temperature: float = 1.0) -> Look:
        points = simplex_points(logits[place] / temperature)
        astray = int((logits[place].argmax(1) != places).sum())
        return Look(record.outputs.epochs[place], temperature, points, overlapping(points), astray)  # type: ignore[union-attr]

    final = _final_place(record)
    looks = [look(place) for place in range(len(logits))]
    temperature = _temperature(summary, record)
    calibrated = None if temperature is None else look(final, temperature)
    return SimplexModel(looks, looks[final], record.selected_epoch is not None, calibrated)


def _temperature(summary: Summary, record: TrainRecord) -> float | None:
    """Of the network that was kept, as its clean evaluation has fitted it."""
    for cell in summary.results.plan.of("attack"):
        if cell.needs == record.cell.id and cell.attack == "none":
            clean = summary.results.attack(cell.id)
            return None if clean is None or clean.calibration is None else clean.calibration.temperature
    return None
