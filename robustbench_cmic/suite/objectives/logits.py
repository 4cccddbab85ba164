"""Objectives of logits and labels alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.objectives.base import Adversary, DeclaredObjective


class CrossEntropyObjective(DeclaredObjective):
    """The baseline; `label_smoothing` spreads a share of the target over all classes (Szegedy et al. 2016)."""

    implementation = "robustbench_cmic.objectives.ce:CrossEntropy"
    name: Literal["ce"]
    label_smoothing: fields.UnitInterval = 0.0
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`CE`, whatever its label smoothing."""
        return "CE"


class LabelSmoothingObjective(DeclaredObjective):
    """Label smoothing (Szegedy et al. 2016): cross entropy with a part of the target on other classes.

    Attributes:
        smoothing: that part, epsilon.
        convention: it is spread evenly over `all` C classes, as in the paper and in torch (and by `label_smoothing` of
            `ce`), or over the C - 1 `wrong` ones, which is the same as smoothing * C / (C - 1) over all.
    """

    implementation = "robustbench_cmic.objectives.label_smoothing:LabelSmoothing"
    name: Literal["label_smoothing"]
    smoothing: fields.UnitInterval = 0.1
    convention: Literal["all", "wrong"] = "all"
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`Label smoothing`."""
        return "Label smoothing"


class FocalObjective(DeclaredObjective):
    """Focal loss (Lin et al. 2017): -(1 - p)^gamma log p of the true class.

    Attributes:
        gamma: how much less examples count that are right already; 0 is cross entropy.
    """

    implementation = "robustbench_cmic.objectives.focal:Focal"
    name: Literal["focal"]
    gamma: fields.NonNegative = 2.0
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`Focal`."""
        return "Focal"


class SquentropyObjective(DeclaredObjective):
    """Squentropy (Hui et al. 2023): cross entropy + the mean square of the wrong classes' logits."""

    implementation = "robustbench_cmic.objectives.squentropy:Squentropy"
    name: Literal["squentropy"]
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`Squentropy`."""
        return "Squentropy"


class CmiOverGammaObjective(DeclaredObjective):
    """CMI / Gamma of the softmax alone, after epochs of cross entropy; not the objective of `ncmi_alone`.

    Attributes:
        separation_gradient: as for `cmic`.
        floor: as for `cmic`.
        momentum: how much of a centroid a step keeps.
        warmup_epochs: epochs of cross entropy before: the ratio does not know which output is which class's.
    """

    implementation = "robustbench_cmic.objectives.cmi_over_gamma:CmiOverGamma"
    cross_entropy = False
    name: Literal["cmi_over_gamma"]
    separation_gradient: Literal["both", "first"] = "both"
    floor: Annotated[fields.Number, Field(gt=0, lt=1)] = 1e-8
    momentum: fields.UnitInterval = 0.99
    warmup_epochs: Annotated[int, Field(ge=0, le=10_000_000)] = 1
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`CMI/Gamma alone`."""
        return "CMI/Gamma alone"

    def warnings(
        self, _steps: int | None, from_weights: bool = False, epochs: int | None = None
    ) -> Iterable[tuple[str, str]]:
        """Random weights without a warm-up, and a warm-up without an end."""
        if epochs is not None and self.warmup_epochs >= epochs:
            yield "warmup_epochs", f"{self.warmup_epochs} of {epochs} epochs: all of the training is cross entropy"
        if self.warmup_epochs == 0 and not from_weights:
            yield "warmup_epochs", "0 leaves open which output is which class's: give some, or `initial_weights`"
