"""Suite -> plan, the part on attacks: which cells attack one trained model, and what exactly each declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from robustbench_cmic.cell import Cell, cell_id
from robustbench_cmic.suite.fields import Norm
from robustbench_cmic.suite.library import ball_norm, resolved_parameters
from robustbench_cmic.suite.numbers import resolve_relative
from robustbench_cmic.suite.own_code import ATTACK, own_code_sha256, own_parameters
from robustbench_cmic.suite.schema_attacks import (
    AnyAttack,
    AutoAttack,
    Fgsm,
    LibraryAttack,
    Noise,
    OwnAttack,
    Pgd,
    Transfer,
)

JUDGE = "block 256; projected onto ball and box; float32 argmax; clean errors count; version 4"
"""The decision rule of `attacks.harness`, and the version of it, of the native attacks and of their random numbers.

It is part of every attack cell's hash: a change to any of these raises the version, and no old result is taken for new.
"""

CLEAN: dict[str, Any] = {"name": "none"}


def attack_cells(training: Cell, attacks: Sequence[AnyAttack], evaluation: dict[str, Any]) -> Iterator[Cell]:
    """The clean evaluation of a trained model, then attack by attack, each over its radii; all but transfers."""
    yield _cell(training, evaluation, "none", None, CLEAN)
    for attack in attacks:
        if isinstance(attack, Transfer):
            continue
        before: Cell | None = None
        for norm, eps in balls(attack):
            cell = _cell(training, evaluation, attack.label, (norm, eps), attack_setting(attack, eps), after=before)
            before = cell if isinstance(attack, Pgd | AutoAttack) and attack.ascending else None
            yield cell


def transfer_cells(
    attack: Transfer, trainings: Sequence[Cell], pairs: Sequence[Sequence[str]], evaluation: dict[str, Any]
) -> Iterator[Cell]:
    """A model's adversarial examples tried on every other, or on its partners in pairs, and its own on itself.

    Args:
        attack: how the examples are found.
        trainings: of all models, with one seed.
        pairs: ids of models.
        evaluation: which examples.
    """
    partners = {frozenset(pair) for pair in pairs}
    for target in trainings:
        for source in trainings:
            paired = source == target or frozenset((source.model, target.model)) in partners
            if attack.sources == "all" or paired:
                label = f"{attack.label}:{source.model}"
                for ball in balls(attack):
                    yield _cell(target, evaluation, label, ball, attack_setting(attack, ball[1]), source=source)


def balls(attack: AnyAttack) -> list[tuple[Norm, float]]:
    """Norm and radius of every ball that an attack is run in: ascending, where smaller ones decide larger ones."""
    norm: Norm = ball_norm(attack) if isinstance(attack, LibraryAttack) else attack.norm
    radii = attack.eps or []
    if isinstance(attack, Pgd | AutoAttack) and attack.ascending:
        radii = sorted(radii)
    return [(norm, eps) for eps in radii]


def attack_setting(attack: AnyAttack, eps: float) -> dict[str, Any]:
    """An attack's name and parameters at one eps, as numbers."""
    if isinstance(attack, Fgsm):
        return {"name": "FGSM", "loss": attack.loss}
    if isinstance(attack, Noise):
        return {"name": "Noise", "samples": attack.samples}
    if isinstance(attack, AutoAttack):
        numbers = {"targets": attack.targets, "steps": attack.steps, "queries": attack.queries}
        return {"name": "AutoAttack"} | numbers | _ascending(attack)
    if isinstance(attack, Pgd | Transfer):
        alpha = 2.5 * eps / attack.steps if attack.alpha is None else resolve_relative(attack.alpha, eps)
        own = ("steps", "random_start", "restarts", "targets", "schedule", "loss")
        setting = {"name": attack.name, "alpha": alpha} | {key: getattr(attack, key) for key in own}
        return (
            setting
            if isinstance(attack, Transfer)
            else setting | {"early_stop": attack.early_stop} | _ascending(attack)
        )
    if isinstance(attack, OwnAttack):
        parameters = own_parameters(attack.name, ATTACK, attack.parameters, eps)
        return {"name": attack.name, "code_sha256": own_code_sha256(attack.name), "parameters": parameters}
    return {"name": f"torchattacks.{attack.name}", **resolved_parameters(attack, eps)}


def _ascending(attack: Pgd | AutoAttack) -> dict[str, Any]:
    """Only where it is so: what the attack does to an example is the same."""
    return {"ascending": True} if attack.ascending else {}


def _cell(
    training: Cell,
    evaluation: dict[str, Any],
    label: str,
    ball: tuple[Norm, float] | None,
    setting: dict[str, Any],
    source: Cell | None = None,
    after: Cell | None = None,
) -> Cell:
    norm, eps = ball or ("", 0.0)
    declared = {
        "train": training.declared,
        "attack": setting,
        "norm": norm,
        "eps": eps,
        "evaluation": evaluation,
        "judge": JUDGE,
    }
    if source is not None:
        declared["source"] = source.declared
    if after is not None:
        declared["after"] = after.id
    prefix = [training.model, f"s{training.seed}", label]
    if ball is not None:
        prefix += [norm, f"eps{eps:.5g}"]
    return training.model_copy(
        update={
            "id": cell_id(prefix, declared),
            "kind": "attack",
            "attack": label,
            "norm": norm,
            "eps": eps,
            "needs": training.id,
            "source": None if source is None else source.id,
            "after": None if after is None else after.id,
            "declared": declared,
        }
    )
