"""`load_model`: the network that was judged, and a sentence for everything that is not there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_cmic import load_model, load_results
from robustbench_cmic.data import load_data
from robustbench_cmic.models.build import Normalize
from robustbench_cmic.models.weights import CorruptCheckpointError
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.records.files import write_json
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.records.store import Store, read_record, write_record
from robustbench_cmic.report import ReportError
from robustbench_cmic.report.folder import claimed
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.data import Digits
from robustbench_cmic.suite.messages import UserError
from tests.conftest import Cli
from tests.in_process import carried_out
from tests.report.folders import fill

OWN = """\
from torch import nn


def build(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, classes))
"""
OWN_SUITE = """\
suite: own
dataset: {name: digits}
training: {epochs: 1, batch_size: 32, limit: 320, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: mine, architecture: "my_own_network:build", objective: {name: ce}}
  - {id: cnn, architecture: small_cnn, objective: {name: cmic, preset: authors}}
audit: off
"""


def training(folder: Path, model: str = "ce") -> TrainRecord:
    (record,) = (read_record(file) for file in folder.glob(f"{model}.s0.train.*.json"))
    assert isinstance(record, TrainRecord)
    return record


def check_outcomes(folder: Path, name: str, seed: int = 0) -> None:
    """That the model is right on the test images on which the record says that it is."""
    test = load_data(Digits(name="digits"), folder).test
    model = load_model(folder, name, seed)
    assert not any(module.training for module in model.modules())
    assert isinstance(model[0], Normalize)
    with torch.no_grad():
        found = model(torch.as_tensor(test.images[:], dtype=torch.float32)).argmax(1).numpy() == test.labels
    frame = load_results(folder)
    (recorded,) = frame[(frame["model"] == name) & (frame["seed"] == seed) & (frame["attack"] == "none")]["outcomes"]
    assert 0.2 < found.mean() < 1.0
    assert (found == recorded).all()


@pytest.mark.parametrize("name", ["ce", "cmic"])
def test_a_loaded_model_is_the_one_that_was_judged(finished: Path, name: str) -> None:
    check_outcomes(finished / "results" / "tiny", name)


def test_own_code_is_found_beside_the_suite_and_has_to_be_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own_network.py").write_text(OWN)
    (tmp_path / "own.yaml").write_text(OWN_SUITE)
    folder = tmp_path / "results" / "own"
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        carried_out(tmp_path / "own.yaml", folder, Store(folder).work)
        plan = make_plan(load_suite(tmp_path / "own.yaml").suite).model_copy(update={"file": "../../own.yaml"})
    write_json(folder / "plan.json", plan.model_dump(mode="json"))
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry != str(tmp_path)])
    check_outcomes(folder, "mine")
    check_outcomes(folder, "cnn")
    (tmp_path / "my_own_network.py").write_text(OWN + "# another by now\n")
    with pytest.raises(UserError, match=r"^my_own_network:build is not the code that mine seed 0 was trained with"):
        load_model(folder, "mine", 0)


def refused(folder: Path, model: str = "ce", seed: int = 0) -> str:
    """The one sentence that a user gets."""
    with pytest.raises(UserError) as error:
        load_model(folder, model, seed)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_not_there_is_told_in_a_sentence(finished: Path, tmp_path: Path) -> None:
    folder = finished / "results" / "tiny"
    assert refused(folder, "cmix") == f"{folder} has no model 'cmix'; did you mean 'cmic'?"
    assert refused(folder, "resnet") == f"{folder} has no model 'resnet'; it has: ce, cmic"
    assert refused(folder, seed=3) == f"{folder} has no seed 3 of ce; its seeds are 0"
    assert refused(tmp_path).startswith(f"{tmp_path} holds no results")
    assert refused(finished / "results").endswith(f"name one of them, such as {folder}")
    with pytest.raises(ReportError):
        load_model(tmp_path, "ce", 0)
    with pytest.raises(ReportError, match="the name of the folder is empty"):
        load_model("", "ce", 0)


def test_without_weights_it_is_said_how_to_make_them(copied: Path, tmp_path: Path) -> None:
    """As in a clone, which carries records and no weights; the command that is named makes them."""
    folder = copied / "results" / "tiny"
    shutil.move(Store(folder).work, tmp_path / "elsewhere")
    said = refused(folder)
    assert "the weights of ce seed 0 are not there" in said
    suite = copied / "tiny.yaml"
    assert f"`robustbench-cmic run {suite} --results NEW --only ce --seeds 0`, and load it from NEW/tiny" in said
    model = load_model(str(folder), "ce", 0, work=str(tmp_path / "elsewhere"))
    assert len(model) == 2
    Path(folder / f"{training(folder).cell.id}.json").unlink()
    assert refused(folder).startswith("ce seed 0 was not trained yet; run the suite again")


@pytest.mark.parametrize(
    ("settings", "name"),
    [(["training.epochs=1", "models.ce.objective={name: ce, label_smoothing: 0.1}"], None),
     (["training.epochs=1"], "mine"), ([], "mine")],
)  # fmt: skip
def test_of_a_suite_that_set_and_as_had_changed_the_command_makes_weights_that_are_loaded(
    tiny: Path, cli_here: Cli, settings: list[str], name: str | None
) -> None:
    own = tiny.rename(tiny.with_name("my own.yaml"))
    plan = make_plan(load_suite(own, settings=settings, name=name).suite)
    folder = fill(tiny.parent / plan.suite, plan, lambda _: [True])
    write_json(folder / "plan.json", claimed(folder, plan, own).model_dump(mode="json"))
    said = re.search("run the suite again, `(.*)`, and load it from (NEW/.*)", refused(folder))
    assert said is not None
    _, *words = shlex.split(said[1])
    done = cli_here(*words, cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    made = tiny.parent / said[2]
    assert training(made).cell == plan.of("train")[0]
    load_model(made, "ce", 0)


def test_only_the_recorded_weights_are_loaded(copied: Path) -> None:
    folder = copied / "results" / "tiny"
    ce, cmic = (Store(folder).weights(training(folder, name).cell.id) for name in ("ce", "cmic"))
    shutil.copy(cmic, ce)
    with pytest.raises(CorruptCheckpointError, match="is not the recorded checkpoint: its hash differs"):
        load_model(folder, "ce", 0)


def test_a_training_without_a_model_is_told(copied: Path) -> None:
    folder = copied / "results" / "tiny"
    record = training(folder)
    cases: dict[str, dict[str, Any]] = {
        "the training of ce seed 0 diverged, so that there is no model: loss is NaN": {
            "status": "diverged", "reason": "loss is NaN", "checkpoint_sha256": None,
        },
        "the training of ce seed 0 gave no model: no memory; run": {
            "status": "failed", "reason": "no memory", "checkpoint_sha256": None,
        },
        "the record of ce seed 0 is from a version that did not tell the shape of images; run": {"image_shape": None},
    }  # fmt: skip
    for sentence, change in cases.items():
        write_record(folder, record.model_copy(update=change))
        assert refused(folder).startswith(sentence)
    file = folder / f"{record.cell.id}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "suite": "other"}))
    assert re.match("the training of ce seed 0 gave no model: its record is corrupt", refused(folder))
