"""Own networks and attacks as people write them, by the command line: `view`, kinds, steps that are too short."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from tests.conftest import Cli, contents
from tests.in_process import command_here

NET = """\
from torch import nn
from torch.nn import functional as F


class LeNet(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 8, 3, padding=1)
        self.fc = nn.Linear(8 * (shape[1] // 2) * (shape[2] // 2), classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(x.view(x.size(0), -1))


def build(shape, classes):
    return LeNet(shape, classes)
"""
ATTACK = """\
import torch
from torch.nn import functional as F


def steepest(model, images, labels, *, eps, norm):
    images = images.view(len(images), -1).view(images.shape).requires_grad_()
    loss = F.cross_entropy(model(images), labels)
    gradient = torch.autograd.grad(loss, images)[0].view(len(images), -1)
    step = eps * gradient / gradient.norm(dim=1, keepdim=True).clamp(min=1e-20)
    return (images + step.view(images.shape)).clamp(0, 1).detach()


steepest.kind = "gradient"


def unsaid(model, images, labels, *, eps, norm):
    return images


unsaid.kind = "greedy"


def own(model, images, labels, *, eps, norm, kind="x"):
    return images
"""
SUITE = """\
suite: own
dataset: {name: arrays, path: DATA}
training: {epochs: 1, batch_size: 16, optimizer: {name: sgd, lr: 0.05}}
models:
  - {id: lenet, architecture: "net:build", objective: {name: ce}}
  - {id: cnn, architecture: small_cnn, objective: {name: ce}}
attacks:
  - {name: PGDL2, eps: 0.5, steps: 2}
  - {name: SparseFool, norm: l2, eps: 0.5, steps: 1}
  - {name: "att:steepest", id: own, norm: l2, eps: 0.5}
  - {name: PGD, norm: l2, eps: 0.5, steps: 2}
  - {name: DeepFool, norm: l2, eps: 0.001, steps: 2}
evaluation: {limit: 12}
audit: off
"""


def written(folder: Path, suite: str) -> Path:
    (folder / "net.py").write_text(NET)
    (folder / "att.py").write_text(ATTACK)
    (folder / "own.yaml").write_text(suite.replace("DATA", str(folder / "rgb.npz")))
    return folder / "own.yaml"


def test_view_works_in_own_networks_and_in_attacks_on_colour_images(tmp_path: Path, cli_here: Cli) -> None:
    draw = np.random.default_rng(0)
    y = np.arange(96) % 2
    x = draw.random((96, 3, 10, 6), dtype=np.float32) / 2 + (y / 2).astype(np.float32)[:, None, None, None]
    # As a camera's images come: the channels are last in memory.
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.savez(tmp_path / "rgb.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    done = cli_here("run", written(tmp_path, SUITE))
    assert done.returncode == 0, done.stdout + done.stderr
    records = [each for each in contents(tmp_path / "results" / "own").values() if "cell" in each]
    declared = [each["cell"]["declared"]["attack"] for each in records if each["cell"]["attack"] == "own"]
    assert [each["kind"] for each in declared] == ["gradient", "gradient"]
    with (tmp_path / "results" / "own" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"ok"}
    # DeepFool found changes larger than the ball, and that is judged at the radius, not held against it.
    assert {"invalid-examples" in row["flags"] for row in rows if row["attack"] == "DeepFool"} == {False}
    outside = [each["outside"] for each in records if each["cell"]["attack"] == "DeepFool"]
    assert max(outside) > 0


WARNED = """\
suite: short
dataset: {name: digits}
training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.05}}
models: [{id: cnn, architecture: small_cnn, objective: {name: ce}}]
attacks:
  - {name: BIM, eps: 0.3}
  - {name: BIM, id: reach, eps: 0.3, alpha: eps/4}
  - {name: FFGSM, eps: 0.3}
  - {name: SPSA, eps: 0.3}
  - {name: PGDL2, eps: [1, 3]}
  - {name: PGD, eps: 0.3, alpha: eps/10, steps: 10, schedule: linear}
"""


def test_steps_that_cannot_reach_the_edge_are_warned_of_whoever_implements_them(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text(WARNED)
    done = command_here("validate", "short.yaml", cwd=tmp_path)
    assert done.returncode == 0
    default, edge = "the library's default,", "cannot reach the edge of the ball at eps"
    assert [line.removeprefix("warning: short.yaml:") for line in done.stderr.splitlines()] == [
        f"6: attacks[0].alpha: alpha * steps, {default} is 0.0784314: {edge} 0.3",
        f"8: attacks[2].alpha: alpha, {default} is 0.0392157: {edge} 0.3",
        f"9: attacks[3].lr: lr * nb_iter, {default} is 0.01: {edge} 0.3",
        f"10: attacks[4].alpha: alpha * steps, {default} is 2: {edge} 3",
        f"11: attacks[5].alpha: the linear steps add up to 0.165: {edge} 0.3",
    ]


REFUSED = """\
suite: refused
dataset: {name: digits}
training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.05}}
models: [{id: cnn, architecture: small_cnn, objective: {name: ce}}]
attacks:
  - {name: PIFGSM, norm: linf, eps: 0.3, max_epsilon: 0.3}
  - {name: PIFGSMPP, norm: linf, eps: 0.3, max_epsilon: 0.3}
  - {name: TIFGSM, eps: 0.3, alpha: 0.1}
  - {name: EADL1, norm: l2, eps: 0.3, max_iterations: 9}
  - {name: "att:steepest", id: a, norm: l2, eps: 0.5, kind: greedy}
  - {name: "att:unsaid", norm: l2, eps: 0.5}
  - {name: "att:own", norm: l2, eps: 0.5, kind: gradient}
