"""`--shard`: every cell is in one part, parts are of equal length, and few trainings are in two."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Plan
from robustbench_cmic.plan.select import Shard, _parts, select
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.messages import UserError
from tests.conftest import TINY_SUITE


def plan_of(folder: Path, seeds: str = "[0, 1, 2, 3]", attacks: str = "") -> Plan:
    file = folder / "tiny.yaml"
    file.write_text(TINY_SUITE.replace("attacks:", f"seeds: {seeds}\nattacks:\n{attacks}", 1))
    return make_plan(load_suite(file).suite)


@pytest.mark.parametrize("count", range(1, 9))
def test_every_cell_is_asked_of_one_shard_and_shards_are_equally_long(tmp_path: Path, count: int) -> None:
    plan = plan_of(tmp_path, attacks="  - {name: Transfer, eps: 0.1, steps: 2}\n")
    parts = [select(plan, shard=Shard(number, count)) for number in range(1, count + 1)]
    asked = [cell for part in parts for cell in part.asked]
    assert sorted(asked) == sorted(cell.id for cell in plan.cells)
    own = [sum(cell.kind == "train" and cell.id in part.asked for cell in part.cells) for part in parts]
    assert sum(own) == 8
    assert max(own) - min(own) <= 1
    for part in parts:
        names = [cell.id for cell in part.cells]
        assert names == [cell.id for cell in plan.cells if cell.id in names], "in the plan's order"
        assert all(set(cell.dependencies) <= set(names) for cell in part.cells), "with all that is needed"


def test_shards_of_whole_seeds_share_no_training_though_there_are_transfers(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, attacks="  - {name: Transfer, eps: 0.1, steps: 2}\n")
    for count, shared in ((2, 0), (4, 0), (8, 8)):
        parts = [select(plan, shard=Shard(number, count)) for number in range(1, count + 1)]
        assert sum(len(part.cells) for part in parts) - len(plan.cells) == shared
    assert {cell.seed for cell in select(plan, shard=Shard(3, 4)).cells} == {2}


def test_what_else_is_asked_for_is_shared_out(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    parts = [select(plan, [1, 2], ["PGD"], Shard(number, 2)) for number in (1, 2)]
    assert [{(cell.seed, cell.attack) for cell in part.cells} for part in parts] == [
        {(1, ""), (1, "PGD")},
        {(2, ""), (2, "PGD")},
    ]


def test_more_shards_than_trainings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--shard 1/9: there are 8 trainings to share out"):
        select(plan_of(tmp_path), shard=Shard(1, 9))


CHAINS = """\
suite: chains
dataset: {name: digits}
training: {epochs: 2, batch_size: 128, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: a, architecture: mlp, objective: {name: ce}}
  - {id: b, architecture: mlp, objective: {name: cmic}, initial_weights: {model: a}}
  - {id: c, architecture: mlp, objective: {name: ce}, normalization: none}
  - {id: d, architecture: mlp, objective: {name: cmic}, initial_weights: {model: b}}
attacks:
  - {name: FGSM, eps: 0.1}
"""


def test_what_begins_with_weights_of_another_is_in_its_shard(tmp_path: Path) -> None:
    (tmp_path / "chains.yaml").write_text(CHAINS)
    plan = make_plan(load_suite(tmp_path / "chains.yaml").suite)
    parts = [select(plan, shard=Shard(number, 2)) for number in (1, 2)]
    assert [{cell.model for cell in part.cells} for part in parts] == [{"a", "b", "d"}, {"c"}]
    assert sorted(cell.id for part in parts for cell in part.cells) == sorted(cell.id for cell in plan.cells)
    alone = select(plan, only=["d"], shard=Shard(1, 1))
    assert {cell.model for cell in alone.cells} == {"a", "b", "d"}
    assert {cell.id for cell in plan.cells if cell.id in alone.asked} == {
        each.id for each in plan.cells if each.model == "d"
    }
    with pytest.raises(UserError, match="--shard 1/3: there are 2 chains of trainings to share out"):
        select(plan, shard=Shard(1, 3))


@pytest.mark.parametrize("lengths", [(1,) * 7, (10, 1, 1), (1, 1, 10), (3, 1, 3, 1, 3), (1, 9, 1)])
def test_no_shard_is_empty_and_none_is_longer_than_it_has_to_be(lengths: tuple[int, ...]) -> None:
    for parts in range(1, len(lengths) + 1):
        numbers = list(_parts(lengths, parts))
        assert numbers == sorted(numbers), "runs"
        assert set(numbers) == set(range(1, parts + 1))
        longest = max(
            sum(length for length, of in zip(lengths, numbers, strict=True) if of == part)
            for part in range(1, parts + 1)
        )
        assert longest < sum(lengths) / parts + max(lengths)
