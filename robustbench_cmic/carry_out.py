"""Carries out one cell: a training or an attack, from what it declares to its record. Any executor calls this.

Knows nothing of other cells but the training that an attack needs, whose record and weights it reads from disk.
"""

from __future__ import annotations

import datetime
import functools
import math
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from robustbench_cmic.attacks.harness import AttackError, Verdict, judge_attack
from robustbench_cmic.attacks.threat import Threat
from robustbench_cmic.checkpoint import CorruptCheckpointError, load_state, load_weights, save_state, save_weights
from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Data
from robustbench_cmic.information import Information
from robustbench_cmic.models.build import build_model, normalization
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.plan import Cell
from robustbench_cmic.record import (
    AttackRecord,
    Measures,
    Timing,
    TrainRecord,
    failed_record,
    pack_outcomes,
    read_record,
    record_path,
)
from robustbench_cmic.settings import Settings, resume_file, weights_file
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.train import Training, build_optimizer, train

Progress = Callable[[int, int, str], None]
"""Called with (units done, units in all, what there is to say)."""


class CellError(Exception):
    """A cell that cannot be carried out; the message says why, in a sentence."""


def carry_out(cell: Cell, settings: Settings, progress: Progress) -> TrainRecord | AttackRecord:
    """Do a cell. What goes wrong inside it becomes a `failed` record, never an exception.

    The weights of a training are on disk when this returns; its record is for the caller to write.
    """
    clock = _Clock()
    try:
        data, sha256 = _data(cell.declared.get("train", cell.declared)["dataset"]["name"])
        work = _train if cell.kind == "train" else _attack
        return work(cell, settings, data, sha256, clock, progress)
    except (CellError, AttackError, CorruptCheckpointError) as error:
        reason = str(error)
    except (torch.OutOfMemoryError, MemoryError):
        reason = f"out of memory on {settings.device}"
    except OSError as error:
        reason = f"cannot write {error.filename or 'a file'}: {error.strerror or error}"
    except Exception as error:  # a defect or a library's whim: it fails this cell only, its trace is in the log
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
    return failed_record(settings.suite, cell, reason, _provenance(settings), clock.timing())


class _Clock:
    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.resumed: int | None = None

    def timing(self) -> Timing:
        seconds = round(time.perf_counter() - self.began, 3)
        return Timing(started=self.started, seconds=seconds, resumed_after_epoch=self.resumed)


@functools.lru_cache(maxsize=1)
def _data(name: str) -> tuple[Data, str]:
    data = load_data(name)
    return data, data.fingerprint()


def _on(device: str, images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)


def _provenance(settings: Settings) -> dict[str, Any]:
    """The parent's provenance and what only the process that computes can tell."""
    cuda = settings.device.startswith("cuda")
    return settings.provenance | {
        "device": torch.cuda.get_device_name(settings.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "determinism": {
            "cudnn_deterministic": torch.backends.cudnn.deterministic,
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "tf32": torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32,
        },
    }


def _train(cell: Cell, settings: Settings, data: Data, sha256: str, clock: _Clock, progress: Progress) -> TrainRecord:
    declared = cell.declared
    training = _prepare(cell, settings, data)
    state_file, identity = resume_file(settings.work, cell.id), f"{cell.id} on {sha256}"
    try:
        state = load_state(state_file, identity)
    except CorruptCheckpointError as error:
        state = None
        state_file.unlink()
        progress(0, 0, f"{error}: the training begins anew")
    if state is not None:
        training.restore(state)
        clock.resumed = state.epoch

    epochs = declared["training"]["epochs"]

    def after_epoch(training: Training) -> None:
        save_state(state_file, training.state(), identity)
        progress(len(training.curve), epochs, f"accuracy {training.curve[-1].accuracy:.3f}")

    images, labels = _on(settings.device, data.x_train, data.y_train)
    divergence = train(training, images, labels, declared=declared["training"], seed=cell.seed, after_epoch=after_epoch)
    saved = None
    if divergence is None:
        saved = save_weights(weights_file(settings.work, cell.id), training.model.state_dict())
    layer = normalization(data)
    return TrainRecord(
        suite=settings.suite,
        cell=cell,
        status="diverged" if divergence else "ok",
        reason=divergence.reason if divergence else "",
        provenance=_provenance(settings),
        timing=clock.timing(),
        dataset_sha256=sha256,
        checkpoint_sha256=saved,
        parameters=sum(weight.numel() for weight in training.model.parameters()),
        mean=layer.mean.flatten().tolist(),
        std=layer.std.flatten().tolist(),
        curve=training.curve,
        last_finite=divergence.last_finite if divergence else None,
    )


def _prepare(cell: Cell, settings: Settings, data: Data) -> Training:
    declared = cell.declared
    model = build_model(declared["architecture"], data, cell.seed).to(settings.device)
    objective = build_objective(declared["objective"], data.classes).to(settings.device)
    return Training(model, objective, build_optimizer(model, declared["training"]["optimizer"]))


def _attack(cell: Cell, settings: Settings, data: Data, sha256: str, clock: _Clock, progress: Progress) -> AttackRecord:
    trained = read_record(record_path(settings.results, cell.needs or ""))
    if trained.checkpoint_sha256 is None or trained.dataset_sha256 != sha256:
        raise CellError(f"the training {cell.needs} has no weights for this data")
    model = build_model(cell.declared["train"]["architecture"], data, cell.seed).to(settings.device)
    model.load_state_dict(load_weights(weights_file(settings.work, trained.cell.id), trained.checkpoint_sha256))
    limit = cell.declared["evaluation"].get("limit")
    images, labels = _on(settings.device, data.x_test[:limit], data.y_test[:limit])
    verdict = judge_attack(
        model,
        images,
        labels,
        classes=data.classes,
        setting=cell.declared["attack"],
        threat=Threat(cell.norm, cell.eps) if cell.norm else None,
        seed=cell.seed,
        batch_size=settings.batch_size,
        progress=lambda done, total: progress(done, total, ""),
    )
    return _attack_record(cell, settings, verdict, sha256, trained.checkpoint_sha256, clock)


def _attack_record(
    cell: Cell, settings: Settings, verdict: Verdict, dataset: str, checkpoint: str, clock: _Clock
) -> AttackRecord:
    n, correct = len(verdict.correct), int(verdict.correct.sum())
    low, high = wilson_interval(correct, n)
    return AttackRecord(
        suite=settings.suite,
        cell=cell,
        status="ok",
        provenance=_provenance(settings),
        timing=clock.timing(),
        dataset_sha256=dataset,
        checkpoint_sha256=checkpoint,
        n=n,
        accuracy=correct / n,
        ci_low=low,
        ci_high=high,
        outcomes=pack_outcomes(verdict.correct.tolist()),
        information=_measures(verdict.information),
        outside=verdict.outside,
        forwards=verdict.forwards,
        backwards=verdict.backwards,
    )


def _measures(information: Information) -> Measures:
    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return Measures(
        cmi=information.cmi,
        separation=information.separation,
        ncmi=known(information.ncmi),
        class_cmi=[known(value) for value in information.class_cmi],
        class_separation=[known(value) for value in information.class_separation],
    )
