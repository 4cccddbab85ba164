"""What only a GPU can show: graphs give what plain steps give, nothing waits for the device, memory may run out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic import evaluate
from robustbench_cmic.attacks import harness
from robustbench_cmic.data.base import Split
from robustbench_cmic.data.subset import hold_out
from robustbench_cmic.information.measures import measure_information
from robustbench_cmic.models.build import Normalize, build_model
from robustbench_cmic.objectives import build_objective, build_robust_cmi
from robustbench_cmic.suite.attacks import PGD
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.training.checkpoint import TrainingRun, load_state, save_state
from robustbench_cmic.training.epoch_log import EpochLog
from robustbench_cmic.training.loop import Acceleration, _Loop, train
from robustbench_cmic.training.optimizer import build_optimizer
from tests.objectives.test_rivals import RIVALS
from tests.training.test_robust import METHODS, adversary
from tests.training.test_train import CE, CMIC, DECLARED, DIGITS, SGD, declare, optimizer_of, weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

ADAMW = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01}
CLASS_BATCHES = CMIC | {"centroids": "class_batches", "class_batch_size": 2}
EXAMPLES = Split(DIGITS.train.images[:410], DIGITS.train.labels[:410])  # the last batch is a small one


@pytest.fixture(autouse=True)
def _repeatable() -> Iterator[None]:
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cudnn.deterministic = False


def prepare(declared: dict[str, Any], optimizer: dict[str, Any] = SGD) -> TrainingRun:
    """A training as a cell begins it on a GPU: the objective's head in the network, its parameters in the optimiser."""
    objective = build_objective(objective_of(declared), 10)
    model = build_model(Model(id="x", architecture="small_cnn"), (1, 8, 8), 10, DIGITS.moments, 0, objective=objective)
    model = model.cuda().to(memory_format=torch.channels_last)
    objective.attach(model, torch.from_numpy(DIGITS.train.images[:2]).cuda())
    objective.cuda()
    return TrainingRun(model, objective, build_optimizer(model, optimizer_of(optimizer), objective))


@pytest.mark.parametrize("objective", [CE, CMIC, CLASS_BATCHES])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW])
@pytest.mark.parametrize("reduced", [False, True])
def test_graphed_steps_train_as_plain_ones(objective: dict[str, Any], optimizer: dict[str, Any], reduced: bool) -> None:
    changes = {"crop": 1, "flip": True, "cutout": 2, "rotation": 15, "jitter": 0.2}
    declared = declare({"optimizer": optimizer, "augmentation": changes})
    trained = []
    for graphed in (True, False):
        training = prepare(objective, optimizer)
        acceleration = Acceleration(reduced=reduced, graphed=graphed)
        assert train(training, EXAMPLES, declared=declared, seed=0, acceleration=acceleration) is None
        trained.append((weights(training), training.curve[-1].accuracy))
    assert torch.allclose(trained[0][0], trained[1][0], rtol=1e-3, atol=1e-4)
    assert trained[0][1] == pytest.approx(trained[1][1], abs=0.01)
    assert trained[0][1] > 0.2  # three epochs of 410 images, augmented: twice chance


@pytest.mark.parametrize("declared", RIVALS, ids=lambda declared: str(declared["name"]))
@pytest.mark.parametrize("reduced", [False, True])
def test_graphed_steps_train_rivals_as_plain_ones(declared: dict[str, Any], reduced: bool) -> None:
    trained = []
    for graphed in (True, False):
        training = prepare(declared)
        acceleration = Acceleration(reduced=reduced, graphed=graphed)
        assert train(training, EXAMPLES, declared=DECLARED, seed=0, acceleration=acceleration) is None
        own = [value.flatten().double() for value in training.objective.state_dict().values()]
        trained.append((torch.cat([weights(training), *own]), training.curve[-1].accuracy))
    assert torch.allclose(trained[0][0], trained[1][0], rtol=1e-3, atol=1e-4)
    assert trained[0][1] == pytest.approx(trained[1][1], abs=0.01)
    assert not torch.equal(trained[0][0][: len(weights(training))], weights(prepare(declared))), "it trains"


@pytest.mark.parametrize("name", METHODS)
def test_robust_training_is_that_of_the_cpu(name: str) -> None:
    """One step of a network without batch normalisation; the attacks draw their starts on the host."""
    declared = declare({"epochs": 1, "batch_size": 64})
    few = Split(EXAMPLES.images[:64], EXAMPLES.labels[:64])
    opponent, after = adversary(name), []
    for device in ("cuda", "cpu"):
        torch.manual_seed(0)
        model = nn.Sequential(Normalize([0.0], [1.0]), nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        model, term = model.to(device), build_robust_cmi(opponent, 10)
        training = TrainingRun(
            model, build_objective(objective_of(CMIC), 10).to(device), build_optimizer(model, optimizer_of(SGD)),
            opponent, term and term.to(device),
        )  # fmt: skip
        assert train(training, few, declared=declared, seed=0, acceleration=Acceleration(graphed=True)) is None
        after.append((weights(training).cpu(), training.curve[-1].loss))
    assert torch.allclose(after[0][0], after[1][0], rtol=1e-3, atol=1e-4)
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-3, abs=1e-4)


