"""What cells take is declared before anything is computed: here it is counted by hooks, and worked out by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.data.base import Split
from robustbench_cmic.models.build import build_model
from robustbench_cmic.objectives import build_objective, build_robust_cmi
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.plan.passes import cell_passes, declared_work
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.attack_base import Passes
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.schema import attack_of
from robustbench_cmic.suite.torchattacks import TorchattacksAttack
from robustbench_cmic.suite.training import Training
from robustbench_cmic.training.checkpoint import TrainingRun
from robustbench_cmic.training.loop import train
from robustbench_cmic.training.optimizer import build_optimizer
from tests.conftest import ROOT

CLASSES, SHAPE = 4, (1, 6, 6)


class Counted:
    """Examples through a module, forward and back to its logits."""

    def __init__(self, module: nn.Module) -> None:
        self.forwards = self.backwards = 0
        module.register_forward_hook(self._hook)

    def _hook(self, _: nn.Module, __: Any, logits: Tensor) -> None:
        self.forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._back)  # type: ignore[no-untyped-call]

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


ATTACKS = [
    {"name": "FGSM"},
    {"name": "FGSM", "samples": 3, "loss": "margin"},
    {"name": "PGD", "steps": 3},
    {"name": "PGD", "steps": 3, "early_stop": True, "restarts": 2, "samples": 2},
    {"name": "PGD", "steps": 2, "restarts": 2, "targets": 3, "loss": "cmic"},
    {"name": "AutoAttack", "steps": 4, "targets": 3, "queries": 11},
    {"name": "AutoAttack", "steps": 3, "samples": 2},
    {"name": "Noise", "samples": 5},
    {"name": "Walk", "images": 7},
    {"name": "RayS", "queries": 9},
    {"name": "GradientFree", "images": 6, "queries": 8},
    {"name": "Transfer", "steps": 4},
]


class Certain(nn.Module):
    """The class is the corner in which a bright square lies: no small change makes it another."""

    def forward(self, images: Tensor) -> Tensor:
        corners = [images[:, 0, :3, :3], images[:, 0, :3, 3:], images[:, 0, 3:, :3], images[:, 0, 3:, 3:]]
        return torch.stack([corner.sum((1, 2)) for corner in corners], 1)


@pytest.mark.parametrize("keys", ATTACKS)
def test_an_attack_takes_the_most_of_examples_that_survive_it(keys: dict[str, Any]) -> None:
    labels = torch.arange(64) % CLASSES
    images = torch.rand(64, *SHAPE) * 0.2
    for row, label in enumerate(labels.tolist()):
        images[row, 0, 3 * (label // 2) : 3 * (label // 2) + 3, 3 * (label % 2) : 3 * (label % 2) + 3] += 0.7
    attack = attack_of(keys, Threat("linf", 0.01))
    assert attack is not None
    model = Certain()
    counted = Counted(model)
    verdict = evaluate_attack(model, images, labels, classes=CLASSES, attack=attack, seed=0)
    assert bool(verdict.correct.all())
    beside = 1 if keys.get("loss") == "cmic" else 0
    assert (verdict.forwards, verdict.backwards) == (
        64 * (attack.passes.forwards + beside),
        64 * attack.passes.backwards,
    )
    assert (counted.forwards, counted.backwards) == (verdict.forwards + 2 * 64, verdict.backwards), "and the judge"


def cells_of(folder: Path, *models: str, attacks: str = "", training: str = "epochs: 2, batch_size: 10") -> list[Cell]:
    lines = "\n".join(
        f"  - {{id: m{number}, architecture: mlp, objective: {each}}}" for number, each in enumerate(models)
    )
    declared = f"{{{training}, optimizer: {{name: sgd, lr: 0.1}}}}"
    file = folder / "x.yaml"
    file.write_text(f"suite: x\ndataset: {{name: digits}}\ntraining: {declared}\nmodels:\n{lines}\n{attacks}")
    return make_plan(load_suite(file).suite).cells


ADVERSARY = "eps: 0.1, steps: 3"


@pytest.mark.parametrize(
    "objective",
    [
        "{name: ce}",
        "{name: cmic, lambda: 0.1, beta: 0.1}",
        f"{{name: ce, adversary: {{{ADVERSARY}}}}}",
        f"{{name: ce, adversary: {{{ADVERSARY}, method: trades}}}}",
        f"{{name: ce, adversary: {{{ADVERSARY}, method: mart}}}}",
        "{name: cmic, lambda: 0.1, beta: 0.1, centroids: class_batches, class_batch_size: 2}",
        "{name: cmic, lambda: 0.1, beta: 0.1, centroids: fixed, refresh: epoch}",
        f"{{name: cmic, lambda: 0.1, beta: 0.1, centroids: fixed, adversary: {{{ADVERSARY}}}}}",
        f"{{name: ce, adversary: {{{ADVERSARY}, robust_cmi: {{steps: 2}}}}}}",
        "{name: ce, adversary: {eps: 0.1, method: fgsm_rs}}",
    ],
)
def test_a_training_takes_what_is_declared(tmp_path: Path, objective: str) -> None:
    """The loop itself on 40 images of 64, of which 8 are held out, counted by hooks."""
    keys = "epochs: 2, batch_size: 8, limit: 40, select: best, held_out: 8"
    cell, _ = cells_of(tmp_path, objective, training=keys)
    declared = Training.model_validate(cell.declared["training"]).model_copy(update={"limit": None})
    goal = objective_of(cell.declared["objective"])
    labels = np.arange(40, dtype=np.int64) % CLASSES
    split = Split(np.random.default_rng(0).integers(0, 256, (40, *SHAPE), dtype=np.uint8), labels)
    model = build_model(Model(id="m", architecture="mlp"), SHAPE, CLASSES, ([0.5], [0.25]), seed=0)
    counted, term = Counted(model), build_robust_cmi(goal.adversary, CLASSES)
    computed = build_objective(goal, CLASSES)
    run = TrainingRun(model, computed, build_optimizer(model, declared.optimizer), goal.adversary, term)
    assert train(run, split, declared=declared, seed=0) is None
    expected, most = cell_passes(cell, CLASSES)
    assert expected == most
    assert (counted.forwards, counted.backwards) == (expected.forwards, expected.backwards)


def test_a_training_worked_out_by_hand(tmp_path: Path) -> None:
    """1,198 digits, two epochs of 120 steps; class batches of 3 x 10."""
    batches = "{name: cmic, lambda: 0.1, beta: 0, centroids: class_batches, class_batch_size: 3}"
    first, second = (cell for cell in cells_of(tmp_path, "{name: ce}", batches) if cell.kind == "train")
    assert cell_passes(first, 10).expected == Passes(2 * 1198, 0, 2 * 1198)
    assert cell_passes(second, 10).expected == Passes(2 * 1198 + 2 * 120 * 30, 0, 2 * 1198)
    assert declared_work(first) == pytest.approx(3 * 2 * 1.198)


def test_attacks_worked_out_by_hand(tmp_path: Path) -> None:
    """On 50 examples: PGD with early stop is guessed at a quarter; other people's attacks have no bound."""
    attacks = "attacks:\n  - {name: PGD, eps: 0.1, steps: 8, early_stop: true}\nevaluation: {limit: 50}\n"
    cells = cells_of(tmp_path, "{name: ce}", attacks=attacks)
    clean, pgd, audit = cells[1:]
    assert cell_passes(clean) == (Passes(50), Passes(50))
    assert cell_passes(pgd) == (Passes(50 * (2 + 2), 50 * 2), Passes(50 * (8 + 2), 50 * 8))
    assert cell_passes(audit).most is None
    assert 0 < cell_passes(audit).expected.backwards < cell_passes(audit).expected.forwards
    assert TorchattacksAttack(name="BIM", eps=[0.1], steps=7).passes == Passes(7, 7)
    assert not TorchattacksAttack.counted


def test_the_most_that_standard_autoattack_takes() -> None:
    """APGD: 101 gradients a run, ten runs; FAB: nine of 100 steps of two passes; Square: 5,001; looks: seven."""
    attack = attack_of({"name": "AutoAttack"}, Threat("linf", 0.1))
    assert attack is not None
    assert attack.passes == Passes(101 * 10 + 9 * 200 + 5001 + 7, 101 * 10 + 900)


@pytest.mark.parametrize("name", ["cifar100", "mnist", "digits-10"])
def test_a_run_that_is_cut_off_leaves_whole_models(name: str) -> None:
    """The plan goes model by model and seed by seed: all but transfers, which need several, stand together."""
    plan = make_plan(load_suite(ROOT / "suites" / f"{name}.yaml").suite)
    of_one = [(cell.model, cell.seed) for cell in plan.cells if cell.source is None]
    changes = sum(one != other for one, other in itertools.pairwise(of_one))
    assert changes + 1 == len(set(of_one))
    transfers = [cell.source is not None for cell in plan.cells]
    assert transfers == sorted(transfers)
