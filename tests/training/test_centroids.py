"""Where centroids come from during a training: the batch, class batches in either mode, or the whole training set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.data.base import Split
from robustbench_cmic.data.feed import unit
from robustbench_cmic.data.subset import hold_out
from robustbench_cmic.objectives import Cmic
from robustbench_cmic.suite.objectives import Adversary
from robustbench_cmic.training.checkpoint import TrainingRun, TrainingState
from robustbench_cmic.training.loop import train
from tests.training.test_adversary import DIGITS_400, adversary, prepared
from tests.training.test_train import declare, weights

AUTHORS = {"name": "cmic", "preset": "authors", "lambda": 0.7, "beta": 0.4}
CLASS_BATCHES = AUTHORS | {"centroids": "class_batches", "class_batch_size": 2}
FIXED = AUTHORS | {"centroids": "fixed"}


def centroid_of(training: TrainingRun) -> Tensor:
    assert isinstance(training.objective, Cmic)
    return training.objective.centroid


@pytest.mark.parametrize(("mode", "passes"), [("eval", 7), ("train", 14)])
def test_in_train_mode_class_batches_enter_the_running_statistics(mode: str, passes: int) -> None:
    training = prepared(CLASS_BATCHES | {"class_batch_mode": mode}, None)
    train(training, DIGITS_400, declared=declare({"epochs": 1}), seed=0)
    assert int(training.model.state_dict()["1.1.num_batches_tracked"]) == passes


def test_class_batches_are_attacked_where_there_is_an_adversary(monkeypatch: pytest.MonkeyPatch) -> None:
    attacked: list[int] = []
    starts: list[int] = []

    def spy(_: Adversary, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        attacked.append(len(images))
        starts.append(seed)
        return torch.zeros_like(images)

    monkeypatch.setattr("robustbench_cmic.training.loop.find_adversarial", spy)
    training = prepared(CLASS_BATCHES, adversary())
    outputs: list[Tensor] = []
    update = training.objective.update

    def keep(logits: Tensor, labels: Tensor) -> None:
        outputs.append(logits)
        update(logits, labels)

    training.objective.update = keep  # type: ignore[method-assign]
    train(training, DIGITS_400, declared=declare({"epochs": 1}), seed=0)
    assert attacked == [64, 20] * 6 + [16, 20]
    assert len(set(starts)) == 14
    assert all(bool((logits == logits[0]).all()) for logits in outputs), "what the adversary returned was passed on"


@pytest.mark.parametrize(("refresh", "from_start"), [("once", True), ("epoch", False)])
def test_fixed_centroids_are_the_class_means_of_the_training_set(refresh: str, from_start: bool) -> None:
    means: list[Tensor] = []

    def keep(training: TrainingRun) -> None:
        means.append(class_means(training.model, DIGITS_400))

    training = prepared(FIXED | {"refresh": refresh}, None)
    before = class_means(training.model, DIGITS_400)
    train(training, DIGITS_400, declared=declare({"epochs": 2}), seed=0, after_epoch=keep)
    # Computed before epoch 1, and, where they are refreshed, before epoch 2: at the end of epoch 1.
    expected = before if from_start else means[0]
    assert torch.allclose(centroid_of(training), expected, atol=1e-6)
    assert not torch.allclose(before, means[0], atol=1e-2)


def test_fixed_centroids_leave_out_what_is_held_out() -> None:
    training = prepared(FIXED, None)
    declared = declare({"epochs": 1, "select": "best", "held_out": 100})
    kept, held = hold_out(DIGITS_400.labels, 100)
    expected = class_means(training.model, Split(DIGITS_400.images[kept], DIGITS_400.labels[kept]))
    assert len(held) == 100
    train(training, DIGITS_400, declared=declared, seed=0)
    assert torch.allclose(centroid_of(training), expected, atol=1e-6)


def class_means(model: nn.Module, split: Split) -> Tensor:
    images, labels = unit(torch.from_numpy(split.images[:])), torch.from_numpy(split.labels)
    was = model.training
    model.eval()
    with torch.no_grad():
        p = model(images).softmax(1)
    model.train(was)
    return torch.stack([p[labels == label].mean(0) for label in range(10)])


def test_fixed_centroids_of_an_adversarial_training_are_taken_from_attacked_images() -> None:
    clean, attacked = prepared(FIXED, None), prepared(FIXED, adversary(eps=0.3))
    for training in (clean, attacked):
        train(training, DIGITS_400, declared=declare({"epochs": 1}), seed=0)
    assert not torch.allclose(centroid_of(clean), centroid_of(attacked), atol=1e-3)


@pytest.mark.parametrize(
    "objective",
    [
        FIXED | {"refresh": "epoch"},
        FIXED,
        CLASS_BATCHES | {"class_batch_mode": "train"},
        AUTHORS | {"horizon": 0.2},
    ],
)
def test_resumes_bit_for_bit(objective: dict[str, Any]) -> None:
    states: list[TrainingState] = []

    def keep(training: TrainingRun) -> None:
        state = training.state()
        states.append(TrainingState({n: v.clone() for n, v in state.tensors.items()}, state.epoch, state.curve))

    whole, resumed = prepared(objective, None), prepared(objective, None)
    train(whole, DIGITS_400, declared=declare({}), seed=0, after_epoch=keep)
    resumed.restore(states[0])
    train(resumed, DIGITS_400, declared=declare({}), seed=0)
    assert torch.equal(weights(resumed), weights(whole))
    assert torch.equal(centroid_of(resumed), centroid_of(whole))
