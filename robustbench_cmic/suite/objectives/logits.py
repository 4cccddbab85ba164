"""Objectives of logits and labels alone."""

from __future__ import annotations

from typing import Literal

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
