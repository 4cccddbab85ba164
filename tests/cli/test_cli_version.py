"""`--version`, and what it says is installed: one list, shared with what records hold."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import tomllib
from pathlib import Path

import torch

from robustbench_cmic import __version__
from robustbench_cmic.records.provenance import FURTHER, PACKAGES, collect, installed
from tests.conftest import ROOT
from tests.in_process import command_here


def test_verbose_says_what_is_installed(tmp_path: Path) -> None:
    done = command_here("--version", "--verbose", cwd=tmp_path)
    assert done.returncode == 0
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert told == installed()
    assert told["python"] == platform.python_version()
    assert told["robustbench_cmic"] == __version__
    assert told["cuda"] == (torch.version.cuda or "none")
    assert told["package"] == str(ROOT / "robustbench_cmic")
    for name in ("torch", "torchvision", "torchattacks", "timm", "requests", "urllib3"):
        assert told[name] == importlib.metadata.version(name)


def test_it_is_what_records_hold_and_every_dependency() -> None:
    recorded = collect()["versions"]
    assert list(recorded) == ["python", *PACKAGES]
    assert {name: installed()[name] for name in recorded} == recorded
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split("[><=]", line)[0] for line in project["dependencies"]}
    assert declared <= {*PACKAGES, *FURTHER}


def test_verbose_alone_is_refused(tmp_path: Path) -> None:
    for arguments in (["--verbose"], ["--verbose", "list"]):
        done = command_here(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "--verbose: goes with --version, and says what is installed\n"
