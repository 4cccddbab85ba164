"""Objectives and attacks of a user's own: found, checked and hashed before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_cmic.report import write_report
from robustbench_cmic.suite.fields import parse_parameter
from tests.conftest import Cli, contents
from tests.in_process import carried_out

CODE = """\
import torch
from torch.nn import functional
from robustbench_cmic.objectives import Objective

NUMBER = 3

class Mine(Objective):
    def __init__(self, classes, gamma, mode="soft", weights=(1,)):
        super().__init__()
        self.gamma = gamma
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, logits, labels):
        ce = functional.cross_entropy(logits, labels)
        return {"total": self.gamma * ce, "ce": ce}

    def update(self, logits, labels):
        self.steps += 1

"""
ATTACK_CODE = """\
import torch
from torch.nn import functional

def push(model, images, labels, *, eps, norm, alpha=0.01, steps=2, sign=True):
    assert norm == "linf" and (alpha, steps, sign) == (eps / 4, 3, False), (alpha, steps, sign)
    for _ in range(steps):
        images = images.detach().requires_grad_()
        loss = functional.cross_entropy(model(images), labels)
        images = (images + alpha * torch.autograd.grad(loss, images)[0].sign()).clamp(0, 1)
    return images

def free(model, images, labels, **everything):
    return images

def narrow(model, images, labels, *, eps):
    return images

def crowded(model, images):
    return images
"""
SUITE = """\
suite: x
dataset: {name: digits}
training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.1}}
models:
  - id: a
    architecture: mlp
    objective: {name: "own.code:Mine", gamma: 1/2, weights: [1/4, 2, x], adversary: {eps: 0.1}}
  - id: b
    architecture: mlp
    objective: {name: "own.code:Mine", adversary: {eps: 0.1}}
    matrix: {objective.gamma: [1, 2]}
pairs: [[a, b]]
attacks:
  - {name: "own.attacks:push", norm: linf, eps: [0.1, 0.2], alpha: eps/4, steps: 3, sign: false}
  - {name: "own.attacks:free", id: free, norm: l2, eps: 0.5, whatever: [eps/4, 1/4]}
