"""The queue that executors share: a cell that ran out of memory beside others has a second try, alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import Status, Timing
from robustbench_cmic.records.store import Store, failed_record, read_record, write_record
from robustbench_cmic.run.executors import Queue
from robustbench_cmic.run.watch.events import CellEnded, CellPutBack, CellStarted, Event
from tests.run.executors.test_local import attack, cell

REASON = "out of memory on cuda:0: a smaller model, or smaller images, would need less"


class Played:
    """An executor of so many cells at a time, of which the one that began first ends first.

    A cell that declares `fits` as 2 finds no memory at its first try, as 3 at its first two.
    """

    def __init__(self, jobs: int, store: Store) -> None:
        self.jobs, self.store = jobs, store
        self.lines: list[tuple[str, str]] = []
        self.reasons: dict[str, str] = {}
        self.at_once: list[set[str]] = []
        self.tries: dict[str, int] = {}

    def run(self, cells: Sequence[Cell]) -> dict[str, Status]:
        queue, running = Queue(cells, self.hear, self.store), list[Cell]()
        while not queue.is_done:
            while len(running) < self.jobs and (taken := queue.take()) is not None:
                running.append(taken)
            self.at_once.append({each.id for each in running})
            ended = running.pop(0)
            queue.end(ended, self.ending(ended))
        return queue.statuses

    def ending(self, task: Cell) -> CellEnded:
        self.tries[task.id] = self.tries.get(task.id, 0) + 1
        if self.tries[task.id] >= task.declared.get("fits", 1):
            return CellEnded(cell=task.id, status="ok", seconds=1.0)
        write_record(
            self.store.results, failed_record("s", task, REASON, {}, Timing(started="2026-11-27", seconds=1.0))
        )
        return CellEnded(cell=task.id, status="failed", reason=REASON, seconds=1.0, out_of_memory=True)

    def hear(self, event: Event) -> None:
        kinds = {CellStarted: "start", CellPutBack: "back", CellEnded: "end"}
        assert isinstance(event, CellStarted | CellPutBack | CellEnded)
        self.lines.append((kinds[type(event)], event.cell))
        if not isinstance(event, CellStarted):
            self.reasons[event.cell] = event.reason


def played(cells: Sequence[Cell], jobs: int, folder: Path) -> tuple[Played, dict[str, Status]]:
    executor = Played(jobs, Store(folder, folder))
    return executor, executor.run(cells)


def test_it_is_tried_again_when_nothing_else_can_be_done_and_its_dependents_wait(tmp_path: Path) -> None:
    cells = [
        cell("t1"), attack("short", "t1", fits=2), attack("after", "t1", None, "short"), attack("a1", "t1"),
        attack("a2", "t1"), cell("t2"), attack("b1", "t2"),
    ]  # fmt: skip
    executor, statuses = played(cells, 3, tmp_path)
    assert statuses == dict.fromkeys(("t1", "short", "after", "a1", "a2", "t2", "b1"), "ok")
    assert executor.lines[-4:] == [("start", "short"), ("end", "short"), ("start", "after"), ("end", "after")]
    assert executor.lines.count(("back", "short")) == executor.lines.count(("end", "short")) == 1
    assert executor.at_once[-2:] == [{"short"}, {"after"}]
    assert max(map(len, executor.at_once)) == 3


def test_a_training_that_fits_alone_has_its_attacks_side_by_side_again(tmp_path: Path) -> None:
    cells = [cell("t1", fits=2), cell("t2"), attack("a", "t1"), attack("b", "t1")]
    executor, statuses = played(cells, 2, tmp_path)
    assert set(statuses.values()) == {"ok"}
    assert executor.at_once == [{"t1", "t2"}, {"t2"}, {"t1"}, {"a", "b"}, {"b"}]


def test_one_that_does_not_fit_alone_either_fails_and_its_record_says_so(tmp_path: Path) -> None:
    """One after the other where there are several; what needs them is skipped then, and not before."""
    cells = [cell("big", fits=3), cell("huge", fits=3), cell("t"), attack("a", "big")]
    executor, statuses = played(cells, 3, tmp_path)
    assert statuses == {"big": "failed", "huge": "failed", "t": "ok", "a": "skipped"}
    assert executor.lines[-6:] == [
        ("end", "t"), ("start", "big"), ("end", "big"), ("end", "a"), ("start", "huge"), ("end", "huge"),
    ]  # fmt: skip
    for name in ("big", "huge"):
        assert executor.tries[name] == 2
        assert executor.reasons[name] == f"{REASON}; tried beside other cells, and once more alone"
        assert read_record(executor.store.record(name)).reason == executor.reasons[name]


def test_what_was_told_when_it_was_put_back(tmp_path: Path) -> None:
    cells, said = [cell("big"), cell("t")], list[Event]()
    queue = Queue(cells, said.append, Store(tmp_path, tmp_path))
    assert (queue.take(), queue.take()) == tuple(cells)
    queue.end(cells[0], CellEnded(cell="big", status="failed", reason=REASON, seconds=1.0, out_of_memory=True))
    assert isinstance(said[-1], CellPutBack)
    assert said[-1].reason == f"{REASON}; to be tried once more, alone, when all others are done"
    assert not queue.is_done
    assert queue.statuses == {}
    assert queue.take() is None, "another is under way"


def test_one_that_had_all_memory_from_the_start_is_not_tried_again(tmp_path: Path) -> None:
    executor, statuses = played([cell("big", fits=2), cell("t")], 1, tmp_path)
    assert statuses == {"big": "failed", "t": "ok"}
    assert executor.reasons["big"] == REASON
    assert read_record(executor.store.record("big")).reason == REASON


def test_one_whose_node_died_is_alone_again(tmp_path: Path) -> None:
    """Another that waits for the same stays behind it, and what needs it, too."""
    cells, said = [cell("big"), cell("huge"), attack("a", "big")], list[Event]()
    queue = Queue(cells, said.append)
    short = {"status": "failed", "reason": REASON, "seconds": 1.0, "out_of_memory": True}
    assert [queue.take(), queue.take()] == cells[:2]
    for each in cells[:2]:
        queue.end(each, CellEnded.model_validate({"cell": each.id, **short}))
    for _ in range(2):
        assert queue.take() == cells[0]
        assert queue.runs_alone
        assert queue.take() is None
        queue.put_back(cells[0], "its node is gone")
        assert not queue.runs_alone
    assert queue.take() == cells[0]
    queue.end(cells[0], CellEnded.model_validate({"cell": "big", **short}))
    assert queue.statuses == {"big": "failed", "a": "skipped"}
    ends = [event.reason for event in said if isinstance(event, CellEnded) and event.cell == "big"]
    assert ends == [f"{REASON}; tried beside other cells, and once more alone"]
    assert queue.take() == cells[1]
    assert queue.runs_alone
