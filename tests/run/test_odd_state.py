"""Networks whose state is of an unusual kind: it is stored and judged, or one sentence says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustbench_cmic.models.weights import for_storage, load_weights, save_weights
from tests.in_process import carried_out
from tests.run.test_fidelity import by_model, suite_of

ODD = """
def plain(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 32), nn.ReLU(), nn.Linear(32, classes))

class Tied(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.into, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.out.weight = self.into.weight
        self.head = nn.Linear(width, classes)
    def forward(self, x):
        return self.head(self.out(self.into(x.flatten(1)).relu()).relu())

def tied(shape, classes):
    return Tied(math.prod(shape), classes)

class Fourier(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.register_buffer("filter", torch.randn(shape[1], shape[2] // 2 + 1, dtype=torch.complex64))
        self.net = plain(shape, classes)
    def forward(self, x):
        return self.net(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=x.shape[2:]))

def fourier(shape, classes):
    return Fourier(shape, classes)

class Extra(nn.Linear):
    def get_extra_state(self):
        return {"scale": 1.0}
    def set_extra_state(self, state):
        pass

def extra(shape, classes):
    return nn.Sequential(nn.Flatten(), Extra(math.prod(shape), classes))

ONE = plain((1, 8, 8), 10)

def one(shape, classes):
    return ONE

PART = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU())

def part(shape, classes):
    return nn.Sequential(PART, nn.Linear(32, classes))

START = torch.randn(10, 64) / 8

class Started(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.weight = nn.Parameter(START)

def started(shape, classes):
    return nn.Sequential(nn.Flatten(), Started(math.prod(shape), classes))

FROZEN = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU()).requires_grad_(False)

def frozen(shape, classes):
    return nn.Sequential(FROZEN, nn.Linear(32, classes))

MOVED = nn.BatchNorm2d(1).requires_grad_(False)

def moved(shape, classes):
    return nn.Sequential(MOVED, nn.Flatten(), nn.Linear(64, classes))
"""
AGAIN = (
    "x:{} returns {} that it has returned before, so that one training would go on with what another has learned: make "
    "or copy them at every call"
)
SAID = {
    "tied": "",
    "fourier": "",
    "frozen": "",
    "extra": "x:extra has 1._extra_state of type dict in its state dict: only tensors are stored",
    "one": AGAIN.format("one", "1.weight, 1.bias, 3.weight"),
    "part": AGAIN.format("part", "0.1.weight, 0.1.bias"),
    "started": AGAIN.format("started", "1.weight"),
    "moved": AGAIN.format("moved", "0.running_mean, 0.running_var, 0.num_batches_tracked"),
}


def test_state_of_unusual_kinds_is_stored_or_said_to_be_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tied weights and complex buffers are trained and judged; what trainings would share fails, by name."""
    monkeypatch.syspath_prepend(tmp_path)
    suite = suite_of(tmp_path, "x", ODD, SAID, further="evaluation: {limit: 32}\naudit: off\n")
    records = by_model(carried_out(suite, tmp_path / "r"))
    assert {name: records[name].reason for name in SAID} == SAID


def test_tensors_in_one_memory_are_stored_apart(tmp_path: Path) -> None:
    """One tensor by two names, parts of one that overlap, a transposed one and empty ones; values stay, to the bit."""
    base = torch.randn(6, 4)
    state = {"a": base, "b": base, "c": base[2:], "d": base.T, "e": torch.empty(0), "f": torch.empty(0)}
    apart = for_storage(state)
    assert len({value.data_ptr() for name, value in apart.items() if name in "abcd"}) == 4
    loaded = load_weights(tmp_path / "w", save_weights(tmp_path / "w", state))
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
