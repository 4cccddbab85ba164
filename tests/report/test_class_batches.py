"""Suites that vary |B_c|: their lines, the smallest stable size, and the figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report import Summary
from robustbench_cmic.report.class_batches import SizeLine, find_size_lines, size_tables, smallest_stable, stable_table
from robustbench_cmic.report.figures import drawings_of
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.lead import lead
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.strokes import COLORS
from robustbench_cmic.report.summary import SeedValues
from robustbench_cmic.suite import load_suite, shipped_suites
from tests.report.folders import cell_of, fill, planned, read, replace

SUITE = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - id: cb
    architecture: mlp
    objective: {name: cmic, preset: authors, centroids: class_batches}
    matrix: {objective.class_batch_size: [16, 1, 4], objective.horizon: [0.1, 1]}
  - {id: step, architecture: mlp, objective: {name: cmic, preset: authors}, matrix: {objective.horizon: [0.1]}}
seeds: [0, 1]
attacks: [{name: FGSM, eps: 0.1}]
audit: off
"""
RIGHT = {1: 80, 4: 89, 16: 90}


def right(cell: Cell) -> list[bool]:
    size = cell.declared["train"]["objective"]["class_batch_size"] if cell.model.startswith("cb") else 16
    count = (RIGHT[size] + (2 if cell.seed else -2)) // (2 if cell.norm else 1)
    return [place < count for place in range(100)]


@pytest.fixture
def board(tmp_path: Path) -> Summary:
    return read(fill(tmp_path / "made", planned(tmp_path, SUITE), right))


def test_a_line_holds_the_models_that_differ_in_the_size_alone(board: Summary) -> None:
    names = {size: f"cb-class_batch_size{size}-horizon" for size in (1, 4, 16)}
    assert find_size_lines(board.results) == {
        "horizon: 0.1": SizeLine({size: f"{name}0.1" for size, name in names.items()}, "step-horizon0.1"),
        "horizon: 1": SizeLine({size: f"{name}1" for size, name in names.items()}, None),
    }


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({1: (0.90, 0.92), 4: (0.91, 0.93), 16: (0.92, 0.94)}, 4),  # means 0.91, 0.92 and 0.93, spreads of 0.0141
        ({1: (0.92, 0.94), 4: (0.93, 0.93), 16: (0.92, 0.94)}, 1),
        ({1: (0.92, 0.94), 4: (0.60, 0.61), 16: (0.92, 0.94)}, 16),  # in between it is another number
        ({1: (0.80, 1.00), 4: (0.80, 0.98), 16: (0.92, 0.94)}, 1),  # its own spread covers it
        ({1: (0.92, 0.94), 4: (0.93,), 16: (0.92, 0.94)}, 16),  # a seed is missing
        ({1: (0.92, 0.94), 4: (0.92, 0.94), 16: (0.93,)}, None),
    ],
)
def test_the_smallest_stable_size(rows: dict[int, tuple[float, ...]], expected: int | None) -> None:
    line = SizeLine({size: str(size) for size in rows}, None)
    numbers = {str(size): SeedValues(dict(enumerate(values))) for size, values in rows.items()}
    assert smallest_stable(line, numbers, 2) == expected


def test_tables_and_figure_hold_the_numbers(board: Summary) -> None:
    stable, clean = stable_table(board), size_tables(board)["clean accuracy %"]
    assert list(stable.headers) == ["centroids", "clean accuracy", "clean NCMI", "both"]
    assert [list(row) for row in stable.rows] == [["horizon: 0.1", "4", "1", "4"], ["horizon: 1", "4", "1", "4"]]
    (said,) = lead(board)
    assert said == (
        "Class batches: |B_c| from which clean accuracy and NCMI are stable within the spread of 2 seeds, which is no "
        "test: horizon: 0.1: 4; horizon: 1: 4. Over all sizes the means of one line differ by at most 10.0 points in "
        "clean accuracy and 0 in clean NCMI."
    )
    assert f"- {said}\n" in leaderboard(board)
    assert list(clean.headers) == ["centroids", "|B_c| 1", "|B_c| 4", "|B_c| 16", "from the step"]
    assert list(clean.rows[0]) == ["horizon: 0.1", "80.0 ± 2.8", "89.0 ± 2.8", "90.0 ± 2.8", "90.0 ± 2.8"]
    assert clean.rows[1][4] == "–"
    assert "## Class batches" in leaderboard(board)
    assert '<h2 id="class-batches">Class batches</h2>' in suite_page(board)
    drawings = drawings_of(board, "class-batches")
    assert not isinstance(drawings, str)
    (drawing,) = drawings
    accuracy = drawing.figure.axes[0]
    curves = {line.get_label(): np.asarray(line.get_ydata(), float).tolist() for line in accuracy.get_lines()}
    assert curves["horizon: 0.1"] == pytest.approx([80, 89, 90])
    assert [label.get_text() for label in accuracy.get_xticklabels()] == ["1", "4", "16", "step"]
    assert "horizon: 1: smallest stable size 4." in drawing.text


