"""All rivals of one model in one table for each measure: their order, and the verdicts of the pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report import Summary
from robustbench_cmic.report.against import against_tables, baselines
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.lead import lead
from tests.report.folders import cell_of, fill, planned, read, replace

SUITE = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: ce, architecture: mlp, objective: {name: ce}}
  - {id: focal, architecture: mlp, objective: {name: focal}}
  - {id: center, architecture: mlp, objective: {name: center}}
  - {id: alike, architecture: mlp, objective: {name: squentropy}}
  - {id: lost, architecture: mlp, objective: {name: opl}}
pairs: [[ce, focal], [ce, center], [ce, alike], [ce, lost]]
seeds: [0, 1, 2]
attacks: [{name: AutoAttack, eps: 0.1}]
"""
KEPT = {"ce": (150, 60), "focal": (160, 40), "center": (140, 90), "alike": (150, 60), "lost": (190, 190)}


def right(cell: Cell) -> list[bool]:
    clean, attacked = KEPT[cell.model]
    return [place < (attacked if cell.norm else clean) + cell.seed for place in range(200)]


@pytest.fixture
def board(tmp_path: Path) -> Summary:
    plan = planned(tmp_path, SUITE)
    folder = fill(tmp_path / "made", plan, right)
    replace(folder, cell_of(plan, "lost", 1, "none"), status="failed")
    replace(folder, cell_of(plan, "lost", 1, "AutoAttack"), status="failed")
    return read(folder)


def test_rivals_are_ranked_by_each_measure_with_the_verdicts_of_their_pairs(board: Summary) -> None:
    assert baselines(board) == ["ce"]
    clean, worst = against_tables(board, "ce").values()
    assert list(against_tables(board, "ce")) == ["clean accuracy", "worst case, L-inf 0.1"]
    assert [(row[0], row[1]) for row in clean.rows] == [
        ("1", "focal"), ("2", "ce"), ("2", "alike"), ("4", "center"), ("–", "lost"),
    ]  # fmt: skip
    assert [(row[0], row[1]) for row in worst.rows] == [
        ("1", "center"), ("2", "ce"), ("2", "alike"), ("4", "focal"), ("–", "lost"),
    ]  # fmt: skip
    for table, what in ((clean, "accuracy"), (worst, "worst case")):
        for row in table.rows:
            lines = board.pairs.get(("ce", row[1]), [])
            (verdict,) = [line.verdict for line in lines if line.what == what] or [""]
            assert row[-1] == verdict
    assert clean.rows[0][4].startswith("+5.0")


def test_the_tables_stand_in_the_reports(board: Summary) -> None:
    text = leaderboard(board)
    assert text.index("## All against `ce`") < text.index("## Clean test examples")
    assert "worst case, L-inf 0.1:" in text
    assert '<h2 id="against">All against <code>ce</code></h2>' in suite_page(board)


def test_three_pairs_need_no_such_table(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace(", [ce, lost]", ""))
    assert baselines(read(fill(tmp_path / "made", plan, right))) == []


def test_nobody_has_a_rank_where_the_best_keeps_nothing(tmp_path: Path) -> None:
    board = read(fill(tmp_path / "made", planned(tmp_path, SUITE), lambda cell: [not cell.norm] * 200))
    _, worst = against_tables(board, "ce").values()
    assert [row[0] for row in worst.rows] == ["–"] * 5


def test_the_lead_names_the_first_and_whose_difference_is_shown(board: Summary) -> None:
    clean, worst = lead(board)
    assert clean == (
        "Clean accuracy, 4 rivals of `ce`: `focal` is first, 80.5 % against 75.5 %, +5.0 points (3 seeds, 95 % over "
        "examples +2.3 … +8.0, p = 0.0033); `focal` shown higher, `center` shown lower, 1 equivalent, 1 no claim."
    )
    assert worst.startswith(
        "Worst case at L-inf 0.1, 4 rivals of `ce`: `center` is first, 45.5 % against 30.5 %, +15.0 "
    )
    assert worst.endswith("; `center` shown higher, `focal` shown lower, 1 equivalent, 1 no claim.")
    assert leaderboard(board).count(f"- {clean}\n- {worst}\n") == 1
    page = suite_page(board)
    assert page.index('<h2 id="finding">') < page.index("4 rivals of <code>ce</code>") < page.index('<h2 id="against">')
    assert "<details><summary><code>focal</code> against <code>ce</code>" in page, "the first pair is one of four"


def test_where_the_baseline_is_first_the_lead_says_so(board: Summary) -> None:
    plan = board.results.plan
    for model in ("focal", "alike"):
        replace(board.results.folder, cell_of(plan, model, 0, "none"), status="failed")
    clean, *_ = lead(read(board.results.folder))
    assert clean.startswith("Clean accuracy, 4 rivals of `ce`: none is ahead of it, 75.5 %; none shown higher, ")
