"""An objective's head through a whole suite: attacked, loaded and given away as one function; weights to begin with."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_cmic import load_model, load_results
from robustbench_cmic.objectives import Cmic, OwnHead
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.records.files import file_sha256
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.job import run_cell
from robustbench_cmic.suite import SuiteError, load_suite
from robustbench_cmic.suite.messages import UserError
from tests.in_process import carried_out, settings_for

OWN = """\
import torch
from robustbench_cmic.objectives import Objective


class Head(torch.nn.Linear):
    pass


class Own(Objective):
    owns_head = True

    def __init__(self, classes):
        super().__init__()

    def make_head(self, features):
        return Head(features, self.classes, bias=False)

    def forward(self, logits, labels):
        return {"total": torch.nn.functional.cross_entropy(5 * logits, labels)}
"""
SUITE = """\
suite: heads
dataset: {name: digits}
training: {epochs: 2, batch_size: 32, limit: 640, optimizer: {name: sgd, lr: 0.05}}
models:
  - {id: lgm, architecture: small_cnn, objective: {name: lgm}}
  - {id: ncmi, architecture: small_cnn, objective: {name: ncmi_alone}}
  - {id: own, architecture: small_cnn, objective: {name: "my_own_head:Own"}}
attacks: [{name: PGD, eps: 0.1, steps: 2, loss: margin}]
evaluation: {limit: 60}
audit: off
"""
GIVEN = """\
suite: given
dataset: {name: digits}
models:
  - {id: theirs, architecture: small_cnn, weights: lgm.safetensors, objective: {name: lgm}}
evaluation: {limit: 60}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    (folder / "my_own_head.py").write_text(OWN)
    (folder / "heads.yaml").write_text(SUITE)
    sys.path.append(str(folder))
    try:
        records = carried_out(folder / "heads.yaml", folder / "results" / "heads", folder / "results.work" / "heads")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("my_own_head", None)
    assert [(record.cell.id, record.reason) for record in records if record.status != "ok"] == []
    return folder


@pytest.mark.parametrize("name", ["lgm", "ncmi"])
def test_a_loaded_model_has_the_head(finished: Path, name: str) -> None:
    model = load_model(finished / "results" / "heads", name, 0)
    assert sum(isinstance(module, OwnHead) for module in model.modules()) == 1
    frame = load_results(finished / "results" / "heads")
    (recorded,) = frame[(frame["model"] == name) & (frame["attack"] == "none")]["outcomes"]
    check_some(model, recorded)


def check_some(model: torch.nn.Module, recorded: Any) -> None:
    from robustbench_cmic.data.subset import choose
    from tests.training.test_train import DIGITS

    rows = choose(DIGITS.test.labels, 60, False)
    with torch.no_grad():
        found = model(torch.from_numpy(DIGITS.test.images[rows])).argmax(1).numpy() == DIGITS.test.labels[rows]
    assert (found == recorded).all()
    assert found.mean() > 0.3


def test_a_head_of_a_users_own_needs_its_code(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = finished / "results" / "heads"
    with pytest.raises(UserError, match="my_own_head:Own is not the code that own seed 0 was trained with"):
        load_model(folder, "own", 0)
    monkeypatch.syspath_prepend(finished)
    model = load_model(folder, "own", 0)
    (head,) = [module for module in model.modules() if isinstance(module, OwnHead)]
    assert type(head.head).__name__ == "Head"
    sys.modules.pop("my_own_head", None)


def trained(finished: Path, name: str) -> Path:
    (file,) = (finished / "results.work" / "heads").glob(f"{name}.s0.train.*.safetensors")
    return file


def run_given(folder: Path, text: str) -> list[Any]:
    """The records of a suite that loads files beside it."""
    (folder / "x.yaml").write_text(text)
    suite = load_suite(folder / "x.yaml").suite
    files = [model.weights_file(0) for model in suite.models if model.file_key]
    weights = {str(file_sha256(file)): file for file in files}
    store = Store(folder / "made", folder / "made")
    store.results.mkdir()
    plan = make_plan(suite)
    for cell in plan.cells:
        run_cell(cell, settings_for(folder / "made", store=store, weights=weights), lambda _: None)
    return [read_record(store.record(cell.id)) for cell in plan.cells]


def test_weights_with_a_head_are_given_with_their_objective(finished: Path, tmp_path: Path) -> None:
    shutil.copy(trained(finished, "lgm"), tmp_path / "lgm.safetensors")
    training, clean = run_given(tmp_path, GIVEN)
    assert (training.status, training.reason) == ("ok", "")
    frame = load_results(finished / "results" / "heads")
    (recorded,) = frame[(frame["model"] == "lgm") & (frame["attack"] == "none")]["accuracy"]
    assert clean.accuracy == recorded


def test_weights_without_the_head_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ce.yaml").write_text(
        SUITE.split("models:")[0] + "models: [{id: ce, architecture: small_cnn, objective: {name: ce}}]\n"
    )
    carried_out(tmp_path / "ce.yaml", tmp_path / "ce")
    (file,) = (tmp_path / "ce").glob("ce.s0.train.*.safetensors")
    shutil.copy(file, tmp_path / "lgm.safetensors")
    training = run_given(tmp_path, GIVEN)[0]
    assert training.status == "failed"
    assert training.reason.startswith("lgm.safetensors lacks 1.11.head.means, 1.11.own_head and holds 1.11.bias")


