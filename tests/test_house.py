"""The state of the house: what may import torch, sizes of files, cycles, what the wheel carries, what people type."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from robustbench_cmic.data import load_data
from robustbench_cmic.data.digits import TRAIN_EXAMPLES
from robustbench_cmic.plan import make_plan
from robustbench_cmic.report import write_report
from robustbench_cmic.resume import standings
from robustbench_cmic.suite import load_suite
from tests.attacks.nets import convolutional, examples
from tests.conftest import ROOT

PACKAGE = ROOT / "robustbench_cmic"
README = (ROOT / "README.md").read_text()
FILES = sorted(PACKAGE.rglob("*.py"))


TORCH_FREE = ["suite", "plan", "record", "report", "audit", "resume", "run", "cli", "execute"]
TORCH_FREE += ["events", "status", "status_text", "pictures", "curves"]
TORCH_FREE += ["cli.comparing", "reproduction.compare_text", "reproduction.rerun", "reproduction.trend"]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_what_is_left_and_right_of_computing_does_not_import_torch(module: str) -> None:
    code = f"import sys, robustbench_cmic.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_no_file_over_300_lines() -> None:
    assert [file for file in FILES if len(file.read_text().splitlines()) > 300] == []


def imported(file: Path) -> set[Path]:
    """Files of the package that a file imports when it is itself imported."""
    tree = ast.parse(file.read_text())
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    found = set()
    for name in names:
        path = ROOT.joinpath(*name.split("."))
        found |= {path.with_suffix(".py"), path / "__init__.py"} & set(FILES)
    return found


def test_no_import_cycle() -> None:
    graph = {file: imported(file) for file in FILES}
    assert graph[PACKAGE / "run.py"] > {PACKAGE / "plan.py", PACKAGE / "record.py"}
    settled: set[Path] = set()
    while len(settled) < len(graph):
        free = {file for file in graph if file not in settled and graph[file] <= settled}
        assert free, f"cycle among {sorted(str(f) for f in graph if f not in settled)}"
        settled |= free


def test_the_report_never_reaches_the_computing_side() -> None:
    computing = {"train", "carry_out", "cells", "worker", "checkpoint", "information", "attacks", "objectives", "run"}
    computing |= {"information_bootstrap", "probe", "adversary"}
    for file in [*(PACKAGE / "report").glob("*.py"), *(PACKAGE / "audit").glob("*.py")]:
        parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in imported(file)}
        assert not parts & computing, file


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn import datasets

    bunch = datasets.load_digits()
    data = load_data({"name": "digits"}, ROOT)
    assert isinstance(data.train.images, np.ndarray)
    assert isinstance(data.test.images, np.ndarray)
    assert (data.train.images * 16 == bunch.images[:TRAIN_EXAMPLES, None]).all()
    assert (data.test.images * 16 == bunch.images[TRAIN_EXAMPLES:, None]).all()
    assert (data.train.labels == bunch.target[:TRAIN_EXAMPLES]).all()
    assert (data.test.labels == bunch.target[TRAIN_EXAMPLES:]).all()
    assert (data.train.images.min(), data.train.images.max()) == (0.0, 1.0)


def test_readme_gives_the_two_commands_and_names_every_file_of_the_package() -> None:
    text = README
    assert "pip install -e . && python -m robustbench_cmic run suites/digits.yaml" in text
    assert "pip install tox && tox" in text
    for entry in PACKAGE.iterdir():
        if entry.suffix == ".py" and not entry.name.startswith("__"):
            assert re.search(rf"\b{re.escape(entry.name)}\b", text), entry.name
        elif entry.is_dir() and not entry.name.startswith("__"):
            assert f"{entry.name}/" in text, entry.name


COMMITTED = sorted(path.name for path in (ROOT / "results").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_results_are_of_the_committed_suite_and_whole(tmp_path: Path, name: str) -> None:
    """Every planned cell has a sound record, and the tables are those that the records give."""
    folder = tmp_path / name
    shutil.copytree(ROOT / "results" / name, folder)
    plan = make_plan(load_suite(ROOT / "suites" / f"{name}.yaml").suite)
    assert {standing.state for standing in standings(plan.cells, folder).values()} == {"done"}
    before = {name: (folder / name).read_bytes() for name in ("plan.json", "results.csv", "leaderboard.md")}
    results = write_report(folder).results
    assert results.plan == plan
    assert results.problems == []
    assert {name: (folder / name).read_bytes() for name in before} == before
    dirty = [record.cell.id for record in results.records.values() if record.provenance["dirty"] is not False]
    assert dirty == [], "committed evidence comes from committed code"


def test_example_for_users_in_the_readme_runs() -> None:
    (block,) = re.findall(r"((?:    .*\n|\n)*?    from robustbench_cmic.attacks.pgd.*\n(?:    .*\n|\n)+)", README)
    names = {"model": convolutional(), "images": examples(8)[0], "labels": examples(8)[1]}
    exec(textwrap.dedent(block), names)


def test_suites_in_the_readme_are_valid(tmp_path: Path) -> None:
    head = "suite: x\ndataset: {name: digits}\ntraining: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}\n"
    (further,) = re.findall(r"^    models:\n      - \{id: ce,(?:.*\n)+?(?=\n)", README, re.MULTILINE)
    file = tmp_path / "x.yaml"
    file.write_text(head + textwrap.dedent(further))
    loaded = load_suite(file)
    assert loaded.warnings == []
    assert len(loaded.suite.pairs) == 4
    shipped = "\n".join((ROOT / "suites" / "digits.yaml").read_text().splitlines()[1:])
    assert textwrap.indent(shipped, "    ") in README


def test_examples_of_data_and_models_in_the_readme_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = "training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}\n"
    datasets = re.findall(r"^\| `(\{name: .*?\})`", README, re.MULTILINE)
    models = re.findall(r"^    models:\n      - \{id: (?:mine|theirs),(?:.*\n)+?(?=\n)", README, re.MULTILINE)
    assert (len(datasets), len(models)) == (4, 2)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_module.py").write_text("def build(shape, classes): ...\n")
    (tmp_path / "theirs-s0.safetensors").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "x.yaml"
    for dataset in datasets:
        for model in models:
            file.write_text(f"suite: x\ndataset: {dataset}\n{training}{textwrap.dedent(model)}")
            assert load_suite(file).warnings == []


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar100-lite"])
def test_readme_tables_are_those_of_the_committed_leaderboards(name: str) -> None:
    """Of every suite the README shows rows of the first pair's table, word for word, worst cases among them."""
    assert name in COMMITTED
    board = (ROOT / "results" / name / "leaderboard.md").read_text()
    table = re.search(r"(\| attack .*?)\n\n", board, re.DOTALL)
    assert table is not None
    rows = [row for row in table[1].splitlines() if row in README]
    assert len(rows) >= 8
    assert any("**worst case**" in row for row in rows)
    shown = re.search(rf"^### .*?`{name}`.*?\n(.*?)(?=^##)", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert [row for row in shown[1].splitlines() if row.startswith("|") and row not in rows] == []
