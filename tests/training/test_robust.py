"""Methods of robust training in the loop: their attacks, their losses, what is kept, what resumes."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.data.base import Split
from robustbench_cmic.data.subset import hold_out
from robustbench_cmic.models.build import Normalize
from robustbench_cmic.objectives import RobustCmi, build_objective, build_robust_cmi
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.run.jobs.context import Job, Stopwatch
from robustbench_cmic.run.jobs.train import run_training
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.objectives import Adversary, objective_of
from robustbench_cmic.training.adversary import find_adversarial, find_for_robust_cmi
from robustbench_cmic.training.checkpoint import TrainingRun, load_state, save_state
from robustbench_cmic.training.loop import train
from robustbench_cmic.training.optimizer import build_optimizer
from robustbench_cmic.training.selection import HeldOut
from tests.conftest import TINY_SUITE
from tests.in_process import settings_for
from tests.training.test_train import CE, CMIC, DIGITS, SGD, NoReading, declare, optimizer_of, weights

SPLIT = Split(DIGITS.train.images[:100], DIGITS.train.labels[:100])
IMAGES, LABELS = torch.from_numpy(np.asarray(SPLIT.images)[:50]), torch.from_numpy(SPLIT.labels[:50])
ROBUST_CMI = {"lambda": 0.5, "beta": 0.2, "momentum": 0.9, "steps": 3}
METHODS: dict[str, dict[str, Any]] = {
    "pgd_at": {"steps": 2},
    "trades": {"method": "trades", "steps": 2},
    "mart": {"method": "mart", "steps": 2},
    "fgsm_rs": {"method": "fgsm_rs"},
    "robust_cmi": {"method": "trades", "steps": 2, "robust_cmi": ROBUST_CMI},
}


def adversary(name: str, **changes: Any) -> Adversary:
    return Adversary.model_validate({"eps": 0.1} | METHODS[name] | changes)


def network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Normalize([0.0], [1.0]), nn.Flatten(), *layers, nn.Linear(64, 10))


def prepared(name: str, objective: dict[str, Any] = CE, model: nn.Sequential | None = None) -> TrainingRun:
    model = model or network(nn.Linear(64, 64), nn.ReLU())
    opponent = adversary(name)
    declared = build_objective(objective_of(objective), 10)
    return TrainingRun(
        model, declared, build_optimizer(model, optimizer_of(SGD)), opponent, build_robust_cmi(opponent, 10)
    )


def starts(seed: int, draw: Any) -> Tensor:
    """Random numbers as an attack with this seed draws them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn: Tensor = draw(IMAGES)
    return drawn


def test_pgd_at_is_the_attack_of_its_paper() -> None:
    """`MadryLab/cifar10_challenge`: a uniform start, then steps along the sign, each clipped to ball and box."""
    model, eps, alpha = network(), 0.1, 0.04
    x = (IMAGES + starts(7, lambda x: torch.empty_like(x).uniform_(-eps, eps))).clamp(0, 1)
    for _ in range(5):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(model(leaf), LABELS, reduction="sum"), leaf)
        x = torch.min(torch.max(x + alpha * gradient.sign(), IMAGES - eps), IMAGES + eps).clamp(0, 1)
    found = find_adversarial(adversary("pgd_at", alpha=alpha, steps=5), model, IMAGES, LABELS, 7)
    torch.testing.assert_close(found, x, atol=1e-6, rtol=0)


def test_trades_raises_kl_from_near_the_image() -> None:
    """`yaodongyu/TRADES`: start x + 0.001 N(0, 1), ascend KL(P_x || P_x') with P_x fixed."""
    model, eps, alpha = network(), 0.1, 0.04
    x = (IMAGES + 0.001 * starts(7, torch.randn_like)).clamp(0, 1)
    clean = model(IMAGES).softmax(1).detach()
    for _ in range(5):
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(functional.kl_div(model(leaf).log_softmax(1), clean, reduction="sum"), leaf)
        x = torch.min(torch.max(x + alpha * gradient.sign(), IMAGES - eps), IMAGES + eps).clamp(0, 1)
    found = find_adversarial(adversary("trades", alpha=alpha, steps=5), model, IMAGES, LABELS, 7)
    # Near the image the gradient is nearly 0, and the sign of some entries is a matter of rounding.
    assert float((found - x).abs().gt(1e-6).double().mean()) < 0.01


def test_mart_raises_cross_entropy_from_near_the_image() -> None:
    model, eps = network(), 0.1
    start = (IMAGES + 0.001 * starts(7, torch.randn_like)).clamp(0, 1)
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(leaf), LABELS, reduction="sum"), leaf)
    x = torch.min(torch.max(start + 0.25 * gradient.sign(), IMAGES - eps), IMAGES + eps).clamp(0, 1)
    found = find_adversarial(adversary("mart", steps=1), model, IMAGES, LABELS, 7)
    torch.testing.assert_close(found, x, atol=1e-6, rtol=0)


