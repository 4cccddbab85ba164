"""What cells declare is read back as it was written, and every name that a suite may write is computed by something."""

from __future__ import annotations

import inspect
import json
import pkgutil
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.data import load_data
from robustbench_cmic.data.named import SOURCES
from robustbench_cmic.objectives import Cmic, Objective, build_objective
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.plan.passes import declared_work
from robustbench_cmic.suite import load_suite, shipped_suites
from robustbench_cmic.suite.data import DATASETS, DeclaredDataset, TorchvisionDataset, dataset_of, evaluation_of
from robustbench_cmic.suite.fields import classes_by_name
from robustbench_cmic.suite.models import model_of
from robustbench_cmic.suite.objectives import OBJECTIVES, CmicObjective, DeclaredObjective, objective_of
from robustbench_cmic.suite.training import AnyOptimizer, Training
from robustbench_cmic.training.optimizer import build_optimizer

MANY = """\
suite: many
dataset: {name: imagefolder, path: pets, size: 32}
training:
  epochs: 3
  batch_size: 8
  limit: 20
  select: best
  held_out: 1/10
  optimizer: {name: adamw, lr: 1/1000}
  schedule: {name: multistep, milestones: [1, 2], warmup_epochs: 1/2}
  augmentation: {crop: 2, flip: true, rotation: 15, jitter: 2/5}
models:
  - {id: smooth, architecture: mlp, objective: {name: ce, label_smoothing: 0.1, adversary: {eps: 8/255}}}
  - id: paper
    architecture: resnet18
    stem: small
    zero_init_residual: false
    objective: {name: cmic, centroids: class_batches}
  - id: own
    architecture: "ours:build"
    normalization: {mean: [0.5, 0.5, 0.5], std: [1/4, 1/4, 1/4]}
    objective: {name: "ours:make", gamma: 1/2, adversary: {norm: l2, eps: 1, alpha: eps/3, steps: 2, loss: margin}}
evaluation: {limit: 10, per_class: true}
"""
OURS = """\
def build(shape, classes):
    return None

def make(classes, gamma, depth=3, name="unset", *, words="none"):
    return None
"""


def check_round_trip(cell: Cell) -> None:
    """Key order included: ids are hashes over sorted keys, but plans are committed byte for byte."""
    declared = cell.declared
    pairs: list[tuple[Any, Any]] = [
        (dataset_of(declared["dataset"]).model_dump(), declared["dataset"]),
        (model_of(declared["model"]).declared(), declared["model"]),
    ]
    if declared["objective"] is not None:
        pairs.append((objective_of(declared["objective"]).declared(), declared["objective"]))
    if declared["training"] is not None:
        pairs.append((Training.model_validate(declared["training"]).declared(), declared["training"]))
    for again, before in pairs:
        assert json.dumps(again) == json.dumps(before)


@pytest.mark.parametrize("name", sorted(shipped_suites()))
def test_what_trainings_of_shipped_suites_declare_is_read_back(name: str) -> None:
    suite = load_suite(shipped_suites()[name]).suite
    plan = make_plan(suite)
    for cell in plan.of("train"):
        check_round_trip(cell)
    for cell in plan.of("attack"):
        assert evaluation_of(cell.declared["evaluation"]) == suite.evaluation


def test_what_other_trainings_declare_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "many.yaml").write_text(MANY)
    (tmp_path / "ours.py").write_text(OURS)
    monkeypatch.syspath_prepend(tmp_path)
    cells = make_plan(load_suite(tmp_path / "many.yaml").suite).of("train")
    for cell in cells:
        check_round_trip(cell)
    smooth, paper, own = (cell.declared["objective"] for cell in cells)
    assert smooth["adversary"]["alpha"] == 2.5 * (8 / 255) / 10
    assert paper["momentum"] == 0.9999
    assert own["parameters"] == {"gamma": 0.5, "depth": 3, "name": "unset", "words": "none"}
    assert objective_of(own).arguments(7) == {
        "name": "ours:make", "parameters": {"gamma": 0.5, "depth": 3, "words": "none"}, "seed": 7,
    }  # fmt: skip


