"""What does not fit shows before anything is trained: objectives that want another network than they are given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import robustbench_cmic.run.preflight as preflight
from robustbench_cmic.data.base import Data, Split
from robustbench_cmic.models.build import build_model
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.objectives.last_layer import LastLayer
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.run.executors import EXECUTORS
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.models import ARCHITECTURES, Model
from robustbench_cmic.suite.objectives import OBJECTIVES, objective_of
from tests.conftest import Cli
from tests.in_process import settings_for

CODE = """\
import os
from pathlib import Path
import torch
from robustbench_cmic.objectives import Objective

def convolutional(shape, classes):
    with Path(__file__).with_name("built").open("a") as file:
        file.write("x")
    print("a network")
    return torch.nn.Sequential(torch.nn.Conv2d(shape[0], classes, shape[1]), torch.nn.Flatten())

def linear(shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))

def broken(shape, classes):
    raise RuntimeError("no network today")

def ends(shape, classes):
    os._exit(3)

class Wide(Objective):
    owns_head = True

    def __init__(self, classes):
        super().__init__()

    def make_head(self, features):
        return torch.nn.Linear(features, self.classes)

    def forward(self, logits, labels):
        return {"total": torch.nn.functional.cross_entropy(logits, labels)}
"""
SUITE = """\
suite: x
dataset: {name: digits}
seeds: [0, 1]
training: {epochs: 1, batch_size: 64, limit: 128, optimizer: {name: sgd, lr: 0.1}}
evaluation: {limit: 20}
audit: off
models:
  - {id: ce, architecture: mlp, objective: {name: ce}}
"""
WRONG = """\
  - {id: fits, architecture: "ours:linear", objective: {name: opl}}
  - id: conv
    architecture: "ours:convolutional"
    objective: {name: center}
  - {id: again, architecture: "ours:convolutional", objective: {name: center}}
  - {id: few, architecture: mlp, width: 4, objective: {name: ncmi_alone}}
  - {id: own, architecture: "ours:convolutional", objective: {name: "ours:Wide"}}
"""
LINEAR = (
    "this objective needs a network that ends in a linear layer, whose output are the logits; it has no linear layer"
)
SAID = f"""\
x.yaml:12: models[2].objective: center cannot train ours:convolutional (conv, again): {LINEAR}
x.yaml:14: models[4].objective: ncmi_alone cannot train mlp (few): ncmi_alone gives every class a feature of its own; \
this network has 4 features, fewer than the 10 classes
x.yaml:15: models[5].objective: ours:Wide cannot train ours:convolutional (own): {LINEAR}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ours.py").write_text(CODE)
    return tmp_path


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_every_misfit_is_said_before_anything_is_trained_or_written(
    folder: Path, cli_here: Cli, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXECUTORS, executor, "tests.in_process:InProcess")
    (folder / "x.yaml").write_text(SUITE + WRONG)
    done = cli_here("run", "x.yaml", "--executor", executor)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", SAID)
    assert not list(folder.glob("results*"))
    # With `center` the network and the one that it is compared with; with `Wide` the first takes no head already.
    assert (folder / "built").read_text() == "xxx"


def test_only_what_is_to_be_trained_is_looked_at(folder: Path, cli_here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "x.yaml").write_text(SUITE + WRONG)
    asked = ["run", "x.yaml", "--only", "fits", "--seeds", 0]
    assert cli_here(*asked).returncode == 0
    tried: list[str] = []

    def note(trial: preflight.Trial) -> list[str]:
        tried.extend(f"{cell.model} {cell.seed}" for cell in trial.cells)
        return [""] * len(trial.cells)

    monkeypatch.setattr(preflight, "_heard", note)
    assert cli_here(*asked).stdout.startswith("all 2 cells are done already")
    assert tried == []
    assert cli_here(*asked, "--force").returncode == 0
    assert tried == ["fits 0"]
    overlooked = cli_here("run", "x.yaml", "--shard", "5/12")
    assert overlooked.returncode == 1
    assert "ncmi_alone gives every class a feature of its own" in overlooked.stdout, "its training says it, too"
    assert tried == ["fits 0", "few 0"]


def test_a_network_that_cannot_be_built_is_left_to_its_training(folder: Path, cli_here: Cli) -> None:
    models = '  - {id: none, architecture: "ours:broken", objective: {name: opl}}\n'
    (folder / "x.yaml").write_text(SUITE + models)
    done = cli_here("run", "x.yaml", "--only", "none", "--seeds", 0)
    assert done.returncode == 1
    assert "ours:broken failed for images of (1, 8, 8): RuntimeError: no network today" in done.stdout


def test_what_ends_the_process_hides_no_other_misfit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    models = [
        '  - {id: ends, architecture: "ours:ends", objective: {name: opl}}\n',
        '  - {id: conv, architecture: "ours:convolutional", objective: {name: opl}}\n',
    ]
    (folder / "x.yaml").write_text(SUITE + "".join(models))
    suite = load_suite(folder / "x.yaml").suite
    cells = [cell for cell in make_plan(suite).cells if preflight.may_misfit(cell)]
    split = Split(np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8), np.arange(2))
    problems = preflight.misfit_problems(suite, cells, settings_for(folder), Data(split, split, classes=10))
    assert [(problem.location, problem.message) for problem in problems] == [
        (("models", 2, "objective"), f"opl cannot train ours:convolutional (conv): {LINEAR}")
    ]


def test_a_process_is_started_only_where_torch_is_needed_to_tell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    objectives = ["ce", "center", "opl", "lgm", "cosface", "ncmi_alone"]
    networks = ["small_cnn", "resnet18", "ours:linear"]
    lines = [
        f'  - {{id: {name}-{index}, architecture: "{network}", objective: {{name: {name}}}}}\n'
        for name in objectives
        for index, network in enumerate(networks)
    ]
    (folder / "x.yaml").write_text(SUITE + "".join(lines))
    found = {cell.model for cell in make_plan(load_suite(folder / "x.yaml").suite).cells if preflight.may_misfit(cell)}
    assert found == {f"{name}-{index}" for name in objectives[1:] for index in (1, 2)} | {"ncmi_alone-0"}


def test_a_run_itself_does_not_load_torch_for_it(folder: Path) -> None:
    (folder / "x.yaml").write_text(SUITE + WRONG)
    code = (
        "import sys\nfrom robustbench_cmic.cli import app\n"
        "if __name__ == '__main__':\n"
        "    try:\n        app(['run', 'x.yaml', '--device', 'cpu', '--only', 'few'])\n"
        "    except SystemExit as error:\n        sys.exit(10 * ('torch' in sys.modules) + error.code)\n"
    )
    (folder / "main.py").write_text(code)
    assert subprocess.run([sys.executable, "main.py"], cwd=folder, capture_output=True).returncode == 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
@pytest.mark.parametrize("size", [None, 1])
def test_own_architectures_end_in_a_linear_layer(
    architecture: str, shape: tuple[int, int, int], size: int | None
) -> None:
    declared = Model(id="own", architecture=architecture, width=size)
    model = build_model(declared, shape, 10, ([0.5] * shape[0], [0.25] * shape[0]), seed=0)
    assert isinstance(LastLayer(model, torch.rand(2, *shape)).layer, torch.nn.Linear)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_declared_to_need_what_they_need(name: str) -> None:
    declared = objective_of({"name": name})
    built = build_objective(declared, 10)
    assert (declared.needs_features, declared.owns_head) == (built.needs_features, built.owns_head)
    if built.owns_head and declared.any_features:
        assert built.make_head(1)(torch.rand(2, 1)).shape == (2, 10)
