"""Adversarial training: it stays inside the ball, makes robust, resumes exactly, and leaves the model alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.pgd import pgd
from robustbench_cmic.data.base import Split
from robustbench_cmic.models.build import Normalize
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.run.jobs.context import Job, Stopwatch
from robustbench_cmic.run.jobs.train import run_training
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.objectives import Adversary, objective_of
from robustbench_cmic.suite.training import Training
from robustbench_cmic.training.adversary import AtPrecision, find_adversarial
from robustbench_cmic.training.checkpoint import TrainingRun, TrainingState
from robustbench_cmic.training.loop import Acceleration, train
from robustbench_cmic.training.optimizer import build_optimizer
from tests.conftest import TINY_SUITE
from tests.in_process import settings_for
from tests.training.test_train import (
    CE,
    CMIC,
    DECLARED,
    DIGITS,
    SGD,
    NoReading,
    build,
    declare,
    optimizer_of,
    prepare,
    weights,
)

DIGITS_400 = Split(DIGITS.train.images[:400], DIGITS.train.labels[:400])
LINF = {"norm": "linf", "eps": 0.1, "alpha": 0.05, "steps": 3, "loss": "ce", "random_start": True}
AUGMENTED = {"crop": 1, "flip": True, "cutout": 2}


def adversary(**changes: Any) -> Adversary:
    return Adversary.model_validate(LINF | changes)


def prepared(objective: dict[str, Any], opponent: Adversary | None) -> TrainingRun:
    return dataclasses.replace(prepare(objective), adversary=opponent)


def dropping(opponent: Adversary | None) -> TrainingRun:
    torch.manual_seed(0)
    model = nn.Sequential(Normalize([0.0], [1.0]), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    return TrainingRun(
        model, build_objective(objective_of(CE), 10), build_optimizer(model, optimizer_of(SGD)), opponent
    )


def trained_on(objective: dict[str, Any], opponent: Adversary | None, **changes: Any) -> Tensor:
    """The images that went through the network in train mode."""
    training = prepared(objective, opponent)
    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if training.model.training:
            seen.append(inputs[0].detach().clone())

    training.model[0].register_forward_pre_hook(keep)
    train(training, DIGITS_400, declared=declare(changes), seed=0)
    return torch.cat(seen)


@pytest.mark.parametrize("objective", [CE, CMIC, CMIC | {"centroids": "class_batches", "class_batch_size": 2}])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
def test_steps_learn_from_other_images_inside_ball_and_box(objective: dict[str, Any], norm: str, eps: float) -> None:
    changes = {"epochs": 2, "augmentation": AUGMENTED}
    clean = trained_on(objective, None, **changes)
    found = trained_on(objective, adversary(norm=norm, eps=eps, alpha=eps), **changes)
    assert found.shape == clean.shape == (800, 1, 8, 8)
    delta = (found - clean).flatten(1).double()
    lengths = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert float(lengths.max()) <= eps + 1e-6
    assert float((lengths > 0.5 * eps).double().mean()) > 0.95
    assert (float(found.min()), float(found.max())) == (0.0, 1.0)


@pytest.mark.parametrize("objective", [CE, CMIC])
def test_it_makes_robust(objective: dict[str, Any]) -> None:
    images, labels = torch.from_numpy(DIGITS.test.images[:200]), torch.from_numpy(DIGITS.test.labels[:200])
    accuracy = {}
    for name, opponent in (("plain", None), ("adversarial", adversary(loss="margin"))):
        training = prepared(objective, opponent)
        assert train(training, DIGITS_400, declared=declare({"epochs": 8}), seed=0) is None
        model = training.model.eval()
        found = pgd(model, images, labels, eps=0.1, alpha=0.025, steps=20, loss="margin", random_start=False)
        accuracy[name] = float((model(found).argmax(1) == labels).double().mean())
    assert accuracy["adversarial"] > accuracy["plain"] + 0.1


@pytest.mark.parametrize("objective", [CE, CMIC])
def test_resumes_bit_for_bit(objective: dict[str, Any]) -> None:
    states: list[TrainingState] = []

    def keep(training: TrainingRun) -> None:
        state = training.state()
        states.append(TrainingState({n: v.clone() for n, v in state.tensors.items()}, state.epoch, state.curve))

    whole = prepared(objective, adversary())
    train(whole, DIGITS_400, declared=DECLARED, seed=0, after_epoch=keep)
    for state in states[:2]:
        resumed = prepared(objective, adversary())
        resumed.restore(state)
        torch.manual_seed(12345)
        train(resumed, DIGITS_400, declared=DECLARED, seed=0)
        assert torch.equal(weights(resumed), weights(whole))
        assert resumed.curve == whole.curve


def test_every_step_of_every_epoch_has_random_starts_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: dict[tuple[str, int], list[int]] = {}
    for name, objective, seed in (("ce", CE, 0), ("cmic", CMIC, 0), ("ce", CE, 1)):
        training = prepared(objective, adversary())
        own = seeds.setdefault((name, seed), [])

        def spy(_: Adversary, model: nn.Module, images: Tensor, *rest: Any, own: list[int] = own) -> Tensor:
            own.append(rest[1])
            return images

        monkeypatch.setattr("robustbench_cmic.training.loop.find_adversarial", spy)
        train(training, DIGITS_400, declared=DECLARED, seed=seed)
    assert seeds["ce", 0] == seeds["cmic", 0], "two objectives meet the same adversary"
    assert len(set(seeds["ce", 0] + seeds["ce", 1])) == 2 * 3 * 7


def test_the_seed_alone_decides_what_is_found() -> None:
    model = build("mlp", seed=0)
    images, labels = torch.from_numpy(DIGITS.test.images[:50]), torch.from_numpy(DIGITS.test.labels[:50])
    found = []
    for seed, other in ((1, 2), (1, 3), (4, 2)):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        found.append(find_adversarial(adversary(), model, images, labels, seed))
        assert torch.equal(torch.get_rng_state(), before), "layers draw from the global generator"
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    fixed = [find_adversarial(adversary(random_start=False), model, images, labels, seed) for seed in (1, 4)]
    assert torch.equal(*fixed)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model = build("small_cnn", seed=0)
    model.train()
    network = model[1]
    assert isinstance(network, nn.Sequential)
    network[1].eval()
    network[0].weight.requires_grad_(False)
    last = next(network[-1].parameters())
    last.grad = torch.ones_like(last)
    modes = [module.training for module in model.modules()]
    flags = [weight.requires_grad for weight in model.parameters()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = torch.from_numpy(DIGITS.test.images[:50]), torch.from_numpy(DIGITS.test.labels[:50])
    if fails:
        with pytest.raises(RuntimeError):
            find_adversarial(adversary(), model, images.expand(-1, 2, -1, -1), labels, 0)
    else:
        assert not find_adversarial(adversary(), model, images, labels, 0).requires_grad
    assert [module.training for module in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == flags
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(last.grad, torch.ones_like(last))
    assert all(weight.grad is None for weight in model.parameters() if weight is not last)


@pytest.mark.parametrize("objective", [CE, CMIC])
def test_a_tiny_ball_is_plain_training_to_rounding(objective: dict[str, Any]) -> None:
    tiny = adversary(eps=1e-12, alpha=1e-12)
    for make in (lambda opponent: prepared(objective, opponent), dropping):
        plain, adversarial = make(None), make(tiny)
        for training in (plain, adversarial):
            assert train(training, DIGITS_400, declared=DECLARED, seed=0) is None
        assert torch.allclose(weights(plain), weights(adversarial), rtol=1e-4, atol=1e-5)
        assert plain.curve[-1].accuracy == pytest.approx(adversarial.curve[-1].accuracy, abs=0.005)


def test_under_reduced_precision_the_attack_computes_as_the_step_does() -> None:
    training = prepared(CE, adversary())
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    network = training.model[1]
    assert isinstance(network, nn.Sequential)
    network[-1].register_forward_hook(lambda module, _, output: seen[module.training].add(output.dtype))
    assert (
        train(training, DIGITS_400, declared=declare({"epochs": 1}), seed=0, acceleration=Acceleration(reduced=True))
        is None
    )
    assert seen == {True: {torch.bfloat16}, False: {torch.bfloat16}}
    images, labels = torch.from_numpy(DIGITS.test.images[:50]), torch.from_numpy(DIGITS.test.labels[:50])
    reduced = AtPrecision(training.model, reduced=True)
    assert reduced(images).dtype == find_adversarial(adversary(), reduced, images, labels, 0).dtype == torch.float32


def test_no_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("a graph")

    monkeypatch.setattr("robustbench_cmic.training.loop.GraphedStep", refuse)
    train(
        prepared(CE, adversary()),
        DIGITS_400,
        declared=declare({"epochs": 1}),
        seed=0,
        acceleration=Acceleration(graphed=True),
    )
    with pytest.raises(AssertionError, match="a graph"):
        train(
            prepared(CE, None),
            DIGITS_400,
            declared=declare({"epochs": 1}),
            seed=0,
            acceleration=Acceleration(graphed=True),
        )


def test_a_cell_trains_against_the_adversary_that_its_suite_declares(tmp_path: Path) -> None:
    written = "{norm: linf, eps: 1/10, alpha: eps/2, steps: 3}"
    text = TINY_SUITE.replace("{name: cmic}", f"{{name: cmic, adversary: {written}}}")
    (tmp_path / "x.yaml").write_text(text.replace("{name: ce}", f"{{name: ce, adversary: {written}}}"))
    cell = make_plan(load_suite(tmp_path / "x.yaml").suite).of("train")[1]
    job = Job(cell, settings_for(tmp_path), DIGITS, Stopwatch(), lambda *_: None)
    curve = run_training(job).curve
    declared = Training.model_validate(cell.declared["training"])
    for opponent, same in ((adversary(), True), (None, False)):
        model = job.model(cell.declared["model"])
        optimizer = build_optimizer(model, declared.optimizer)
        training = TrainingRun(
            model, build_objective(objective_of(cell.declared["objective"]), 10), optimizer, opponent
        )
        assert train(training, DIGITS.train, declared=declared, seed=cell.seed) is None
        assert (training.curve == curve) is same


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_finding_reads_nothing_from_the_device(norm: str) -> None:
    images, labels = torch.from_numpy(DIGITS.test.images[:50]), torch.from_numpy(DIGITS.test.labels[:50])
    model = build("small_cnn", seed=0)
    with NoReading():  # type: ignore[no-untyped-call]
        find_adversarial(adversary(norm=norm), model, images, labels, 0)