MCMI = """\
suite: mcmi
dataset: {name: digits}
training: {epochs: 3, batch_size: 64, limit: 640, optimizer: {name: sgd, lr: 0.01}}
models:
  - id: mcmi
    architecture: small_cnn
    initial_weights: ce.safetensors
    objective: {name: cmic, lambda: -1, beta: 0, centroids: fixed}
  - {id: plain, architecture: small_cnn, initial_weights: ce.safetensors, objective: {name: ce}}
evaluation: {limit: 60}
"""


def test_a_training_begins_with_given_weights(tmp_path: Path) -> None:
    training = SUITE.split("models:")[0].replace("epochs: 2", "epochs: 5")
    (tmp_path / "ce.yaml").write_text(training + "models: [{id: ce, architecture: small_cnn, objective: {name: ce}}]\n")
    (start, *_) = carried_out(tmp_path / "ce.yaml", tmp_path / "ce")
    (file,) = (tmp_path / "ce").glob("ce.s0.train.*.safetensors")
    shutil.copy(file, tmp_path / "ce.safetensors")
    (tmp_path / "x.yaml").write_text(MCMI)
    assert load_suite(tmp_path / "x.yaml").warnings == []
    records = run_given(tmp_path, MCMI)
    curves = {one.cell.model: one.curve for one in records if isinstance(one, TrainRecord)}
    assert isinstance(start, TrainRecord)
    assert all(one.status == "ok" for one in records)
    for curve in curves.values():
        assert curve[0].accuracy > start.curve[-1].accuracy - 0.03, "it goes on where the other ended"
    assert curves["mcmi"][-1].cmi > 1.2 * curves["plain"][-1].cmi, "concentration is undone"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("initial_weights: no.pt, objective: {name: ce}", "there is no file"),
        (
            "initial_weights: ce.pt, objective: {name: lgm}",
            "models[0].initial_weights: have no last layer for lgm, which brings its own: leave them out",
        ),
        (
            "initial_weights: ce.pt, weights: ce.pt",
            "models[0].initial_weights: are to begin a training with, but this model is not trained",
        ),
    ],
)
def test_what_cannot_be_begun_with(tmp_path: Path, keys: str, words: str) -> None:
    (tmp_path / "ce.pt").touch()
    text = SUITE.split("models:")[0] + f"models: [{{id: a, architecture: small_cnn, {keys}}}]\n"
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SuiteError) as raised:
        load_suite(tmp_path / "x.yaml")
    assert words in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_maximised_cmi_begins_with_the_class_means_of_the_given_weights() -> None:
    """Centroids are the means of P, so that the term is CMI itself, and its gradient is against that of CMIC-DL."""
    logits, labels = torch.randn(30, 3), torch.arange(30) % 3
    objective = Cmic(3, lambda_=-0.25, beta=0.0, centroids="fixed")
    objective.begin_epoch(1, lambda: iter([(logits, labels)]))
    terms = objective(logits, labels)
    p = logits.softmax(1)
    means = torch.stack([p[labels == label].mean(0) for label in range(3)])
    cmi = (p * (p.log() - means[labels].log())).sum(1).mean()
    assert float(terms["total"]) == pytest.approx(float(terms["ce"] - 0.25 * cmi), rel=1e-5)
