"""Weights as safetensors files, read only with the hash that was recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.suite.files import read_regular
from robustbench_cmic.suite.messages import UserError, os_error_reason


class CorruptCheckpointError(UserError):
    """A checkpoint that is missing, not whole, or not the one that was recorded."""


def for_storage(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values on the CPU, each in memory of its own: tied weights, a tensor by two names, are stored twice."""
    apart, seen = {}, set()
    for name, value in state.items():
        plain = value.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in seen else plain
        seen.add(place)
    return apart


def save_weights(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write a model's state; returns the file's SHA-256 (hex).

    Raises:
        OSError: the file could not be written; nothing is left of it.
    """
    content = safetensors.torch.save(for_storage(state))
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a model's state and check that it is the recorded one.

    Raises:
        CorruptCheckpointError: missing, or its hash is another.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise CorruptCheckpointError(f"cannot read {path}: {os_error_reason(error)}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CorruptCheckpointError(f"{path} is not the recorded checkpoint: its hash differs")
    try:
        return safetensors.torch.load(content)
    except SafetensorError:
        raise CorruptCheckpointError(f"{path} is no whole .safetensors file") from None
