"""Training objectives: cross entropy, CMIC-DL, their rivals, and a user's own; one file each."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable

from robustbench_cmic.objectives.base import FeatureObjective, Objective, ParameterGroup
from robustbench_cmic.objectives.ce import CrossEntropy
from robustbench_cmic.objectives.center import CenterLoss
from robustbench_cmic.objectives.cmi_over_gamma import CmiOverGamma
from robustbench_cmic.objectives.cmic import Cmic
from robustbench_cmic.objectives.cosface import CosFace
from robustbench_cmic.objectives.focal import Focal
from robustbench_cmic.objectives.label_smoothing import LabelSmoothing
from robustbench_cmic.objectives.last_layer import ObjectiveError, OwnHead, holds_own_head
from robustbench_cmic.objectives.lgm import LargeMarginGaussian
from robustbench_cmic.objectives.ncmi import Ncmi
from robustbench_cmic.objectives.opl import Opl
from robustbench_cmic.objectives.robust import RobustCmi, mart_terms, trades_terms
from robustbench_cmic.objectives.squentropy import Squentropy
from robustbench_cmic.suite.objectives import Adversary, CustomObjective, DeclaredObjective

__all__ = [
    "CenterLoss",
    "CmiOverGamma",
    "Cmic",
    "CosFace",
    "CrossEntropy",
    "FeatureObjective",
    "Focal",
    "LabelSmoothing",
    "LargeMarginGaussian",
    "Ncmi",
    "Objective",
    "ObjectiveError",
    "Opl",
    "OwnHead",
    "ParameterGroup",
    "RobustCmi",
    "Squentropy",
    "build_objective",
    "build_robust_cmi",
    "head_owner",
    "holds_own_head",
    "mart_terms",
    "trades_terms",
]


def build_objective(declared: DeclaredObjective, classes: int, seed: int = 0) -> Objective:
    """The objective that a suite declares, on the CPU; `seed` decides what a user's own draws.

    Raises:
        ObjectiveError: a user's own that cannot be used; the message says why.
    """
    objective: Objective = pkgutil.resolve_name(declared.implementation)(classes, **declared.arguments(seed))
    return objective


def build_robust_cmi(adversary: Adversary | None, classes: int) -> RobustCmi | None:
    """The term of an adversary's robust CMI, on the CPU; None where it has none."""
    declared = None if adversary is None else adversary.robust_cmi
    if declared is None:
        return None
    return RobustCmi(classes, **declared.model_dump(by_alias=False, include={"lambda_", "beta", "momentum", "horizon"}))


def head_owner(declared: DeclaredObjective | None, classes: int, seed: int, names: Iterable[str]) -> Objective | None:
    """The objective whose head a trained network has; None where its last layer is the architecture's.

    Args:
        declared: what it was trained with, as far as that is known.
        classes: C.
        seed: of the training.
        names: of the trained weights, which tell of a user's own objective, so that its code need not be there.

    Raises:
        ObjectiveError: a user's own that cannot be used any more.
    """
    if declared is None or (isinstance(declared, CustomObjective) and not holds_own_head(names)):
        return None
    objective = build_objective(declared, classes, seed)
    return objective if objective.owns_head else None