def charts_of(board: Summary) -> list[dict[str, Any]]:
    """Plotly's figures of the page, a measure each."""
    page = html5lib.parse(suite_page(board).replace(get_plotlyjs(), ""), namespaceHTMLElements=False)
    (figures,) = [script.text or "" for script in page.iter("script") if script.get("id") == "figures"]
    return [told["figure"] for name, told in json.loads(figures).items() if name.startswith("class-batches-")]


def test_the_page_draws_the_marks_and_bars_of_the_figure(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace("audit: off\n", ""))
    folder = fill(tmp_path / "made", plan, right)
    replace(folder, cell_of(plan, "cb-class_batch_size4-horizon1", 1, "audit"))  # which flags its numbers
    board = read(folder)
    drawings = drawings_of(board, "class-batches")
    assert not isinstance(drawings, str)
    charts, panels = charts_of(board), drawings[0].figure.axes
    titles = [chart["layout"]["yaxis"]["title"]["text"] for chart in charts]
    assert titles == [panel.get_ylabel() for panel in panels] == list(size_tables(board))
    for chart, panel in zip(charts, panels, strict=True):
        assert chart["layout"]["xaxis"]["ticktext"] == [label.get_text() for label in panel.get_xticklabels()]
        lines = [line for line in panel.get_lines() if line.get_label() != "_flagged"]
        drawn = [np.asarray(line.get_xydata(), float) for line in lines]
        marks, segments, opened = [], [], []
        for trace in chart["data"]:
            own = list(zip(trace["x"], trace["y"], trace["error_y"]["array"], trace["marker"]["symbol"], strict=True))
            points = [(x, y, bar or 0.0, symbol) for x, y, bar, symbol in own if x is not None]
            marks += [[x, y] for x, y, _, _ in points]
            segments += [[[x, y - bar], [x, y + bar]] for x, y, bar, _ in points]
            opened += [[x, y] for x, y, _, symbol in points if symbol.endswith("-open")]
        np.testing.assert_allclose(marks, np.concatenate(drawn))
        bars = [np.asarray(bar.get_segments()[0]) for bar in panel.collections]  # type: ignore[attr-defined]
        np.testing.assert_allclose(segments, bars)
        flagged = [line.get_xydata() for line in panel.get_lines() if line.get_label() == "_flagged"]
        np.testing.assert_allclose(np.array(opened).reshape(-1, 2), np.concatenate([np.empty((0, 2)), *flagged]))
    assert "cb-class_batch_size4-horizon1" in {flag.model for flag in board.flags}
    assert "bars are one standard deviation over seeds." in suite_page(board)


def test_lines_of_the_page_stay_apart_without_colour_and_break_before_the_step(board: Summary) -> None:
    first, second = charts_of(board)[0]["data"]
    assert (first["name"], second["name"]) == ("horizon: 0.1", "horizon: 1")
    assert first["line"]["dash"] != second["line"]["dash"]
    assert not set(first["marker"]["symbol"]) & set(second["marker"]["symbol"])
    assert [trace["line"]["color"] for trace in (first, second)] == list(COLORS[:2])
    assert first["y"] == pytest.approx([80, 89, 90, None, 90]), "no line leads to the step's own batch"
    assert "<br>|B_c| 4<br>clean accuracy %: 89.0 ± 2.8" in first["hovertext"][1]
    assert "<br>centroids from the step<br>clean accuracy %: 90.0 ± 2.8" in first["hovertext"][-1]


def test_one_seed_has_no_bars_on_the_page(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace("seeds: [0, 1]", "seeds: [0]"))
    board = read(fill(tmp_path / "made", plan, right))
    assert {bar for chart in charts_of(board) for trace in chart["data"] for bar in trace["error_y"]["array"]} == {None}
    assert "In the charts: one seed, without bars." in suite_page(board)


def test_a_training_that_diverged_is_not_stable(tmp_path: Path, board: Summary) -> None:
    plan = planned(tmp_path, SUITE)
    replace(board.results.folder, cell_of(plan, "cb-class_batch_size4-horizon1", 1, "train"), status="diverged")
    again = read(board.results.folder)
    assert [row[-1] for row in stable_table(again).rows] == ["4", "16"]


def test_the_shipped_suite_has_a_line_for_every_reading_and_horizon() -> None:
    plan = make_plan(load_suite(shipped_suites()["centroid-ablation"]).suite)
    lines = find_size_lines(Results(Path(), plan, {}, [], []))
    assert len(lines) == 6
    assert all(list(line.sizes) == [1, 2, 4, 8, 16, 32] and line.from_step for line in lines.values())
    assert "CMIC-DL printed, horizon: 0.01" in lines
