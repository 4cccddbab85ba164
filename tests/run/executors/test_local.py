"""The local executor: order of dependencies, parallel processes, skipped dependents, dying workers."""

from __future__ import annotations

import math
import os
import tempfile
import time
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import Epoch, Status
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.executors import Queue, overdue
from robustbench_cmic.run.executors.local import LocalProcesses, _enter, needs_fresh_process
from robustbench_cmic.run.watch.events import CellEnded, CellProgress, CellStarted, EpochDone, Event
from tests.in_process import settings_for

PLAY = "tests.run.executors.playing:play"


def cell(name: str, needs: str | None = None, **declared: Any) -> Cell:
    kind: Any = "attack" if needs else "train"
    return Cell(id=name, kind=kind, model="m", architecture="a", objective="ce", seed=0, needs=needs, declared=declared)


class Diary:
    """A listener that writes everything down."""

    def __init__(self, interrupt_at: str = "") -> None:
        self.lines: list[tuple[str, str]] = []
        self.ends: dict[str, tuple[str, str]] = {}
        self.pids: set[str] = set()
        self.interrupt_at = interrupt_at

    def __call__(self, event: Event) -> None:
        if isinstance(event, CellStarted):
            self.lines.append(("start", event.cell))
        elif isinstance(event, CellProgress):
            assert (event.done, event.total) == (1, 2)
            self.pids.add(event.text)
        elif isinstance(event, EpochDone):
            self.lines.append((f"epoch {event.numbers.epoch} {event.restored}", event.cell))
        elif isinstance(event, CellEnded):
            self.lines.append(("end", event.cell))
            self.ends[event.cell] = (event.status, event.reason)
            if event.cell == self.interrupt_at:
                raise KeyboardInterrupt


def execute(cells: list[Cell], jobs: int = 2, diary: Diary | None = None) -> tuple[Diary, dict[str, Status], list[str]]:
    """What was heard, how the cells ended, and which deaths were recorded."""
    diary = diary or Diary()
    with tempfile.TemporaryDirectory() as folder:
        executor = LocalProcesses(settings_for(Path(folder)), jobs, PLAY)
        statuses = executor.run(cells, diary)
        records = [read_record(file) for file in Path(folder).iterdir()]
    assert all(record.status == "failed" and "its process died" in record.reason for record in records)
    return diary, statuses, [record.cell.id for record in records]


def test_dependents_wait_for_their_training() -> None:
    cells = [
        cell("t1", sleep=0.3),
        cell("a1", "t1"),
        cell("b1", "t1"),
        cell("t2"),
        cell("a2", "t2"),
        cell("a0", "done"),
    ]
    diary, outcomes, _ = execute(cells)
    assert outcomes == dict.fromkeys(("t1", "a1", "b1", "t2", "a2", "a0"), "ok")
    for needy, training in (("a1", "t1"), ("b1", "t1"), ("a2", "t2")):
        assert diary.lines.index(("end", training)) < diary.lines.index(("start", needy))
    assert len(diary.pids) == 2, "two processes share the work"


def test_one_job_means_one_process() -> None:
    diary, _, _ = execute([cell("t1"), cell("t2"), cell("a1", "t1")], jobs=1)
    assert len(diary.pids) == 1
    starts = [name for what, name in diary.lines if what == "start"]
    assert starts == ["t1", "t2", "a1"]


