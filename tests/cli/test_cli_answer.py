"""A run ends with its answer on the terminal, a report on one suite too; `--quiet` with the paths alone."""

from __future__ import annotations

from pathlib import Path

from robustbench_cmic.report import read_results, summarize
from robustbench_cmic.report.formats.terminal import board_text
from tests.conftest import Cli

FILES = [f"results/tiny/{name}" for name in ("leaderboard.md", "results.csv", "models.csv")]


def board(folder: Path) -> list[str]:
    return board_text(summarize(read_results(folder / "results" / "tiny")), 120).splitlines()


def test_a_run_ends_with_the_board_and_its_files_where_nothing_was_left_to_run_too(copied: Path, cli_here: Cli) -> None:
    done = cli_here("run", "tiny.yaml", cwd=copied)
    first, *lines = done.stdout.splitlines()
    assert first == "all 8 cells are done already: nothing to run (--force runs it anew)"
    page = "as a page: robustbench-cmic report tiny --format html"
    assert lines == [*board(copied), page, *FILES]
    assert "cmic (CMIC-DL printed) against ce (CE)" in lines
    assert [line.split()[0] for line in lines if line.startswith(("clean", "L-inf"))] == ["clean", "L-inf"]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_quiet_run_prints_its_files_alone(copied: Path, cli_here: Cli) -> None:
    done = cli_here("run", "tiny.yaml", "--quiet", cwd=copied)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, FILES, "")


def test_a_quiet_run_still_says_what_went_wrong(copied: Path, cli_here: Cli) -> None:
    for file in (copied / "results" / "tiny").glob("ce.s0.FGSM*"):
        file.write_text("{")
    (copied / "results.work" / "tiny").rename(copied / "elsewhere")
    done = cli_here("run", "tiny.yaml", "--quiet", "--only", "FGSM", cwd=copied)
    assert done.stdout.splitlines() == FILES
    assert "its record is corrupt: not whole JSON; set aside as" in done.stderr


def test_a_report_on_one_suite_prints_it_and_one_on_all_does_not(copied: Path, cli_here: Cli) -> None:
    written = FILES[:1]
    alone = cli_here("report", "tiny", "--format", "md", cwd=copied)
    assert alone.stdout.splitlines() == [*board(copied), *written]
    assert cli_here("report", "--format", "md", cwd=copied).stdout.splitlines() == written
    assert cli_here("report", "tiny", "--quiet", "--format", "md", cwd=copied).stdout.splitlines() == written


def test_a_warning_is_no_error(tiny: Path, cli_here: Cli) -> None:
    options = ("--dry-run", "--set", "attacks.PGD.alpha=0.001")
    assert cli_here("run", tiny, *options).stderr.startswith("warning: ")
    assert cli_here("run", tiny, *options, "--quiet").stderr == ""
