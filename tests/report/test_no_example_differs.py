"""Where the outcomes of two models are the same on every example, a bootstrap has nothing to draw from, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report import Summary, write_report
from robustbench_cmic.report.formats.html.charts import forest
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.tables import pair_table, seed_table
from tests.report.folders import HEAD, bits, fill, planned, read

ALIKE = "no example differs"
SUITE = f"""{HEAD}attacks:
  - {{name: FGSM, eps: [0.1, 0.2]}}
  - {{name: PGD, eps: [0.3, 0.4]}}
audit: off
"""


def outcome(cell: Cell) -> list[bool]:
    """FGSM at 0.1 tells the models apart in one seed, at 0.2 never; PGD at 0.3 turn about, on the same example."""
    b = cell.model == "b"
    if cell.eps == 0.1:
        return bits("1111000011" if b and cell.seed == 1 else "1111000000") * 10
    if cell.eps == 0.3 and cell.seed < 2:
        return bits("01" if b == (cell.seed == 0) else "10") + bits("0") * 98
    return bits("1110000000") * 10 if cell.eps in (0.0, 0.2) else [False] * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "made", planned(tmp_path, SUITE), outcome)


@pytest.fixture
def board(folder: Path) -> Summary:
    return read(folder)


def test_an_interval_is_printed_only_where_some_example_differs(board: Summary) -> None:
    shown = {(row[0], row[1]): row[5] for row in pair_table(board, "a", "b").rows}
    assert {key: value for key, value in shown.items() if value != ALIKE}.keys() == {
        ("FGSM", "L-inf 0.1"), ("worst case", "L-inf 0.1"), ("PGD", "L-inf 0.3"), ("worst case", "L-inf 0.3"),
    }  # fmt: skip
    assert shown["FGSM", "L-inf 0.1"].startswith("+"), "20 of 300 pairs, all one way"
    # Examples differ in two seeds, and cancel in the mean over seeds: measured, not absent.
    assert "…" in shown["PGD", "L-inf 0.3"]


def test_seed_by_seed_only_the_seeds_that_differ_have_an_interval(board: Summary) -> None:
    claims = {(row[0], row[1], row[2]): row[5] for row in seed_table(board, "a", "b").rows}
    assert claims["worst case", "L-inf 0.1", "0"] == f"+0.0 ({ALIKE})"
    assert claims["worst case", "L-inf 0.1", "1"].startswith("+20.0 (+1")
    assert claims["accuracy", "", "2"] == f"+0.0 ({ALIKE})"


def test_every_format_for_people_says_so_and_the_one_for_programs_keeps_its_numbers(folder: Path) -> None:
    board = write_report(folder, ["md", "html", "json", "latex"])
    alike = sum(line.no_discordant for line in board.pairs["a", "b"])
    assert alike == len(board.pairs["a", "b"]) - 5, "all but four accuracies, and NCMI"
    in_seeds = sum(seed.no_discordant for line in board.pairs["a", "b"] if line.claim for seed in line.seeds.values())
    for name in ("leaderboard.md", "index.html"):
        text = (folder / name).read_text()
        assert text.count(f"+0.0 ({ALIKE})") == in_seeds > 0
        assert "(+0.0 … +0.0)" in text, "the least and greatest over seeds stay"
    assert (folder / "leaderboard.tex").read_text().count(ALIKE) == alike
    assert leaderboard(board).count(f"| {ALIKE} ") == alike
    (pair,) = json.loads((folder / "report.json").read_text())["pairs"]
    accuracy = pair["lines"][0]
    assert (accuracy["interval"], accuracy["by_seed"]["0"]["interval"]) == ([0.0, 0.0], [0.0, 0.0])


def test_the_chart_draws_a_point_and_says_so(board: Summary) -> None:
    lines = board.pairs["a", "b"]
    chart = forest(lines, ("a", "b"), "pair-0")
    assert chart is not None
    said = [text for trace in chart.figure["data"] for text in trace["hovertext"]]
    assert sum(f"<br>{ALIKE}<br>" in text for text in said) == sum(line.no_discordant for line in lines)
    assert sum("<br>95 % over examples: " in text for text in said) == 4
    for trace in chart.figure["data"]:
        for text, plus, minus in zip(
            trace["hovertext"], trace["error_x"]["array"], trace["error_x"]["arrayminus"], strict=True
        ):
            if ALIKE in text:
                assert (plus, minus) == (0, 0)
