"""The training loop: it learns, resumes exactly, treats objectives alike, and notices when it goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Split, StreamedImages
from robustbench_cmic.information.measures import measure_information
from robustbench_cmic.models.build import Normalize, build_model
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.suite.data import Digits
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.training import AnyOptimizer, Training
from robustbench_cmic.training.checkpoint import TrainingRun, TrainingState, load_state, save_state
from robustbench_cmic.training.epoch_log import EpochLog
from robustbench_cmic.training.loop import Acceleration, Divergence, _Loop, train
from robustbench_cmic.training.optimizer import build_optimizer

CE: dict[str, Any] = {"name": "ce"}
CMIC = {"name": "cmic", "lambda": 0.7, "beta": 0.4, "momentum": 0.9}
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
DIGITS = load_data(Digits(name="digits"), Path())
WRITTEN = {"epochs": 3, "batch_size": 64, "optimizer": SGD, "schedule": {"name": "onecycle"}}


def declare(changes: dict[str, Any]) -> Training:
    return Training.model_validate(WRITTEN | changes)


DECLARED = declare({})


def optimizer_of(declared: dict[str, Any]) -> AnyOptimizer:
    return declare({"optimizer": declared}).optimizer


@pytest.fixture(scope="module")
def digits() -> Split:
    return Split(DIGITS.train.images[:400], DIGITS.train.labels[:400])


def build(architecture: str, seed: int) -> nn.Sequential:
    return build_model(Model(id="x", architecture=architecture), (1, 8, 8), 10, DIGITS.moments, seed)


def prepare(objective: dict[str, Any], optimizer: dict[str, Any] = SGD, seed: int = 0) -> TrainingRun:
    model = build("small_cnn", seed)
    return TrainingRun(
        model, build_objective(objective_of(objective), 10), build_optimizer(model, optimizer_of(optimizer))
    )


def weights(training: TrainingRun) -> Tensor:
    return torch.cat([value.flatten().double() for value in training.model.state_dict().values()])


def test_every_model_normalises_by_the_moments_of_the_training_images() -> None:
    model = build("mlp", seed=0)
    normalised = model[0](torch.from_numpy(DIGITS.train.images)).double()
    assert float(normalised.mean()) == pytest.approx(0, abs=1e-5)
    assert float(normalised.std(correction=0)) == pytest.approx(1, abs=1e-5)
    images = torch.from_numpy(DIGITS.test.images)
    assert torch.equal(model[1](model[0](images)), model(images))


def test_learns_and_draws_a_curve(digits: Split) -> None:
    training = prepare(CMIC)
    assert train(training, digits, declared=declare({"epochs": 8}), seed=0) is None
    curve = training.curve
    assert [epoch.epoch for epoch in curve] == list(range(1, 9))
    assert curve[-1].accuracy > 0.9 > curve[0].accuracy
    assert curve[-1].separation > curve[0].separation
    assert curve[-1].ncmi is not None
    assert curve[-1].ncmi == pytest.approx(curve[-1].cmi / curve[-1].separation)
    assert set(curve[-1].loss) == {"total", "ce", "cmi", "separation"}
    terms = curve[-1].loss
    assert terms["total"] == pytest.approx(terms["ce"] + 0.7 * terms["cmi"] - 0.4 * terms["separation"], rel=1e-4)
    assert curve[-1].lr < 1e-4


@pytest.mark.parametrize("objective", [CE, CMIC, CMIC | {"centroids": "class_batches", "class_batch_size": 2}])
@pytest.mark.parametrize("optimizer", [SGD, {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01}])
def test_resumes_bit_for_bit_after_every_epoch(
    digits: Split, objective: dict[str, Any], optimizer: dict[str, Any], tmp_path: Path
) -> None:
    declared = declare({"optimizer": optimizer})
    states: list[Path] = []

    def store(training: TrainingRun) -> None:
        states.append(tmp_path / f"{len(states)}.safetensors")
        save_state(states[-1], training.state(), "cell")

    whole = prepare(objective, optimizer)
    assert train(whole, digits, declared=declared, seed=0, after_epoch=store) is None
    for file in states:
        resumed = prepare(objective, optimizer, seed=1)  # other weights, to be overwritten
        state = load_state(file, "cell")
        assert isinstance(state, TrainingState)
        resumed.restore(state)
        torch.manual_seed(12345)
        assert train(resumed, digits, declared=declared, seed=0) is None
        assert torch.equal(weights(resumed), weights(whole))
        assert resumed.curve == whole.curve


def test_resumes_bit_for_bit_with_everything_that_images_are_changed_by(digits: Split) -> None:
    changes = {"crop": 1, "flip": True, "rotation": 15, "jitter": 0.4, "cutout": 2}
    declared = declare({"epochs": 2, "augmentation": changes})
    states: list[TrainingState] = []
    whole, resumed = prepare(CE), prepare(CE, seed=1)
    train(whole, digits, declared=declared, seed=0, after_epoch=lambda training: states.append(copied(training)))
    resumed.restore(states[0])
    train(resumed, digits, declared=declared, seed=0)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.curve == whole.curve
    weaker = declare({"epochs": 2, "augmentation": changes | {"jitter": 0.39}})
    resumed.restore(states[0])
    train(resumed, digits, declared=weaker, seed=0)
    assert not torch.equal(weights(resumed), weights(whole))


def copied(training: TrainingRun) -> TrainingState:
    """A snapshot that further epochs leave alone."""
    state = training.state()
    return TrainingState({name: value.clone() for name, value in state.tensors.items()}, state.epoch, state.curve)


def test_a_restored_state_has_the_memory_layout_of_the_weights(digits: Split, tmp_path: Path) -> None:
    """Fused optimisers on a GPU take nothing else."""
    first, second = (prepare(CE) for _ in range(2))
    for training in (first, second):
        training.model.to(memory_format=torch.channels_last)
    train(first, digits, declared=declare({"epochs": 1}), seed=0)
    save_state(tmp_path / "state", first.state(), "cell")
    state = load_state(tmp_path / "state", "cell")
    assert state is not None
    second.restore(state)
    (convolution,) = [weight for weight in second.model.parameters() if weight.shape == (64, 32, 3, 3)]
    momentum = second.optimizer.state[convolution]["momentum_buffer"]
    assert momentum.stride() == convolution.stride() != torch.empty(64, 32, 3, 3).stride()
    (other,) = [weight for weight in first.model.parameters() if weight.shape == (64, 32, 3, 3)]
    assert torch.equal(momentum, first.optimizer.state[other]["momentum_buffer"])


def test_resumes_bit_for_bit_where_layers_draw_random_numbers(digits: Split) -> None:
    def dropping() -> TrainingRun:
        torch.manual_seed(0)
        model = nn.Sequential(Normalize([0.0], [1.0]), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
        return TrainingRun(model, build_objective(objective_of(CE), 10), build_optimizer(model, optimizer_of(SGD)))

    states: list[TrainingState] = []

    def keep(training: TrainingRun) -> None:
        state = training.state()
        states.append(TrainingState({n: v.clone() for n, v in state.tensors.items()}, state.epoch, state.curve))

    whole, resumed = dropping(), dropping()
    train(whole, digits, declared=DECLARED, seed=0, after_epoch=keep)
    resumed.restore(states[0])
    torch.manual_seed(12345)
    train(resumed, digits, declared=DECLARED, seed=0)
    assert torch.equal(weights(resumed), weights(whole))


def test_cmic_without_weights_trains_as_cross_entropy_bit_for_bit(digits: Split) -> None:
    plain, weightless, full = prepare(CE), prepare(CMIC | {"lambda": 0.0, "beta": 0.0}), prepare(CMIC)
    for training in (plain, weightless, full):
        assert train(training, digits, declared=DECLARED, seed=0) is None
    assert torch.equal(weights(plain), weights(weightless))
    assert not torch.equal(weights(plain), weights(full))


def test_only_the_seed_decides(digits: Split) -> None:
    results = []
    for seed in (0, 0, 1):
        training = prepare(CE, seed=seed)
        torch.manual_seed(seed + 77)
        train(training, digits, declared=declare({"epochs": 1}), seed=seed)
        results.append(weights(training))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_loss_that_is_not_finite_ends_it_with_the_last_finite_terms(digits: Split) -> None:
    training = prepare(CE, SGD | {"lr": 1e30})
    divergence = train(training, digits, declared=declare({"optimizer": SGD | {"lr": 1e30}}), seed=0)
    assert isinstance(divergence, Divergence)
    assert "not finite" in divergence.reason
    assert "epoch 1" in divergence.reason
    assert divergence.last_finite is not None
    assert divergence.last_finite["total"] == pytest.approx(divergence.last_finite["ce"])
    assert training.curve == []


class Constant(nn.Module):
    """Predicts class 3, whatever it is shown or taught."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 10)
        logits[:, 3] = 1.0
        return logits + 0 * self.idle