def test_fgsm_rs_takes_one_step_of_five_quarters() -> None:
    """`locuslab/fast_adversarial`: a uniform start in the ball, one step of 1.25 eps, clipped."""
    model, eps = network(), 0.1
    start = (IMAGES + starts(7, lambda x: torch.empty_like(x).uniform_(-eps, eps))).clamp(0, 1)
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(model(leaf), LABELS), leaf)
    delta = (start - IMAGES + 1.25 * eps * gradient.sign()).clamp(-eps, eps)
    found = find_adversarial(adversary("fgsm_rs"), model, IMAGES, LABELS, 7)
    torch.testing.assert_close(found, (IMAGES + delta).clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_the_second_adversary_ascends(beta: float) -> None:
    model, term = network(), RobustCmi(10, lambda_=0.5, beta=beta)
    term.begin_epoch(1, lambda: iter([(model(IMAGES).detach(), LABELS)]))
    opponent = adversary("robust_cmi", robust_cmi=ROBUST_CMI | {"beta": beta, "steps": 10})
    found = find_for_robust_cmi(opponent, term, model, IMAGES, LABELS, 0)
    assert float((found - IMAGES).abs().max()) <= 0.1 + 1e-6
    random = (IMAGES + starts(0, lambda x: torch.empty_like(x).uniform_(-0.1, 0.1))).clamp(0, 1)
    with torch.no_grad():
        clean, start, reached = (float(term.ascended(model(x), LABELS).mean()) for x in (IMAGES, random, found))
    assert reached - max(clean, start) > 10 * abs(start - clean)


@pytest.mark.parametrize("name", METHODS)
def test_finding_reads_nothing_from_the_device(name: str) -> None:
    model = network()
    with NoReading():  # type: ignore[no-untyped-call]
        find_adversarial(adversary(name), model, IMAGES, LABELS, 0)
        if name == "robust_cmi":
            find_for_robust_cmi(adversary(name), RobustCmi(10, beta=0.1), model, IMAGES, LABELS, 0)


def released_loss(name: str, model: nn.Module, clean: Tensor, found: Tensor, labels: Tensor) -> Tensor:
    """The loss of the papers with cross entropy, in the words of their code."""
    logits: Tensor = model(clean)
    changed: Tensor = model(found)
    if name == "trades":
        kl = functional.kl_div(changed.log_softmax(1), logits.softmax(1), reduction="batchmean")
        return functional.cross_entropy(logits, labels) + 6 * kl
    if name == "mart":
        p = changed.softmax(1)
        other = p.scatter(1, labels[:, None], 0.0).argmax(1)
        kl = functional.kl_div(p.log(), logits.softmax(1), reduction="none").sum(1)
        doubt = 1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]
        boosted = functional.cross_entropy(changed, labels) + functional.nll_loss((1 - p).log(), other)
        regular: Tensor = boosted + 5 * (doubt * kl).mean()
        return regular
    return functional.cross_entropy(changed, labels)


