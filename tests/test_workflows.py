"""The workflows and the page on nightly runs: they parse, and name only commands, options and suites that there are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from robustbench_cmic.cli import app
from robustbench_cmic.report.compare.certificate import VERDICTS
from robustbench_cmic.report.compare.history import HISTORY_COLUMNS
from robustbench_cmic.suite import shipped_suites
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PAGE = ROOT / "docs" / "nightly.md"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OWN = ("compare", "reproduce")
"""The commands whose options are checked, too."""


def jobs(file: Path) -> dict[str, Any]:
    found = yaml.safe_load(file.read_text())
    assert found[True], "`on` is a truth value in YAML"
    jobs = found["jobs"]
    assert isinstance(jobs, dict)
    return jobs


def invocations(text: str) -> Iterator[list[str]]:
    """The arguments of every call of the command line in a text."""
    for call in re.findall(
        r"(?:python -m robustbench_cmic|robustbench-cmic) +(.*?)(?:\|\||&&|>|#|$)", text, re.MULTILINE
    ):
        yield shlex.split(call)


def check(arguments: list[str]) -> None:
    command, *rest = arguments
    assert command in COMMANDS, arguments
    known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
    if command in OWN:
        assert {part for part in rest if part.startswith("--")} <= known, arguments
    if command in ("run", "reproduce", "validate"):
        name = rest[0].removeprefix("suites/").removesuffix(".yaml")
        assert name == "$SUITE" or name in shipped_suites(), arguments


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflows_parse_and_call_what_there_is(file: Path) -> None:
    for job in jobs(file).values():
        called = job.get("uses")
        assert (called is None) != ("steps" not in job)
        if called is not None:
            assert (ROOT / called).is_file()
        for suite in (*job.get("strategy", {}).get("matrix", {}).get("suite", []), job.get("with", {}).get("suite")):
            assert suite is None or suite in shipped_suites() or suite == "${{ matrix.suite }}"
        for step in job.get("steps", []):
            for arguments in invocations(step.get("run", "")):
                check(arguments)


def test_the_nightly_run_reproduces_and_the_release_checks() -> None:
    assert jobs(ROOT / ".github/workflows/nightly.yml")["cpu"]["strategy"]["matrix"]["suite"] == [
        "digits",
        "mnist-lite",
    ]
    text = (ROOT / ".github/workflows/reproduce.yml").read_text()
    assert [arguments[:2] for arguments in invocations(text)] == [["reproduce", "$SUITE"]]
    assert "steps.reproduce.outputs.code == '3'" in text
    release = [step.get("run", "") for step in jobs(ROOT / ".github/workflows/release.yml")["build"]["steps"]]
    assert "twine check --strict dist/*" in release


def test_the_page_on_nightly_runs_is_right() -> None:
    text = PAGE.read_text()
    blocks = re.findall(r"^```(?:bash|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    calls = [arguments for block in blocks for arguments in invocations(block)]
    assert len(calls) >= 5
    for arguments in calls:
        check(arguments)
    for name in (*HISTORY_COLUMNS, *VERDICTS):
        assert f"`{name}`" in text
