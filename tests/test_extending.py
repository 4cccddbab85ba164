"""docs/extending.md: its examples are written out and run as they stand, through the command line."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cli, contents

PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_run_and_do_what_they_say(tmp_path: Path, cli_here: Cli) -> None:
    assert set(FILES) == {
        "my_model.py", "my_objective.py", "my_center.py", "my_attack.py", "mine.yaml", "by_hand.py",
    }  # fmt: skip
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for line in "".join(COMMANDS).splitlines():
        python, module, package, *arguments = shlex.split(line)
        assert (python, module, package) == ("python", "-m", "robustbench_cmic")
        done = cli_here(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "results" / "mine"
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"ok"}
    assert {(row["model"], row["architecture"], row["objective"]) for row in rows} == {
        ("small-ce", "my_model:build", "ce"),
        ("small-focal", "my_model:build", "my_objective:Focal"),
        ("small-center", "my_model:build", "my_center:CenterLoss"),
    }
    for model in ("small-ce", "small-focal", "small-center"):
        accuracy = {(row["attack"], row["eps"]): float(row["accuracy"]) for row in rows if row["model"] == model}
        assert accuracy["none", "0.0"] > accuracy["walk", "0.1"] > accuracy["walk", "0.2"], "it finds what is there"
        assert accuracy["walk", "0.2"] > accuracy["PGD", "0.2"]
    # The clean margin, and one forward pass a step, for 200 examples; never one back.
    assert {(row["forwards"], row["backwards"]) for row in rows if row["attack"] == "walk"} == {("4200", "0")}
    board = (folder / "leaderboard.md").read_text()
    assert "- `small-focal`: my_model:build, objective my_objective:Focal (gamma 1.5)\n" in board
    assert "- walk: my_attack:walk (alpha 0.025 … 0.05, steps 20, kind black-box); linf, eps 0.1, 0.2\n" in board
    curves = {record["cell"]["model"]: record["curve"] for record in contents(folder).values() if "curve" in record}
    (epoch,) = curves["small-focal"]
    assert 0 < epoch["loss"]["total"] < epoch["loss"]["ce"], "the focal factor is below 1"
    (epoch,) = curves["small-center"]
    assert epoch["loss"]["total"] == pytest.approx(epoch["loss"]["ce"] + 0.003 * epoch["loss"]["center"])
    assert epoch["loss"]["center"] > 0
    done = subprocess.run([sys.executable, "by_hand.py"], cwd=tmp_path, capture_output=True, text=True)
    clean = next(row["accuracy"] for row in rows if (row["model"], row["attack"]) == ("small-ce", "none"))
    said = f"by hand {float(clean):.4f}, recorded {float(clean):.4f}, 0 images differ\n"
    assert done.stdout == said, done.stdout + done.stderr
