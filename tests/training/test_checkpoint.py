"""Checkpoints are whole and as recorded, or they are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from robustbench_cmic.models.weights import CorruptCheckpointError, load_weights, save_weights
from robustbench_cmic.training.checkpoint import TrainingState, load_state, save_state

STATE = TrainingState({"model.a": torch.arange(6.0).reshape(2, 3), "collapsed": torch.tensor(0)}, 2, [{"epoch": 1}])


def test_weights_come_back_and_their_hash_is_checked(tmp_path: Path) -> None:
    weights = {"a": torch.randn(3, 4), "n": torch.tensor(5)}
    file = tmp_path / "w.safetensors"
    sha256 = save_weights(file, weights)
    loaded = load_weights(file, sha256)
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match="hash differs"):
        load_weights(file, sha256)
    with pytest.raises(CorruptCheckpointError, match="No such file"):
        load_weights(tmp_path / "missing", sha256)


def test_state_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "s", STATE, "cell")
    loaded = load_state(tmp_path / "s", "cell")
    assert loaded is not None
    assert torch.equal(loaded.tensors["model.a"], STATE.tensors["model.a"])
    assert (loaded.epoch, loaded.curve) == (2, [{"epoch": 1}])
    assert load_state(tmp_path / "missing", "cell") is None


def test_state_of_another_cell_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path / "s", STATE, "cell")
    with pytest.raises(CorruptCheckpointError, match="another training"):
        load_state(tmp_path / "s", "other")


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "pickle"])
def test_damaged_state_is_refused_and_never_unpickled(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "s"
    save_state(file, STATE, "cell")
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-2] ^= 4
    elif damage == "empty":
        content = bytearray()
    else:
        content = bytearray(pickle.dumps(_Bomb()))
    file.write_bytes(content)
    with pytest.raises(CorruptCheckpointError):
        load_state(file, "cell")


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise AssertionError('unpickled')",)
