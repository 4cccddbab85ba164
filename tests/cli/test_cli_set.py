"""`--set` and `--as` on the command line: a run of a changed suite, in a folder of its own, that says what it is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import Cli

NAME = "tiny+training.epochs=1"


def test_a_changed_run_has_its_own_folder_says_what_was_set_and_is_found_by_it(copied: Path, cli_here: Cli) -> None:
    before = {file.name: file.read_bytes() for file in (copied / "results" / "tiny").glob("*.*")}
    done = cli_here("run", "tiny.yaml", "--set", "training.epochs=1", "--only", "none", cwd=copied)
    assert f"results/{NAME}/leaderboard.md" in done.stdout.splitlines()
    assert "; changed by --set: training.epochs=1" in " ".join(done.stdout.split())
    folder = copied / "results" / NAME
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["suite"], plan["file_name"], plan["changes"]) == (NAME, "tiny", ["training.epochs=1"])
    _, run = (folder / "leaderboard.md").read_text().split("## What was run")
    assert "- changed by --set: training.epochs=1\n- training: epochs 1," in run
    assert {file.name: file.read_bytes() for file in (copied / "results" / "tiny").glob("*.*")} == before
    planned = cli_here("plan", "tiny.yaml", "--set", "training.epochs=1", cwd=copied).stdout
    assert planned.startswith(f"{NAME}: tiny.yaml, changed by --set: training.epochs=1\n")
    assert re.search(r"8 cells: 4 done, 4 to run$", planned.strip())
    for command in ("report", "status"):
        found = cli_here(command, "tiny.yaml", "--set", "training.epochs=1", cwd=copied)
        assert (found.returncode, found.stderr, NAME in found.stdout) == (0, "", True)
        other = cli_here(command, "tiny.yaml", "--set", "training.epochs=4", cwd=copied)
        assert (other.returncode, "there is no plan.json in it" in other.stderr) == (2, True)


def test_another_name_is_given_and_is_no_other_suite_s(copied: Path, cli_here: Cli) -> None:
    options = ("--set", "attacks.PGD.steps=2", "--as", "short", "--only", "PGD")
    shutil.copytree(copied / "results" / "tiny", copied / "results" / "short")
    shutil.copytree(copied / "results.work" / "tiny", copied / "results.work" / "short")
    planned = cli_here("plan", "tiny.yaml", "--set", "attacks.PGD.steps=2", "--as", "short", cwd=copied).stdout
    assert "8 cells: 6 done, 2 to run" in planned, "what is the same keeps its id"
    done = cli_here("run", "tiny.yaml", *options, "--quiet", cwd=copied)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "results/short/leaderboard.md"
    (copied / "short.yaml").write_text((copied / "tiny.yaml").read_text().replace("suite: tiny", "suite: short"))
    refused = cli_here("run", "short.yaml", cwd=copied)
    assert (
        refused.returncode,
        "holds the results of tiny.yaml, another suite of the name short" in refused.stderr,
    ) == (
        2,
        True,
    )


def test_other_changes_do_not_take_a_folder_over(copied: Path, cli_here: Cli) -> None:
    """Neither that of the suite as its file says, nor one of the same name; nothing is written."""
    before = {file.name: file.read_bytes() for file in (copied / "results" / "tiny").glob("*.*")}
    for change in ("training.epochs=1", "training.epochs=4"):
        refused = cli_here("run", "tiny.yaml", "--set", change, "--as", "tiny", cwd=copied)
        assert refused.returncode == 2
        said = f"of the name tiny that is unchanged, and this one is changed by --set {change}: give it another name"
        assert said in refused.stderr
    assert {file.name: file.read_bytes() for file in (copied / "results" / "tiny").glob("*.*")} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "tiny.yaml", "--set", "training.epochs=0"), "--set training.epochs=0: should be at least 1, not 0"),
        (("plan", "tiny.yaml", "--set", "epochs"), "--set epochs: should be KEY=VALUE, such as training.epochs=2"),
        (("validate", "tiny.yaml", "--set", "models.x.id=y"), "--set models.x.id=y: models has no entry 'x'; "),
        (("run", "tiny.yaml", "--as", "../up"), "--as: should be letters, digits, '_', '.', '+', '-'"),
        (("report", "--set", "training.epochs=1"), "--set and --as change a suite: name its file"),
        (("status", "--as", "x"), "--set and --as change a suite: name its file"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tiny: Path, cli_here: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = cli_here(*arguments, cwd=tiny.parent)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert not (tiny.parent / "results").exists()


def test_a_changed_suite_is_validated(tiny: Path, cli_here: Cli) -> None:
    done = cli_here("validate", "tiny.yaml", "--set", "seeds=[0, 1]", "--set", "attacks.1.steps=8/2", cwd=tiny.parent)
    assert (done.returncode, "steps" in done.stderr) == (2, True)
    done = cli_here("validate", "tiny.yaml", "--set", "seeds=[0, 1]", cwd=tiny.parent)
    assert done.stdout == "tiny.yaml: valid: 4 trainings, 12 evaluations\n"
