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
