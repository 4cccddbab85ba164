"""Two results folders beside each other: made-up ones, and a real run through the command line."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import read_json, write_json
from robustbench_cmic.report import read_results
from robustbench_cmic.report.compare.changes import CellComparison, Comparison, compare_folders
from robustbench_cmic.report.compare.text import comparison_text
from tests.conftest import Cli
from tests.in_process import command_here
from tests.report.compare.editing import edit, flip
from tests.report.folders import HEAD, attack_record, cell_of, fill, planned, replace

TEXT = HEAD + "attacks: [{name: FGSM, eps: 0.1}]\naudit: off\n"
N = 40
GOOD = [True] * 30 + [False] * 10


def good(_: Cell) -> list[bool]:
    return GOOD


def worse(cell: Cell) -> list[bool]:
    """FGSM on `a`, seed 0, loses 20 examples and gains none; on `b`, seed 1, loses one and gains one."""
    if (cell.model, cell.seed, cell.attack) == ("a", 0, "FGSM"):
        return [False] * 20 + GOOD[20:]
    if (cell.model, cell.seed, cell.attack) == ("b", 1, "FGSM"):
        return [False, *GOOD[1:-1], True]
    return GOOD


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Comparison]:
    """Compares two folders filled from suites and outcomes."""

    def compare(
        old: str = TEXT,
        new: str = TEXT,
        outcome: Callable[[Cell], list[bool]] = good,
        then: Callable[[Path], None] | None = None,
        **changes: object,
    ) -> Comparison:
        folders = tmp_path / "old", tmp_path / "new"
        fill(folders[0], planned(tmp_path, old), good)
        fill(folders[1], planned(tmp_path, new), outcome, **changes)
        if then is not None:
            then(folders[1])
        return compare_folders(read_results(folders[0]), read_results(folders[1]))

    return compare


def cell(found: Comparison, name: str) -> CellComparison:
    (match,) = [cell for cell in found.cells if cell.title == name]
    return match


def test_equal_folders_are_identical(made: Callable[..., Comparison]) -> None:
    found = made()
    assert found.identical
    assert comparison_text(found).endswith("are identical: 18 of 18 cells, times aside\n")
    assert (found.drift, found.regression) == ([], [])


def test_another_margin_is_told_and_changes_no_cell(made: Callable[..., Comparison]) -> None:
    found = made(new=f"{TEXT}claims: {{margin: 1}}\n")
    assert [change.text() for change in found.configuration] == ["claims.margin: 2.0 -> 1.0"]
    assert (found.drift, found.regression) == ([], [])


def test_flips_are_counted_each_way_and_tested(made: Callable[..., Comparison]) -> None:
    found = made(outcome=worse)
    lower = cell(found, "a seed 0: FGSM linf eps 0.1")
    assert (lower.lost, lower.gained, lower.paired) == (list(range(20)), [], True)
    assert lower.points == pytest.approx(-50)
    assert lower.p == pytest.approx(12 * 2 / 2**20), "adjusted over the 12 evaluations"
    assert lower.verdict == "significantly lower"
    swapped = cell(found, "b seed 1: FGSM linf eps 0.1")
    assert (swapped.lost, swapped.gained, swapped.p) == ([0], [39], 1.0)
    assert swapped.verdict == "no significant difference"
    assert found.regression == ["a seed 0: FGSM linf eps 0.1: -50.0 points (p = 2.3e-05)"]
    assert found.drift == [
        "a seed 0: FGSM linf eps 0.1: 20 examples flipped",
        "b seed 1: FGSM linf eps 0.1: 2 examples flipped",
    ]
    text = comparison_text(found)
    assert "12 evaluations on both sides: 2 with other outcomes, 1 of them significantly" in text
    (line,) = [line for line in text.splitlines() if line.startswith("a seed 0: FGSM")]
    assert line.split()[7:12] == ["75.0", "25.0", "-50.0", "20", "0"]


def test_a_gain_is_drift_and_no_regression(made: Callable[..., Comparison]) -> None:
    found = made(outcome=lambda cell: [True] * N if cell.attack == "FGSM" else GOOD)
    assert {c.verdict for c in found.cells if c.kind == "attack" and "FGSM" in c.title} == {"significantly higher"}
    assert len(found.drift) == 6
    assert found.regression == []


def test_other_data_is_not_paired(made: Callable[..., Comparison]) -> None:
    found = made(outcome=worse, dataset_sha256="1" * 64, then=_same_data)
    lower = cell(found, "a seed 0: FGSM linf eps 0.1")
    assert (lower.paired, lower.lost) == (False, [])
    # Fisher's exact test of 30 of 40 against 10 of 40, over 12 evaluations: both tails of the hypergeometric.
    tail = sum(math.comb(40, k) * math.comb(40, 40 - k) for k in range(30, 41)) / math.comb(80, 40)
    assert lower.p == pytest.approx(12 * 2 * tail)
    assert lower.verdict == "significantly lower (other data or examples: not paired)"
    assert [found.hashes[0].key, found.hashes[0].new] == ["dataset_sha256", "1" * 64]
    assert cell(found, "a seed 1: FGSM linf eps 0.1").outcomes_differ is True, "nobody knows that they are the same"


def _same_data(folder: Path) -> None:
    """The trainings of the folder, too, were made with the other data."""
    for file in folder.glob("*.train.*.json"):
        write_json(file, read_json(file) | {"dataset_sha256": "1" * 64})


def test_a_changed_setting_is_compared_and_named(made: Callable[..., Comparison]) -> None:
    new = TEXT.replace("epochs: 1", "epochs: 3").replace("seeds: [0, 1, 2]", "seeds: [0, 1, 3]")
    found = made(new=new.replace("eps: 0.1}", "eps: [0.1, 0.2], loss: margin}"), outcome=worse)
    told = [difference.text() for difference in found.configuration]
    assert told == [
        "seeds removed: 2 -> –",
        "seeds added: – -> 3",
        "attacks added: – -> FGSM linf eps 0.2",
        "training.epochs: 1 -> 3 (a, b)",
        "attack.loss: ce -> margin (FGSM)",
    ]
    lower = cell(found, "a seed 0: FGSM linf eps 0.1")
    assert lower.old_cell != lower.new_cell
    assert lower.verdict == "significantly lower"
    assert "a seed 0: FGSM linf eps 0.1 (configuration changed)" in comparison_text(found)
    assert cell(found, "a seed 2: clean").new_status == "not in the suite"
    assert any(reason.startswith("a seed 2: clean: ok -> not in the suite") for reason in found.drift)
    assert not any("seed 2" in reason for reason in found.regression), "another suite is no regression"


def test_lost_results_are_drift_and_regression(made: Callable[..., Comparison], tmp_path: Path) -> None:
    def lose(folder: Path) -> None:
        plan = planned(tmp_path, TEXT)
        replace(folder, cell_of(plan, "a", 0, "FGSM"))
        (folder / f"{cell_of(plan, 'a', 1, 'FGSM').id}.json").unlink()
        replace(folder, cell_of(plan, "b", 2, "train"), status="diverged")

    found = made(then=lose)
    lost = [
        "a seed 0: FGSM linf eps 0.1: ok -> failed",
        "a seed 1: FGSM linf eps 0.1: ok -> missing",
        "b seed 2: train: ok -> diverged",
    ]
    assert set(lost) <= set(found.drift)
    assert set(lost) <= set(found.regression)
    assert "a seed 1: FGSM linf eps 0.1  ok     missing" in comparison_text(found)


def test_weights_environment_and_flags(made: Callable[..., Comparison], tmp_path: Path) -> None:
    audited = TEXT.replace("audit: off", "audit: standard")

    def alter(folder: Path) -> None:
        plan = planned(tmp_path, audited)
        training = cell_of(plan, "a", 0, "train")
        for cell in plan.cells:
            if training.id in (cell.id, cell.needs):
                file = folder / f"{cell.id}.json"
                write_json(file, read_json(file) | {"checkpoint_sha256": "d"})
        edit(folder, "a.s0.audit*", outputs={"probabilities": True, "saturated": 0, "at_bound": 1, "median_lead": 0.5})
        for file in folder.glob("*.json"):
            if file.name != "plan.json":
                payload = read_json(file)
                payload["provenance"]["versions"]["torch"] = "2.9"
                write_json(file, payload)

    found = made(old=audited, new=audited, then=alter)
    assert [c.verdict for c in found.cells if c.kind == "train"].count("weights differ") == 1
    assert [difference.text() for difference in found.environment] == ["versions.torch: 2.8 -> 2.9"]
    assert ("probabilities", "a seed 0: FGSM linf eps 0.1") in {(f.flag, f.about) for f in found.flags_raised}
    assert found.flags_gone == []
    assert found.drift == ["a seed 0: audit: findings differ"]
    text = comparison_text(found, markdown=True)
    assert "5 of 6 trainings gave identical weights; others: a seed 0: train" in text
    assert "## Flags raised\n" in text
    back = comparison_text(found.model_copy(update={"flags_raised": [], "flags_gone": found.flags_raised}))
    assert "Flags gone\n==========" in back


def test_checks_of_audits_count_for_drift(made: Callable[..., Comparison]) -> None:
    audited = TEXT.replace("audit: off", "audit: standard")
    found = made(old=audited, new=audited, then=lambda folder: edit(folder, "b.s1.audit*", positions=[0, 1]))
    assert found.drift == ["b seed 1: audit: outcomes differ"]


def test_findings_of_audits_count_for_drift(made: Callable[..., Comparison]) -> None:
    audited = TEXT.replace("audit: off", "audit: standard")
    outputs = {"probabilities": False, "saturated": 1, "at_bound": 1, "median_lead": 5.0}
    found = made(old=audited, new=audited, then=lambda folder: edit(folder, "b.s1.audit*", outputs=outputs))
    assert found.drift == ["b seed 1: audit: findings differ"]
    assert "b seed 1: audit" in comparison_text(found)
    lead = outputs | {"saturated": 0, "median_lead": 4.0}
    same = made(old=audited, new=audited, then=lambda folder: edit(folder, "b.s1.audit*", outputs=lead))
    assert same.drift == [], "a number that is no count"


# --- the command line ----------------------------------------------------------------------------------------------


def test_command_exits_3_only_where_it_was_asked_to(finished: Path, tmp_path: Path, cli: Cli) -> None:
    old, new = finished / "results" / "tiny", tmp_path / "new"
    shutil.copytree(old, new)
    same = cli("compare", old, new, "--fail-on", "drift")
    assert (same.returncode, same.stderr) == (0, "")
    assert same.stdout == f"{old} and {new} are identical: 8 of 8 cells, times aside\n"
    flip(new, "cmic.s0.FGSM*", [0])
    assert cli("compare", old, new).returncode == 0
    drifted = cli("compare", old, new, "--fail-on", "drift")
    assert drifted.returncode == 3
    assert drifted.stderr == "drift: cmic seed 0: FGSM linf eps 0.1: 1 example flipped\n"
    assert cli("compare", old, new, "--fail-on", "regression").returncode == 0
    correct = [place for place, value in enumerate(flip(new, "cmic.s0.PGD*", [])) if value]
    flip(new, "cmic.s0.PGD*", correct[:50])
    worse = cli("compare", old, new, "--fail-on", "regression", "--format", "json")
    assert worse.returncode == 3
    assert worse.stderr.startswith("regression: cmic seed 0: PGD linf eps 0.1: -8.3 points (p = ")
    payload = json.loads(worse.stdout)
    assert payload["schema"] == "robustbench_cmic/comparison/1"
    assert [c["lost"] for c in payload["cells"] if "PGD" in c["title"]][1] == correct[:50]


def test_nothing_compared_is_no_agreement(copied: Path, cli: Cli) -> None:
    shutil.copytree(copied / "results" / "tiny", copied / "empty")
    for file in (copied / "empty").glob("c*.json"):
        file.unlink()
    assert cli("compare", "empty", "results/tiny", cwd=copied).returncode == 0
    for option in ("drift", "regression"):
        done = cli("compare", "empty", "results/tiny", "--fail-on", option, cwd=copied)
        assert done.returncode == 1
        assert done.stderr == f"{option}: not a single evaluation has a result on both sides: nothing was compared\n"


def test_records_are_left_out_and_told(copied: Path, finished: Path, cli: Cli) -> None:
    next((copied / "results" / "tiny").glob("ce.s0.PGD*")).write_text("")
    shutil.copytree(finished / "results" / "tiny", copied / "whole")
    for pair, option, code in (
        (("results/tiny", "results/tiny"), (), 1),
        (("results/tiny", "whole"), ("--fail-on", "drift"), 1),
        (("whole", "results/tiny"), ("--fail-on", "drift"), 3),
    ):
        done = cli("compare", *pair, "--format", "md", *option, cwd=copied)
        assert done.returncode == code, pair
        assert "left out: its record is corrupt" in done.stderr
        assert done.stdout
    assert cli("compare", "results/tiny", "nothing", cwd=copied).returncode == 2
    for words in (["compare", "results/tiny/plan.json", "results/tiny"], ["audit", "results/tiny/plan.json"]):
        done = command_here(*words, cwd=copied)
        said = "results/tiny/plan.json: is a file; it should be a suite's results folder, such as results/digits\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_identical_folders_that_both_failed_are_identical(made: Callable[..., Comparison], tmp_path: Path) -> None:
    plan = planned(tmp_path, TEXT)
    folder = fill(tmp_path / "one", plan, good)
    replace(folder, cell_of(plan, "a", 0, "FGSM"))
    results = read_results(folder)
    found = compare_folders(results, results)
    assert found.identical
    assert found.drift == found.regression == []
    assert attack_record(plan.cells[1], GOOD).n == N