evaluation: {limit: 20}
audit: off
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite with a package beside it; commands are run from elsewhere."""
    (tmp_path / "suites" / "own").mkdir(parents=True)
    (tmp_path / "suites" / "own" / "code.py").write_text(CODE)
    (tmp_path / "suites" / "own" / "attacks.py").write_text(ATTACK_CODE)
    (tmp_path / "suites" / "x.yaml").write_text(SUITE)
    return tmp_path / "suites"


def test_own_objectives_and_attacks_run_and_a_changed_file_makes_other_cells(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    results = folder.parent / "results" / "x"
    carried_out(folder / "x.yaml", results, folder.parent / "results.work" / "x")
    write_report(results)
    records = {name: record for name, record in contents(results).items() if name.startswith("a.")}
    (training,) = [record for record in records.values() if record["cell"]["kind"] == "train"]
    assert training["cell"]["objective"] == "own.code:Mine"
    declared = training["cell"]["declared"]["objective"]
    assert declared["parameters"] == {"gamma": 0.5, "mode": "soft", "weights": [0.25, 2, "x"]}
    assert declared["adversary"]["eps"] == 0.1
    assert training["curve"][0]["loss"]["total"] == pytest.approx(training["curve"][0]["loss"]["ce"] / 2)
    attacks = {(record["cell"]["attack"], record["cell"]["eps"]): record for record in records.values()}
    for eps in (0.1, 0.2):
        record = attacks["own.attacks.push", eps]
        assert record["cell"]["declared"]["attack"]["parameters"] == {"alpha": eps / 4, "steps": 3, "sign": False}
        assert (record["n"], record["forwards"], record["backwards"], record["outside"]) == (20, 60, 60, 0)
        assert record["accuracy"] < attacks["none", 0.0]["accuracy"]
    assert attacks["free", 0.5]["cell"]["declared"]["attack"]["parameters"] == {"whatever": [0.125, 0.25]}
    board = (results / "leaderboard.md").read_text()
    told = "own.code:Mine (gamma 0.5, mode soft, weights \\[0.25, 2, x\\], adversary method pgd_at, norm linf, eps 0.1"
    assert told in board
    assert "own.attacks:push (alpha 0.025 … 0.05, steps 3, sign no); linf, eps 0.1, 0.2" in board
    assert "5 cells: 5 done" in cli("plan", "suites/x.yaml", "--only", "a").stdout
    (folder / "own" / "attacks.py").write_text(ATTACK_CODE + "# another attack\n")
    assert "5 cells: 2 done, 3 to run" in cli("plan", "suites/x.yaml", "--only", "a").stdout
    (folder / "own" / "code.py").write_text(CODE + "# another objective\n")
    assert "5 cells: 5 to run" in cli("plan", "suites/x.yaml", "--only", "a").stdout


KNOWN = (
    "ce, cmic, label_smoothing, focal, squentropy, center, opl, lgm, cosface, ncmi_alone, cmi_over_gamma, "
    "package.module:name"
)
OBJECTIVES = [
    ('{name: "own.code:Min"}', ".name: {file} defines no Min; did you mean 'Mine'?"),
    (
        '{name: "own.kode:Mine"}',
        ".name: there is no module own.kode here: put it beside the suite, install it, or run from its folder",
    ),
    ('{name: "own.code:"}', ".name: should be written package.module:name, not 'own.code:'"),
    ('{name: "own.code:NUMBER"}', ".name: own.code:NUMBER should be a function or a class, not of type int"),
    (
        '{name: "own.broken:Mine"}',
        ".name: the module own.broken cannot be imported: SyntaxError: invalid syntax (broken.py, line 1)",
    ),
    ('{name: "own.leaves:Mine"}', ".gamma: own.leaves:Mine needs this parameter"),
    ('{name: "own.code:Mine"}', ".gamma: own.code:Mine needs this parameter"),
    (
        '{name: "own.code:Mine", gama: 1, gamma: 1}',
        ".gama: own.code:Mine has no such parameter; did you mean 'gamma'?",
    ),
    (
        '{name: "own.code:Mine", gamma: 1, adversery: {eps: 1}}',
        ".adversery: own.code:Mine has no such parameter; did you mean 'adversary'?",
    ),
    (
        '{name: "own.code:Mine", gamma: 1, adversary: {eps: 0.1, stepz: 1}}',
        ".adversary.stepz: unknown key; did you mean 'steps'?",
    ),
    ('{name: "own.code:Mine", gamma: 1, classes: 3}', ".classes: cannot be set: the training passes it"),
    ('{name: "own.code:Mine", gamma: .nan}', ".gamma: should be a finite number, not nan"),
    ('{name: "own.code:Mine", gamma: [1, 1/0]}', ".gamma: divides by zero"),
    (
        '{name: "own.code:Mine", gamma: {a: 1}}',
        ".gamma: should be a number, a word, true/false or a list of these, not a mapping",
    ),
    (
        '{name: "own.code:Mine", gamma: }',
        ".gamma: should be a number, a word, true/false or a list of these, not nothing",
    ),
    ("{name: Mine, gamma: 1}", ": unknown name 'Mine'; known here: " + KNOWN),
    ("{name: zzz}", ": unknown name 'zzz'; known here: " + KNOWN),
    ("{gamma: 1}", ": the key 'name' is missing"),
    ("ce", ": should be a mapping of keys to values, not 'ce'"),
]
ATTACKS = [
    ('{name: "own.attacks:push", eps: 0.1}', ".norm: this key is missing"),
    ('{name: "own.attacks:push", norm: linf}', ".eps: this key is missing"),
    ('{name: "own.attacks:push", norm: l1, eps: 0.1}', ".norm: should be 'linf' or 'l2', not 'l1'"),
    (
        '{name: "own.attacks:push", norm: linf, eps: 8}',
        ".eps: 8 is outside [0, 1], the range of the images; in pixel units? then write 8/255",
    ),
    (
        '{name: "own.attacks:push", norm: linf, eps: 0.1, step: 3}',
        ".step: own.attacks:push has no such parameter; did you mean 'steps'?",
    ),
    ('{name: "own.attacks:push", norm: linf, eps: 0.1, labels: 3}', ".labels: cannot be set: the harness passes it"),
    ('{name: "own.attacks:push", norm: linf, eps: 0.1, alpha: eps/0}', ".alpha: divides by zero"),
    (
        '{name: "own.attacks:narrow", norm: linf, eps: 0.1}',
        ".name: own.attacks:narrow cannot be called as narrow(model, images, labels, *, eps, norm, …): got an "
        "unexpected keyword argument 'norm'",
    ),
    (
        '{name: "own.attacks:crowded", norm: linf, eps: 0.1}',
        ".name: own.attacks:crowded cannot be called as crowded(model, images, labels, *, eps, norm, …): too "
        "many positional arguments",
    ),
    ('{name: "own.attacks:pusch", norm: linf, eps: 0.1}', ".name: {file} defines no pusch; did you mean 'push'?"),
    (
        '{name: "no_module:push", norm: linf, eps: 0.1}',
        ".name: there is no module no_module here: put it beside the suite, install it, or run from its folder",
    ),
    ("{name: Squar, norm: linf, eps: 0.1}", ".name: unknown attack 'Squar'; did you mean 'Square'?"),
]


def test_every_mistake_is_a_sentence_with_file_line_and_key(folder: Path, cli: Cli) -> None:
    """Each in a suite of its own would take minutes; a suite is told all of its mistakes at once."""
    (folder / "own" / "broken.py").write_text("class Mine(:\n")
    (folder / "own" / "leaves.py").write_text(f"{CODE}raise SystemExit(3)\n")
    files = folder / "own" / "code.py", folder / "own" / "attacks.py"
    lines, expected = [*SUITE.splitlines()[:3], "models:"], []
    for index, (text, sentence) in enumerate(OBJECTIVES):
        lines.append(f"  - {{id: m{index}, architecture: mlp, objective: {text}}}")
        expected.append(f"suites/y.yaml:{len(lines)}: models[{index}].objective{sentence.format(file=files[0])}")
    lines.append("attacks:")
    for index, (text, sentence) in enumerate(ATTACKS):
        lines.append(f"  - {{id: a{index}, {text[1:]}")
        expected.append(f"suites/y.yaml:{len(lines)}: attacks[{index}]{sentence.format(file=files[1])}")
    (folder / "y.yaml").write_text("\n".join(lines) + "\n")
    done = cli("validate", "suites/y.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines() == expected


SPIED = """\
suite: spied
dataset: {name: digits}
training: {epochs: 1, batch_size: 64, optimizer: {name: sgd, lr: 0.1}, limit: 128}
models:
  - {id: a, architecture: "spied.nets:build", objective: {name: "spied.code:Mine", gamma: 1}}
  - {id: b, architecture: mlp, objective: {name: ce}}
