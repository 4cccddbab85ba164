"""A training under way, and its resume states as safetensors: written atomically, checked by hash, never unpickled."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from robustbench_cmic.models.weights import CorruptCheckpointError, for_storage
from robustbench_cmic.objectives import Objective, RobustCmi
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.schema import Epoch
from robustbench_cmic.suite.files import open_regular
from robustbench_cmic.suite.objectives import Adversary

FALL = 0.2
"""Checked accuracy that falls by more from one epoch to the next is catastrophic overfitting (arXiv 2001.03994)."""
_ANSWER = "answers."


@dataclass
class TrainingState:
    """Where a training stands after an epoch.

    Attributes:
        tensors: weights, objective and optimiser state, under prefixed names.
        epoch: finished epochs.
        curve: plain data, one entry an epoch.
        answers: logits of the model for a few images, by the mode that it was in; see `run.jobs.fidelity`.
        outside: digests of what the model holds outside its state dict, by name.
    """

    tensors: dict[str, Tensor]
    epoch: int
    curve: list[dict[str, Any]]
    answers: dict[str, Tensor] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)


@dataclass
class TrainingRun:
    """A training under way: everything that changes from epoch to epoch, and the adversary, who does not.

    Attributes:
        model: on the device it trains on, as the objective; its first layer is a `Normalize`.
        adversary: changes the images of every step, after their augmentation.
        robust_cmi: its second adversary's term, on the device, if it has one.
        curve: finished epochs.
        collapsed: the latest epochs in a row in which all predictions were one class.
        best: the model's state after the selected epoch; empty where none is selected.
        outputs: logits for pictures, by epoch, see `training.outputs`.
    """

    model: nn.Sequential
    objective: Objective
    optimizer: torch.optim.Optimizer
    adversary: Adversary | None = None
    robust_cmi: RobustCmi | None = None
    curve: list[Epoch] = field(default_factory=list)
    collapsed: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)

    @property
    def selected_epoch(self) -> int | None:
        """The epoch that is best on the held-out images, of several the earliest; without any that before a fall.

        None where the last one is kept as such.
        """
        judged = [(epoch.held_out, -epoch.epoch) for epoch in self.curve if epoch.held_out is not None]
        if judged:
            return -max(judged)[1]
        return None if self.fell is None else self.fell - 1

    @property
    def fell(self) -> int | None:
        """The epoch that overfitted catastrophically: the accuracy that is checked fell by more than `FALL` in it."""
        for before, after in itertools.pairwise(self.curve):
            if before.checked is not None and after.checked is not None and before.checked - after.checked > FALL:
                return after.epoch
        return None

    def note_checked(self, accuracy: float) -> None:
        """Enter the latest epoch's accuracy on the images of the check, and keep its weights unless it fell.

        Where images are held out, these say which weights are kept.
        """
        self.curve[-1] = self.curve[-1].model_copy(update={"checked": accuracy})
        if self.fell is None and self.curve[-1].held_out is None:
            self._keep()

    def note_held_out(self, accuracy: float) -> None:
        """Enter the latest epoch's accuracy on the held-out images, and keep its weights if it is the best so far."""
        self.curve[-1] = self.curve[-1].model_copy(update={"held_out": accuracy})
        if self.selected_epoch == len(self.curve):
            self._keep()

    def _keep(self) -> None:
        self.best = {name: value.clone() for name, value in self.model.state_dict().items()}

    def state(self) -> TrainingState:
        """A snapshot of it all, as plain tensors and data."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in slots.items() if value is not None}
        if self.robust_cmi is not None:
            tensors |= {f"robust_cmi.{name}": value for name, value in self.robust_cmi.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"outputs.{epoch}": logits for epoch, logits in self.outputs.items()}
        tensors["collapsed"] = torch.tensor(self.collapsed)
        return TrainingState(tensors, len(self.curve), [epoch.model_dump() for epoch in self.curve])

    def restore(self, state: TrainingState) -> None:
        """Continue from a snapshot."""
        names = ("model", "objective", "robust_cmi", "optimizer", "best", "outputs", "collapsed")
        groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for name, value in state.tensors.items():
            group, _, inner = name.partition(".")
            groups[group][inner] = value
        self.model.load_state_dict(groups["model"])
        self.objective.load_state_dict(groups["objective"])
        if self.robust_cmi is not None:
            self.robust_cmi.load_state_dict(groups["robust_cmi"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["optimizer"].items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        for weight, slot_values in self.optimizer.state.items():
            for name, value in slot_values.items():
                # Files know no memory layout; fused optimisers want that of the weight.
                if value.shape == weight.shape:
                    slot_values[name] = torch.empty_like(weight).copy_(value)
        self.curve = [Epoch.model_validate(epoch) for epoch in state.curve]
        self.best = groups["best"]
        self.outputs = {int(epoch): logits for epoch, logits in groups["outputs"].items()}
        self.collapsed = int(groups["collapsed"][""])


def save_state(path: Path, state: TrainingState, cell: str) -> None:
    """Write a resume state: one file with its own digest, so that weights, optimiser and curve always fit together.

    Raises:
        OSError: the file could not be written; the state of the epoch before is still whole.
    """
    held = state.tensors | {f"{_ANSWER}{mode}": value for mode, value in state.answers.items()}
    tensors = for_storage(held)
    about = canonical_json({"cell": cell, "epoch": state.epoch, "curve": state.curve, "outside": state.outside})
    metadata = {"about": about, "sha256": _digest(tensors, about)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load_state(path: Path, cell: str) -> TrainingState | None:
    """Read a resume state; None where there is none.

    Raises:
        CorruptCheckpointError: not whole, altered, or of another cell.
    """
    if not path.exists():
        return None
    try:
        open_regular(path).close()
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = json.loads(metadata["about"])
        whole = metadata["sha256"] == _digest(tensors, metadata["about"]) and about["cell"] == cell
        answers = {name.removeprefix(_ANSWER): tensors.pop(name) for name in [*tensors] if name.startswith(_ANSWER)}
        state = TrainingState(
            tensors, int(about["epoch"]), list(about["curve"]), answers, dict(about.get("outside", {}))
        )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        raise CorruptCheckpointError(f"{path} is not whole") from None
    if not whole:
        raise CorruptCheckpointError(f"{path} was altered or belongs to another training")
    return state


def _digest(tensors: dict[str, Tensor], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
