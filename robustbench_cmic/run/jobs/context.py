"""A cell at work: what every kind of cell needs, and what its record says about time, memory and machine."""

from __future__ import annotations

import datetime
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from robustbench_cmic.data.base import Data
from robustbench_cmic.models.build import build_model
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import Epoch, Timing
from robustbench_cmic.run.options import Settings
from robustbench_cmic.run.watch.events import CellProgress, Emit, EpochDone
from robustbench_cmic.suite.models import Model


@dataclass
class Stopwatch:
    """Times a cell from the moment it is made.

    Attributes:
        resumed: the epoch after which a training was taken up again.
        examples_per_second: of the training or attack.
    """

    began: float = field(default_factory=time.perf_counter)
    started: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"))
    resumed: int | None = None
    examples_per_second: float | None = None

    def timing(self, settings: Settings) -> Timing:
        """The record's part on time and memory."""
        return Timing(
            started=self.started,
            seconds=round(time.perf_counter() - self.began, 3),
            resumed_after_epoch=self.resumed,
            examples_per_second=self.examples_per_second,
            peak_memory=_peak_memory(settings),
        )


@dataclass
class Job:
    """A cell, where and how it is carried out, its data, what times it, and where its events go.

    Attributes:
        loss: of a training, that of its last epoch.
    """

    cell: Cell
    settings: Settings
    data: Data
    stopwatch: Stopwatch
    emit: Emit
    loss: float | None = None

    def progress(self, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """Tell how far the cell is, see `CellProgress`."""
        self.emit(CellProgress(cell=self.cell.id, done=done, total=total, text=text, accuracy=accuracy, loss=self.loss))

    def trained(self, epoch: Epoch, restored: bool) -> None:
        """Tell of an epoch, see `EpochDone`."""
        self.emit(EpochDone(cell=self.cell.id, restored=restored, numbers=epoch))
        self.loss = epoch.loss.get("total")

    def model(self, declared: Model) -> nn.Sequential:
        """A classifier for the job's data, on the device."""
        data = self.data
        model = build_model(declared, data.image_shape, data.classes, data.moments, self.cell.seed)
        # Convolutions are faster with the channels last in memory, on CPUs and GPUs alike.
        return model.to(self.settings.device).to(memory_format=torch.channels_last)

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
            "evaluation": "float32",
        },
    }


def _peak_memory(settings: Settings) -> int:
    """Bytes: of the GPU, as torch allocated them for this cell; of the CPU, of the whole process since it began."""
    if settings.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(settings.device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
