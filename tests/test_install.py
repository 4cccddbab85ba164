"""Installing: a current `requests` beside torchattacks, which asks for one of 2020, and the oldest versions allowed."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from robustbench_cmic.suite.signatures import installed_folder
from tests.conftest import ROOT, TINY_SUITE

CURRENT = "2.32"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SUITE = TINY_SUITE.replace("epochs: 2", "epochs: 1").replace(
    "  - {name: PGD, eps: 0.1, steps: 3}",
    "  - {name: PGDL2, eps: 0.5, steps: 2}\n  - {name: DIFGSM, eps: 0.1, steps: 2}",
)
LOOK = """
import requests, torchattacks
print(requests.__version__)
"""


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a current `requests`: that of `tox`, or else one that has it in front of the older one."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    if Version(importlib.metadata.version("requests")) >= Version(CURRENT):
        return environment
    folder = tmp_path_factory.mktemp("current")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), f"requests>={CURRENT}"]
    if subprocess.run([*pip, "urllib3>=2", "idna>=3"], capture_output=True).returncode != 0:
        pytest.skip("a current `requests` cannot be had without a network; tox installs one")
    return environment | {"PYTHONPATH": os.pathsep.join([str(folder), environment["PYTHONPATH"]])}


def test_everything_runs_beside_a_current_requests(tmp_path: Path, current: dict[str, str]) -> None:
    """torchattacks is imported and attacks, and a suite with two of its attacks is run to its end."""

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=current, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert Version(run("-c", LOOK).strip()) >= Version(CURRENT)
    (tmp_path / "tiny.yaml").write_text(SUITE)
    run("-m", "robustbench_cmic", "run", "tiny.yaml", "--jobs", "1")
    table = (tmp_path / "results" / "tiny" / "results.csv").read_text()
    assert len(re.findall(r"^tiny,.*,ok,", table, re.MULTILINE)) == 8, table
    told = dict(line.split(" ", 1) for line in run("-m", "robustbench_cmic", "--version", "--verbose").splitlines())
    assert Version(told["requests"]) >= Version(CURRENT)


def test_torchattacks_imports_no_requests() -> None:
    """Why the override is harmless: what it asks for it does not use."""
    imported = set()
    for file in installed_folder("torchattacks").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").partition(".")[0])
    assert {"torch", "numpy"} <= imported
    assert "requests" not in imported


def test_uv_is_told_to_override_what_torchattacks_asks_for() -> None:
    asked = [Requirement(line) for line in importlib.metadata.requires("torchattacks") or []]
    (pinned,) = (each for each in asked if each.name == "requests")
    (override,) = (Requirement(line) for line in PROJECT["tool"]["uv"]["override-dependencies"])
    assert (override.name, str(override.specifier)) == ("requests", f">={CURRENT}")
    assert not pinned.specifier.contains(CURRENT), "torchattacks asks for it no longer: the override can go"


AT_NEED = ("adv-lib", "foolbox", "pyarrow", "ray")
"""Nobody has to have them, and what they are for says so."""


def test_every_dependency_has_a_lower_bound_that_the_workflow_installs() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = [line for lines in (PROJECT["project"]["dependencies"], *extras) for line in lines]
    for requirement in map(Requirement, lines):
        assert [each.operator for each in requirement.specifier] == [">="], requirement
        here = importlib.metadata.version(requirement.name) if requirement.name not in AT_NEED else None
        assert here is None or requirement.specifier.contains(here), requirement
    assert "torch>=2.8" in lines
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]
    bounds = jobs["bounds"]
    assert [(each["python"], each["env"]) for each in bounds["strategy"]["matrix"]["include"]] == [
        ("3.11", "lowest"), ("3.13", "newest"),
    ]  # fmt: skip
    tox = (ROOT / "tox.ini").read_text()
    lowest = tox.partition("[testenv:lowest]")[2]
    assert "--resolution lowest-direct" in lowest.partition("[testenv:")[0]
    assert PROJECT["project"]["requires-python"] == ">=3.11"
