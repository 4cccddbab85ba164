"""Fixtures shared by all tests: the real command line, and one finished run of the smoke suite."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_cmic.run.executors import EXECUTORS

ROOT = Path(__file__).resolve().parents[1]

TINY_SUITE = """\
suite: tiny
dataset: {name: digits}
training: {epochs: 2, batch_size: 128, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: ce, architecture: mlp, objective: {name: ce}}
  - {id: cmic, architecture: mlp, objective: {name: cmic}}
pairs: [[ce, cmic]]
attacks:
  - {name: FGSM, eps: 0.1}
  - {name: PGD, eps: 0.1, steps: 3}
audit: off
"""

QUICK = {
    "attacks/test_losses.py", "attacks/test_threat.py", "audit/test_rules.py", "cli/test_cli_version.py",
    "data/test_subset.py", "information/test_extremes.py", "models/test_layout.py", "objectives/test_objectives.py",
    "plan/test_plan.py", "records/test_record.py", "report/test_power.py", "report/compare/test_verdicts.py",
    "run/test_job.py", "run/watch/test_progress.py", "suite/test_reader.py", "suite/test_signatures.py",
    "test_quick.py", "test_statistics.py", "training/test_schedule.py",
}  # fmt: skip
"""Files of `pytest -m quick`: some of every package that together take well under a minute on two cores."""

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def readme_block(start: str) -> str:
    """The indented block of the README that begins with a line."""
    readme = (ROOT / "README.md").read_text()
    (found,) = re.findall(rf"^(    {re.escape(start)}.*\n(?:    .*\n|\n(?=    ))*)", readme, re.MULTILINE)
    return textwrap.dedent(found)


def _within_tests(path: Path) -> str:
    """A path as QUICK has it; what is not among the tests is given in full."""
    tests = ROOT / "tests"
    return path.relative_to(tests).as_posix() if path.is_relative_to(tests) else str(path)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For the quick tests the others are not even imported, which would take longer than they do."""
    others = collection_path.is_file() and _within_tests(collection_path) not in QUICK
    return True if config.option.markexpr == "quick" and others else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _within_tests(item.path) in QUICK:
            item.add_marker("quick")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _modules_of_a_test_are_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test writes and imports, in its own process, is not what the next one of the same name gets."""
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for name, module in sys.modules.copy().items():
        places = [vars(module).get("__file__"), *vars(module).get("__path__", ())]
        if any(str(place).startswith(folder) for place in places):
            del sys.modules[name]
    importlib.invalidate_caches()


def command(*arguments: object) -> list[str]:
    """The command line of the package, as a user types it."""
    return [sys.executable, "-m", "robustbench_cmic", *map(str, arguments)]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs the real command line in a folder of its own; returns exit code and output.

    One worker process unless a test asks for more: the tests themselves run in parallel.
    """

    def run(*arguments: object, cwd: Path = tmp_path, timeout: float = 300, prefix: tuple[str, ...] = ()) -> Any:
        environment = {**os.environ, "COLUMNS": "120"}
        if arguments[0] == "run" and "--jobs" not in arguments:
            arguments = (*arguments, "--jobs", 1)
        return subprocess.run(
            [*prefix, *command(*arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
        )

    return run


@pytest.fixture
def cli_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """As `cli`, in this process, in which cells are carried out, too: for what is computed, recorded and said.

    Starting the command and its worker takes longer than all that most tests compute.
    """
    from tests.in_process import command_here

    monkeypatch.setitem(EXECUTORS, "local", "tests.in_process:InProcess")

    def run(*arguments: object, cwd: Path = tmp_path) -> Any:
        return command_here(*arguments, cwd=cwd)

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A suite of seconds, in a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_SUITE)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of the tiny suite: `tiny.yaml`, `results/tiny`, `results.work/tiny`."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY_SUITE)
    done = subprocess.run(command("run", "tiny.yaml"), cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of `finished` that a test may damage."""
    folder = tmp_path / "copied"
    shutil.copytree(finished, folder)
    return folder


def contents(folder: Path) -> dict[str, Any]:
    """All records of a results folder without what differs between equal runs: timings, and the checksum over them.

    Nor the commit: a command in a process of its own may import the installed package, which knows none, and one in
    this process the clone.
    """
    found = {}
    for file in sorted(folder.glob("*.json")):
        payload = json.loads(file.read_text())
        payload.pop("timing", None)
        payload.pop("sha256")
        for key in ("commit", "dirty"):
            payload.get("provenance", {}).pop(key, None)
        found[file.name] = payload
    return found