@pytest.mark.parametrize("outcome", ["failed", "diverged"])
def test_dependents_of_a_bad_training_are_skipped_and_the_rest_is_done(outcome: str) -> None:
    cells = [
        cell("t1", outcome=outcome, why="because"),
        cell("a1", "t1"),
        cell("b1", "t1"),
        cell("t2"),
        cell("a2", "t2"),
    ]
    diary, outcomes, _ = execute(cells)
    assert outcomes == {"t1": outcome, "a1": "skipped", "b1": "skipped", "t2": "ok", "a2": "ok"}
    assert diary.ends["t1"] == (outcome, "because")
    assert diary.ends["b1"] == ("skipped", f"{title(cell('t1'))} {outcome}")
    assert ("start", "a1") not in diary.lines


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("die", "SIGKILL; out of memory?"),
        ("leave", "exit code 3"),
        ("slowly", "exit code 3"),
        ("signal", "signal 40"),
    ],
)
def test_a_dying_worker_fails_its_cell_only(how: str, cause: str) -> None:
    cells = [cell("t1", None, **{how: True}), cell("a1", "t1"), cell("t2"), cell("t3"), cell("a3", "t3")]
    diary, outcomes, deaths = execute(cells, jobs=1)
    assert outcomes == {"t1": "failed", "a1": "skipped", "t2": "ok", "t3": "ok", "a3": "ok"}
    assert diary.ends["t1"] == ("failed", f"its process died ({cause})")
    assert deaths == ["t1"]


def test_an_interrupt_stops_everything_under_way() -> None:
    diary = Diary(interrupt_at="t1")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execute([cell("t1"), cell("t2", sleep=60)], diary=diary)
    assert time.monotonic() - began < 30
    for line in diary.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.removeprefix("pid ")), 0)


def attack(name: str, *dependencies: str | None, **declared: Any) -> Cell:
    """An attack that depends on a training, the training of a source, and the same attack in a smaller ball."""
    needs, source, after = (*dependencies, None, None, None)[:3]
    return cell(name, needs, **declared).model_copy(update={"attack": name, "source": source, "after": after})


def test_attacks_wait_for_their_source_and_for_the_smaller_ball() -> None:
    cells = [
        cell("t1"), attack("small", "t1", sleep=0.2), attack("large", "t1", None, "small"), cell("t2", sleep=0.5),
        attack("transfer", "t1", "t2"),
    ]  # fmt: skip
    diary, outcomes, _ = execute(cells)
    assert set(outcomes.values()) == {"ok"}
    for later, earlier in (("large", "small"), ("transfer", "t2"), ("transfer", "t1")):
        assert diary.lines.index(("end", earlier)) < diary.lines.index(("start", later))


def test_what_hangs_on_a_failed_cell_through_others_is_skipped_and_told_which_it_was() -> None:
    cells = [
        cell("t1"), attack("eps1", "t1", outcome="failed"), attack("eps2", "t1", None, "eps1"),
        attack("eps3", "t1", None, "eps2"), attack("other", "t1"), cell("t2"), attack("from-t1", "t2", "t1"),
    ]  # fmt: skip
    diary, outcomes, _ = execute(cells, jobs=1)
    ok = dict.fromkeys(("t1", "other", "t2", "from-t1"), "ok")
    assert outcomes == {**ok, "eps1": "failed", "eps2": "skipped", "eps3": "skipped"}
    assert diary.ends["eps2"] == diary.ends["eps3"] == ("skipped", "m seed 0: eps1 failed")


@pytest.mark.parametrize("outcome", ["failed", "diverged"])
def test_transfers_from_a_bad_training_are_skipped(outcome: str) -> None:
    cells = [cell("t1"), cell("t2", outcome=outcome), attack("own", "t1", "t1"), attack("across", "t1", "t2")]
    diary, outcomes, _ = execute(cells, jobs=1)
    assert outcomes == {"t1": "ok", "t2": outcome, "own": "ok", "across": "skipped"}
    assert diary.ends["across"] == ("skipped", f"m seed 0: train {outcome}")


def test_epochs_are_handed_on() -> None:
    numbers = Epoch(epoch=3, lr=0.1, loss={"total": 1.0}, accuracy=0.5, cmi=0.1, separation=1.0, ncmi=0.1)
    diary, _, _ = execute([cell("t", epoch=numbers.model_dump())])
    assert diary.lines == [("start", "t"), ("epoch 3 True", "t"), ("end", "t")]
    assert len(diary.pids) == 1


