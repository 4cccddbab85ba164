"""Time left, plain lines and live bars."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.store import read_record, record_path
from robustbench_cmic.run.watch.estimate import Estimator, Pace, cell_estimate, declared_work, duration
from robustbench_cmic.run.watch.progress import LiveDisplay, PlainDisplay, make_display
from robustbench_cmic.suite import find_suite, load_suite
from tests.conftest import ROOT


@pytest.fixture
def cells() -> list[Cell]:
    return make_plan(load_suite(find_suite("digits")).suite).cells


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (7503, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_estimate_learns_from_equal_cells_and_scales_to_others(cells: list[Cell]) -> None:
    trainings = [cell for cell in cells if cell.kind == "train"]
    attacks = [cell for cell in cells if cell.attack == "PGD" and cell.eps == 0.1][:2]
    estimator = Estimator([cell_estimate(cell) for cell in [*trainings[:3], *attacks]], jobs=2)
    assert estimator.seconds_left() is None
    estimator.finished(trainings[0].id, 10.0)
    per_work = 10.0 / declared_work(trainings[0])
    assert estimator.seconds_left() == pytest.approx((20 + 2 * per_work * declared_work(attacks[0])) / 2)
    estimator.finished(trainings[1].id, 20.0)
    estimator.finished(attacks[0].id, 4.0)
    assert estimator.seconds_left() == pytest.approx((15 + 4) / 2)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar100-lite"])
def test_the_first_training_tells_how_long_the_suite_will_take(name: str) -> None:
    """Within a factor of four of what the committed run took in the end; measured were 0.8 to 1.3."""
    cells = make_plan(load_suite(find_suite(name)).suite).cells
    records = {cell.id: read_record(record_path(ROOT / "results" / name, cell.id)) for cell in cells}
    estimator = Estimator([cell_estimate(cell) for cell in cells], jobs=1)
    estimator.finished(cells[0].id, records[cells[0].id].timing.seconds)
    left = estimator.seconds_left()
    assert left is not None
    assert 1 / 4 < left / sum(records[cell.id].timing.seconds for cell in cells[1:]) < 4


def test_estimate_knows_something_before_the_first_cell_ends(cells: list[Cell]) -> None:
    """The first training has run for 30 s and needs 70 more; the other two will take 100 each, two at a time."""
    trainings = [cell_estimate(cell) for cell in cells if cell.kind == "train"][:3]
    estimator = Estimator(trainings, jobs=2)
    estimator.running(trainings[0].id, 30.0, 70.0)
    assert estimator.seconds_left() == pytest.approx((70 + 100 + 100) / 2)
    estimator.finished(trainings[1].id, 100.0)
    estimator.finished(trainings[2].id, 100.0)
    assert estimator.seconds_left() == pytest.approx(70), "one cell is not shared by two processes"
    estimator.finished(trainings[0].id, 100.0)
    assert estimator.seconds_left() == 0


def test_pace_is_counted_from_the_first_report() -> None:
    pace = Pace()
    assert pace.seconds_left(100.0, 500, 1000) is None
    assert pace.seconds_left(110.0, 500, 1000) is None
    assert pace.seconds_left(140.0, 600, 1000) == pytest.approx(160)
    assert pace.seconds_left(300.0, 1000, 1000) is None


def play(display: PlainDisplay | LiveDisplay, cells: list[Cell]) -> None:
    with display:
        display.started(cells[0])
        display.progressed(cells[0], 1, 30, "accuracy [0.5]")
        display.progressed(cells[0], 0, 0, "the state was [corrupt]")
        display.finished(cells[0], "ok", "", 8.0)
        display.started(cells[1])
        display.finished(cells[1], "failed", "no [memory]", 0.0)
        display.finished(cells[2], "skipped", "its training failed", 0.0)


def test_plain_lines(cells: list[Cell]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    display = make_display(console, cells[:4], jobs=1)
    assert isinstance(display, PlainDisplay)
    play(display, cells)
    # How much is left depends on the suite; the estimate has a test of its own.
    assert re.sub(r"about \d+ s left", "about N s left", out.getvalue()).splitlines() == [
        "cnn-ce seed 0: train: the state was [corrupt]",
        "[1/4] cnn-ce seed 0: train: done in 8.0 s; about N s left",
        "[2/4] cnn-ce seed 0: clean: failed: no [memory]; about N s left",
        "[3/4] cnn-ce seed 0: FGSM linf eps 0.05: skipped: its training failed; about N s left",
    ]


def test_a_long_cell_speaks_now_and_then(cells: list[Cell]) -> None:
    out = io.StringIO()
    display = PlainDisplay(Console(file=out, width=200), cells, jobs=1, every=0.0)
    display.started(cells[0])
    display.progressed(cells[0], 1, 30, "accuracy 0.5")
    assert out.getvalue() == "cnn-ce seed 0: train: 1 of 30 accuracy 0.5\n"


def test_live_bars(cells: list[Cell]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    display = make_display(console, cells[:4], jobs=1)
    assert isinstance(display, LiveDisplay)
    play(display, cells)
    text = out.getvalue()
    assert "the state was [corrupt]" in text
    assert "failed: no [memory]" in text
    assert "all cells" in text


def test_a_long_cell_says_how_much_of_it_is_left(cells: list[Cell], monkeypatch: pytest.MonkeyPatch) -> None:
    """From its speed since the first report: a resumed training begins in the middle."""
    clock = iter([0.0, 100.0, 100.0, 140.0, 140.0, 150.0])
    monkeypatch.setattr("robustbench_cmic.run.watch.progress.time.monotonic", lambda: next(clock))
    out = io.StringIO()
    display = PlainDisplay(Console(file=out, width=200), cells, jobs=1)
    display.started(cells[0])
    display.progressed(cells[0], 500, 1000, "steps")
    display.progressed(cells[0], 600, 1000, "steps", 0.5)
    assert out.getvalue().splitlines() == [
        "cnn-ce seed 0: train: 500 of 1000 steps",
        "cnn-ce seed 0: train: 600 of 1000 steps, accuracy 0.500, about 2 min 40 s left",
    ]
