"""The part of a plan that a command line asks for: `--seeds`, `--only` and `--shard`."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.suite.messages import UserError, suggestion


class Shard(NamedTuple):
    """One of some parts of a plan's trainings, counted from 1; `2/4` on a command line."""

    number: int
    parts: int

    def __str__(self) -> str:
        return f"{self.number}/{self.parts}"


class Selection(NamedTuple):
    """The cells that were asked for with everything that they depend on, in the plan's order; ids of the former."""

    cells: list[Cell]
    asked: set[str]


def select(plan: Plan, seeds: Sequence[int] = (), only: Sequence[str] = (), shard: Shard | None = None) -> Selection:
    """The cells of these seeds (none: all) whose model or attack is named in `only`, or whose id fits a pattern there.

    Of a `shard` those of its trainings alone, see `_of_shard`.

    The name of a model stands for transfers to it only where their source is named, too: nobody asked for the training
    of another.

    Raises:
        UserError: a seed or a pattern that fits no cell, or more shards than trainings.
    """
    planned = sorted({cell.seed for cell in plan.cells})
    for seed in seeds:
        if seed not in planned:
            raise UserError(f"--seeds: the suite has no seed {seed}; it has {', '.join(map(str, planned))}")
    for pattern in only:
        if not any(_matches(cell, pattern) for cell in plan.cells):
            names = dict.fromkeys(name for cell in plan.cells for name in (cell.model, cell.attack) if name)
            raise UserError(f"--only: nothing in the suite matches '{pattern}'; {suggestion(pattern, names)}")
    of_seeds = [cell for cell in plan.cells if not seeds or cell.seed in seeds]
    asked = {cell.id for cell in of_seeds if not only or any(_chooses(pattern, cell, only) for pattern in only)}
    if not asked:
        raise UserError("--seeds and --only together leave nothing of the suite")
    if shard is not None:
        asked = _of_shard(plan, asked, shard)
    keep = plan.with_dependencies(asked)
    return Selection([cell for cell in plan.cells if cell.id in keep], asked)


def _of_shard(plan: Plan, asked: set[str], shard: Shard) -> set[str]:
    """Those of the cells asked for that hang on the shard's trainings.

    Trainings are dealt out in runs of equal length (give or take one), seed by seed: a transfer is between models of
    one seed, so that few of its sources lie in another shard. Those that do are trained in both. What begins with the
    weights of another training is in that one's shard, and counts with it.
    """
    trainings = plan.of("train")
    chain: dict[str, str] = {}  # by training, the one with which its chain of beginnings begins
    for cell in trainings:
        chain[cell.id] = cell.id if cell.source is None else chain[cell.source]
    used = {cell.needs or cell.id for cell in plan.cells if cell.id in asked}
    lengths = Counter(chain[cell.id] for cell in sorted(trainings, key=lambda each: each.seed) if cell.id in used)
    if shard.parts > len(lengths):
        what = "trainings" if len(lengths) == len(used) else "chains of trainings"
        raise UserError(f"--shard {shard}: there are {len(lengths)} {what} to share out; ask for no more shards")
    part = dict(zip(lengths, _parts(list(lengths.values()), shard.parts), strict=True))
    return {cell.id for cell in plan.cells if cell.id in asked and part[chain[cell.needs or cell.id]] == shard.number}


def _parts(lengths: Sequence[int], parts: int) -> Iterator[int]:
    """For each of some lengths the number of its part, where parts are runs of about equal length and none is empty."""
    number, done = 1, 0
    for left, length in zip(reversed(range(len(lengths))), lengths, strict=True):
        yield number
        done += length
        if done * parts >= number * sum(lengths) or left == parts - number:
            number += 1


def _chooses(pattern: str, cell: Cell, only: Sequence[str]) -> bool:
    if pattern == cell.model and cell.kind == "attack" and cell.source is not None:
        source = cell.attack.partition(":")[2]
        return any(fnmatch.fnmatchcase(source, each) for each in only)
    return _matches(cell, pattern)


def _matches(cell: Cell, pattern: str) -> bool:
    # `Transfer` stands for the transfers from all sources.
    names = (cell.model, cell.attack, cell.attack.partition(":")[0], "audit" if cell.kind == "audit" else "")
    return (pattern != "" and pattern in names) or fnmatch.fnmatchcase(cell.id, pattern)
