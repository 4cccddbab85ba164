"""Plans and records whose checksums fit and whose content does not: one sentence, no traceback, others are shown."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.records.files import read_json, write_json
from robustbench_cmic.records.store import PLAN_FILE
from tests.conftest import Cli

Change = Callable[[dict[str, Any]], object]


def alter(file: Path, change: Change) -> None:
    payload = read_json(file)
    change(payload)
    write_json(file, payload)


def no_training(plan: dict[str, Any]) -> None:
    plan["cells"] = [cell for cell in plan["cells"] if (cell["model"], cell["kind"]) != ("ce", "train")]


def declare(kind: str, declared: Any) -> Change:
    def change(plan: dict[str, Any]) -> None:
        for cell in plan["cells"]:
            if cell["kind"] == kind:
                cell["declared"] = declared

    return change


HOSTILE = [
    (no_training, "plan.json is damaged"),
    (declare("train", {}), "not of this version's making"),
    (declare("train", {"training": {}, "model": None}), "not of this version's making"),
    (declare("attack", {}), "not of this version's making"),
    (declare("attack", {"evaluation": [], "attack": 1}), "not of this version's making"),
    (lambda plan: plan.update(cells=[]), "not of this version's making"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_a_hostile_plan_is_told_in_one_sentence(copied: Path, cli: Cli, change: Change, message: str) -> None:
    folder = copied / "results" / "tiny"
    alter(folder / PLAN_FILE, change)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    for arguments in (("report", "tiny", "--format", "html", "--format", "md"), ("audit", "results/tiny"), ("report",)):
        done = cli(*arguments, cwd=copied)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda record: record["provenance"].update(versions=[1]), 2),
        # Not of the plan, and not of an evaluation that the command line limited: nothing is shown of it.
        (lambda record: record["cell"].update(id="x", declared={"evaluation": [1]}), 0),
    ],
)
def test_a_hostile_record_gives_no_traceback(copied: Path, cli: Cli, change: Change, code: int) -> None:
    folder = copied / "results" / "tiny"
    (file,) = folder.glob("ce.s0.FGSM*")
    alter(file, change)
    file.rename(folder / f"{read_json(file)['cell']['id']}.json")
    done = cli("report", "tiny", cwd=copied)
    assert done.returncode == code
    message = "results/tiny: its plan or records are not of this version's making; `run` the suite again\n"
    assert done.stderr == (message if code else "")


def test_one_bad_folder_spoils_no_other(copied: Path, cli: Cli) -> None:
    results = copied / "results"
    shutil.copytree(results / "tiny", results / "zbad")
    alter(results / "zbad" / PLAN_FILE, declare("train", {}))
    shutil.copytree(results / "tiny", results / "atorn")
    (results / "atorn" / PLAN_FILE).write_text("{")
    try:
        shutil.copytree(results / "tiny", results / os.fsdecode(b"no\xffname"))
    except OSError:
        pytest.skip("the file system takes names in UTF-8 only")
    for arguments in (("report", "--format", "html"), ("report", "tiny", "--quiet", "--format", "html")):
        (results / "index.html").unlink(missing_ok=True)
        done = cli(*arguments, cwd=copied)
        assert done.returncode == 1, done.stderr
        assert done.stdout.splitlines() == ["results/tiny/index.html", "results/index.html"]
        torn, unnamed, bad = done.stderr.splitlines()
        assert torn.startswith("results/atorn/plan.json is damaged")
        assert unnamed == "results/no?name: the name of the folder is not UTF-8; rename it"
        assert bad.startswith("results/zbad: its plan or records are not of this version's making")
        assert "./tiny/index.html" in (results / "index.html").read_text()
    for options in ((), ("--json",), ("--watch",)):
        done = cli("status", *options, cwd=copied)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "results/atorn/plan.json is damaged" in done.stderr
        assert "results/no?name" in done.stderr
        assert "results/tiny" in done.stdout
    assert cli("status", "atorn", cwd=copied).returncode == 2
