"""The suites of the NCMI law through the command line, cut down: digits that are trained, and the ImageNet route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image

from robustbench_cmic.records.schema import AttackRecord, TrainRecord
from robustbench_cmic.report import read_results, summarize
from robustbench_cmic.suite import SuiteError, find_suite, load_suite
from tests.conftest import Cli
from tests.in_process import command_here

CLASSES = ("n01440764", "n01443537", "n01484850")
NETWORKS = ("test_resnet", "test_efficientnet", "test_convnext")


def images(root: Path, count: int = 8) -> None:
    """Three classes as ImageNet's validation set lies there, of several sizes; no training images."""
    draw = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / "val" / name).mkdir(parents=True)
        for index in range(count):
            pixels = draw.integers(0, 120, (40 + index, 36, 3)).astype(np.uint8)
            pixels[..., label] += 100
            Image.fromarray(pixels).save(root / "val" / name / f"ILSVRC2012_val_{index:08d}.png")


def untrained(folder: Path) -> list[dict[str, Any]]:
    """Nine models of timm as they are drawn, their outputs scaled, with the files of their weights."""
    models = []
    for place in range(9):
        name = NETWORKS[place % 3]
        torch.manual_seed(place)
        network: Any = timm.create_model(name, num_classes=len(CLASSES))
        with torch.no_grad():
            network.get_classifier().weight.mul_(10.0 ** (place % 3))
        torch.save(network.state_dict(), folder / f"{place}.pt")
        entry: dict[str, Any] = {"id": f"{name}-{place}", "architecture": name, "weights": f"{place}.pt"}
        entry |= {"normalization": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
        models.append(entry | ({"objective": {"name": "ce"}} if place else {}))
    return models


def test_the_imagenet_route_on_a_folder_of_images_with_untrained_networks(tmp_path: Path, cli_here: Cli) -> None:
    """The shipped suite with its data set and keys; networks that need no download, images of 32 pixels."""
    images(tmp_path / "data" / "imagenet")
    suite = yaml.safe_load(find_suite("ncmi-law-imagenet").read_text())
    suite["dataset"]["size"] = 32
    suite["models"] = untrained(tmp_path)
    file = tmp_path / "law.yaml"
    file.write_text(yaml.safe_dump(suite))
    done = cli_here("run", file, "--data", "data", "--results", "results")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "ncmi-law-imagenet"
    results = read_results(folder)
    evaluations = [record for record in results.records.values() if isinstance(record, AttackRecord)]
    assert [record.n for record in evaluations] == [24] * 9
    shapes = {record.image_shape for record in results.records.values() if isinstance(record, TrainRecord)}
    assert shapes == {(3, 32, 32)}
    (networks, *others) = summarize(results).law
    assert (networks.kind, networks.name, len(networks.networks)) == ("networks", "CE", 8)
    assert others[-1].kind == "all"
    found = networks.line("NCMI")
    assert found is not None
    assert found.both is not None
    board = (folder / "leaderboard.md").read_text()
    assert "- Networks: over 8 networks trained with CE, " in board
    assert "imagenet" in board


def test_the_shipped_imagenet_suite_names_models_that_timm_has(tmp_path: Path) -> None:
    suite = load_suite(find_suite("ncmi-law-imagenet")).suite
    assert len(suite.models) >= 16
    assert all(model.pretrained for model in suite.models)
    known = set(timm.list_pretrained())
    assert {model.architecture for model in suite.models} <= known
    for model in suite.models:
        settings = timm.get_pretrained_cfg(model.architecture)
        assert settings is not None
        assert settings.num_classes == 1000
        assert not settings.fixed_input_size or settings.input_size == (3, 224, 224)


@pytest.mark.parametrize(
    ("addition", "sentence"),
    [
        ("- {id: own, architecture: resnet18, objective: {name: ce}}\ntraining: {epochs: 1, batch_size: 8, "
         "optimizer: {name: sgd, lr: 0.1}}", "models[1]: is to be trained, but the data set has `train: false`"),
        ("evaluation: {split: train}", "evaluation.split: should be test, for the data set has `train: false`"),
    ],
)  # fmt: skip
def test_without_training_images_nothing_is_trained_or_evaluated_on_them(
    tmp_path: Path, addition: str, sentence: str
) -> None:
    file = tmp_path / "law.yaml"
    dataset = "{name: imagefolder, path: set, size: 32, train: false}"
    models = "- {id: given, architecture: resnet18, pretrained: true}\n"
    file.write_text(f"suite: law\ndataset: {dataset}\nmodels:\n{models}{addition}\n")
    with pytest.raises(SuiteError, match=sentence.replace("[", r"\[").replace("]", r"\]")):
        load_suite(file)


TOY = """\
suite: toy-law
dataset: {name: digits}
training: {epochs: 1, batch_size: 32, optimizer: {name: sgd, lr: 0.05}}
models:
  - {id: mlp, architecture: mlp, objective: {name: ce},
     matrix: {width: [16, 64], depth: [1, 2], training.epochs: [1, 3]}}
  - {id: focal, architecture: mlp, width: 16, depth: 1, training: {epochs: 3}, objective: {name: focal}}
"""


def test_a_suite_without_attacks_is_run_and_told_as_a_law(tmp_path: Path, cli_here: Cli) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text(TOY)
    done = cli_here("run", file, "--results", "results")
    assert done.returncode == 0, done.stderr
    assert "Networks: over 8 networks trained with CE, " in done.stdout
    summary = summarize(read_results(tmp_path / "results" / "toy-law"))
    assert [scope.kind for scope in summary.law] == ["networks", "all"], "two objectives are too few"
    (first, *_) = summary.law
    assert [line.networks for line in first.lines] == [8] * 6
    assert all(line.both is not None for line in first.lines)
    assert len({own.cell.declared["train"]["training"]["epochs"] for own in first.networks}) == 2
    assert command_here("report", file, "--results", "results", "--figures", "figures", cwd=tmp_path).returncode == 0
    assert (tmp_path / "figures" / "toy-law-ncmi-error.svg").exists()
