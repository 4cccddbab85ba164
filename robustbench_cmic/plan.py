"""Suite -> plan: the cells to carry out, in order, with stable ids. Needs neither data nor torch.

A cell is the smallest thing that is done, stored and resumed: one training (model x seed), or one attack at one eps
on one trained model. Its id ends in a hash over everything declared that decides its result, so that equal ids mean
equal experiments and a changed suite never picks up an old result.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from robustbench_cmic.data import DRAW
from robustbench_cmic.suite.architectures import own_code_sha256
from robustbench_cmic.suite.fields import Norm
from robustbench_cmic.suite.library import ball_norm, resolved_parameters
from robustbench_cmic.suite.numbers import resolve_relative
from robustbench_cmic.suite.problems import suggestion
from robustbench_cmic.suite.schema import Model, Suite
from robustbench_cmic.suite.schema_attacks import Attack, Fgsm, LibraryAttack, Pgd

JUDGE = "block 256; projected onto ball and box; float32 argmax; clean errors count; version 3"
"""The decision rule of `attacks.harness`, and the version of it, of the native attacks and of their random numbers.

It is part of every attack cell's hash: a change to any of these raises the version, and no old result is taken for new.
"""


class SelectionError(Exception):
    """A selection on the command line that fits nothing in the plan."""


class Cell(BaseModel):
    """One training or one attack.

    Attributes:
        id: readable prefix and hash; also the name of the record's file.
        kind: `train`, or `attack` (the clean evaluation is the attack `none` at eps 0).
        attack: label of the attack; empty for a training.
        norm: of the ball; empty where there is no ball.
        eps: radius of the ball, in units of images in [0, 1].
        needs: the training that an attack attacks; None for a training.
        declared: everything that decides the result, as plain data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: Literal["train", "attack"]
    model: str
    architecture: str
    objective: str
    seed: int
    attack: str = ""
    norm: Literal["", "linf", "l2"] = ""
    eps: float = 0.0
    needs: str | None = None
    declared: dict[str, Any]


class Plan(BaseModel):
    """A suite's cells in order, and what a report needs to know of the suite; stored beside the records."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)

    schema_: Literal["robustbench_cmic/plan/1"] = Field("robustbench_cmic/plan/1", alias="schema")
    suite: str
    description: str
    dataset: str
    pairs: list[tuple[str, str]]
    cells: list[Cell]

    def of(self, kind: Literal["train", "attack"]) -> list[Cell]:
        """The cells of one kind, in order."""
        return [cell for cell in self.cells if cell.kind == kind]


def make_plan(suite: Suite, limit: int | None = None) -> Plan:
    """All cells of a suite: for each model and seed its training, the clean evaluation, then attack by attack.

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
    for model in suite.models:
        for seed in suite.seeds:
            training = _training_cell(suite, model, seed)
            cells += [training, *_attack_cells(training, suite.attacks, evaluation)]
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
    if model.weights is not None:
        file = model.weights_file(seed)
        declared["weights"] = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return Cell(
        id=_cell_id([model.id, f"s{seed}", "train"], declared),
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
    declared = model.objective.model_dump()
    if model.objective.name == "cmic":
        declared["momentum"] = model.objective.centroid_momentum
    return declared


def _attack_cells(training: Cell, attacks: Sequence[Attack], evaluation: dict[str, Any]) -> Iterable[Cell]:
    yield _attack_cell(training, evaluation, "none", "", 0.0, {"name": "none"})
    for attack in attacks:
        norm: Norm = ball_norm(attack) if isinstance(attack, LibraryAttack) else attack.norm
        for eps in attack.eps or []:
            yield _attack_cell(training, evaluation, attack.label, norm, eps, _setting(attack, eps))


def _setting(attack: Attack, eps: float) -> dict[str, Any]:
    """An attack's name and parameters at one eps, as numbers."""
    if isinstance(attack, Fgsm):
        return {"name": "FGSM", "loss": attack.loss}
    if isinstance(attack, Pgd):
        alpha = 2.5 * eps / attack.steps if attack.alpha is None else resolve_relative(attack.alpha, eps)
        own = ("steps", "random_start", "restarts", "loss", "early_stop")
        return {"name": "PGD", "alpha": alpha} | {key: getattr(attack, key) for key in own}
    return {"name": f"torchattacks.{attack.name}", **resolved_parameters(attack, eps)}


def _attack_cell(
    training: Cell, evaluation: dict[str, Any], label: str, norm: Literal["", "linf", "l2"], eps: float, setting: Any
) -> Cell:
    declared = {
        "train": training.declared,
        "attack": setting,
        "norm": norm,
        "eps": eps,
        "evaluation": evaluation,
        "judge": JUDGE,
    }
    prefix = [training.model, f"s{training.seed}", label]
    if label != "none":
        prefix += [norm, f"eps{eps:.5g}"]
    return training.model_copy(
        update={
            "id": _cell_id(prefix, declared),
            "kind": "attack",
            "attack": label,
            "norm": norm,
            "eps": eps,
            "needs": training.id,
            "declared": declared,
        }
    )


def canonical_json(value: Any) -> str:
    """One text for equal plain data: sorted keys, no spaces, floats as Python writes them.

    Raises:
        ValueError: NaN or infinity, which JSON does not know.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _cell_id(prefix: Sequence[str], declared: dict[str, Any]) -> str:
    digest = hashlib.sha256(canonical_json(declared).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9_.+-]", "_", ".".join(prefix))
    return f"{readable}.{digest}"


def title(cell: Cell) -> str:
    """A cell in words: `cnn-ce seed 0: train`, `cnn-ce seed 0: PGD linf eps 0.1`."""
    what = cell.attack or "train"
    if what == "none":
        what = "clean"
    ball = f" {cell.norm} eps {cell.eps:.4g}" if cell.norm else ""
    return f"{cell.model} seed {cell.seed}: {what}{ball}"


class Selection(NamedTuple):
    """The part of a plan that a command line asks for.

    Attributes:
        cells: what was asked for and the trainings it needs, in the plan's order.
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
        if (not seeds or cell.seed in seeds) and (not only or any(_matches(cell, pattern) for pattern in only))
    ]
    if not chosen:
        raise SelectionError("--seeds and --only together leave nothing of the suite")
    asked = {cell.id for cell in chosen}
    keep = asked | {cell.needs for cell in chosen}
    return Selection([cell for cell in plan.cells if cell.id in keep], asked)


def _matches(cell: Cell, pattern: str) -> bool:
    return (pattern != "" and pattern in (cell.model, cell.attack)) or fnmatch.fnmatchcase(cell.id, pattern)
