"""Constraints of a results folder: what pip and uv read, made from what the records say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from robustbench_cmic.records.provenance import PACKAGES
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import ReportError, read_results
from robustbench_cmic.report.constraints import constraints_text
from tests.conftest import Cli

TOLD = {"python": "3.11.7", "robustbench_cmic": "0.1.0", "torch": "2.14.1", "numpy": "2.4.6", "scikit-learn": "1.9.1"}


def folder_of(copied: Path, *versions: object) -> Path:
    """The tiny results, whose records were made with these versions in turn; the last ones hold for the rest."""
    folder = copied / "results" / "tiny"
    for number, (_, record) in enumerate(sorted(read_results(folder).records.items())):
        write_record(
            folder, record.model_copy(update={"provenance": {"versions": versions[min(number, len(versions) - 1)]}})
        )
    return folder


def test_of_one_environment_every_version_is_a_constraint(copied: Path) -> None:
    text = constraints_text(read_results(folder_of(copied, TOLD)))
    assert text.splitlines()[1:] == [
        "# python 3.11.7", "# robustbench_cmic 0.1.0", "torch==2.14.1", "numpy==2.4.6", "scikit-learn==1.9.1",
    ]  # fmt: skip
    assert text.startswith("# What 8 of 8 records of tiny were made with.")


def test_where_records_disagree_most_of_them_decide_and_a_sentence_says_so(copied: Path) -> None:
    """As a set: no version of one environment beside those of another, in which it was never tried."""
    older = TOLD | {"torch": "2.8.0", "numpy": "2.1.0"}
    text = constraints_text(read_results(folder_of(copied, older, older, TOLD)))
    assert [line for line in text.splitlines() if "==" in line] == [
        "torch==2.14.1", "numpy==2.4.6", "scikit-learn==1.9.1",
    ]  # fmt: skip
    assert text.splitlines()[-2:] == [
        "# The records disagree: the lines above hold for most of them. The others were made with:",
        "# 2 records: torch 2.8.0, numpy 2.1.0",
    ]


@pytest.mark.parametrize(
    "told", [{}, None, {"torch": None}, {"torch": 2}, {"torch": "2\nevil==1"}, {"evil": "1.0"}, [1]]
)
def test_what_no_record_says_is_no_constraint(copied: Path, told: object) -> None:
    """Whatever a record from elsewhere holds, no line of it reaches what pip reads."""
    folder = folder_of(copied, told)
    with pytest.raises(ReportError, match=r"holds no record that says which versions it was made with$"):
        constraints_text(read_results(folder))


def test_the_command_prints_what_pip_takes(finished: Path, cli_here: Cli, tmp_path: Path) -> None:
    done = cli_here("reproduce", "tiny.yaml", "--constraints", cwd=finished)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"^([\w-]+)==\S+$", done.stdout, re.MULTILINE)
    assert names == list(PACKAGES[1:]), "all are installed here"
    assert (
        cli_here("reproduce", "tiny.yaml", "--constraints", "--against", "results/tiny", cwd=finished).stdout
        == done.stdout
    )
    assert not (finished / "reproductions").exists()
    (tmp_path / "constraints.txt").write_text(done.stdout)
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "-c", "constraints.txt"]
    for name, code in (("numpy", 0), ("numpy==0.1", 1)):
        taken = subprocess.run([*pip, name], cwd=tmp_path, capture_output=True, text=True)
        assert (taken.returncode != 0) == code, taken.stderr


def test_a_folder_without_records_is_told(tiny: Path, cli_here: Cli) -> None:
    done = cli_here("reproduce", tiny.name, "--constraints", cwd=tiny.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert "results/tiny holds no results" in done.stderr
