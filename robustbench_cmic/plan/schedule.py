"""How long a plan takes on several workers: list scheduling, and the chain of cells that no number of them shortens."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from robustbench_cmic.plan.cell import Cell


def simulated(cells: Sequence[Cell], seconds: Mapping[str, float], workers: int) -> float:
    """Seconds until all cells are done, where as many workers are busy as can be.

    The first cell that may start is always the next, as in a run. No schedule is shorter than the critical path, nor
    than all seconds over the number of workers, and this one takes at most the sum of both (Graham 1969, "Bounds on
    multiprocessing timing anomalies").

    Args:
        cells: each after those that it depends on.
        seconds: that each takes, by id; what is not there takes none.
        workers: cells at a time.
    """
    waiting, running, now = list(cells), list[tuple[float, str]](), 0.0
    unfinished = {cell.id for cell in cells}
    while unfinished:
        while len(running) < workers:
            ready = next((cell for cell in waiting if unfinished.isdisjoint(cell.dependencies)), None)
            if ready is None:
                break
            waiting.remove(ready)
            heapq.heappush(running, (now + seconds.get(ready.id, 0.0), ready.id))
        now, done = heapq.heappop(running)
        unfinished.discard(done)
    return now


def critical_path(cells: Sequence[Cell], seconds: Mapping[str, float]) -> list[Cell]:
    """The chain of dependent cells that takes longest; `cells` and `seconds` as in `simulated`."""
    ends: dict[str, float] = {}
    before: dict[str, Cell | None] = {}
    by_id = {cell.id: cell for cell in cells}
    for cell in cells:
        others = [by_id[other] for other in cell.dependencies if other in by_id]
        last = max(others, key=lambda other: ends[other.id], default=None)
        before[cell.id] = last
        ends[cell.id] = seconds.get(cell.id, 0.0) + (0.0 if last is None else ends[last.id])
    chain: list[Cell] = []
    at: Cell | None = max(cells, key=lambda cell: ends[cell.id])
    while at is not None:
        chain.insert(0, at)
        at = before[at.id]
    return chain
