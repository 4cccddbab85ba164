"""A cell at work: what every kind of cell needs, and what its record says about time, memory and machine."""

from __future__ import annotations

import datetime
import functools
import resource
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.data.base import Data
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.data.subset import choose, subset_sha256
from robustbench_cmic.models.build import build_model
from robustbench_cmic.models.layout import lay_out
from robustbench_cmic.models.weights import load_weights
from robustbench_cmic.objectives import Objective, head_owner
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AnyRecord, Epoch, Timing, TrainRecord
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.jobs.fidelity import check_fingerprint, checked_images
from robustbench_cmic.run.options import Settings
from robustbench_cmic.run.watch.events import CellProgress, Emit, EpochDone
from robustbench_cmic.suite.data import evaluation_of
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.models import model_of
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.signatures import one_line


@dataclass
class Stopwatch:
    """Times a cell from the moment it is made."""

    began: float = field(default_factory=time.perf_counter)
    started: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    resumed: int | None = None  # the epoch after which a training was taken up again
    examples_per_second: float | None = None

    def timing(self, settings: Settings) -> Timing:
        """The record's part on time and memory."""
        return Timing(
            started=self.started,
            seconds=round(time.perf_counter() - self.began, 3),
            resumed_after_epoch=self.resumed,
            examples_per_second=self.examples_per_second,
            peak_memory=_peak_memory(settings.device),
        )


@dataclass
class Job:
    """A cell, where and how it is carried out, its data, what times it, and where its events go."""

    cell: Cell
    settings: Settings
    data: Data
    stopwatch: Stopwatch
    emit: Emit
    accuracy: float | None = None  # of a training, that of its last epoch, as loss
    loss: float | None = None
    _last_step: float = 0.0

    def progress(self, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """Tell how far the cell is, see `CellProgress`."""
        accuracy = self.accuracy if accuracy is None else accuracy
        self.emit(CellProgress(cell=self.cell.id, done=done, total=total, text=text, accuracy=accuracy, loss=self.loss))

    def step(self, done: int, total: int) -> None:
        """Tell how many steps a training has taken, ten times a second at most."""
        now = time.monotonic()
        if now - self._last_step > 0.1 or done == total:
            self._last_step = now
            self.progress(done, total, "steps")

    def epoch(self, epoch: Epoch, restored: bool) -> None:
        """Tell of an epoch, see `EpochDone`."""
        self.emit(EpochDone(cell=self.cell.id, restored=restored, numbers=epoch))
        self.accuracy, self.loss = epoch.accuracy, epoch.loss.get("total")

    def model(
        self, declared: dict[str, Any], to_train: bool = False, objective: Objective | None = None
    ) -> nn.Sequential:
        """A classifier for the job's data, on the device; `to_train`: tried in training mode, too.

        One that is trained with an `objective` that owns the head has that.
        """
        data, seed = self.data, self.cell.seed
        model = build_model(model_of(declared), data.image_shape, data.classes, data.moments, seed, to_train, objective)
        return lay_out(model.to(self.settings.device), declared["architecture"], data.image_shape)

    def trained_model(self, training: str | None, declared: dict[str, Any]) -> tuple[nn.Sequential, str]:
        """A model with the weights that a training has left, and their SHA-256.

        Args:
            training: its id.
            declared: what it declares.

        Raises:
            UserError: there are no weights for this data, or the model is another than was trained.
        """
        record, sha256 = self._finished(training or "")
        model = self.stored_model(record.cell.id, sha256, declared)
        if isinstance(record, TrainRecord) and record.fingerprint is not None:
            same = _bits_are_promised(record.provenance, cell_provenance(self.settings))
            check_fingerprint(declared["model"]["architecture"], model, self.checked_images, record.fingerprint, same)
        return model, sha256

    @functools.cached_property
    def begun_with(self) -> dict[str, str]:
        """Of a training, by its id the hash of the weights of the one that it begins with; empty where there is none.

        Raises:
            UserError: there are no weights for this data.
        """
        source = self.cell.source
        return {} if source is None else {source: self._finished(source)[1]}

    def _finished(self, training: str) -> tuple[AnyRecord, str]:
        """The record of a training that has left weights for the job's data, and their SHA-256; else a UserError."""
        record = read_record(self.settings.store.record(training))
        if record.checkpoint_sha256 is None or record.dataset_sha256 != self.data.sha256:
            raise UserError(f"the training {training} has no weights for this data")
        return record, record.checkpoint_sha256

    def stored_model(self, training: str, sha256: str, declared: dict[str, Any]) -> nn.Sequential:
        """A model built anew, with the weights that the training of this id has stored; `declared` is the training."""
        weights = load_weights(self.settings.store.weights(training), sha256)
        network = declared["model"]
        # What is loaded replaces all weights: timm's own play no part here.
        model = self.model(network | {"pretrained": False}, objective=self.head_owner(declared, weights))
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:  # names or shapes differ: torch names them, line by line
            name = network["architecture"]
            raise UserError(f"{name} built anew does not take the weights of its training: {one_line(error)}") from None
        return model

    def head_owner(self, declared: dict[str, Any], weights: Iterable[str]) -> Objective | None:
        """Of a training, with the names of its weights: the objective whose head they are of, see `head_owner`."""
        goal = None if declared["objective"] is None else objective_of(declared["objective"])
        return head_owner(goal, self.data.classes, self.cell.seed, weights)

    @functools.cached_property
    def checked_images(self) -> Tensor:
        """The images by which a model that was built anew is compared with the one that was trained."""
        return checked_images(self.data, self.settings.device)

    def evaluated(self) -> tuple[Examples, Tensor, str]:
        """The examples that the cell evaluates, their labels on the device, and the hash of their indices."""
        evaluation = evaluation_of(self.cell.declared["evaluation"])
        split = self.data.split(evaluation.split)
        chosen = choose(split.labels, evaluation.limit, evaluation.per_class)
        labels = torch.from_numpy(split.labels[chosen]).to(self.settings.device)
        return Examples(split.images, chosen, self.settings.device), labels, subset_sha256(chosen)

    def common(self) -> dict[str, Any]:
        """What every record of a cell holds; timing ends here."""
        return {
            "suite": self.settings.suite,
            "cell": self.cell,
            "provenance": cell_provenance(self.settings),
            "timing": self.stopwatch.timing(self.settings),
            "dataset_sha256": self.data.sha256,
        }


def cell_provenance(settings: Settings) -> dict[str, Any]:
    """The parent's provenance and what only the process that computes can tell."""
    cuda = settings.device.startswith("cuda")
    return settings.provenance | {
        "device": torch.cuda.get_device_name(settings.device) if cuda else "cpu",
        "threads": torch.get_num_threads(),
        # Which kernels torch picks on this processor: others add in another order, and round differently.
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "determinism": {
            "deterministic": settings.deterministic or not cuda,
            "training": "bfloat16 autocast" if cuda else "float32",
            "evaluation": "TF32 search, float32 verdicts" if cuda else "float32",
        },
    }


def _bits_are_promised(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both were made on one CPU by the same code and versions: results are then equal to the last bit."""
    keys = ("code_sha256", "versions", "platform", "processor", "instructions", "threads", "device")
    return one.get("device") == "cpu" and all(one.get(key) == other.get(key) for key in keys)


def _peak_memory(device: str) -> int:
    """Bytes: of the GPU, as torch allocated them for this cell; of the CPU, of the whole process since it began."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