@pytest.mark.parametrize(("epochs", "noticed"), [(1, 1), (2, 2), (9, 3)])
def test_a_collapse_to_one_class_is_noticed(digits: Split, epochs: int, noticed: int) -> None:
    model = nn.Sequential(Normalize([0.0], [1.0]), Constant())
    training = TrainingRun(model, build_objective(objective_of(CE), 10), build_optimizer(model, optimizer_of(SGD)))
    divergence = train(training, digits, declared=declare({"epochs": epochs}), seed=0)
    assert divergence is not None
    assert f"collapsed to one class: every prediction of epoch {noticed}" in divergence.reason
    assert divergence.last_finite is not None


def test_class_batches_follow_the_paper(digits: Split) -> None:
    """After each step, 2 examples of each class pass through the network with its weights fixed."""
    training = prepare(CMIC | {"centroids": "class_batches", "class_batch_size": 2})
    seen: list[Tensor] = []
    update = training.objective.update

    def spy(logits: Tensor, labels: Tensor) -> None:
        assert not logits.requires_grad
        seen.append(labels)
        update(logits, labels)

    training.objective.update = spy  # type: ignore[method-assign]
    statistics: list[int] = []
    train(
        training, digits, declared=declare({"epochs": 1}), seed=0,
        after_epoch=lambda t: statistics.append(int(t.model.state_dict()["1.1.num_batches_tracked"])),
    )  # fmt: skip
    assert len(seen) == 7  # 400 examples in batches of 64
    assert all(torch.equal(torch.bincount(labels, minlength=10), torch.full((10,), 2)) for labels in seen)
    assert statistics == [7], "the centroid passes leave the running statistics alone"


