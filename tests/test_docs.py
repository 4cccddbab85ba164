"""The documentation: every command in it runs, every key and flag is in it, links and navigation are whole."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_cmic.audit import RULES
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.select import select
from robustbench_cmic.report.metrics import COLUMNS
from robustbench_cmic.run.executors import EXECUTORS
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.schema import suite_json_schema
from tests.conftest import ROOT, TINY_SUITE, readme_block
from tests.in_process import command_here

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
INSTALLED = {"pip install -e .", "pip install tox", "tox", "pip install robustbench_cmic[tensorboard]"}
INSTALLED |= {"pip install --upgrade requests urllib3 idna", "pip install --no-deps torchattacks"}
INSTALLED |= {"pip install -e .[ray]"}
INSTALLED |= {"pip install -e . -c constraints.txt", "pip install robustbench_cmic[table]"}
"""What the continuous integration, or the environment that these tests run in, has done."""


def written(page: Path) -> list[str]:
    """The commands of a page as one types them: lines of its bash blocks, of indented blocks, and inline ones."""
    text = page.read_text().replace("\\\n", " ")
    lines = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    lines += re.findall(r"^ {4}((?:pip|python -m|robustbench-cmic) .*)$", text, re.MULTILINE)
    lines += re.findall(r"`((?:pip install|python -m robustbench_cmic|robustbench-cmic) [^`]+)`", text)
    parts = [part.split(" #")[0].strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part and not part.startswith("#")]


def small(suite: Path) -> str:
    """A suite of seconds that goes by the name of another, with two of its models, which commands may ask for."""
    first, second = [model.id for model in load_suite(suite).suite.models][:2]
    text = TINY_SUITE.replace("suite: tiny", f"suite: {suite.stem}").replace("[[ce, cmic]]", f"[[{first}, {second}]]")
    return text.replace("id: cmic,", f"id: {second},").replace("id: ce,", f"id: {first},")


def weights_of_my_model() -> dict[str, torch.Tensor]:
    """Of the README's own model on the digits: constant, so that every image is of class 0 whatever is done to it."""
    names = {"1": (64, 64), "3": (10, 64)}
    weights = {f"{place}.weight": torch.zeros(shape) for place, shape in names.items()}
    return weights | {"1.bias": torch.zeros(64), "3.bias": torch.arange(10, 0, -1.0)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone looks like to a reader, with suites that take seconds and the results of one."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "suites").mkdir()
    for suite in (ROOT / "suites").glob("*.yaml"):
        (folder / "suites" / suite.name).write_text(small(suite))
    for name, start in (("my_model.py", "import math"), ("mine.yaml", "suite: mine")):
        (folder / name).write_text(readme_block(start).replace("epochs: 10", "epochs: 1"))
    torch.save(weights_of_my_model(), folder / "theirs.pth")
    (folder / "photos").mkdir()
    for name in ("digits", "mnist-lite"):
        run(f"python -m robustbench_cmic run suites/{name}.yaml", folder)
    return folder


def run(command: str, folder: Path) -> None:
    """In this process, cells too; `cli/test_cli.py` does as a shell does."""
    words = shlex.split(command)
    words = words[3:] if words[0] == "python" else [*words[1:], "--dry-run"]  # by name: a shipped suite, of minutes
    words += ["--examples", "10", "--budget", "quick"] if words[0] == "evaluate" else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EXECUTORS, "local", "tests.in_process:InProcess")
        done = command_here(*words, cwd=folder)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_every_command_runs(clone: Path) -> None:
    """In the order in which they are read, page after page."""
    commands = list(dict.fromkeys(part for page in PAGES if page.name != "extending.md" for part in written(page)))
    assert len(commands) > 10
    for command in commands:
        if command.replace('"', "") not in INSTALLED and not command.startswith("python -m tests."):
            run(command, clone)
    assert (clone / "mine" / "digits" / "index.html").is_file()


def test_commands_ask_shipped_suites_for_what_is_in_them() -> None:
    asked = []
    for page in PAGES:
        for words in map(shlex.split, written(page)):
            files = [ROOT / word for word in words if word.startswith("suites/")]
            only = [words[place + 1] for place, word in enumerate(words) if word == "--only"]
            if files and only:
                (file,) = files
                asked.append(select(make_plan(load_suite(file).suite), only=only))  # raises where nothing matches
    assert len(asked) > 1


def properties(schema: Any) -> set[str]:
    """Every key that a suite may hold, at any depth."""
    found: set[str] = set()
    if isinstance(schema, dict):
        found |= set(schema.get("properties", {}))
        for value in schema.values():
            found |= properties(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= properties(value)
    return found


def test_every_key_of_a_suite_is_explained() -> None:
    text = (ROOT / "docs" / "suite.md").read_text()
    code = " ".join(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
    missing = {key for key in properties(json.loads(suite_json_schema())) if not re.search(rf"\b{key}\b", code)}
    assert missing == set()


def test_every_flag_and_column_is_explained() -> None:
    table = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "audit.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(RULES)
    columns = (ROOT / "docs" / "definitions.md").read_text().split("## Columns")[1]
    assert [name for name in re.findall(r"`(\w+)`", columns.split("|:--|:--|")[1]) if name in COLUMNS] == [
        *COLUMNS[: COLUMNS.index("status") + 1], *COLUMNS[COLUMNS.index("status") + 1 :],
    ]  # fmt: skip


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    mkdocs = shutil.which("mkdocs")
    assert mkdocs is not None, "it comes with the extra `dev`"
    command = [mkdocs, "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "suite" / "index.html").is_file()
