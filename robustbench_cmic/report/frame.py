"""The worst case over attacks, example by example: the mean of the minimum, not the minimum of the means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import outcome_bits
from robustbench_cmic.report.results import Results
from robustbench_cmic.suite.fields import format_eps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Ball = tuple[str, float]


@dataclass(frozen=True)
class Outcomes:
    """What became of each of n examples: bit i from the left is 1 where example i is classified correctly."""

    bits: int
    n: int

    @property
    def accuracy(self) -> float:
        """Fraction in [0, 1]."""
        return self.bits.bit_count() / self.n

    @property
    def array(self) -> NDArray[np.uint8]:
        """(n,) ones and zeros."""
        import numpy as np

        padding = -self.n % 8
        packed = (self.bits << padding).to_bytes((self.n + padding) // 8, "big")
        return np.unpackbits(np.frombuffer(packed, np.uint8), count=self.n)


def outcomes(results: Results, cell: Cell) -> Outcomes | None:
    """The outcomes of an attack; None where it gave none."""
    record = results.attack(cell)
    if record is None or record.outcomes is None or record.n is None:
        return None
    return Outcomes(outcome_bits(record.outcomes, record.n), record.n)


def attacks_in(results: Results, model: str, ball: Ball) -> list[Cell]:
    """The planned attacks on a model in a ball, without transfers from a source that could not be trained."""
    cells = [
        cell
        for (attacked, _, *inside), found in results.attacks.items()
        if attacked == model and tuple(inside) == ball
        for cell in found
    ]
    return [cell for cell in cells if not _without_source(results, cell)]


def _without_source(results: Results, cell: Cell) -> bool:
    source = results.records.get(cell.source or "")
    return source is not None and source.status == "diverged"


def worst_case(results: Results, model: str, ball: Ball) -> dict[int, Outcomes]:
    """For each seed the examples that survive every attack run in a ball, or in a smaller ball of its norm.

    What a smaller ball breaks is broken in a larger one, which holds the same adversarial example.

    Args:
        results: a suite's results.
        model: id of a model.
        ball: norm and eps.

    Returns:
        Outcomes by seed. A seed is left out unless every planned attack gave a result: a worst case over fewer attacks
        would look better than it is.
    """
    norm, eps = ball
    inside = {(own, radius) for _, _, own, radius in results.attacks if own == norm and radius <= eps}
    return survivors(results, [cell for smaller in sorted(inside) for cell in attacks_in(results, model, smaller)])


def survivors(results: Results, cells: Iterable[Cell]) -> dict[int, Outcomes]:
    """For each seed the examples that survive every one of some attacks on a model.

    A seed is left out where one of its attacks gave no result.
    """
    alive: dict[int, Outcomes] = {}
    incomplete: set[int] = set()
    for cell in cells:
        found = outcomes(results, cell)
        if found is None:
            incomplete.add(cell.seed)
        elif cell.seed in alive:
            alive[cell.seed] = Outcomes(alive[cell.seed].bits & found.bits, found.n)
        else:
            alive[cell.seed] = found
    return {seed: found for seed, found in alive.items() if seed not in incomplete}


def marginal_shares(results: Results, model: str, ball: Ball) -> dict[str, list[float]]:
    """For each attack in a ball the fraction of examples that it alone breaks, one number a seed.

    Clean errors are nobody's; a seed is left out where an attack has no result.
    """
    cells: dict[int, list[Cell]] = {}
    for cell in attacks_in(results, model, ball):
        cells.setdefault(cell.seed, []).append(cell)
    shares: dict[str, list[float]] = {}
    for group in cells.values():
        found = [outcomes(results, cell) for cell in group]
        for index, cell in enumerate(group):
            own = found[index]
            others = [other.bits for place, other in enumerate(found) if other is not None and place != index]
            if own is None or None in found or not others:
                continue
            kept_by_others = reduce(and_, others)
            shares.setdefault(cell.attack, []).append((kept_by_others & ~own.bits).bit_count() / own.n)
    return shares


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
    return f"{NORM_NAMES[ball[0]]} {format_eps(ball[1])}"
