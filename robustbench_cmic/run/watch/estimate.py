"""How long a run will take, learned from what of it is done."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean
from typing import Annotated

from pydantic import ConfigDict, Field

from robustbench_cmic.plan.cell import Cell, Kind, title
from robustbench_cmic.plan.passes import declared_work
from robustbench_cmic.suite.fields import Frozen


class CellEstimate(Frozen):
    """What of a cell is needed to name it and to estimate its time; `work` is its `declared_work`.

    Cells that agree in kind, attack and eps, and differ in model and seed, take about equally long.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    id: str
    title: str
    kind: Kind
    attack: str
    eps: float
    work: Annotated[float, Field(ge=0)]


def cell_estimate(cell: Cell) -> CellEstimate:
    """A cell as the estimate sees it."""
    return CellEstimate(
        id=cell.id, title=title(cell), kind=cell.kind, attack=cell.attack, eps=cell.eps, work=declared_work(cell)
    )


def seconds_left(
    cells: Mapping[str, CellEstimate],
    ended: Mapping[str, float],
    running: Mapping[str, tuple[float, float]],
    jobs: int,
) -> float | None:
    """Time left of a run, learned from the cells that are done and, as far as they tell, from those that run.

    A kind of cell not seen yet is estimated by its declared work (epochs, gradient steps), scaled by how long such
    work took so far in the kind that has done most of it: what small cells take is mostly their beginning.

    Args:
        cells: of the run, by id.
        ended: the seconds that cells took; 0 teaches nothing.
        running: the seconds that cells have run for, and those that they are still to take at their pace.
        jobs: cells at a time.

    Returns:
        Seconds; None until something is known.
    """
    took = {cell: seconds for cell, seconds in ended.items() if seconds > 0}
    took |= {cell: sum(seconds) for cell, seconds in running.items()}
    alike: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    work: dict[tuple[str, str], float] = defaultdict(float)
    spent: dict[tuple[str, str], float] = defaultdict(float)
    for cell, seconds in ((cells[name], seconds) for name, seconds in took.items() if name in cells):
        alike[cell.kind, cell.attack, cell.eps].append(seconds)
        work[cell.kind, cell.attack] += cell.work
        spent[cell.kind, cell.attack] += seconds
    most = max(work, key=lambda kind: work[kind], default=None)
    if most is None or work[most] == 0:
        return None
    per_work = spent[most] / work[most]
    expected = [left for name, (_, left) in running.items() if name in cells]
    longest = max(expected, default=0.0)
    for name, cell in cells.items():
        if name not in running and name not in ended:
            times = alike[cell.kind, cell.attack, cell.eps]
            expected.append(fmean(times) if times else cell.work * per_work)
    left = max(sum(expected) / jobs, longest)
    return left if math.isfinite(left) else None  # cells of absurdly unequal work tell nothing


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
