"""Suite -> plan: the cells to carry out, in order, and what of them a command line asks for. No data, no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from robustbench_cmic.plan.audit import audit_cell, plan_audit
from robustbench_cmic.plan.cell import Cell, Plan, cell_id
from robustbench_cmic.plan.versions import EVALUATION, SUBSET, TRAINING
from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.attacks import Transfer
from robustbench_cmic.suite.fields import CLEAN, Threat
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.schema import CLEAN_EVALUATION, Suite


def make_plan(suite: Suite, limit: int | None = None) -> Plan:
    """All cells of a suite: for each model and seed its training, the clean evaluation, attack by attack, the audit.

    Transfers between models come last, when all models are trained. Results on only `limit` examples are marked, and
    never ranked.

    Raises:
        OSError: a file of given weights cannot be read.
    """
    evaluation = suite.evaluation.model_dump(exclude_none=True) | {"draw": SUBSET}
    if limit is not None:
        evaluation["limit"] = min(limit, suite.evaluation.limit or limit)
        evaluation["by_command_line"] = True
    cells: list[Cell] = []
    trainings: dict[int, list[Cell]] = {seed: [] for seed in suite.seeds}
    audit = None if suite.audit == "off" or not suite.attacks or limit is not None else plan_audit(suite)
    for model in suite.models:
        for seed in suite.seeds:
            begins_with = next((cell for cell in trainings[seed] if cell.model == model.begins_with), None)
            training = _training_cell(suite, model, seed, begins_with)
            trainings[seed].append(training)
            cells += [training, *attack_cells(training, suite.attacks, evaluation)]
            if audit is not None:
                cells.append(audit_cell(training, audit, evaluation))
    for transfer in (attack for attack in suite.attacks if isinstance(attack, Transfer)):
        for seed in suite.seeds:
            cells += _transfer_cells(transfer, trainings[seed], suite.pairs, evaluation)
    return Plan(
        suite=suite.suite,
        description=suite.description,
        dataset=suite.dataset.label,
        pairs=[(first, second) for first, second in suite.pairs],
        claims=suite.claims,
        file_name=suite.file_name,
        changes=list(suite.changes),
        settings={} if suite.dataset.holdout is None else suite.families,
        cells=cells,
    )


def _training_cell(suite: Suite, model: Model, seed: int, begins_with: Cell | None) -> Cell:
    """The training of a model, or the loading of its given weights.

    `begins_with` is the training whose weights this one begins with, which stands before it in the plan.
    """
    trained = model.training or suite.training if not model.given else None
    declared = {
        "dataset": suite.dataset.model_dump(),
        "model": model.declared(),
        "objective": None if model.objective is None else model.objective.declared(),
        "training": None if trained is None else trained.declared(suite.adversarial),
        "weights": None,
        "seed": seed,
    }
    if trained is not None:
        declared["trainer"] = TRAINING
    if model.file_key:
        file = model.weights_file(seed)
        given = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        declared[model.file_key] = given if model.weights_key is None else given | {"key": model.weights_key}
    if begins_with is not None:
        declared["initial_weights"] = {"training": begins_with.id}
    return Cell(
        id=cell_id([model.id, f"s{seed}", "train"], declared),
        kind="train",
        model=model.id,
        architecture=model.architecture,
        objective="given" if model.objective is None else model.objective.name,
        seed=seed,
        source=None if begins_with is None else begins_with.id,
        declared=declared,
    )


def attack_cells(training: Cell, attacks: Sequence[Attack], evaluation: dict[str, Any]) -> Iterator[Cell]:
    """The clean evaluation of a trained model, then attack by attack, each over its radii; all but transfers."""
    yield _cell(training, evaluation, None, CLEAN)
    for attack in (each for each in attacks if not isinstance(each, Transfer)):
        before: str | None = None
        for threat in attack.threats():
            cell = _cell(training, evaluation, attack, threat, after=before)
            before = cell.id if attack.carries_over else None
            yield cell


def _transfer_cells(
    attack: Transfer, trainings: Sequence[Cell], pairs: Sequence[Sequence[str]], evaluation: dict[str, Any]
) -> Iterator[Cell]:
    """Of models of one seed: adversarial examples tried on every other, or on partners in pairs, and on itself."""
    partners = {frozenset(pair) for pair in pairs}
    for target in trainings:
        for source in trainings:
            paired = source == target or frozenset((source.model, target.model)) in partners
            if attack.sources == "all" or paired:
                yield from (_cell(target, evaluation, attack, threat, source=source) for threat in attack.threats())


def _cell(
    training: Cell,
    evaluation: dict[str, Any],
    attack: Attack | None,
    threat: Threat,
    source: Cell | None = None,
    after: str | None = None,
) -> Cell:
    label = "none" if attack is None else attack.label
    declared = {
        "train": training.declared,
        "attack": CLEAN_EVALUATION if attack is None else attack.at(threat).declared(),
        "norm": threat.norm,
        "eps": threat.eps,
        "evaluation": evaluation,
        "judge": EVALUATION,
    }
    if source is not None:
        label = f"{label}:{source.model}"
        declared["source"] = source.declared
    if after is not None:
        declared["after"] = after
    ball = [] if threat == CLEAN else [threat.norm, f"eps{threat.eps:.5g}"]
    by = {"attack": label, "source": None if source is None else source.id, "after": after}
    return training.dependent("attack", [label, *ball], declared, **by, **threat._asdict())
