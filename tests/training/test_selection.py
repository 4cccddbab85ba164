"""Weights of the epoch that is best on held-out images: which images, how they are judged, what resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.pgd import pgd
from robustbench_cmic.data.base import Split
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.data.subset import hold_out
from robustbench_cmic.models.build import Normalize
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.job import run_cell
from robustbench_cmic.run.watch.events import CellProgress, Event
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.objectives import Adversary, objective_of
from robustbench_cmic.training import selection
from robustbench_cmic.training.checkpoint import TrainingRun, load_state, save_state
from robustbench_cmic.training.loop import train
from robustbench_cmic.training.optimizer import build_optimizer
from robustbench_cmic.training.selection import HeldOut
from tests.conftest import TINY_SUITE, Cli
from tests.in_process import settings_for
from tests.training.test_train import CE, CMIC, DIGITS, SGD, declare, optimizer_of, prepare, weights

SPLIT = Split(DIGITS.train.images[:400], DIGITS.train.labels[:400])
KEPT, HELD = hold_out(SPLIT.labels, 80)
BEST = {"select": "best", "held_out": 0.2}
OPPONENT = Adversary(eps=0.1, alpha=0.04, steps=3, loss="margin", random_start=False)


def with_accuracies(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """What the held-out images say of the epochs, in order."""
    told = iter(accuracies)
    monkeypatch.setattr(HeldOut, "accuracy", lambda *_: next(told))


@pytest.mark.parametrize("opponent", [None, OPPONENT])
def test_epochs_are_judged_in_eval_mode_on_the_held_out_images(opponent: Adversary | None) -> None:
    images, labels = torch.from_numpy(np.asarray(SPLIT.images)[HELD]), torch.from_numpy(SPLIT.labels[HELD])
    expected = []

    def judge(training: TrainingRun) -> None:
        training.model.eval()
        found = images
        if opponent is not None:
            found = pgd(
                training.model, images, labels, eps=0.1, alpha=0.04, steps=3, loss="margin", random_start=False,
            )  # fmt: skip
        with torch.no_grad():
            expected.append(float((training.model(found).argmax(1) == labels).double().mean()))

    training = dataclasses.replace(prepare(CE), adversary=opponent)
    assert train(training, SPLIT, declared=declare(BEST), seed=0, after_epoch=judge) is None
    assert [epoch.held_out for epoch in training.curve] == expected
    assert len(set(expected)) > 1
    assert training.selected_epoch == 1 + expected.index(max(expected))


def test_an_adversary_starts_every_batch_at_points_of_its_own_and_every_epoch_at_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[int] = []

    def note(_adversary: Adversary, _model: nn.Module, images: Tensor, _labels: Tensor, seed: int) -> Tensor:
        begun.append(seed)
        return images

    monkeypatch.setattr(selection, "find_adversarial", note)
    images, labels = torch.from_numpy(np.asarray(SPLIT.images)[HELD]), torch.from_numpy(SPLIT.labels[HELD])
    held = HeldOut(Examples(images.numpy(), np.arange(len(labels)), "cpu"), labels, 32, seed=5)
    for _ in range(2):
        held.accuracy(prepare(CE).model, OPPONENT)
    assert len(set(begun)) == 3
    assert begun == begun[:3] * 2


def test_the_model_is_left_with_the_weights_of_the_best_epoch_the_earliest(monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, [0.2, 0.5, 0.4, 0.5, 0.1])
    kept: list[Tensor] = []
    training = prepare(CE)
    declared = declare(BEST | {"epochs": 5})
    train(training, SPLIT, declared=declared, seed=0, after_epoch=lambda run: kept.append(weights(run)))
    assert training.selected_epoch == 2
    assert [torch.equal(weights(training), each) for each in kept] == [False, True, False, False, False]
    assert [epoch.held_out for epoch in training.curve] == [0.2, 0.5, 0.4, 0.5, 0.1]


def test_epochs_are_those_of_a_training_on_the_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holding out takes images away and changes nothing else; to be judged leaves no trace."""
    with_accuracies(monkeypatch, [0.1, 0.2, 0.3])
    declared = {"augmentation": {"crop": 1, "flip": True}}
    training, other = dropping(), dropping()
    train(training, SPLIT, declared=declare(BEST | declared), seed=0)
    rest = Split(np.asarray(SPLIT.images)[KEPT], SPLIT.labels[KEPT])
    train(other, rest, declared=declare(declared), seed=0)
    assert torch.equal(weights(training), weights(other))
    assert [epoch.loss for epoch in training.curve] == [epoch.loss for epoch in other.curve]
    assert other.selected_epoch is None
    monkeypatch.undo()
    judged = dropping(OPPONENT)
    clean = dropping(OPPONENT)
    train(judged, SPLIT, declared=declare(BEST | declared), seed=0)
    train(clean, rest, declared=declare(declared), seed=0)
    assert [epoch.loss for epoch in judged.curve] == [epoch.loss for epoch in clean.curve]


