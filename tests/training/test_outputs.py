"""Outputs for pictures: those of the model after an epoch, kept without a trace, resumed after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from robustbench_cmic.data.base import Data, Split
from robustbench_cmic.data.subset import subset_sha256
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.records.packing import unpack_logits
from robustbench_cmic.records.schema import KeptOutputs, TrainRecord
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.job import run_cell
from robustbench_cmic.run.watch.events import EpochDone, Event
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.messages import SuiteError
from robustbench_cmic.suite.training import DeclaredOutputs
from robustbench_cmic.training.checkpoint import TrainingRun, load_state, save_state
from robustbench_cmic.training.loop import train
from robustbench_cmic.training.outputs import OutputKeeper, spaced
from tests.in_process import settings_for
from tests.training.test_selection import dropping
from tests.training.test_train import CE, CMIC, DIGITS, declare, prepare, weights

SPLIT = Split(DIGITS.train.images[:400], DIGITS.train.labels[:400])
ASKED = DeclaredOutputs(classes=4, per_class=3, epochs=3)
FIVE = declare({"epochs": 5})


def keeper(asked: DeclaredOutputs = ASKED, data: Data = DIGITS) -> OutputKeeper:
    return OutputKeeper(asked, data, 5, "cpu")


def numbers(kept: KeptOutputs) -> np.ndarray[Any, Any]:
    return unpack_logits(kept.logits, (len(kept.epochs), sum(kept.counts), len(kept.classes)))


def test_kept_are_the_logits_of_test_images_of_evenly_spaced_classes_after_evenly_spaced_epochs() -> None:
    seen, own = [], keeper()

    def after_epoch(training: TrainingRun) -> None:
        own.note(training)
        training.model.eval()
        with torch.no_grad():
            seen.append(training.model(torch.from_numpy(np.asarray(DIGITS.test.images))).numpy())
        training.model.train()

    training = prepare(CMIC)
    train(training, SPLIT, declared=FIVE, seed=0, after_epoch=after_epoch)
    kept = own.record(training)
    assert (kept.classes, kept.names, kept.epochs) == ([0, 3, 6, 9], ["0", "3", "6", "9"], [1, 3, 5])
    assert kept.counts == [3, 3, 3, 3]
    rows = own._images.indices
    assert DIGITS.test.labels[rows].tolist() == [label for label in kept.classes for _ in range(3)]
    assert kept.examples_sha256 == subset_sha256(rows)
    for found, epoch in zip(numbers(kept), kept.epochs, strict=True):
        expected = seen[epoch - 1][rows][:, kept.classes]
        np.testing.assert_allclose(found, expected - expected.max(1, keepdims=True), rtol=1e-3, atol=1e-3)
    assert not np.array_equal(numbers(kept)[0], numbers(kept)[2])


def test_to_be_looked_at_leaves_no_trace() -> None:
    """Dropout draws from the global generator: one number drawn in between would give other weights, or outputs."""
    alone, watched, own = dropping(), dropping(), keeper()
    train(alone, SPLIT, declared=FIVE, seed=0)
    modes: list[bool] = []

    def after_epoch(training: TrainingRun) -> None:
        before = torch.get_rng_state()
        own.note(training)
        assert torch.equal(before, torch.get_rng_state())
        modes.append(training.model.training)

    train(watched, SPLIT, declared=FIVE, seed=0, after_epoch=after_epoch)
    assert torch.equal(weights(alone), weights(watched))
    assert modes == [True] * 5
    watched.model.eval()
    with torch.no_grad():
        expected = watched.model(own._images[0:12])[:, own.classes]
    assert torch.equal(watched.outputs[5], (expected - expected.amax(1, keepdim=True)).half())
    assert alone.curve == watched.curve


def test_a_resumed_training_keeps_the_same(tmp_path: Path) -> None:
    own = keeper()

    def after_epoch(training: TrainingRun) -> None:
        own.note(training)
        save_state(tmp_path / f"{len(training.curve)}", training.state(), "cell")

    whole = prepare(CE)
    train(whole, SPLIT, declared=FIVE, seed=0, after_epoch=after_epoch)
    expected = own.record(whole)
    for epoch in (2, 4):
        state = load_state(tmp_path / str(epoch), "cell")
        assert state is not None
        resumed = prepare(CE, seed=1)
        resumed.restore(state)
        assert list(resumed.outputs) == [1, 3][: epoch // 2]
        train(resumed, SPLIT, declared=FIVE, seed=0, after_epoch=own.note)
        assert own.record(resumed) == expected


@pytest.mark.parametrize(("shift", "scale"), [(1e6, 1.0), (0.0, 1e7)])
def test_logits_beyond_float16_keep_their_differences(shift: float, scale: float) -> None:
    class Far(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = torch.arange(10.0).expand(len(images), 10) * scale + shift
            return logits.index_fill(1, torch.tensor([3]), -torch.inf)

    training = prepare(CE)
    training.model.append(Far())
    own = keeper()
    own.note(training, 1)
    found = numbers(own.record(training))[0]
    lowest = float(np.finfo(np.float16).min)
    expected = [-9.0, lowest, -3.0, 0.0] if scale == 1 else [lowest, lowest, lowest, 0.0]
    np.testing.assert_array_equal(found, [expected] * 12)


def test_few_images_and_classes_are_kept_as_they_are() -> None:
    few = Data(DIGITS.train, Split(DIGITS.test.images[:5], np.array([0, 0, 1, 0, 0])), 10)
    own = keeper(DeclaredOutputs(classes=20, per_class=3, epochs=3), few)
    training = prepare(CE)
    own.note(training, 4)
    kept = own.record(training)
    assert (kept.classes, kept.names, kept.counts) == (list(range(10)), [], [3, 1] + [0] * 8)
    assert numbers(kept).shape == (1, 4, 10)


def test_spaced_numbers_have_both_ends() -> None:
    assert (spaced(3, 1, 20), spaced(5, 1, 2), spaced(11, 1, 21)) == ([1, 10, 20], [1, 2], [*range(1, 22, 2)])
    assert all(spaced(k, 0, 99)[0] == 0 and spaced(k, 0, 99)[-1] == 99 and len(spaced(k, 0, 99)) == k for k in (2, 7))


SUITE = """\
suite: kept
dataset: {name: digits}
training: {epochs: 4, batch_size: 32, limit: 100, OUTPUTSoptimizer: {name: sgd, lr: 0.1}}
models: [{id: a, architecture: mlp, objective: {name: ce}}]
"""
OUTPUTS = "outputs: {classes: 3, per_class: 2, epochs: 3}, "


def planned(tmp_path: Path, outputs: str) -> Any:
    (tmp_path / "kept.yaml").write_text(SUITE.replace("OUTPUTS", outputs))
    return load_suite(tmp_path / "kept.yaml").suite


def test_no_cell_declares_them(tmp_path: Path) -> None:
    assert make_plan(planned(tmp_path, OUTPUTS)) == make_plan(planned(tmp_path, ""))


def test_more_than_a_record_should_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"classes\^2 x per_class x epochs = 110000 numbers .* lower one") as raised:
        planned(tmp_path, "outputs: {per_class: 100}, ")
    assert "training.outputs" in str(raised.value)


def test_a_killed_cell_goes_on_with_what_it_had_and_one_asked_for_others_begins_anew(tmp_path: Path) -> None:
    suite = planned(tmp_path, OUTPUTS)
    cell = make_plan(suite).of("train")[0]
    settings = settings_for(tmp_path, outputs=suite.training.outputs)

    def killed(event: Event) -> None:
        if isinstance(event, EpochDone) and event.numbers.epoch == 2 and not event.restored:
            raise KeyboardInterrupt

    def done(**changes: Any) -> TrainRecord:
        run_cell(cell, settings_for(tmp_path, **changes), lambda _: None)
        record = read_record(settings.store.record(cell.id))
        assert isinstance(record, TrainRecord)
        return record

    whole = done(outputs=suite.training.outputs)
    plain = done()
    for asked, resumed in ((suite.training.outputs, True), (DeclaredOutputs(), False)):
        with pytest.raises(KeyboardInterrupt):
            run_cell(cell, settings, killed)
        record = done(outputs=asked)
        assert (record.timing.resumed_after_epoch is not None) == resumed
        assert record.checkpoint_sha256 == plain.checkpoint_sha256 == whole.checkpoint_sha256
        assert (record.outputs == whole.outputs) == resumed
    assert plain.outputs is None
    assert whole.outputs is not None
    assert whole.outputs.epochs == [1, 2, 4]