"""


def test_attacks_that_cannot_work_on_these_images_and_kinds_that_there_are_not_are_refused(tmp_path: Path) -> None:
    done = command_here("validate", written(tmp_path, REFUSED).name, cwd=tmp_path)
    assert done.returncode == 2
    kinds = "gradient, black-box, minimum-norm, transfer"
    assert done.stderr.splitlines() == [
        "own.yaml:6: attacks[0].name: PIFGSM is made for images of three channels, these have 1: leave it out",
        "own.yaml:7: attacks[1].name: PIFGSMPP is made for images of three channels, these have 1: leave it out",
        "own.yaml:8: attacks[2].name: TIFGSM is made for images of three channels, these have 1: leave it out",
        "own.yaml:9: attacks[3].max_iterations: EADL1 needs at least 10, or `abort_early: false`",
        "own.yaml:10: attacks[4].kind: should be 'gradient', 'black-box', 'minimum-norm' or 'transfer', not 'greedy'",
        f"own.yaml:11: attacks[5].name: att:unsaid: its attribute `kind` should be one of {kinds}, not 'greedy'",
        f"own.yaml:12: attacks[6].kind: says what the attack does ({kinds}): "
        "give the parameter of att:own another name",
    ]


TWO_CLASSES = """\
suite: two
dataset: {name: arrays, path: DATA}
training: {epochs: 4, batch_size: 16, optimizer: {name: sgd, lr: 0.05}}
models: [{id: net, architecture: mlp, objective: {name: ce}}]
attacks:
  - {name: PGD, id: PGD-margin, eps: 0.02, loss: margin}
  - {name: PGD, id: PGD-dlr, eps: 0.02, loss: dlr}
"""


def test_an_impossible_attack_does_not_cost_the_audit_of_the_others(tmp_path: Path, cli_here: Cli) -> None:
    draw = np.random.default_rng(0)
    y = np.arange(240) % 2
    x = draw.random((240, 1, 8, 8), dtype=np.float32) / 2 + (y / 2).astype(np.float32)[:, None, None, None]
    np.savez(tmp_path / "rgb.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    done = cli_here("run", written(tmp_path, TWO_CLASSES))
    assert done.returncode == 1, done.stdout + done.stderr
    with (tmp_path / "results" / "two" / "results.csv").open() as file:
        rows = {row["attack"]: row for row in csv.DictReader(file)}
    assert rows["PGD-dlr"]["status"] == "failed"
    assert (rows["PGD-margin"]["status"], rows["PGD-margin"]["flags"]) == ("ok", "")


HONEST = """\
suite: mine
dataset: {name: digits}
training: {epochs: 2, batch_size: 32, optimizer: {name: sgd, lr: 0.1}}
models: [{id: honest, architecture: "plain:build", objective: {name: ce}}]
attacks:
  - {name: FGSM, eps: 0.1}
  - {name: PGD, eps: 0.1, steps: 20, loss: margin}
  - {name: "momentum:mi", id: mi, norm: linf, eps: 0.1, steps: 5}
  - {name: "momentum:mi", id: said, norm: linf, eps: 0.1, steps: 5, kind: gradient}
evaluation: {limit: 200, per_class: true}
"""
PLAIN = """\
from torch import nn


def block(channels, width):
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())


def build(shape, classes):
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(block(shape[0], 16), nn.MaxPool2d(2), block(16, 32), pool, nn.Linear(128, classes))
"""
MOMENTUM = """\
import torchattacks


def mi(model, images, labels, *, eps, norm, steps=10):
    return torchattacks.MIFGSM(model, eps=eps, alpha=eps / 4, steps=steps)(images, labels)
"""


def test_an_own_attack_takes_no_rank_from_an_honest_network(tmp_path: Path, cli_here: Cli) -> None:
    """What it breaks that PGD leaves counts in the worst case, and exposes nobody, whether it says its kind or not."""
    for name, text in (("mine.yaml", HONEST), ("plain.py", PLAIN), ("momentum.py", MOMENTUM)):
        (tmp_path / name).write_text(text)
    done = cli_here("run", "mine.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    board = (tmp_path / "results" / "mine" / "leaderboard.md").read_text()
    assert "No flag was raised." in board
    row = next(line for line in board.splitlines() if line.startswith("| 0.1 "))
    rank, *accuracies, worst = [cell.strip(" *%") for cell in row.split("|")[2:-1] if "honest" not in cell]
    assert rank == "1"
    assert float(worst) < min(map(float, accuracies))
