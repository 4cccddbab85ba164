"""`pytest -m quick`: what it chooses, and that it looks into every package."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import QUICK, ROOT

PACKAGES = sorted(path.parent.name for path in (ROOT / "robustbench_cmic").glob("*/__init__.py"))


def test_every_package_has_a_quick_file_and_every_quick_file_is_there() -> None:
    assert len(PACKAGES) > 10
    assert set(PACKAGES) <= {name.split("/")[0] for name in QUICK}
    assert [name for name in QUICK if not (ROOT / "tests" / name).is_file()] == []


@pytest.mark.parametrize("folders", [["tests/plan", "tests/cli", "robustbench_cmic/statistics.py"]])
def test_the_marker_chooses_these_files_and_no_others(folders: list[str]) -> None:
    """Of two packages: collecting imports what is collected, which takes seconds for all of them."""
    environment = {**os.environ, "COLUMNS": "200"}
    collect = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", "-m", "quick"]
    lenient = ["-o", "filterwarnings=default"]  # old libraries warn of newer ones beside them
    done = subprocess.run([*collect, *lenient, *folders], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}
    expected = {f"tests/{name}" for name in QUICK if name.startswith(("plan/", "cli/"))}
    assert chosen == expected