def test_options_at_their_defaults_are_not_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that cells which do not use them keep the ids that they had before these existed."""
    (tmp_path / "ours.py").write_text(OURS)
    monkeypatch.syspath_prepend(tmp_path)
    written_out = "  select: best\n  held_out: 1/10\n"
    # What is trained against an adversary has `select: best` for its default.
    without = MANY.replace(", rotation: 15, jitter: 2/5", "").replace(written_out, "  select: last\n")
    off = MANY.replace("rotation: 15, jitter: 2/5", "rotation: 0, jitter: 0")
    written = [MANY, without, off.replace(written_out, "  select: last\n  held_out: null\n")]
    ids = []
    for text in written:
        (tmp_path / "many.yaml").write_text(text.replace("zero_init_residual: false", "zero_init_residual: true"))
        cells = make_plan(load_suite(tmp_path / "many.yaml").suite).of("train")
        ids.append([cell.id for cell in cells])
        training = cells[1].declared["training"]
        assert {"select", "held_out"} & set(training) == ({"select", "held_out"} if text is MANY else set())
        assert set(training["augmentation"]) == {"crop", "flip", "cutout"} | (
            {"rotation", "jitter"} if text is MANY else set()
        )
        assert "zero_init_residual" not in cells[1].declared["model"]
    assert ids[1] == ids[2]
    assert not set(ids[0]) & set(ids[1])


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_takes_what_its_class_declares(name: str) -> None:
    declared = objective_of({"name": name})
    objective = build_objective(declared, 3)
    assert declared.title
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(2, 1, 2, 2)
    objective.attach(network, images)
    logits, *features = objective.outputs(network, images)
    assert set(objective(logits, torch.tensor([0, 1]), *features)) >= {"total"}
    parameters = set(inspect.signature(pkgutil.resolve_name(declared.implementation)).parameters)
    assert parameters == {"classes", *declared.arguments(0)}


def test_what_a_suite_says_of_cmic_reaches_it() -> None:
    values: dict[str, Any] = {"lambda": 0.1, "beta": 0.2, "momentum": 0.3, "floor": 0.5, "label_smoothing": 0.6}
    objective = build_objective(CmicObjective(name="cmic", centroids="class_batches", class_batch_size=7, **values), 3)
    assert isinstance(objective, Cmic)
    reached = (objective.lambda_, objective.beta, objective.momentum, objective.label_smoothing)
    assert (*reached, objective.class_examples) == (0.1, 0.2, 0.3, 0.6, 7)
    assert objective.log_floor == pytest.approx(-0.6931, abs=1e-4)


class Halved(Objective):
    """A constant half."""

    def __init__(self, classes: int, scale: float) -> None:
        super().__init__()
        self.classes = classes
        self.scale = scale

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"total": self.scale * logits.gather(1, labels[:, None]).mean()}


class HalvedObjective(DeclaredObjective):
    """What a suite would say of it."""

    implementation = f"{__name__}:Halved"

    name: Literal["halved"]
    scale: float = 0.5
    adversary: None = None


def test_an_objective_is_a_class_of_the_suite_and_a_class_that_it_names() -> None:
    declared = HalvedObjective(name="halved")
    assert declared.declared() == {"name": "halved", "scale": 0.5}
    objective = build_objective(declared, 4)
    assert isinstance(objective, Halved)
    assert (objective.classes, objective.scale) == (4, 0.5)


@pytest.mark.parametrize(("name", "declared"), DATASETS.items())
def test_every_data_set_has_a_source_that_takes_it(name: str, declared: type[DeclaredDataset]) -> None:
    load = pkgutil.resolve_name(declared.implementation)
    inspect.signature(load).bind(declared, Path(), None, print, False)
    assert name in get_args(declared.model_fields["name"].annotation)


def test_sizes_and_sources_of_named_data_sets_are_known() -> None:
    digits = dataset_of({"name": "digits"})
    data = load_data(digits, Path())
    assert digits.sizes == (len(data.train.labels), len(data.test.labels))
    assert {name for name, declared in DATASETS.items() if declared is TorchvisionDataset} == set(SOURCES)
    assert {name: dataset_of({"name": name}).sizes for name in SOURCES} == {
        "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "mnist": (60_000, 10_000),
        "fashion_mnist": (60_000, 10_000), "svhn": (73_257, 26_032),
    }  # fmt: skip


def test_the_size_of_a_data_set_decides_what_a_training_is_estimated_at(tmp_path: Path) -> None:
    works = []
    for dataset in ("{name: digits}", "{name: svhn}", "{name: arrays, path: x.npz}"):
        model = "models: [{id: a, architecture: mlp, objective: {name: ce}}]"
        training = "training: {epochs: 2, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}"
        (tmp_path / "x.yaml").write_text(f"suite: x\ndataset: {dataset}\n{training}\n{model}\n")
        (cell,) = make_plan(load_suite(tmp_path / "x.yaml").suite).of("train")
        works.append(declared_work(cell))
    assert works == pytest.approx([6e-3 * 1_198, 6e-3 * 73_257, 6e-3 * 10_000])


@pytest.mark.parametrize("name", sorted(classes_by_name(AnyOptimizer)))
def test_every_optimizer_takes_what_its_class_declares(name: str) -> None:
    written = {"epochs": 1, "batch_size": 2, "optimizer": {"name": name, "lr": 0.25, "weight_decay": 0.125}}
    declared = Training.model_validate(written).optimizer
    optimizer = build_optimizer(nn.Linear(2, 2), declared)
    assert type(optimizer).__name__.lower() == name
    values = declared.model_dump(exclude={"name"})
    assert {key: optimizer.defaults[key] for key in values} == values
    assert set(declared.on_gpu) <= set(optimizer.defaults)
