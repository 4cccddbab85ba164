"""The worst case over attacks, example by example: the mean of the minimum, not the minimum of the means."""

from __future__ import annotations

from robustbench_cmic.record import outcome_bits
from robustbench_cmic.report.results import Results


def worst_case(results: Results, model: str, ball: tuple[str, float]) -> dict[int, float]:
    """For each seed the fraction of examples that survive every attack run in a ball.

    Args:
        results: a suite's results.
        model: id of a model.
        ball: norm and eps.

    Returns:
        Seed -> fraction in [0, 1]. A seed is left out unless every planned attack in the ball gave a result: a worst
        case over fewer attacks would look better than it is.
    """
    planned = [cell for cell in results.plan.of("attack") if cell.model == model and (cell.norm, cell.eps) == ball]
    survivors: dict[int, int] = {}
    sizes: dict[int, int] = {}
    incomplete: set[int] = set()
    for cell in planned:
        record = results.attack(cell)
        if record is None or record.outcomes is None or record.n is None:
            incomplete.add(cell.seed)
            continue
        sizes[cell.seed] = record.n
        survivors[cell.seed] = survivors.get(cell.seed, -1) & outcome_bits(record.outcomes, record.n)
    return {seed: alive.bit_count() / sizes[seed] for seed, alive in survivors.items() if seed not in incomplete}
