"""Training objectives: cross entropy and CMIC-DL, one file each."""

from __future__ import annotations

from typing import Any

from robustbench_cmic.objectives.base import Objective
from robustbench_cmic.objectives.ce import CrossEntropy
from robustbench_cmic.objectives.cmic import Cmic

__all__ = ["OBJECTIVES", "Cmic", "CrossEntropy", "Objective", "build_objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "ce": CrossEntropy,
    "cmic": Cmic,
}


def build_objective(declared: dict[str, Any], classes: int) -> Objective:
    """The objective that a cell declares: its `name` and parameters."""
    parameters = {key.replace("lambda", "lambda_"): value for key, value in declared.items() if key != "name"}
    return OBJECTIVES[declared["name"]](classes, **parameters)