def dropping(opponent: Adversary | None = None) -> TrainingRun:
    torch.manual_seed(0)
    model = nn.Sequential(Normalize([0.0], [1.0]), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    objective = build_objective(objective_of(CE), 10)
    return TrainingRun(model, objective, build_optimizer(model, optimizer_of(SGD)), opponent)


@pytest.mark.parametrize("objective", [CE, CMIC | {"centroids": "class_batches", "class_batch_size": 2}])
def test_held_out_images_are_not_learned_from(objective: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, [0.1, 0.2, 0.3])
    seen: set[bytes] = set()
    training = prepare(objective)
    training.model[0].register_forward_pre_hook(
        lambda _, inputs: seen.update(image.numpy().tobytes() for image in inputs[0])
    )
    train(training, SPLIT, declared=declare(BEST), seed=0)
    every = [image.tobytes() for image in np.asarray(SPLIT.images)]
    assert len(set(every)) == 400
    assert seen == {every[index] for index in KEPT}


@pytest.mark.parametrize("opponent", [None, OPPONENT.model_copy(update={"random_start": True})])
def test_resumes_bit_for_bit_after_every_epoch(
    opponent: Adversary | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if opponent is None:  # with the best epoch in the middle
        with_accuracies(monkeypatch, [0.1, 0.3, 0.2, 0.1, 0.3, 0.2, 0.3, 0.2, 0.2])
    states: list[Path] = []

    def store(training: TrainingRun) -> None:
        states.append(tmp_path / f"{len(states)}.safetensors")
        save_state(states[-1], training.state(), "cell")

    whole = dataclasses.replace(prepare(CE), adversary=opponent)
    train(whole, SPLIT, declared=declare(BEST), seed=0, after_epoch=store)
    for done, file in enumerate(states, start=1):
        if opponent is None:
            with_accuracies(monkeypatch, [0.1, 0.3, 0.2][done:])
        resumed = dataclasses.replace(prepare(CE, seed=1), adversary=opponent)
        state = load_state(file, "cell")
        assert state is not None
        resumed.restore(state)
        torch.manual_seed(12345)
        train(resumed, SPLIT, declared=declare(BEST), seed=0)
        assert torch.equal(weights(resumed), weights(whole))
        assert resumed.curve == whole.curve
        assert resumed.selected_epoch == whole.selected_epoch


def test_the_record_tells_the_accuracies_and_the_epoch(tmp_path: Path, cli_here: Cli) -> None:
    training = "training: {epochs: 4, select: best, held_out: 40, limit: 200,"
    text = TINY_SUITE.replace("training: {epochs: 2,", training).replace("lr: 0.1", "lr: 0.4")
    (tmp_path / "x.yaml").write_text(text)
    done = cli_here("run", "x.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "results" / "tiny"
    for file in folder.glob("*.train.*.json"):
        record = read_record(file)
        assert isinstance(record, TrainRecord)
        judged = [epoch.held_out for epoch in record.curve]
        assert len(judged) == 4
        assert all(accuracy is not None and accuracy * 40 == round(accuracy * 40) for accuracy in judged)
        assert record.selected_epoch == 1 + int(np.argmax(np.array(judged, float)))
        assert record.cell.declared["training"]["held_out"] == 40
    assert "select best, held_out 40" in (folder / "leaderboard.md").read_text()


@pytest.mark.parametrize(
    ("held_out", "images", "count"), [(0.1, 50_000, 5000), (0.25, 10, 2), (1e-9, 50, 1), (5000, 50_000, 5000)]
)
def test_a_share_or_a_number(held_out: float, images: int, count: int) -> None:
    assert declare({"select": "best", "held_out": held_out}).held_out_images(images) == count


WARNED = """\
suite: few
dataset: {dataset}
training: {{epochs: 2, batch_size: 8, optimizer: {{name: sgd, lr: 0.1}}{changes}}}
models:
  - {{id: a, architecture: mlp, objective: {{name: cmic, momentum: {momentum}{adversary}}}}}
audit: off
"""


@pytest.mark.parametrize(
    ("changes", "adversary", "momentum", "made"),
    [
        (", select: best, held_out: 0.5", "", 0.85, 20),
        (", select: best, held_out: 40", "", 0.87, 30),
        ("", ", adversary: {eps: 0.1, steps: 1}", 0.885, 36),
        (", held_out: 0.5", ", adversary: {eps: 0.1, steps: 1}", 0.85, 20),
        (", select: last", ", adversary: {eps: 0.1, steps: 1}", 0.9, 40),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_warning_counts_the_steps_that_are_made(
    tmp_path: Path, changes: str, adversary: str, momentum: float, made: int, known: bool
) -> None:
    """Those of 160 images that are learned from: `validate` tells, or where it cannot know the images, the training."""
    x, y = np.asarray(DIGITS.train.images[:160]), DIGITS.train.labels[:160]
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    dataset, limit = ("{name: digits}", ", limit: 160") if known else ("{name: arrays, path: own.npz}", "")
    file = tmp_path / "few.yaml"
    file.write_text(WARNED.format(dataset=dataset, changes=changes + limit, adversary=adversary, momentum=momentum))
    loaded = load_suite(file)
    events: list[Event] = []
    run_cell(make_plan(loaded.suite).of("train")[0], settings_for(tmp_path), events.append)
    progress = [event for event in events if isinstance(event, CellProgress)]
    assert {event.total for event in progress if event.text == "steps"} == {made}
    said = [event.text for event in progress if event.text.startswith("warning: ")]
    told, silent = ([problem.message for problem in loaded.warnings], said) if known else (said, loaded.warnings)
    assert silent == []
    (sentence,) = told
    left = f"the momentum {momentum:g} leaves {100 * momentum**made:.0f} % of the uniform start in the centroids after"
    assert f"{left} {made} steps" in sentence


def test_nothing_is_held_out_unless_asked_for() -> None:
    assert declare({}).held_out_images(50_000) == 0