class NoReading(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails on everything that would make the host wait for a GPU: reading a value, or a size that depends on one."""

    forbidden = (
        "_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique", "is_nonzero", "equal", "index_fill",
    )  # fmt: skip

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.forbidden:
            raise AssertionError(f"{func} reads from the device")
        return func(*args, **(kwargs or {}))


def assert_no_step_reads(training: TrainingRun, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """The divergence guard included: what steps leave behind is read once, when the epoch is over."""
    watched = 0
    step, add = _Loop._step, EpochLog.add

    def watched_step(self: _Loop, *inputs: Tensor) -> tuple[Tensor, ...]:
        nonlocal watched
        watched += 1
        with NoReading():  # type: ignore[no-untyped-call]
            return step(self, *inputs)

    def watched_add(self: EpochLog, *values: Tensor) -> None:
        with NoReading():  # type: ignore[no-untyped-call]
            add(self, *values)

    monkeypatch.setattr(_Loop, "_step", watched_step)
    monkeypatch.setattr(EpochLog, "add", watched_add)
    monkeypatch.setattr("robustbench_cmic.training.epoch_log._HELD", 100 * 10)  # sums in the middle of an epoch, too
    changes = {"crop": 2, "flip": True, "cutout": 3, "rotation": 15, "jitter": 0.4}
    augmented = declare({"epochs": 1, "augmentation": changes})
    assert train(training, split, declared=augmented, seed=0) is None
    assert watched == augmented.steps_of_epoch(len(split.labels))


@pytest.mark.parametrize("objective", [CE, CMIC, CMIC | {"centroids": "class_batches", "class_batch_size": 2}])
def test_no_step_reads_from_the_device(
    digits: Split, objective: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_no_step_reads(prepare(objective), digits, monkeypatch)
    with pytest.raises(AssertionError, match="reads from the device"), NoReading():  # type: ignore[no-untyped-call]
        float(torch.ones(1).sum())


def test_the_curve_is_what_the_steps_put_out(digits: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy, loss and information of an epoch, recomputed from the logits of every step."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    add = EpochLog.add

    def spy(self: EpochLog, logits: Tensor, labels: Tensor, terms: Tensor) -> None:
        seen.append((logits.clone(), labels.clone(), terms.clone()))
        add(self, logits, labels, terms)

    monkeypatch.setattr(EpochLog, "add", spy)
    monkeypatch.setattr("robustbench_cmic.training.epoch_log._HELD", 150 * 10)
    training = prepare(CMIC)
    train(training, digits, declared=declare({"epochs": 1}), seed=0)
    logits, labels = torch.cat([step[0] for step in seen]), torch.cat([step[1] for step in seen])
    measured = measure_information(logits, labels)
    (epoch,) = training.curve
    assert epoch.accuracy == float((logits.argmax(1) == labels).double().mean())
    assert epoch.ncmi == pytest.approx(measured.ncmi, rel=1e-12)
    assert epoch.loss["ce"] == pytest.approx(float(torch.stack([step[2][1] for step in seen]).mean()), rel=1e-6)
    assert sorted(labels.tolist()) == sorted(digits.labels.tolist()), "every example once"


def test_augmented_training_sees_each_image_changed_and_two_objectives_see_the_same(digits: Split) -> None:
    seen: dict[str, Tensor] = {}
    augmented = declare({"epochs": 2, "augmentation": {"crop": 2, "flip": True, "cutout": 0}})
    for name, objective in (("ce", CE), ("cmic", CMIC)):
        training = prepare(objective)
        batches: list[Tensor] = []
        training.model[0].register_forward_pre_hook(lambda _, inputs, kept=batches: kept.append(inputs[0].clone()))
        train(training, digits, declared=augmented, seed=0)
        seen[name] = torch.cat(batches)
    assert torch.equal(seen["ce"], seen["cmic"])
    plain = {image.tobytes() for image in np.asarray(digits.images)}
    changed = [image.numpy().tobytes() not in plain for image in seen["ce"]]
    assert sum(changed) / len(changed) > 0.9
    assert not torch.equal(seen["ce"][:400], seen["ce"][400:])


class Streamed(StreamedImages):
    """Images that are not an array; at module level, so that worker processes can be given it."""

    def __init__(self, images: Any) -> None:
        self.images = (images * 16).astype(np.uint8)
        self.shape = images.shape

    def __getitem__(self, index: Any) -> Any:
        return self.images[index]


def test_streamed_images_train_as_resident_ones(digits: Split) -> None:
    streamed = Streamed(digits.images)
    objective = CMIC | {"centroids": "class_batches", "class_batch_size": 2}
    results = []
    for images in (streamed, streamed.images):
        training = prepare(objective)
        declared = declare({"epochs": 2})
        assert (
            train(
                training, Split(images, digits.labels), declared=declared, seed=0, acceleration=Acceleration(workers=2)
            )
            is None
        )
        results.append(weights(training))
    assert torch.equal(*results)


def test_label_smoothing_is_cross_entropy_against_smoothed_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(32, 10, generator=generator), torch.randint(10, (32,), generator=generator)
    targets = 0.8 * nn.functional.one_hot(labels, 10) + 0.02
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    for declared in (CE, CMIC):
        objective = build_objective(objective_of(declared | {"label_smoothing": 0.2}), 10)
        assert float(objective(logits, labels)["ce"]) == pytest.approx(float(expected), rel=1e-6)
