"""Weights and resume states as safetensors: written atomically, checked by hash, never unpickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from robustbench_cmic.models.weights import CorruptCheckpointError
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.records.files import write_atomically


@dataclass
class TrainingState:
    """Where a training stands after an epoch.

    Attributes:
        tensors: weights, objective and optimiser state, under prefixed names.
        epoch: finished epochs.
        curve: plain data, one entry an epoch.
    """

    tensors: dict[str, Tensor]
    epoch: int
    curve: list[dict[str, Any]]


def save_state(path: Path, state: TrainingState, cell: str) -> None:
    """Write a resume state: one file with its own digest, so that weights, optimiser and curve always fit together.

    Raises:
        OSError: the file could not be written; the state of the epoch before is still whole.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.tensors.items()}
    about = canonical_json({"cell": cell, "epoch": state.epoch, "curve": state.curve})
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
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        about = json.loads(metadata["about"])
        whole = metadata["sha256"] == _digest(tensors, metadata["about"]) and about["cell"] == cell
        state = TrainingState(tensors, int(about["epoch"]), list(about["curve"]))
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
