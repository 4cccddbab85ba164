"""CMIC-DL, in both readings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.objectives.base import Adversary, DeclaredObjective, start_warning

PRESETS: dict[str, dict[str, Any]] = {
    "printed": {"separation_gradient": "both", "separation_mean": "all_pairs", "floor": 1e-8},
    "authors": {"separation_gradient": "first", "separation_mean": "unlike_pairs", "floor": 1e-25},
}
"""The two readings: the formula taken literally, and the loss in the code that the authors have published."""


class CmicObjective(DeclaredObjective):
    """CMIC-DL (arXiv 2309.09123): cross entropy + lambda * concentration - beta * separation.

    There are two readings of the separation term, see docs/definitions.md, "What is CMIC-DL?".

    Attributes:
        preset: `printed` is the formula taken literally (`separation_gradient: both`, `separation_mean: all_pairs`,
            `floor: 1e-8`), `authors` the loss in the code that its authors have published (`first`, `unlike_pairs`,
            1e-25). Stands for these three keys; without it they are those of `printed`.
        lambda: below 0 concentration is undone (MCMI, arXiv 2401.08732), which may collapse from random weights.
        separation_gradient: of -P_x . log P_u, `both` factors are differentiated, or the `first` alone, P_x.
        separation_mean: over `all_pairs`, whose sum is divided by |B|^2, or over the `unlike_pairs` alone.
        floor: least probability inside the separation term, which is unbounded without one.
        centroids: `batch` updates the centroids with the step's own outputs, at no extra forward pass;
            `class_batches` is the paper's Algorithm 1, with `class_batch_size` extra examples of every class a step;
            `fixed` are the class means over the training set, see `refresh`. With an adversary all of them are taken
            from attacked images.
        momentum: how much of a centroid an update keeps; by default 0.99 for `batch`, for `class_batches` the
            paper's 0.9999 (over 500 steps it leaves the centroids uniform).
        horizon: in place of a momentum m, the number 1 / (1 - m) of steps that a centroid looks back on, as a share of
            the training's steps.
        class_batch_size: |B_c| of Algorithm 1; only for `class_batches`.
        class_batch_mode: the model's mode for class batches; in `train` mode they also enter the running statistics of
            batch normalisation; only for `class_batches`.
        refresh: when `fixed` centroids are computed: `once` before the training, or at the start of each `epoch`.
        label_smoothing: as for `ce`, in the cross-entropy term.
    """

    implementation = "robustbench_cmic.objectives.cmic:Cmic"
    name: Literal["cmic"]
    preset: Literal["printed", "authors"] | None = None
    lambda_: Annotated[fields.Number, Field(alias="lambda")] = 0.7
    beta: fields.NonNegative = 0.4
    separation_gradient: Literal["both", "first"] = "both"
    separation_mean: Literal["all_pairs", "unlike_pairs"] = "all_pairs"
    floor: Annotated[fields.Number, Field(gt=0, lt=1)] = 1e-8
    centroids: Literal["batch", "class_batches", "fixed"] = "batch"
    momentum: fields.UnitInterval | None = None
    horizon: Annotated[fields.Number, Field(gt=0, le=1)] | None = None
    class_batch_size: fields.Count = 8
    class_batch_mode: Literal["eval", "train"] = "eval"
    refresh: Literal["once", "epoch"] = "once"
    label_smoothing: fields.UnitInterval = 0.0
    adversary: Adversary | None = None

    @field_serializer("momentum")
    def _momentum_or_default(self, momentum: float | None) -> float | None:
        if self.horizon is not None or self.centroids == "fixed":
            return None
        default = 0.99 if self.centroids == "batch" else 0.9999
        return default if momentum is None else momentum

    @property
    def title(self) -> str:
        """`CMIC-DL` and the reading; where it is neither of the two, what sets it apart; `MCMI` below 0."""
        if self.lambda_ < 0 and self.beta == 0:
            return "MCMI"
        mine = self.arguments(0)
        for reading, keys in PRESETS.items():
            if all(mine[key] == value for key, value in keys.items() if key != "floor"):
                return f"CMIC-DL {reading}"
        return f"CMIC-DL ({mine['separation_gradient']}, {mine['separation_mean']})"

    def declared(self) -> dict[str, Any]:
        """As of every objective; a preset is written out."""
        return {key: value for key, value in self._written_out(super().declared()).items() if value is not None}

    def arguments(self, seed: int) -> dict[str, Any]:
        """As of every objective; a preset is written out."""
        return self._written_out(super().arguments(seed))

    def _written_out(self, keys: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (keys | self._of_preset).items() if key != "preset"}

    @property
    def _of_preset(self) -> dict[str, Any]:
        return PRESETS.get(self.preset or "", {})

    def further_examples(self, images: int, steps: int, classes: int) -> tuple[float, float]:
        """Class batches, and class means."""
        if self.centroids == "class_batches":
            return 0.0, float(steps * self.class_batch_size * classes)
        if self.centroids == "fixed":
            return (0.0, float(images)) if self.refresh == "epoch" else (float(images), 0.0)
        return 0.0, 0.0

    def problems(self) -> Iterable[tuple[str, str]]:
        """Keys that contradict each other or have no effect."""
        for key in self._of_preset:
            if key in self.model_fields_set:
                yield key, f"is set by `preset: {self.preset}`: leave out one of the two"
        if self.horizon is not None and self.momentum is not None:
            yield "horizon", "and `momentum` say the same in two ways: leave out one of the two"
        for key, needed in _CENTROID_KEYS.items():
            if key in self.model_fields_set and getattr(self, key) is not None and self.centroids not in needed:
                yield key, f"has no effect with `centroids: {self.centroids}`: leave it out"

    def warnings(
        self, steps: int | None, from_weights: bool = False, _epochs: int | None = None
    ) -> Iterable[tuple[str, str]]:
        """A sign of lambda that needs trained weights, and centroids that stay near their start."""
        if self.lambda_ < 0 and not from_weights:
            yield (
                "lambda",
                "below 0 maximises CMI: from random weights a training may collapse, it takes `initial_weights`",
            )
        momentum = self._momentum_or_default(self.momentum)
        by_default = self.centroids == "batch" and momentum == 0.99  # short enough, where a training is not a trial
        sentence = None if momentum is None else start_warning(momentum, steps, "the uniform start")
        if sentence is not None and not by_default:
            yield "centroids" if self.momentum is None else "momentum", sentence


_CENTROID_KEYS = {
    "momentum": ("batch", "class_batches"),
    "horizon": ("batch", "class_batches"),
    "class_batch_size": ("class_batches",),
    "class_batch_mode": ("class_batches",),
    "refresh": ("fixed",),
}
"""Which `centroids` a key is for."""
