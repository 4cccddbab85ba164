"""The command that a page shows beside a number: it is a command, it asks for that number, and it overwrites none."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.report import read_results, summarize
from robustbench_cmic.report.folder import claimed
from robustbench_cmic.report.formats.html.numbers import AGAIN, RECORD, all_numbers
from robustbench_cmic.suite import load_suite, shipped_suites
from robustbench_cmic.suite.toy import toy
from tests.conftest import Cli
from tests.report.folders import HEAD, cell_of, fill, planned, replace
from tests.report.hostile import BAD, hostile

SUITE = f"{HEAD}attacks:\n  - {{name: FGSM, eps: [0.1, 8/255]}}\n  - {{name: Transfer, eps: 0.1, steps: 5}}\n"


def outcome(cell: Cell) -> list[bool] | None:
    return [True, True, False, True] if cell.kind == "attack" else None


def commands(folder: Path) -> dict[str, str]:
    """What is shown beside each number, by the id of its record's cell."""
    entries, facts = all_numbers(summarize(read_results(folder)))
    origins = [dict(facts[place] for place in entry["facts"]) for entry in entries]
    return {origin[RECORD].removesuffix(".json"): origin[AGAIN] for origin in origins}


def arguments(command: str) -> list[str]:
    program, *words = shlex.split(command)
    assert (program, words[:3]) == ("python", ["-m", "robustbench_cmic", "run"])
    return words[2:]


def made(tmp_path: Path, *plans: Plan) -> Path:
    """A folder where `run` would find all results done, were it not told to put them elsewhere."""
    (tmp_path / "results").mkdir()
    for plan in reversed(plans):
        folder = fill(tmp_path / "results" / plans[0].suite, plan, outcome)
    return folder


def check(cli: Cli, command: str, cell: Cell) -> None:
    """The command plans one cell with what it depends on, as if nothing had been run yet, and forces nothing."""
    assert "--force" not in command
    done = cli(*arguments(command), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    _, _, *rows, _, total = done.stdout.splitlines()
    assert {row.split()[-1] for row in rows} == {cell.id, *cell.dependencies}
    assert total.endswith(f": {len(rows)} to run")


def test_a_suite_that_comes_along_is_called_by_its_name(tmp_path: Path, cli: Cli) -> None:
    plan = make_plan(load_suite(shipped_suites()["smoke"]).suite)
    folder = made(tmp_path, plan)
    found = commands(folder)
    assert set(found) == {cell.id for cell in plan.of("attack")}
    cell = cell_of(plan, "cnn-cmic", 0, "PGD")
    assert found[cell.id] == f"python -m robustbench_cmic run smoke --only {cell.id} --results mine"
    check(cli, found[cell.id], cell)


def test_any_other_suite_is_called_by_its_file(tmp_path: Path, cli: Cli) -> None:
    plan = planned(tmp_path, SUITE)
    folder = made(tmp_path, plan)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    cell = cell_of(plan, "b", 1, "Transfer:a")
    command = commands(folder)[cell.id]
    assert command == f"python -m robustbench_cmic run made.yaml --only {cell.id} --results mine"
    check(cli, command, cell)
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_a_training_that_diverged_is_run_again_itself(tmp_path: Path, cli: Cli) -> None:
    plan = planned(tmp_path, SUITE)
    folder = made(tmp_path, plan)
    training = cell_of(plan, "a", 2, "train")
    replace(folder, training, status="diverged")
    check(cli, commands(folder)[training.id], training)


@pytest.mark.parametrize("at_toy_size", [False, True])
def test_a_limit_and_toy_size_are_asked_for_again(tmp_path: Path, cli: Cli, at_toy_size: bool) -> None:
    planned(tmp_path, SUITE)
    suite = load_suite(tmp_path / "made.yaml").suite
    suite = toy(suite) if at_toy_size else suite
    plan, limited = make_plan(suite), make_plan(suite, limit=4)
    folder = made(tmp_path, plan, limited)
    found = commands(folder)
    assert {cell for cell in found if "--limit 4 " in found[cell]} == {cell.id for cell in limited.of("attack")}
    assert {"--toy" in command for command in found.values()} == {at_toy_size}
    for one in (plan, limited):
        cell = cell_of(one, "b", 0, "FGSM", 0.1)
        check(cli, found[cell.id], cell)


def test_a_suite_whose_name_only_looks_like_toy_size_is_called_by_its_own_file(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace("suite: made", "suite: made-toy"))
    found = commands(made(tmp_path, plan))
    assert {shlex.split(command)[4] for command in found.values()} == {"made-toy.yaml"}


@pytest.mark.parametrize(
    ("settings", "name", "at_toy_size"),
    [
        ([], None, False),
        (["training.limit=64", "attacks.0.eps=[0.1, 8/255]"], None, False),
        (["training.limit=64"], "mine", False),
        (["training.limit=64"], "made", False),
        ([], "mine", False),
        (["training.epochs=2"], None, True),
        (["training.epochs=2"], "mine-toy", True),
    ],
)
def test_what_set_and_as_had_changed_is_changed_again(
    tmp_path: Path, cli_here: Cli, settings: list[str], name: str | None, at_toy_size: bool
) -> None:
    """The command is carried out beside the file, which has a name of its own: it makes that cell of that suite."""
    file = tmp_path / "suites" / "other.yaml"
    file.parent.mkdir()
    file.write_text(SUITE.replace("epochs: 1,", "epochs: 1, limit: 80,"))
    suite = load_suite(file, settings=settings, name=name).suite
    plan = make_plan(toy(suite) if at_toy_size else suite)
    folder = tmp_path / "results" / plan.suite
    folder.parent.mkdir()
    fill(folder, claimed(folder, plan, file), outcome)
    cell = cell_of(plan, "a", 0, "none")
    done = cli_here(*arguments(commands(folder)[cell.id]), cwd=file.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    made_again = {path.name for path in (file.parent / "mine" / plan.suite).glob("*.s0.*.json")}
    assert made_again == {f"{cell.id}.json", f"{cell.needs}.json"}


def test_commands_are_quoted_for_a_shell(tmp_path: Path) -> None:
    _, facts = all_numbers(hostile(tmp_path))
    command = next(text for label, text in facts if label == AGAIN)
    words = subprocess.run(
        ["sh", "-c", f'set -- {command}; printf \'%s\\n\' "$5" "$7" "$9"'], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert words[0] == f"{BAD}.yaml"
    assert words[1].endswith(BAD)
    assert words[2] == "mine"
