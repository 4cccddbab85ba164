"""The simulation of docs/cluster.md: list scheduling on dependent cells, against what is known of it."""

from __future__ import annotations

import itertools
import random
import runpy
from typing import Any

import pytest

from robustbench_cmic.plan.cell import Cell
from tests.conftest import ROOT
from tests.run.executors.test_local import attack, cell

SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks" / "cluster_scaling.py"))


def made(seed: int) -> tuple[list[Cell], dict[str, float]]:
    """Trainings, and attacks in chains and with sources; with the seconds that each takes."""
    generator = random.Random(seed)
    cells = [cell(f"t{number}") for number in range(4)]
    for number in range(20):
        training = f"t{generator.randrange(4)}"
        before = generator.choice([None, *(each.id for each in cells if each.needs == training)])
        cells.append(attack(f"a{number}", training, generator.choice([None, "t0", "t3"]), before))
    return cells, {each.id: generator.uniform(0.1, 5) for each in cells}


@pytest.mark.parametrize("seed", range(5))
def test_a_schedule_is_within_grahams_bounds(seed: int) -> None:
    cells, seconds = made(seed)
    work, chain = sum(seconds.values()), SCRIPT["critical_path"](cells, seconds)
    length = sum(seconds[each.id] for each in chain)
    assert all(before.id in after.dependencies for before, after in itertools.pairwise(chain))
    for workers in (1, 2, 3, 8, 24):
        time = SCRIPT["simulated"](cells, seconds, workers)
        assert max(length, work / workers) <= time + 1e-9
        assert time <= work / workers + length + 1e-9
    assert SCRIPT["simulated"](cells, seconds, 1) == pytest.approx(work)
    assert SCRIPT["simulated"](cells, seconds, 24) == pytest.approx(length), "with room for all"


def test_a_schedule_worked_out_by_hand() -> None:
    """Two at a time: t1 0-3, t2 0-1, b (needs t2) 1-3, a (needs t1) 3-5."""
    cells = [cell("t1"), cell("t2"), cell("a", "t1"), cell("b", "t2")]
    assert SCRIPT["simulated"](cells, {"t1": 3.0, "t2": 1.0, "a": 2.0, "b": 2.0}, 2) == 5.0