@pytest.mark.parametrize(
    ("device", "status", "declared", "fresh"),
    [
        ("cpu", "failed", {}, False),
        ("cuda:0", "failed", {}, True),
        ("cuda:0", "diverged", {}, False),
        ("cpu", "ok", {"objective": {"code_sha256": "1"}}, True),
    ],
)
def test_what_may_stay_in_a_process_asks_for_a_fresh_one(
    tmp_path: Path, device: str, status: Status, declared: dict[str, Any], fresh: bool
) -> None:
    assert needs_fresh_process(cell("t", **declared), status, settings_for(tmp_path, device=device)) is fresh


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_takes_too_long_is_stopped_and_the_rest_is_done(tmp_path: Path, jobs: int) -> None:
    """It hangs in a loop that no polite signal ends; others take less than the limit each, more in all."""
    cells = [
        cell("t1", hang=True),
        attack("a1", "t1"),
        cell("t2", sleep=0.5),
        attack("a2", "t2", sleep=0.5),
        cell("t3"),
    ]
    diary = Diary()
    settings = settings_for(tmp_path, timeout=5.0)
    statuses = LocalProcesses(settings, jobs, PLAY).run(cells, diary)
    assert statuses == {"t1": "failed", "a1": "skipped", "t2": "ok", "a2": "ok", "t3": "ok"}
    reason = "it took longer than --timeout allows (5 s) and was stopped; give it more, or none"
    assert diary.ends["t1"] == ("failed", reason)
    record = read_record(tmp_path / "t1.json")
    assert (record.status, record.reason) == ("failed", reason)
    assert record.timing.seconds >= 5
    for line in diary.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.removeprefix("pid ")), 0)


def test_a_worker_that_is_slow_to_start_takes_none_of_a_cells_time(tmp_path: Path) -> None:
    """A process takes longer to start than the limit of 50 ms."""
    settings = settings_for(tmp_path, timeout=0.05)
    assert LocalProcesses(settings, 1, PLAY).run([cell("t")], Diary()) == {"t": "ok"}


def test_a_training_that_was_stopped_says_that_it_goes_on(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, timeout=600.0)
    settings.store.resume_state("t").write_bytes(b"")
    ended = overdue(cell("t"), 601.5, settings)
    assert ended.reason.endswith("(600 s) and was stopped; it goes on from its last stored epoch when run again")
    assert ended.seconds == 601.5
    assert settings.store.resume_state("t").exists()


def test_a_worker_whose_run_was_killed_meanwhile_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for its parent before it imports anything, and what it was to say first goes nowhere."""
    done: list[str] = []
    monkeypatch.setattr("robustbench_cmic.run.executors.local.exit_with_parent", lambda: done.append("watches"))

    def resolve(name: str) -> Any:
        done.append(name)
        return lambda *_: done.append("works")

    monkeypatch.setattr("pkgutil.resolve_name", resolve)
    ours, theirs = Pipe()
    ours.close()
    _enter(theirs, "a:worker", settings_for(tmp_path))
    assert done == ["watches", "a:worker"]


def test_processes_that_hold_memory_are_gone_when_a_cell_runs_alone(tmp_path: Path) -> None:
    """All workers leave before its second try, for torch keeps what it once had; then it fails, or does not."""
    cells = [cell("t"), cell("short", outcome="failed", why="out of memory", short=True)]
    queue, diary = Queue(cells, lambda _: None), Diary()
    local = LocalProcesses(settings_for(tmp_path), 2, PLAY)
    local._dispatch(queue)
    first = [worker.process for worker in local._workers]
    while not queue.runs_alone:
        local._receive(queue, diary, math.inf)
        local._dispatch(queue)
    assert len(first) == 2
    assert len(local._workers) == 1
    assert not any(process.is_alive() for process in first)
    while not queue.is_done:
        local._receive(queue, diary, math.inf)
    local._remove(local._workers[0])
    assert queue.statuses == {"t": "ok", "short": "failed"}