@pytest.mark.parametrize("name", ["pgd_at", "trades", "mart", "fgsm_rs"])
def test_a_step_lowers_the_loss_of_the_paper(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[Tensor, Tensor, Tensor]] = []

    def spy(opponent: Adversary, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        found.append((images, find_adversarial(opponent, model, images, labels, seed), labels))
        return found[-1][1]

    monkeypatch.setattr("robustbench_cmic.training.loop.find_adversarial", spy)
    training = prepared(name)
    reference = copy.deepcopy(training.model)
    declared = declare({"epochs": 1, "batch_size": 100, "schedule": {"name": "constant"}})
    assert train(training, SPLIT, declared=declared, seed=0) is None
    optimizer = build_optimizer(reference, declared.optimizer)
    loss = released_loss(name, reference, *found[0])
    torch.autograd.backward([loss])
    optimizer.step()
    expected = torch.cat([value.flatten().double() for value in reference.state_dict().values()])
    torch.testing.assert_close(weights(training), expected, atol=1e-6, rtol=1e-5)
    assert training.curve[0].loss["total"] == pytest.approx(float(loss.detach()), rel=1e-5)


def test_robust_cmi_is_lowered_at_what_its_own_adversary_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """CE(x') + lambda mean KL(P_x'' || Q_y): Q are class means of clean outputs, and x'' has a start of its own."""
    seen: dict[str, tuple[Tensor, Tensor, int]] = {}

    def first(opponent: Adversary, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        found = find_adversarial(opponent, model, images, labels, seed)
        seen["first"] = found, labels, seed
        return found

    def second(
        opponent: Adversary, term: RobustCmi, model: nn.Module, images: Tensor, labels: Tensor, seed: int
    ) -> Tensor:
        found = find_for_robust_cmi(opponent, term, model, images, labels, seed)
        seen["second"] = found, labels, seed
        return found

    monkeypatch.setattr("robustbench_cmic.training.loop.find_adversarial", first)
    monkeypatch.setattr("robustbench_cmic.training.robust.find_for_robust_cmi", second)
    monkeypatch.setitem(METHODS, "pgd_at_and_cmi", {"steps": 2, "robust_cmi": ROBUST_CMI | {"beta": 0}})
    training = prepared("pgd_at_and_cmi")
    model = copy.deepcopy(training.model)
    p = model(torch.from_numpy(np.asarray(SPLIT.images))).softmax(1).detach()
    centroids = torch.stack([p[torch.from_numpy(SPLIT.labels) == label].mean(0) for label in range(10)])
    declared = declare({"epochs": 1, "batch_size": 100, "schedule": {"name": "constant"}})
    assert train(training, SPLIT, declared=declared, seed=0) is None

    (x1, labels, seed1), (x2, again, seed2) = seen["first"], seen["second"]
    assert torch.equal(labels, again)
    assert seed1 != seed2
    log_p = model(x2).log_softmax(1)
    divergence = functional.kl_div(centroids[labels].log(), log_p, reduction="batchmean", log_target=True)
    loss = functional.cross_entropy(model(x1), labels) + 0.5 * divergence
    optimizer = build_optimizer(model, declared.optimizer)
    torch.autograd.backward([loss])
    optimizer.step()
    expected = torch.cat([value.flatten().double() for value in model.state_dict().values()])
    torch.testing.assert_close(weights(training), expected, atol=1e-6, rtol=1e-5)
    assert training.curve[0].loss["total"] == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("objective", [CE, CMIC | {"centroids": "class_batches", "class_batch_size": 2}])
def test_resumes_bit_for_bit_with_any_objective(name: str, objective: dict[str, Any], tmp_path: Path) -> None:
    states: list[Path] = []

    def store(training: TrainingRun) -> None:
        states.append(tmp_path / f"{len(states)}.safetensors")
        save_state(states[-1], training.state(), "cell")

    declared = declare({"select": "best", "held_out": 20})
    whole = prepared(name, objective)
    assert train(whole, SPLIT, declared=declared, seed=0, after_epoch=store) is None
    for file in states[:2]:
        resumed = prepared(name, objective)
        state = load_state(file, "cell")
        assert state is not None
        resumed.restore(state)
        torch.manual_seed(12345)
        train(resumed, SPLIT, declared=declared, seed=0)
        assert torch.equal(weights(resumed), weights(whole))
        assert resumed.curve == whole.curve
        assert resumed.state().tensors.keys() == whole.state().tensors.keys()
        for key, value in whole.state().tensors.items():
            assert torch.equal(resumed.state().tensors[key], value), key
    if name == "robust_cmi":
        assert {"robust_cmi", "robust_separation", "trades_kl"} < set(whole.curve[0].loss)
        first = load_state(states[0], "cell")
        assert first is not None
        centroids = [tensors["robust_cmi.centroid"] for tensors in (first.tensors, whole.state().tensors)]
        assert not torch.equal(*centroids), "they move"
        torch.testing.assert_close(centroids[1].sum(1), torch.ones(10))


def test_clean_and_changed_images_move_running_statistics_once_each() -> None:
    passes = {"pgd_at": 1, "trades": 2, "mart": 2, "fgsm_rs": 1, "robust_cmi": 3}
    for name, expected in passes.items():
        layer = nn.BatchNorm1d(64)
        training = prepared(name, model=network(layer))
        train(training, SPLIT, declared=declare({"epochs": 1, "batch_size": 50}), seed=0)
        assert layer.num_batches_tracked is not None
        assert int(layer.num_batches_tracked) == 2 * expected, name
        assert training.model.training


@pytest.mark.parametrize("name", ["trades", "mart"])
def test_the_objective_and_its_centroids_see_the_images_of_one_kind(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clean ones in TRADES, in class batches and class means, too."""
    monkeypatch.setattr(
        "robustbench_cmic.training.loop.find_adversarial", lambda _, __, images, *___: torch.zeros_like(images)
    )
    for objective in (CMIC | {"centroids": "class_batches"}, {"name": "cmic", "centroids": "fixed"}, CMIC):
        training = prepared(name, objective)
        seen: list[Tensor] = []
        update = training.objective.update

        def note(logits: Tensor, labels: Tensor, seen: list[Tensor] = seen, update: Any = update) -> None:
            seen.append(logits)
            update(logits, labels)

        monkeypatch.setattr(training.objective, "update", note)
        train(training, SPLIT, declared=declare({"epochs": 1}), seed=0)
        alike = [bool((logits == logits[0]).all()) for logits in seen]
        assert set(alike) == {name == "mart"}
        centroid = training.objective.get_buffer("centroid")
        assert bool(torch.allclose(centroid, centroid[:1].expand(10, -1), atol=1e-6)) is (name == "mart")


@pytest.mark.parametrize("select", [{}, {"select": "best", "held_out": 20}])
def test_catastrophic_overfitting_stops_with_the_weights_before(
    select: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = [0.4, 0.5, 0.35, 0.2, 0.19]  # falls of more than 0.2 are counted from one epoch to the next
    told = {5: [0.4, 0.5, 0.35, 0.2, 0.19], 3: [0.5, 0.6, 0.3]}
    for epochs, accuracies in told.items():
        kept: list[Tensor] = []
        judges: list[tuple[int, Adversary | None]] = []
        left = iter(accuracies)

        def tell(
            held: HeldOut, _: nn.Module, opponent: Adversary | None, left: Any = left, judges: Any = judges
        ) -> float:
            judges.append((len(held._labels), opponent))
            return 0.3 if len(held._labels) == 20 else float(next(left))

        monkeypatch.setattr(HeldOut, "accuracy", tell)
        training = prepared("fgsm_rs")
        declared = declare({"epochs": 5, "batch_size": 40} | select)
        keep = lambda run, kept=kept: kept.append(weights(run))  # noqa: E731
        assert train(training, SPLIT, declared=declared, seed=0, after_epoch=keep) is None
        assert [epoch.checked for epoch in training.curve] == accuracies
        assert training.fell == (3 if epochs == 3 else None)
        best = 1 if select else 2 if epochs == 3 else 5
        assert torch.equal(weights(training), kept[best - 1])
        assert training.selected_epoch == (1 if select else 2 if epochs == 3 else None)
        resumed = dataclasses.replace(training, best=dict(training.best))
        assert train(resumed, SPLIT, declared=declared, seed=0) is None
        assert len(resumed.curve) == len(accuracies), "what has stopped does not go on"
        opponents = dict(judges)
        check = opponents[40]
        assert check is not None
        assert (check.method, check.steps, check.step_size()) == ("pgd_at", 5, 0.025)
        if select:  # not under the single step, which such a model withstands
            assert opponents[20] == Adversary(eps=0.1)
    assert checked == told[5]


def test_the_check_is_of_one_training_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in every epoch, and none of what is held out."""
    accuracy, checked = HeldOut.accuracy, []

    def note(held: HeldOut, model: nn.Module, opponent: Adversary | None) -> float:
        if opponent is not None and opponent.steps == 5:
            checked.append(held._images[slice(0, None)])
        return accuracy(held, model, opponent)

    monkeypatch.setattr(HeldOut, "accuracy", note)
    training = prepared("fgsm_rs")
    images = np.asarray(SPLIT.images)
    train(training, SPLIT, declared=declare({"batch_size": 40, "select": "best", "held_out": 20}), seed=0)
    assert len(checked) == len([epoch.checked for epoch in training.curve if epoch.checked is not None]) > 0
    kept = {images[row].tobytes() for row in hold_out(SPLIT.labels, 20)[0]}
    assert all(torch.equal(batch, checked[0]) for batch in checked)
    assert {image.numpy().tobytes() for image in checked[0]} < kept
    assert len(checked[0]) == 40


def test_a_stop_is_recorded_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([0.7, 0.1])
    monkeypatch.setattr(HeldOut, "accuracy", lambda *_: next(told))
    text = TINY_SUITE.replace("{name: ce}", "{name: ce, adversary: {method: fgsm_rs, eps: 0.1}}")
    text = text.replace("training: {epochs: 2,", "training: {epochs: 4, select: last,").replace("pairs:", "#")
    (tmp_path / "x.yaml").write_text(text)
    cell = make_plan(load_suite(tmp_path / "x.yaml").suite).of("train")[0]
    said: list[str] = []
    job = Job(cell, settings_for(tmp_path), DIGITS, Stopwatch(), lambda *values: said.append(str(values[-1])))
    record = run_training(job)
    sentence = (
        "stopped after epoch 2, catastrophic overfitting: accuracy under PGD with 5 steps on one training batch fell "
        "from 70.0 to 10.0 %; the weights are those of epoch 1"
    )
    assert (record.status, record.stopped, record.selected_epoch) == ("ok", sentence, 1)
    assert any(f"warning: {sentence}" in line for line in said)
