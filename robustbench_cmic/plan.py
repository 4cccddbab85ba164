"""Suite -> plan: the cells to carry out, in order, and what of them a command line asks for. No data, no torch."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from robustbench_cmic.cell import Cell, Plan, cell_id
from robustbench_cmic.data import DRAW
from robustbench_cmic.plan_attacks import attack_cells, transfer_cells
from robustbench_cmic.plan_audit import audit_cell
from robustbench_cmic.suite.own_code import OBJECTIVE, own_code_sha256, own_parameters
from robustbench_cmic.suite.problems import suggestion
from robustbench_cmic.suite.schema import Cmic, Model, OwnObjective, Suite
from robustbench_cmic.suite.schema_attacks import Transfer

TRAINER = 1
"""Of what a training makes of its declaration; a change that gives other weights raises it."""


class SelectionError(Exception):
    """A selection on the command line that fits nothing in the plan."""


def make_plan(suite: Suite, limit: int | None = None) -> Plan:
    """All cells of a suite: for each model and seed its training, the clean evaluation, attack by attack, the audit.

    Transfers between models come last, when all models are trained.

    Args:
        suite: a checked suite.
        limit: evaluate on this many examples only; such results are marked and never ranked.

    Raises:
        OSError: a file of given weights cannot be read.
    """
    evaluation = suite.evaluation.model_dump(exclude_none=True) | {"draw": DRAW}
    if limit is not None:
        evaluation["limit"] = min(limit, suite.evaluation.limit or limit)
        evaluation["by_command_line"] = True
    cells: list[Cell] = []
    trainings: dict[int, list[Cell]] = {seed: [] for seed in suite.seeds}
    for model in suite.models:
        for seed in suite.seeds:
            training = _training_cell(suite, model, seed)
            trainings[seed].append(training)
            cells += [training, *attack_cells(training, suite.attacks, evaluation)]
            if suite.audit != "off" and suite.attacks and limit is None:
                cells.append(audit_cell(training, suite, evaluation))
    for attack in suite.attacks:
        if isinstance(attack, Transfer):
            for seed in suite.seeds:
                cells += transfer_cells(attack, trainings[seed], suite.pairs, evaluation)
    return Plan(
        suite=suite.suite,
        description=suite.description,
        dataset=suite.dataset.label,
        pairs=[(first, second) for first, second in suite.pairs],
        cells=cells,
    )


def _training_cell(suite: Suite, model: Model, seed: int) -> Cell:
    """The training of a model, or the loading of its given weights."""
    own = model.model_dump(include={"architecture", "stem", "pretrained", "normalization"})
    declared = {
        "dataset": suite.dataset.model_dump(),
        "model": own | {"code_sha256": own_code_sha256(model.architecture)},
        "objective": _objective(model),
        "training": None if suite.training is None or model.given else suite.training.model_dump(exclude_none=True),
        "weights": None,
        "seed": seed,
    }
    if declared["training"] is not None:
        declared["trainer"] = TRAINER
    if model.weights is not None:
        file = model.weights_file(seed)
        declared["weights"] = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return Cell(
        id=cell_id([model.id, f"s{seed}", "train"], declared),
        kind="train",
        model=model.id,
        architecture=model.architecture,
        objective="given" if model.objective is None else model.objective.name,
        seed=seed,
        declared=declared,
    )


def _objective(model: Model) -> dict[str, Any] | None:
    if model.objective is None:
        return None
    if isinstance(model.objective, OwnObjective):
        name = model.objective.name
        parameters = own_parameters(name, OBJECTIVE, model.objective.parameters)
        declared: dict[str, Any] = {"name": name, "code_sha256": own_code_sha256(name), "parameters": parameters}
    else:
        declared = model.objective.model_dump(exclude={"adversary"})
    if isinstance(model.objective, Cmic):
        declared["momentum"] = model.objective.centroid_momentum
    if model.objective.adversary is not None:
        declared["adversary"] = model.objective.adversary.resolved()
    return declared


class Selection(NamedTuple):
    """The part of a plan that a command line asks for.

    Attributes:
        cells: what was asked for and everything that it depends on, in the plan's order.
        asked: ids of what was asked for itself.
    """

    cells: list[Cell]
    asked: set[str]


def select(plan: Plan, seeds: Sequence[int] = (), only: Sequence[str] = ()) -> Selection:
    """The cells that a command line asks for.

    Args:
        plan: the plan to choose from.
        seeds: keep these seeds; empty: all.
        only: keep cells whose model or attack is so named, or whose id matches the pattern (`*` and `?`); empty: all.
            The name of a model stands for transfers to it only where their source is named, too: nobody asked for the
            training of another.

    Raises:
        SelectionError: a seed or a pattern that fits no cell.
    """
    planned = sorted({cell.seed for cell in plan.cells})
    for seed in seeds:
        if seed not in planned:
            raise SelectionError(f"--seeds: the suite has no seed {seed}; it has {', '.join(map(str, planned))}")
    for pattern in only:
        if not any(_matches(cell, pattern) for cell in plan.cells):
            names = dict.fromkeys(name for cell in plan.cells for name in (cell.model, cell.attack) if name)
            raise SelectionError(f"--only: nothing in the suite matches '{pattern}'; {suggestion(pattern, names)}")
    chosen = [
        cell
        for cell in plan.cells
        if (not seeds or cell.seed in seeds) and (not only or any(_chooses(pattern, cell, only) for pattern in only))
    ]
    if not chosen:
        raise SelectionError("--seeds and --only together leave nothing of the suite")
    asked = {cell.id for cell in chosen}
    keep = set(asked)
    for cell in reversed(plan.cells):  # what a cell depends on comes before it
        if cell.id in keep:
            keep.update(cell.dependencies)
    return Selection([cell for cell in plan.cells if cell.id in keep], asked)


def _chooses(pattern: str, cell: Cell, only: Sequence[str]) -> bool:
    if pattern == cell.model and cell.source is not None:
        return cell.attack.partition(":")[2] in only
    return _matches(cell, pattern)


def _matches(cell: Cell, pattern: str) -> bool:
    # `Transfer` stands for the transfers from all sources.
    names = (cell.model, cell.attack, cell.attack.partition(":")[0], "audit" if cell.kind == "audit" else "")
    return (pattern != "" and pattern in names) or fnmatch.fnmatchcase(cell.id, pattern)
