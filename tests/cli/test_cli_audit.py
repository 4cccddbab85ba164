"""The command line on a suite with strong attacks, transfers, ascending balls and an audit."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from robustbench_cmic.audit import RULES
from robustbench_cmic.report import read_results, summarize
from robustbench_cmic.report.tables import flags_text
from tests.conftest import Cli, command, contents

RICH = """\
suite: rich
dataset: {name: digits}
training: {epochs: 1, batch_size: 128, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: ce, architecture: mlp, objective: {name: ce}}
  - {id: cmic, architecture: mlp, objective: {name: cmic}}
pairs: [[ce, cmic]]
attacks:
  - {name: PGD, eps: [0.1, 0.05], steps: 4, ascending: true}
  - {name: AutoAttack, eps: 0.1, steps: 3, queries: 20, targets: 2}
  - {name: Noise, eps: 0.1, samples: 5}
  - {name: Transfer, eps: 0.1, steps: 4}
evaluation: {limit: 100}
audit: standard
"""
CELLS = 18
"""For each of two models: the training, the clean evaluation, 4 attacks, 2 transfers, the audit."""


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of the suite."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "rich.yaml").write_text(RICH)
    done = subprocess.run(
        command("run", "rich.yaml", "--jobs", 1), cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[{CELLS}/{CELLS}]" in done.stdout
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_cell_of_a_suite_with_strong_attacks_is_done(rich: Path) -> None:
    folder = rich / "results" / "rich"
    found = rows(folder)
    assert {(row["status"], row["n"]) for row in found} == {("ok", "100")}
    attacks = ["none", "PGD", "PGD", "AutoAttack", "Noise"]
    assert [row["attack"] for row in found] == attacks * 2 + ["Transfer:ce", "Transfer:cmic"] * 2
    accuracy = {(row["model"], row["attack"], row["eps"]): float(row["accuracy"]) for row in found}
    for model in ("ce", "cmic"):
        assert accuracy[model, "none", "0.0"] >= accuracy[model, "PGD", "0.05"] >= accuracy[model, "PGD", "0.1"]
        assert accuracy[model, "AutoAttack", "0.1"] < accuracy[model, "Noise", "0.1"]
    text = (folder / "leaderboard.md").read_text()
    for heading in ("Flags", "Transfer between models", "What attacks cost and add", "Parts of attacks"):
        assert f"## {heading}\n" in text
    assert set(RULES) >= {flag for row in found for flag in row["flags"].split(";") if flag}
    assert "few-examples" not in text
    for file in folder.glob("*.audit.*.json"):
        record = json.loads(file.read_text())
        assert record["status"] == "ok"
        assert len(record["positions"]) == 100
        assert [check["error"] for check in record["checks"] + record["active"]] == [""] * 18


def test_a_larger_ball_takes_over_what_a_smaller_one_broke(rich: Path) -> None:
    folder = rich / "results" / "rich"
    for model in ("ce", "cmic"):
        small, large = (
            json.loads(next(folder.glob(f"{model}.s0.PGD.linf.eps{eps}.*")).read_text()) for eps in ("0.05", "0.1")
        )
        assert large["inputs"] == {small["cell"]["id"]: small["images_sha256"]}
        assert (small["kept"], large["kept"]) == (0, round(100 * (1 - small["accuracy"])))
        assert large["forwards"] == 4 * (100 - large["kept"])


def test_a_second_run_has_nothing_to_do(rich: Path, cli_here: Cli) -> None:
    before = contents(rich / "results" / "rich")
    done = cli_here("run", "rich.yaml", cwd=rich)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"all {CELLS} cells are done already: nothing to run" in done.stdout
    assert contents(rich / "results" / "rich") == before


def test_audit_prints_the_flags_of_stored_results(rich: Path, cli_here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(rich / "results" / "rich", folder)
    before = (folder / "leaderboard.md").read_bytes()
    (folder / "leaderboard.md").unlink()
    done = cli_here("audit", "elsewhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == flags_text(summarize(read_results(folder)))
    assert "no-strong-attack" in done.stdout
    assert (folder / "leaderboard.md").read_bytes() == before
    next(folder.glob("ce.s0.audit.*")).write_text("{")
    again = cli_here("audit", "elsewhere")
    assert again.returncode == 1
    assert "left out: its record is corrupt: not whole JSON" in again.stderr
    assert "not-audited" in again.stdout


def test_audit_of_no_results_is_one_sentence(tmp_path: Path, cli_here: Cli) -> None:
    done = cli_here("audit", "results/missing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "results/missing holds no results: there is no plan.json in it; `run` the suite first\n"
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_altered_adversarial_examples_are_set_aside_and_made_again(rich: Path, cli_here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    shutil.copytree(rich, folder)
    expected = contents(folder / "results" / "rich")
    work = folder / "results.work" / "rich"
    file = next(work.glob("ce.s0.PGD.linf.eps0.05.*.images.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    next((folder / "results" / "rich").glob("ce.s0.PGD.linf.eps0.1.*")).unlink()
    done = cli_here("run", "rich.yaml", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "its adversarial examples are not the recorded ones (the file's hash differs); set aside as" in done.stdout
    assert f"2 of {CELLS} cells to run" in done.stdout
    assert (work / "set-aside" / f"{file.name}.1").is_file()
    assert contents(folder / "results" / "rich") == expected


def test_toy_size_of_it_runs_too(cli_here: Cli, tmp_path: Path) -> None:
    (tmp_path / "rich.yaml").write_text(RICH)
    done = cli_here("run", "rich.yaml", "--toy")
    assert done.returncode == 0, done.stdout + done.stderr
    found = rows(tmp_path / "results" / "rich-toy")
    assert {(row["status"], row["n"]) for row in found} == {("ok", "16")}
    assert all("few-examples" in row["flags"] for row in found if row["attack"] != "none")


def test_mistakes_in_attacks_and_audit_get_a_sentence_each(cli_here: Cli, tmp_path: Path) -> None:
    text = RICH.replace("audit: standard", "audit: paranoid").replace("queries: 20", "queries: 0")
    text = text.replace("name: Transfer,", "name: Transfer, sources: nobody,")
    text = text.replace("ascending: true", "ascending: true, targets: -1, schedule: exponential")
    (tmp_path / "bad.yaml").write_text(text)
    done = cli_here("run", "bad.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "bad.yaml:9: attacks[0].targets: should be at least 0, not -1",
        "bad.yaml:9: attacks[0].schedule: should be 'constant', 'linear' or 'cosine', not 'exponential'",
        "bad.yaml:10: attacks[1].queries: should be at least 1, not 0",
        "bad.yaml:12: attacks[3].sources: should be 'all' or 'pairs', not 'nobody'",
        "bad.yaml:14: audit: should be 'strict', 'standard' or 'off', not 'paranoid'",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["bad.yaml"]