attacks:
  - {name: "spied.attacks:free", id: free, norm: l2, eps: 0.5}
evaluation: {limit: 20}
audit: off
"""


def test_validate_and_plan_run_nobodys_code_and_what_an_import_shows_fails_its_cell(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = folder / "touched"
    spy = f"from pathlib import Path\nPath({str(touched)!r}).touch()\n"
    net = "from torch import nn\n\ndef build(shape, classes):\n"
    net += "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    ends = {
        "__init__": "",
        "nets": net,
        "code": f"{CODE}import torhc\n",
        "attacks": f"{ATTACK_CODE}raise SystemExit(3)\n",
    }
    (folder / "spied").mkdir()
    for name, code in ends.items():
        (folder / "spied" / f"{name}.py").write_text(spy + code)
    (folder / "spied.yaml").write_text(SPIED)
    for command in ("validate", "plan"):
        done = cli(command, "suites/spied.yaml")
        assert done.returncode == 0, done.stderr
        assert not touched.exists(), command
    monkeypatch.syspath_prepend(folder)
    records = carried_out(folder / "spied.yaml", folder.parent / "made")
    assert touched.exists()
    reasons = {record.reason for record in records if record.status == "failed"}
    assert reasons >= {
        "spied.code:Mine failed for 10 classes: ModuleNotFoundError: No module named 'torhc' (code.py, line 22)",
        "spied.attacks:free cannot be imported: SystemExit: 3 (attacks.py, line 22)",
    }


@pytest.mark.parametrize(
    ("value", "eps", "expected"),
    [
        (3, None, 3), (0.5, None, 0.5), ("1/4", None, 0.25), (True, None, True), ("soft", None, "soft"),
        ("a/b", None, "a/b"), ([1, ["1/2"], "x"], None, [1, [0.5], "x"]), ("eps/4", None, "eps/4"),
        ("eps/4", 0.2, 0.05), (["2*eps"], 0.2, [0.4]), ("10", None, "10"),
    ],
)  # fmt: skip
def test_parameters_of_unknown_code(value: object, eps: float | None, expected: object) -> None:
    parsed = parse_parameter(value, eps)
    assert parsed == expected
    assert type(parsed) is type(expected)
