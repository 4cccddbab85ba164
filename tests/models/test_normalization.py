"""What is put in front of a network: `none`, moments, the default; and models that normalise by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from robustbench_cmic.audit.rules_normalization import better_as_it_is
from robustbench_cmic.data import load_data
from robustbench_cmic.models.build import build_model
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.records.schema import AttackRecord, WithoutNormalization
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.data import Digits
from robustbench_cmic.suite.models import model_of
from tests.conftest import TINY_SUITE, Cli
from tests.in_process import command_here

ZOO = """\
import math
import torch
from torch import nn


class Zoo(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.3))
        self.register_buffer("std", torch.tensor(0.35))
        self.linear = nn.Linear(math.prod(shape), classes)

    def forward(self, images):
        return self.linear(((images - self.mean) / self.std).flatten(1))
"""
SUITE = """\
suite: zoo
dataset: {name: digits}
models:
  - {id: default, architecture: "zoo:Zoo", weights: zoo.pt}
  - {id: nothing, architecture: "zoo:Zoo", weights: zoo.pt, normalization: none}
  - {id: identity, architecture: "zoo:Zoo", weights: zoo.pt, normalization: {mean: [0], std: [1]}}
attacks: [{name: PGD, eps: 0.1, loss: margin, steps: 5}]
audit: off
"""


def trained() -> tuple[dict[str, torch.Tensor], float]:
    """Weights of a linear model that wants images in [0, 1], and its accuracy on the test images, without the product.

    The bias is fitted to images that are normalised once, so that a second time costs accuracy.
    """
    data = load_data(Digits(name="digits"), Path())
    (x, y), (x_test, y_test) = (
        (torch.from_numpy(split.images[:]).flatten(1), torch.from_numpy(split.labels))
        for split in (data.train, data.test)
    )
    linear = torch.nn.Linear(64, 10)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=60)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(linear((x - 0.3) / 0.35), y)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    accuracy = float((linear((x_test - 0.3) / 0.35).argmax(1) == y_test).float().mean())
    return {"mean": torch.tensor(0.3), "std": torch.tensor(0.35)} | {
        f"linear.{name}": value.detach() for name, value in linear.named_parameters()
    }, accuracy


def test_a_model_that_normalises_itself_is_judged_as_trained_or_warned_of(tmp_path: Path, cli_here: Cli) -> None:
    (tmp_path / "zoo.py").write_text(ZOO)
    (tmp_path / "s.yaml").write_text(SUITE)
    weights, accuracy = trained()
    torch.save(weights, tmp_path / "zoo.pt")
    done = cli_here("run", "s.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "results" / "zoo"
    records = {
        name: json.loads(next(folder.glob(f"{name}.s0.none.*")).read_text())
        for name in ("default", "nothing", "identity")
    }
    assert records["nothing"]["accuracy"] == records["identity"]["accuracy"] == pytest.approx(accuracy)
    assert records["nothing"]["without_normalization"] is None
    without = records["default"]["without_normalization"]
    assert without["accuracy"] == records["nothing"]["accuracy"]
    behind = records["default"]["accuracy"]
    figures = f"{100 * behind:.1f} % of 599 clean images are right behind it, {100 * accuracy:.1f} % without"
    warned = [line for line in done.stdout.splitlines() if "warning: the normalisation in front" in line]
    assert len(warned) == 1
    assert figures in warned[0]
    assert "write `normalization: none`" in warned[0]
    board = (folder / "leaderboard.md").read_text()
    assert f"| normalized-twice | none at 0 | {figures} |" in " ".join(board.split())
    assert "`nothing`: zoo:Zoo, weights given: zoo.pt, no normalisation in front" in board
    assert "`identity`: zoo:Zoo, weights given: zoo.pt, normalised by mean \\[0\\], std \\[1\\]\n" in board
    assert (
        "`default`: zoo:Zoo, weights given: zoo.pt, normalised by mean \\[0.3063\\], std \\[0.3754\\] (the default)"
        in board
    )
    assert command_here("report", "zoo", "--format", "html", cwd=tmp_path).returncode == 0


def test_none_changes_no_bit_and_null_is_unclear(tmp_path: Path) -> None:
    declared = model_of({"architecture": "mlp", "normalization": "none"})
    model = build_model(declared, (3, 8, 8), 10, ([0.1] * 3, [0.2] * 3), 0)
    images = torch.rand(5, 3, 8, 8)
    assert torch.equal(model[0](images), images)
    for written in ("null", "~", ""):
        text = TINY_SUITE.replace("architecture: mlp,", f"architecture: mlp, normalization: {written},", 1)
        (tmp_path / "x.yaml").write_text(text)
        done = command_here("validate", "x.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert "x.yaml:5: models[0].normalization: null is unclear: write `none` for none" in done.stderr


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("imagenet", "models[0].normalization: should be 'none', not 'imagenet'"),
        ("{means: [0], std: [1]}", "models[0].normalization.means: unknown key; did you mean 'mean'?"),
        ("{mean: 0.5, std: [1]}", "models[0].normalization.mean: should be a list, not 0.5"),
        ("[0, 1]", "models[0].normalization: should be a mapping"),
        ("none, weights_key: ema", "models[0].weights_key: has no effect without `weights`"),
    ],
)
def test_what_a_normalisation_may_be(tmp_path: Path, written: str, sentence: str) -> None:
    text = TINY_SUITE.replace("architecture: mlp,", f"architecture: mlp, normalization: {written},", 1)
    (tmp_path / "x.yaml").write_text(text.replace("pairs: [[ce, cmic]]", "pairs: []"))
    done = command_here("validate", "x.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "None" not in done.stderr


def test_a_pair_differs_in_none_and_the_default(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(TINY_SUITE.replace("mlp,", "mlp, normalization: none,", 1))
    assert "differ in normalization (none, the default)" in command_here("validate", "x.yaml", cwd=tmp_path).stderr


def test_what_is_not_declared_leaves_cells_as_they_were(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    text = TINY_SUITE.replace("mlp, objective: {name: ce}", "mlp, weights: w.safetensors")
    (tmp_path / "x.yaml").write_text(text.replace("pairs: [[ce, cmic]]\n", ""))
    first, second = make_plan(load_suite(tmp_path / "x.yaml").suite).of("train")
    assert first.declared["weights"].keys() == {"file", "sha256"}
    keys = {"architecture", "stem", "pretrained", "normalization", "code_sha256"}
    assert first.declared["model"].keys() == second.declared["model"].keys() == keys


@pytest.mark.parametrize(
    ("n", "gained", "lost", "clear"),
    [
        (599, 21, 7, True),  # p = 0.0063
        (599, 20, 8, False),  # p = 0.018
        (599, 7, 21, False),
        (10_000, 99, 0, False),  # less than a point
        (10_000, 100, 0, True),
        (16, 6, 0, False),  # p = 0.016
        (16, 7, 0, True),  # p = 0.0078
    ],
)
def test_clearly_better_is_beyond_chance_and_a_point(n: int, gained: int, lost: int, clear: bool) -> None:
    correct = n // 2
    without = WithoutNormalization(accuracy=(correct + gained - lost) / n, gained=gained, lost=lost)
    fields: dict[str, Any] = {"n": n, "accuracy": correct / n, "without_normalization": without}
    record = AttackRecord.model_construct(**fields)
    assert (better_as_it_is(record) is not None) == clear
    assert better_as_it_is(record.model_copy(update={"without_normalization": None})) is None
