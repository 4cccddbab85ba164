"""Training objectives: cross entropy, CMIC-DL, and a user's own; one file each."""

from __future__ import annotations

from typing import Any

from robustbench_cmic.objectives.base import Objective, ObjectiveError
from robustbench_cmic.objectives.ce import CrossEntropy
from robustbench_cmic.objectives.cmic import Cmic
from robustbench_cmic.objectives.custom import custom_objective

__all__ = ["OBJECTIVES", "Cmic", "CrossEntropy", "Objective", "ObjectiveError", "build_objective"]

OBJECTIVES: dict[str, type[Objective]] = {
    "ce": CrossEntropy,
    "cmic": Cmic,
}


def build_objective(declared: dict[str, Any], classes: int, seed: int = 0) -> Objective:
    """The objective that a cell declares: its `name` and parameters; `seed` decides what a user's own draws.

    Raises:
        ObjectiveError: a user's own that cannot be used; the message says why.
    """
    if ":" in declared["name"]:
        return custom_objective(declared["name"], declared["parameters"], classes, seed)
    parameters = {key.replace("lambda", "lambda_"): value for key, value in declared.items() if key != "name"}
    return OBJECTIVES[declared["name"]](classes, **parameters)
