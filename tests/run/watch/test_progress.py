"""Time left, plain lines and live bars."""

from __future__ import annotations

import datetime
import io
import re

import pytest
from rich.console import Console

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.plan.passes import declared_work
from robustbench_cmic.report import read_results
from robustbench_cmic.run.watch.estimate import CellEstimate, cell_estimate, duration, seconds_left
from robustbench_cmic.run.watch.events import CellEnded, CellProgress, CellPutBack, CellStarted, Emit
from robustbench_cmic.run.watch.progress import LiveBars, PlainLines, display
from robustbench_cmic.run.watch.state import RunState
from robustbench_cmic.suite import find_suite, load_suite
from tests.conftest import ROOT


@pytest.fixture
def cells() -> list[Cell]:
    return make_plan(load_suite(find_suite("digits")).suite).cells


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (7503, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def estimates(cells: list[Cell]) -> dict[str, CellEstimate]:
    return {cell.id: cell_estimate(cell) for cell in cells}


def test_estimate_learns_from_equal_cells_and_scales_to_others(cells: list[Cell]) -> None:
    trainings = [cell for cell in cells if cell.kind == "train"]
    attacks = [cell for cell in cells if cell.attack == "PGD" and cell.eps == 0.1][:2]
    known = estimates([*trainings[:3], *attacks])
    assert seconds_left(known, {}, {}, jobs=2) is None
    per_work = 10.0 / declared_work(trainings[0])
    assert seconds_left(known, {trainings[0].id: 10.0}, {}, jobs=2) == pytest.approx(
        (20 + 2 * per_work * declared_work(attacks[0])) / 2
    )
    ended = {trainings[0].id: 10.0, trainings[1].id: 20.0, attacks[0].id: 4.0}
    assert seconds_left(known, ended, {}, jobs=2) == pytest.approx((15 + 4) / 2)


@pytest.mark.parametrize("done", [1, 2])
@pytest.mark.parametrize("name", ["digits", "mnist", "cifar100-lite"])
def test_the_first_training_tells_how_long_the_suite_will_take(name: str, done: int) -> None:
    """Within a factor of two of what the committed run took in the end; measured were 0.97 to 1.25.

    So it is after the clean evaluation, of which those of `digits` took seconds to begin.
    """
    results = read_results(ROOT / "results" / name)
    cells = [cell for cell in results.plan.cells if cell.id in results.records]  # what diverged was not attacked
    took = {cell.id: results.records[cell.id].timing.seconds for cell in cells}
    left = seconds_left(estimates(cells), {cell.id: took[cell.id] for cell in cells[:done]}, {}, jobs=1)
    assert left is not None
    assert 1 / 2 < left / sum(took[cell.id] for cell in cells[done:]) < 2


def test_estimate_knows_something_before_the_first_cell_ends(cells: list[Cell]) -> None:
    """The first training has run for 30 s and needs 70 more; the other two will take 100 each, two at a time."""
    first, second, third = (cell.id for cell in cells if cell.kind == "train" and cell.objective == "ce")
    known = {name: estimate for name, estimate in estimates(cells).items() if name in (first, second, third)}
    running = {first: (30.0, 70.0)}
    assert seconds_left(known, {}, running, jobs=2) == pytest.approx((70 + 100 + 100) / 2)
    ended = {second: 100.0, third: 100.0}
    assert seconds_left(known, ended, running, jobs=2) == pytest.approx(70), "one cell is not shared by two processes"
    assert seconds_left(known, ended | {first: 100.0}, {}, jobs=2) == 0


def test_pace_is_counted_from_the_first_report(cells: list[Cell]) -> None:
    state, cell = RunState(), cells[0].id
    state.add(CellStarted(cell=cell, time=at(0)))
    expected = [(100.0, 500, None), (110.0, 500, None), (140.0, 600, pytest.approx(160)), (300.0, 1000, None)]
    for second, done, left in expected:
        state.add(CellProgress(cell=cell, done=done, total=1000, text="steps", time=at(second)))
        assert state.seconds_left_of(cell) == left
    state.add(CellProgress(cell=cell, done=0, total=0, text="a message", time=at(301)))
    assert [running.done for running in state.running(at(302))] == [1000]


def play(emit: Emit, cells: list[Cell]) -> None:
    first, second, third = (cell.id for cell in cells[:3])
    emit(CellStarted(cell=first))
    emit(CellProgress(cell=first, done=1, total=30, text="accuracy [0.5]"))
    emit(CellProgress(cell=first, done=0, total=0, text="the state was [corrupt]"))
    emit(CellEnded(cell=first, status="ok", seconds=8.0))
    emit(CellStarted(cell=second))
    emit(CellEnded(cell=second, status="failed", reason="no [memory]", seconds=0.0))
    emit(CellEnded(cell=third, status="skipped", reason="its training failed", seconds=0.0))


def test_plain_lines(cells: list[Cell]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    with display(console, cells[:4], jobs=1) as listener:
        assert isinstance(listener, PlainLines)
        play(listener, cells)
    # How much is left depends on the suite; the estimate has a test of its own.
    assert re.sub(r"about \d+ s left", "about N s left", out.getvalue()).splitlines() == [
        "cnn-ce seed 0: train: the state was [corrupt]",
        "[1/4] cnn-ce seed 0: train: done in 8.0 s; about N s left",
        "[2/4] cnn-ce seed 0: clean: failed: no [memory]; about N s left",
        "[3/4] cnn-ce seed 0: FGSM linf eps 0.05: skipped: its training failed; about N s left",
    ]


def plain_lines(out: io.StringIO, cells: list[Cell], **options: float) -> PlainLines:
    return PlainLines(Console(file=out, width=200), RunState([cell_estimate(cell) for cell in cells]), **options)


def test_a_long_cell_speaks_now_and_then(cells: list[Cell]) -> None:
    out = io.StringIO()
    listener = plain_lines(out, cells, every=0.0)
    listener(CellStarted(cell=cells[0].id))
    listener(CellProgress(cell=cells[0].id, done=1, total=30, text="accuracy 0.5"))
    assert out.getvalue() == "cnn-ce seed 0: train: 1 of 30 accuracy 0.5\n"


def test_live_bars(cells: list[Cell]) -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    with display(console, cells[:4], jobs=1) as listener:
        assert isinstance(listener, LiveBars)
        play(listener, cells)
    text = out.getvalue()
    assert "the state was [corrupt]" in text
    assert "failed: no [memory]" in text
    assert "all cells" in text


def at(second: float) -> datetime.datetime:
    return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=second)


def test_a_long_cell_says_how_much_of_it_is_left(cells: list[Cell]) -> None:
    """From its speed since the first report: a resumed training begins in the middle."""
    out = io.StringIO()
    listener, cell = plain_lines(out, cells), cells[0].id
    listener(CellStarted(cell=cell, time=at(0)))
    listener(CellProgress(cell=cell, done=500, total=1000, text="steps", time=at(100)))
    listener(CellProgress(cell=cell, done=550, total=1000, text="steps", time=at(120)))
    listener(CellProgress(cell=cell, done=600, total=1000, text="steps", accuracy=0.5, time=at(140)))
    assert out.getvalue().splitlines() == [
        "cnn-ce seed 0: train: 500 of 1000 steps",
        "cnn-ce seed 0: train: 600 of 1000 steps, accuracy 0.500, about 2 min 40 s left",
    ]


def test_the_fold_knows_what_runs_and_what_is_left(cells: list[Cell]) -> None:
    """Two equal trainings, one at a time; and one that the run had not announced."""
    first, second, third = (cell for cell in cells if cell.kind == "train" and cell.objective == "ce")
    state = RunState([cell_estimate(first), cell_estimate(second)], planned={cell.id: cell for cell in cells})
    state.add(CellStarted(cell=first.id, time=at(0)))
    assert state.seconds_left(at(5)) is None
    state.add(CellProgress(cell=first.id, done=0, total=100, text="steps", time=at(0)))
    state.add(CellProgress(cell=first.id, done=20, total=100, text="steps", loss=0.5, time=at(20)))
    (running,) = state.running(at(30))
    assert (running.title, running.seconds, running.done, running.loss) == (title(first), 30, 20, 0.5)
    assert running.seconds_left == pytest.approx(70), "80 at the report, 10 s ago"
    assert state.seconds_left(at(30)) == pytest.approx(70 + 100)
    state.add(CellEnded(cell=first.id, status="ok", seconds=100.0, time=at(100)))
    state.add(CellStarted(cell=third.id, time=at(100)))
    assert [cell.cell for cell in state.running(at(101))] == [third.id]
    assert (len(state.cells), set(state.ended)) == (3, {first.id})
    assert state.seconds_left(at(101)) == pytest.approx(200)
    state.add(CellStarted(cell="nobody knows it"))
    assert [cell.title for cell in state.running(at(102))] == [title(third), "nobody knows it"]


def test_a_cell_that_is_put_back_does_not_run_until_it_begins_again(cells: list[Cell]) -> None:
    cell, plain, out = cells[0].id, io.StringIO(), io.StringIO()
    listener = plain_lines(plain, cells)
    with display(Console(file=out, width=120, force_terminal=True), cells[:4], jobs=2) as bars:
        assert isinstance(bars, LiveBars)
        running = []
        for event in (
            CellStarted(cell=cell),
            CellPutBack(cell=cell, reason="out of [memory]"),
            CellStarted(cell=cell),
            CellEnded(cell=cell, status="ok", seconds=8.0),
        ):
            listener(event)
            bars(event)
            running.append(len(bars._state.running(event.time)))
            assert len(bars.progress.tasks) == 1 + running[-1]
    assert running == [1, 0, 1, 0]
    assert "out of [memory]" in out.getvalue()
    first, second = plain.getvalue().splitlines()
    assert first == "cnn-ce seed 0: train: out of [memory]"
    assert "done in 8.0 s" in second


def test_the_machine_of_a_cell_is_named_and_another_where_it_begins_again(cells: list[Cell]) -> None:
    cell, plain, bars = cells[0].id, io.StringIO(), io.StringIO()
    listener = plain_lines(plain, cells)
    with display(Console(file=bars, width=120, force_terminal=True), cells[:4], jobs=1) as shown:
        assert isinstance(shown, LiveBars)
        for event in (
            CellStarted(cell=cell, node="n1"),
            CellPutBack(cell=cell, reason="the node n1 is gone"),
            CellStarted(cell=cell, node="n2"),
            CellEnded(cell=cell, status="ok", seconds=8.0),
        ):
            listener(event)
            shown(event)
            if isinstance(event, CellStarted):
                assert [each.node for each in shown._state.running(event.time)] == [event.node]
                assert [task.description for task in shown.progress.tasks] == [
                    "all cells",
                    f"cnn-ce seed 0: train ({event.node})",
                ]
        assert [task.description for task in shown.progress.tasks] == ["all cells"]
    first, second = plain.getvalue().splitlines()
    assert first == "cnn-ce seed 0: train: the node n1 is gone"
    assert second.partition("; ")[0].endswith("] cnn-ce seed 0: train (n2): done in 8.0 s")
