"""Objectives of a user's own: tried before a training, trained like any other, told in a sentence where they fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustbench_cmic.objectives import Objective, build_objective
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.suite.objectives import objective_of
from tests.in_process import carried_out


class Counting(Objective):
    """The mean of the logits of the true class, how often it was asked, and a random number."""

    calls: Tensor
    drawn: Tensor

    def __init__(self, classes: int, start: int = 0) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(start))
        self.register_buffer("drawn", torch.rand(()))

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"total": -logits.gather(1, labels[:, None]).mean()}

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.calls += int(logits.requires_grad)


def test_a_seed_decides_what_is_drawn_and_the_trial_leaves_no_trace() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    declared = {"name": f"{__name__}:Counting", "code_sha256": "0", "parameters": {"start": 5}}
    first, same, other = (build_objective(objective_of(declared), 7, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(first, Counting)
    assert (int(first.calls), first.classes) == (5, 7)
    assert first.drawn == same.drawn != other.drawn


CODE = """\
import torch
from torch.nn import functional
from robustbench_cmic.objectives import FeatureObjective, Objective

class Good(Objective):
    def __init__(self, classes):
        super().__init__()

    def forward(self, logits, labels):
        return {"total": functional.cross_entropy(logits, labels)}

class Refuses(Good):
    def __init__(self, classes):
        raise ValueError("not\\nwith me")

class NoTotal(Good):
    def forward(self, logits, labels):
        return {"loss": logits.mean()}

class Tensor(Good):
    def forward(self, logits, labels):
        return logits.mean()

class Rows(Good):
    def forward(self, logits, labels):
        return {"total": logits.sum(1)}

class Constant(Good):
    def forward(self, logits, labels):
        return {"total": torch.ones(())}

class Shape(Good):
    def forward(self, logits, labels):
        return {"total": logits[:, 10].mean()}

class Update(Good):
    def update(self, logits, labels):
        raise KeyError("centroid")

class Trainable(Good):
    def __init__(self, classes):
        super().__init__(classes)
        self.scale = torch.nn.Parameter(torch.ones(()))

class Centred(FeatureObjective):
    def __init__(self, classes):
        super().__init__()

    def prepare(self, features):
        self.register_buffer("center", torch.zeros(self.classes, features))

    def forward(self, logits, labels, features):
        return {"total": functional.cross_entropy(logits, labels) + (features - self.center[labels]).square().mean()}

def convolutional(shape, classes):
    return torch.nn.Sequential(torch.nn.Conv2d(shape[0], classes, shape[1]), torch.nn.Flatten())

class Explodes(Good):
    def forward(self, logits, labels):
        return {"total": torch.exp(1000 * logits).sum()}

class LateRows(Good):
    def forward(self, logits, labels):
        return {"total": functional.cross_entropy(logits, labels, reduction="mean" if len(labels) == 20 else "none")}

class LateNames(Good):
    def forward(self, logits, labels):
        ce = functional.cross_entropy(logits, labels)
        self.steps = getattr(self, "steps", 0) + 1
        return {"total": ce} if self.steps > 2 else {"total": ce, "ce": ce}

class Headed(Good):
    owns_head = True

    def make_head(self, features):
        return torch.nn.Linear(features, self.classes)

class Wide(Headed):
    def make_head(self, features):
        return torch.nn.Linear(features, self.classes + 1)

class NoHead(Headed):
    def make_head(self, features):
        return None

class NanHead(Headed):
    def make_head(self, features):
        head = super().make_head(features)
        torch.nn.init.constant_(head.weight, torch.nan)
        return head

class TwoLayers(torch.nn.Module):
    def __init__(self, pixels, classes):
        super().__init__()
        self.judged, self.trained = torch.nn.Linear(pixels, classes), torch.nn.Linear(pixels, classes)

    def forward(self, images):
        return (self.trained if self.training else self.judged)(images.flatten(1))

def two_layers(shape, classes):
    return TwoLayers(shape[1] * shape[2], classes)

def plain(classes):
    return functional.cross_entropy

def made(classes, *, kind="Good"):
    return {"Good": Good}[kind](classes)
"""
FAILURES = {
    "Refuses": "ours:Refuses failed for 10 classes: ValueError: not with me (ours.py, line 14)",
    "NoTotal": "ours:NoTotal should return a dictionary of scalar tensors with a `total`; it returned loss",
    "Tensor": "ours:Tensor should return a dictionary of scalar tensors with a `total`; it returned Tensor",
    "Rows": "ours:Rows should return a dictionary of scalar tensors with a `total`; its 'total' is (20,)",
    "Constant": "ours:Constant should return a dictionary of scalar tensors with a `total`; its `total` has no "
    "gradient in the logits",
    "Shape": "ours:Shape fails on logits of shape (20, 10): IndexError: index 10 is out of bounds for dimension 1 with "
    "size 10 (ours.py, line 34)",
    "Update": "ours:Update fails on logits of shape (20, 10): KeyError: 'centroid' (ours.py, line 38)",
    "Centred": "this objective needs a network that ends in a linear layer, whose output are the logits; it has no "
    "linear layer",
    "LateRows": "LateRows should return a dictionary of scalar tensors with a `total`; its 'total' is (64,)",
    "LateNames": "LateNames should return the same terms in all steps of an epoch, not total after total, ce",
    "Headed": "the last linear layer, 1.judged, is used 0 times in a pass, not once",
    "Wide": "ours:Wide: its head should return logits (N, 10); for features of shape (20, 20) it returned (20, 11)",
    "NoHead": "ours:NoHead: `make_head` should return a module, not NoneType",
    "NanHead": "ours:NanHead: the network, or its head, returns NaN before it is trained",
    "plain": "ours:plain should return a robustbench_cmic.objectives.Objective, not function",
}


def test_what_an_objective_does_wrong_fails_its_training_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    names = [*FAILURES, "Explodes", "made", "Trainable"]
    networks = {"Centred": '"ours:convolutional"', "Headed": '"ours:two_layers"'}
    lines = [
        f'  - {{id: {name}, architecture: {networks.get(name, "mlp")}, objective: {{name: "ours:{name}"}}}}\n'
        for name in names
    ]
    training = "training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.1}}"
    (tmp_path / "x.yaml").write_text(f"suite: x\ndataset: {{name: digits}}\n{training}\nmodels:\n{''.join(lines)}")
    records = carried_out(tmp_path / "x.yaml", tmp_path / "made")
    found = {record.cell.model: (record.status, record.reason) for record in records if isinstance(record, TrainRecord)}
    expected = {name: ("failed", reason) for name, reason in FAILURES.items()}
    expected["Explodes"] = ("diverged", "the loss is not finite at step 1 of epoch 1")
    assert found == expected | {"made": ("ok", ""), "Trainable": ("ok", "")}
