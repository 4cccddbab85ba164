"""Training objectives: cross entropy, CMIC-DL, and a user's own; one file each."""

from __future__ import annotations

import pkgutil

from robustbench_cmic.objectives.base import Objective, ObjectiveError
from robustbench_cmic.objectives.ce import CrossEntropy
from robustbench_cmic.objectives.cmic import Cmic
from robustbench_cmic.suite.objectives import DeclaredObjective

__all__ = ["Cmic", "CrossEntropy", "Objective", "ObjectiveError", "build_objective"]


def build_objective(declared: DeclaredObjective, classes: int, seed: int = 0) -> Objective:
    """The objective that a suite declares, on the CPU; `seed` decides what a user's own draws.

    Raises:
        ObjectiveError: a user's own that cannot be used; the message says why.
    """
    objective: Objective = pkgutil.resolve_name(declared.implementation)(classes, **declared.arguments(seed))
    return objective
