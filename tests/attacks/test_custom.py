"""Attacks of a user's own through the harness: seeded by block, counted, judged; what fails a cell."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.judge import AttackEvaluation
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report import write_report
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.schema import attack_of
from tests.attacks.nets import convolutional, examples, predicted
from tests.conftest import Cli, contents
from tests.in_process import carried_out


def wander(model: nn.Module, images: Tensor, labels: Tensor, *, eps: float, norm: str, steps: int) -> Tensor:
    """Random numbers of all three generators, and the last of some random points that breaks an example."""
    assert (eps, norm) == (0.1, "linf")
    best = images
    for _ in range(steps):
        shift = 2 * torch.rand_like(images) - 1 + random.random() - np.random.rand()  # noqa: NPY002
        moved = (images + shift.clamp(-1, 1) * eps).clamp(0, 1)
        broken = model(moved).argmax(1) != labels
        best = torch.where(broken[:, None, None, None], moved, best)
    return best


def judge(model: nn.Module, images: Tensor, labels: Tensor, **others: Any) -> AttackEvaluation:
    setting = {"name": f"{__name__}:wander", "code_sha256": "0", "parameters": {"steps": 3}}
    parameters: dict[str, Any] = {"classes": 10, "seed": 0} | others
    return evaluate_attack(model, images, labels, attack=attack_of(setting, Threat("linf", 0.1)), **parameters)


def test_generators_are_seeded_for_fixed_blocks_and_left_alone() -> None:
    model = convolutional(scale=4)
    images, _ = examples(300)
    labels = predicted(model, images)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    first = judge(model, images, labels)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]  # noqa: NPY002
    assert 0 < int(first.correct.sum()) < 300
    assert (first.forwards, first.backwards, first.outside) == (900, 0, 0)
    random.seed(6)
    assert judge(model, images, labels, batch_size=7).logits.tolist() == first.logits.tolist()
    # The first block does not know how many examples come behind it.
    assert judge(model, images[:256], labels[:256]).logits.tolist() == first.logits[:256].tolist()
    assert judge(model, images, labels, seed=1).logits.tolist() != first.logits.tolist()


CODE = """\
import numpy as np
import torch

def crash(model, images, labels, *, eps, norm):
    return images[len(images)]

def nan(model, images, labels, *, eps, norm):
    return images * torch.nan

def shape(model, images, labels, *, eps, norm):
    return images[:, :, :4]

def array(model, images, labels, *, eps, norm):
    return images.numpy()

def weights(model, images, labels, *, eps, norm):
    with torch.no_grad():
        next(model.parameters()).zero_()
    return images

def outside(model, images, labels, *, eps, norm):
    return 1 - images

def mode(model, images, labels, *, eps, norm):
    model.train()
    images += 1
    return images - 1

def puppet(model, images, labels, *, eps, norm):
    model.model.forward = lambda x: torch.nn.functional.one_hot(labels, 10).float() * 9
    return images

def poison(model, images, labels, *, eps, norm):
    torch.nn.ReLU.forward = lambda self, x: x.sin()
    return images
"""
SUITE = """\
suite: x
dataset: {name: digits}
training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: m, architecture: mlp, objective: {name: ce}}
attacks:
"""
FAILURES = {
    "crash": "the attack crashed: IndexError: index 20 is out of bounds for dimension 0 with size 20 (mine.py, line 5)",
    "nan": "the attack returned images with NaN or infinity",
    "shape": "the attack should return images of shape (20, 1, 8, 8), not (20, 1, 4, 8)",
    "array": "the attack should return images of shape (20, 1, 8, 8), not ndarray",
    "weights": "weights or statistics of the model were changed, by the attack or by the model's own forward pass",
}


def test_what_an_attack_does_wrong_fails_its_cell_and_never_counts_as_robust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    names = [*FAILURES, "outside", "mode", "puppet"]
    lines = [f'  - {{name: "mine:{name}", id: {name}, norm: linf, eps: 0.1}}\n' for name in names]
    (tmp_path / "x.yaml").write_text(SUITE + "".join(lines) + "evaluation: {limit: 20}\naudit: off\n")
    records = carried_out(tmp_path / "x.yaml", tmp_path / "made")
    found = {record.cell.attack: record for record in records if isinstance(record, AttackRecord)}
    for name, reason in FAILURES.items():
        assert (found[name].status, found[name].reason, found[name].accuracy) == ("failed", reason, None)
    clean = found["none"].accuracy
    assert clean is not None
    assert (found["outside"].status, found["outside"].outside) == ("ok", 20)
    assert found["outside"].accuracy is not None
    assert found["outside"].accuracy <= clean
    # Images that it changes in place are its own; what is judged is the model in eval mode.
    assert (found["mode"].status, found["mode"].accuracy) == ("ok", clean)
    # The model that it got to hold is not the one that is judged.
    assert (found["puppet"].status, found["puppet"].accuracy) == ("ok", clean)
    write_report(tmp_path / "made")
    board = (tmp_path / "made" / "leaderboard.md").read_text()
    assert "| 0.1   | –      | `m`     |" in board, "a worst case without some of its attacks has no rank"


def test_what_an_attack_leaves_behind_ends_with_its_process(tmp_path: Path, cli: Cli) -> None:
    """What comes after in the same run is what it is alone; an attack without `id` has a column of its own."""
    (tmp_path / "mine.py").write_text(CODE)
    rest = "  - {name: PGD, eps: 0.1, steps: 3}\nevaluation: {limit: 50}\naudit: off\n"
    (tmp_path / "alone.yaml").write_text(SUITE + rest)
    alone = carried_out(tmp_path / "alone.yaml", tmp_path / "alone")[-1]
    assert isinstance(alone, AttackRecord)
    (tmp_path / "after.yaml").write_text(
        SUITE.replace("suite: x", "suite: after") + f'  - {{name: "mine:poison", norm: linf, eps: 0.1}}\n{rest}'
    )
    done = cli("run", "after.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    after = contents(tmp_path / "results" / "after")[f"{alone.cell.id}.json"]
    assert after["outcomes"] == alone.outcomes
    board = (tmp_path / "results" / "after" / "leaderboard.md").read_text()
    assert "| mine.poison % | PGD % |" in " ".join(board.split()).replace("  ", " ")


def test_code_that_changes_during_a_run_fails_its_cell(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n\ndef rewrite(model, images, labels, *, eps, norm):\n"
        "    with Path(__file__).open('a') as file:\n        file.write('# another\\n')\n    return images\n"
    )
    (tmp_path / "x.yaml").write_text(
        f'{SUITE}  - {{name: "mine:rewrite", norm: linf, eps: 0.1}}\nevaluation: {{limit: 20}}\naudit: off\n'
    )
    done = cli("run", "x.yaml")
    assert done.returncode == 1
    assert (
        "the file of mine:rewrite, or one that it imports, has been changed since the run began: run again"
        in done.stdout
    )
