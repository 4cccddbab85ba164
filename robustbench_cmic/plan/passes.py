"""What a cell takes: examples through its network, as declared, before anything is computed."""

from __future__ import annotations

from typing import NamedTuple

from robustbench_cmic.plan.audit import PlannedAudit
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.suite.attack_base import Attack, Passes
from robustbench_cmic.suite.data import dataset_of
from robustbench_cmic.suite.objectives import Adversary, objective_of
from robustbench_cmic.suite.schema import attack_of
from robustbench_cmic.suite.training import Training

WITHIN_AUDIT = 0.5
"""Searches of audits end early, and check what others have broken already: measured were 0.35 to 0.65 of all steps."""
PROCESS = 20_000.0
"""What a process that starts, and reads weights, is worth in passes of an example."""


class CellPasses(NamedTuple):
    """Examples through the network, with those of the judge.

    Attributes:
        expected: with guesses, where attacks stop early.
        most: if nothing ever stops early; None where nobody knows, of other people's attacks and of audits.
    """

    expected: Passes
    most: Passes | None


def cell_passes(cell: Cell, classes: int = 0) -> CellPasses:
    """What a cell takes; a training on so many `classes`, which decide how large class batches are."""
    if cell.kind == "train":
        passes = _training(cell, classes)
        return CellPasses(passes, passes)
    examples = evaluated_examples(cell)
    if cell.kind == "audit":
        audit = PlannedAudit.model_validate(cell.declared["audit"])
        checks = [_attack(attack_of(check.attack, check.threat)).expected for check in audit.checks]
        return CellPasses(sum(checks, Passes()).times(WITHIN_AUDIT * min(examples, audit.examples)), None)
    expected, most = _attack(attack_of(cell.declared["attack"], cell.threat))
    return CellPasses(expected.times(examples), None if most is None else most.times(examples))


def declared_work(cell: Cell) -> float:
    """A cell's work in passes of a thousand examples through the network, roughly."""
    if cell.kind == "train" and cell.declared["training"] is None:
        return 1e-3 * PROCESS
    return 1e-3 * cell_passes(cell).expected.work


def evaluated_examples(cell: Cell) -> int:
    """How many examples an attack or an audit is about; where their number is not declared, as many as is usual."""
    evaluation = cell.declared["evaluation"]
    whole = dataset_of(cell.declared["train"]["dataset"]).sizes[evaluation["split"] == "test"]
    return min(whole, evaluation.get("limit") or whole)


def _attack(attack: Attack | None) -> CellPasses:
    """Of one example; the judge looks at what was returned, and at the image. None: the clean evaluation."""
    if attack is None:
        return CellPasses(Passes(1), Passes(1))
    # The loss `cmic` begins with the outputs' means by class.
    beside = Passes(2 + (attack.raised_loss == "cmic"))
    return CellPasses(attack.passes.times(attack.share) + beside, attack.passes + beside if attack.counted else None)


def _training(cell: Cell, classes: int) -> Passes:
    if cell.declared["training"] is None:
        return Passes()
    declared = Training.model_validate(cell.declared["training"])
    whole = dataset_of(cell.declared["dataset"]).sizes[0]
    images = min(whole, declared.limit or whole)
    held = declared.held_out_images(images)
    learned = images - held
    objective = objective_of(cell.declared["objective"])
    adversary, epochs = objective.adversary, float(declared.epochs)
    once, each = objective.further_examples(learned, declared.steps_of_epoch(learned), classes)
    passes = _step(adversary).times(epochs * learned)
    passes += (_seen(adversary) + Passes(1)).times(once + epochs * each)
    passes += _judged(None if adversary is None else adversary.judge).times(epochs * held)
    if adversary is not None and adversary.overfitting_check is not None:
        passes += _judged(adversary.overfitting_check).times(epochs * min(declared.batch_size, learned))
    if adversary is not None and adversary.robust_cmi is not None:  # its centroids begin as class means
        passes += Passes(learned)
    return passes


def _judged(adversary: Adversary | None) -> Passes:
    """Of one image that an epoch is judged by."""
    return Passes(1) if adversary is None else adversary.attack.passes + Passes(1)


def _step(adversary: Adversary | None) -> Passes:
    """Of one image of a step; every image is learned from once for each loss that it enters."""
    once = Passes(1, 0, 1)
    if adversary is None:
        return once
    passes = once + _searched(adversary)
    if adversary.two_outputs:
        passes += once
    if adversary.robust_cmi is not None:
        passes += adversary.second.attack.passes + once
    return passes


def _searched(adversary: Adversary) -> Passes:
    """Of the search for an image's adversarial one; `trades` compares with the outputs at the image."""
    return adversary.attack.passes + Passes(1 if adversary.learns_clean else 0)


def _seen(adversary: Adversary | None) -> Passes:
    """Of a further image, attacked or not."""
    return Passes() if adversary is None or adversary.learns_clean else _searched(adversary)
