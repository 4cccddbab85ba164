"""All rivals of one model in one table for each measure: their order, and the verdicts of the pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report import Summary
from robustbench_cmic.report.against import against_tables, baselines
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.markdown import leaderboard
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
