"""Which models, balls and attacks a suite's results hold, and the numbers of each, seed by seed."""

from __future__ import annotations

from robustbench_cmic.cell import Cell
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.worst_case import Ball, Outcomes, outcomes
from robustbench_cmic.suite.numbers import radius

CLEAN: Ball = ("", 0.0)
NORM_NAMES = {"linf": "L-inf", "l2": "L2"}


def planned_seeds(results: Results) -> int:
    """How many seeds the suite has."""
    return len({cell.seed for cell in results.plan.cells})


def models(results: Results) -> list[str]:
    """Ids of the models, in the suite's order."""
    return list(dict.fromkeys(cell.model for cell in results.plan.cells))


def balls(results: Results) -> list[Ball]:
    """The norms and radii attacked, ascending within a norm."""
    return sorted({(norm, eps) for _, _, norm, eps in results.attacks if norm})


def attacks(results: Results, ball: Ball) -> list[str]:
    """Labels of the attacks in a ball, in the suite's order."""
    return list(dict.fromkeys(label for _, label, norm, eps in results.attacks if (norm, eps) == ball))


def cells_of(results: Results, model: str, attack: str, ball: Ball) -> list[Cell]:
    """The cells of an attack on a model, one a seed."""
    return results.attacks.get((model, attack, *ball), [])


def by_seed(results: Results, model: str, attack: str, ball: Ball) -> dict[int, Outcomes]:
    """The outcomes of an attack on a model for each seed that has any."""
    cells = cells_of(results, model, attack, ball)
    return {cell.seed: found for cell in cells if (found := outcomes(results, cell)) is not None}


def size_of(ball: Ball) -> str:
    """`L-inf 0.1`, `L-inf 8/255`."""
    return f"{NORM_NAMES[ball[0]]} {radius(ball[1])}"