def test_a_graphed_training_keeps_the_weights_of_its_best_epoch() -> None:
    declared = declare({"select": "best", "held_out": 100})
    _, held = hold_out(EXAMPLES.labels, 100)
    images = torch.from_numpy(np.asarray(EXAMPLES.images)[held]).cuda()
    judged = []
    for graphed in (True, False):
        training = prepare(CMIC)
        train(training, EXAMPLES, declared=declared, seed=0, acceleration=Acceleration(graphed=graphed))
        with torch.no_grad():
            predicted = training.model.eval()(images).argmax(1).cpu()
        accuracy = float((predicted == torch.from_numpy(EXAMPLES.labels[held])).double().mean())
        assert accuracy == max(epoch.held_out or 0.0 for epoch in training.curve)
        judged.append([epoch.held_out for epoch in training.curve])
    assert judged[0] == pytest.approx(judged[1], abs=0.05)


def test_a_graphed_training_resumes(tmp_path: Path) -> None:
    def keep(training: TrainingRun) -> None:
        if len(training.curve) == 1:
            save_state(tmp_path / "state", training.state(), "cell")

    whole, resumed = prepare(CMIC), prepare(CMIC)
    acceleration = Acceleration(graphed=True)
    train(whole, EXAMPLES, declared=DECLARED, seed=0, acceleration=acceleration, after_epoch=keep)
    state = load_state(tmp_path / "state", "cell")
    assert state is not None
    resumed.restore(state)
    train(resumed, EXAMPLES, declared=DECLARED, seed=0, acceleration=acceleration)
    assert torch.allclose(weights(resumed), weights(whole), rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("graphed", [False, True])
def test_nothing_in_an_epoch_waits_for_the_device(graphed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    add, calls = EpochLog.add, 0

    def add_and_forbid(self: EpochLog, *values: Tensor) -> None:
        nonlocal calls
        calls += 1
        add(self, *values)
        # The first steps warm up, and the capture of a graph waits on purpose.
        torch.cuda.set_sync_debug_mode("error" if calls == 5 else torch.cuda.get_sync_debug_mode())

    close = _Loop._close

    def allow_and_close(self: _Loop, *what: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        return close(self, *what)

    monkeypatch.setattr(EpochLog, "add", add_and_forbid)
    monkeypatch.setattr(_Loop, "_close", allow_and_close)
    try:
        train(
            prepare(CMIC), EXAMPLES, declared=declare({"epochs": 1}), seed=0, acceleration=Acceleration(graphed=graphed)
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert calls == 7


def test_verdicts_are_those_of_the_cpu() -> None:
    training = prepare(CE)
    train(training, EXAMPLES, declared=DECLARED, seed=0)
    attack = PGD(name="PGD", eps=[0.1], alpha=0.02, steps=10)
    images, labels = torch.from_numpy(DIGITS.test.images[:]), torch.from_numpy(DIGITS.test.labels)
    found = []
    for device in ("cuda", "cpu"):
        verdict = harness.evaluate_attack(
            training.model.to(device), images.to(device), labels.to(device), classes=10, attack=attack, seed=0,
        )  # fmt: skip
        found.append(verdict.correct.cpu())
    assert int((found[0] != found[1]).sum()) <= 3
    assert 0 < int(found[0].sum()) < len(labels)


def test_a_network_on_the_card_is_evaluated_as_on_the_cpu() -> None:
    training = prepare(CE)
    train(training, EXAMPLES, declared=DECLARED, seed=0)
    images, labels = torch.from_numpy(DIGITS.test.images[:200]), torch.from_numpy(DIGITS.test.labels[:200])
    there, here = (
        evaluate(training.model.to(device), images, labels, eps=0.1, budget="quick", progress=False)
        for device in ("cuda", "cpu")
    )
    assert int((there.survivors(0.1) != here.survivors(0.1)).sum()) <= 2
    assert 0 < there.worst_case[0.1] < there.accuracy


def test_information_is_that_of_the_cpu() -> None:
    logits, labels = torch.randn(5000, 20) * 10, torch.randint(20, (5000,))
    there, here = measure_information(logits.cuda(), labels.cuda()), measure_information(logits, labels)
    assert (there.cmi, there.separation) == pytest.approx((here.cmi, here.separation), rel=1e-10)
