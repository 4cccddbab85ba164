"""Events of a run, and its status from another terminal: while it runs, after kill -9, after Ctrl-C, at its end."""

from __future__ import annotations

import datetime
import fcntl
import json
import math
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import read_json, write_json
from robustbench_cmic.records.locks import exclusive, is_held
from robustbench_cmic.records.packing import unpack_outcomes
from robustbench_cmic.records.schema import AttackRecord, TrainRecord
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.report import read_results
from robustbench_cmic.run.watch.estimate import CellEstimate, cell_estimate, seconds_left
from robustbench_cmic.run.watch.event_log import EventLog, read_latest_run
from robustbench_cmic.run.watch.events import (
    CellEnded,
    CellProgress,
    CellStarted,
    EpochDone,
    RunEnded,
    RunStarted,
)
from robustbench_cmic.run.watch.status import SuiteStatus, status_text, suite_status
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.messages import UserError
from tests.cli.test_cli import LONG_SUITE, wait_for
from tests.conftest import ROOT, Cli, command, contents


@pytest.fixture
def cells(finished: Path) -> list[Cell]:
    return make_plan(load_suite(finished / "tiny.yaml").suite).cells


def store_of(folder: Path, suite: str = "tiny") -> Store:
    return Store.of_suite(suite, folder / "results", None)


def status_of(folder: Path) -> SuiteStatus:
    return suite_status(store_of(folder))


# --- events --------------------------------------------------------------------------------------------------------


def test_events_of_a_finished_run_are_whole_and_say_what_the_records_say(finished: Path, cells: list[Cell]) -> None:
    file = store_of(finished).events
    plain = [json.loads(line) for line in file.read_text().splitlines()]
    assert plain[0]["schema"] == "robustbench_cmic/events/1"
    found = read_latest_run(file)
    assert [event.event for event in found] == [event["event"] for event in plain], "every line is understood"
    first, last = found[0], found[-1]
    assert isinstance(first, RunStarted)
    assert [one.id for one in first.cells] == [cell.id for cell in cells]
    assert first.options["tensorboard"] is None
    assert isinstance(last, RunEnded)
    assert (last.exit_code, last.interrupted, last.reason) == (0, False, "")
    times = [event.time for event in found]
    assert times == sorted(times)
    assert {moment.utcoffset() for moment in times} == {datetime.timedelta(0)}
    for cell in cells:
        record = read_record(store_of(finished).record(cell.id))
        mine = [event for event in found if getattr(event, "cell", "") == cell.id]
        end = mine[-1]
        assert isinstance(mine[0], CellStarted)
        assert isinstance(end, CellEnded)
        assert (end.status, end.reason, end.seconds) == ("ok", "", record.timing.seconds)
        if isinstance(record, TrainRecord):
            assert [event.numbers for event in mine if isinstance(event, EpochDone)] == record.curve
            assert end.accuracy == record.curve[-1].accuracy
        else:
            assert isinstance(record, AttackRecord)
            assert end.accuracy == record.accuracy
            (progress,) = (event for event in mine if isinstance(event, CellProgress))
            assert record.n is not None
            so_far = unpack_outcomes(record.outcomes or "", record.n)[: progress.done]
            assert progress.accuracy == so_far.sum() / progress.done


def log_of(file: Path) -> EventLog:
    return EventLog(file, print)


def begin(log: EventLog, cells: list[Cell], **options: object) -> None:
    estimates = [cell_estimate(cell) for cell in cells]
    pid, host = os.getpid(), socket.gethostname()
    log(RunStarted(version="1", pid=pid, host=host, options=options, device="cpu", jobs=1, cells=estimates))


def progress(cell: Cell, done: int, total: int, text: str, **others: Any) -> CellProgress:
    return CellProgress(cell=cell.id, done=done, total=total, text=text, **others)


def test_a_torn_last_line_is_passed_over_and_the_next_run_begins_on_a_fresh_one(
    tmp_path: Path, cells: list[Cell]
) -> None:
    file = tmp_path / "events.jsonl"
    log = log_of(file)
    begin(log, cells)
    log(CellStarted(cell=cells[0].id))
    whole = file.read_bytes()
    file.write_bytes(whole + whole.splitlines()[1][:40])
    assert [event.event for event in read_latest_run(file)] == ["run-started", "cell-started"]
    begin(log_of(file), cells[:1])
    latest = read_latest_run(file)
    assert [event.event for event in latest] == ["run-started"]
    assert isinstance(latest[0], RunStarted)
    assert len(latest[0].cells) == 1
    assert len(file.read_bytes().splitlines()) == 4
    file.write_bytes(file.read_bytes()[:-20])
    assert len(read_latest_run(file)) == 2, "a torn beginning of a run hides the one before no longer than it must"


def test_progress_is_told_once_a_second_and_messages_at_once(tmp_path: Path, cells: list[Cell]) -> None:
    first = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    log = log_of(tmp_path / "events.jsonl")
    begin(log, cells)
    for second, cell, done in (
        (0.0, cells[0], 1), (0.9, cells[0], 2), (1.0, cells[0], 3), (1.1, cells[0], 0), (1.2, cells[1], 7),
        (1.9, cells[0], 4), (2.0, cells[0], 5), (-3600.0, cells[0], 6),
    ):  # fmt: skip
        time = first + datetime.timedelta(seconds=second)
        log(progress(cell, done, 10 if done else 0, "steps", accuracy=0.5, time=time))
    found = [event for event in read_latest_run(tmp_path / "events.jsonl") if isinstance(event, CellProgress)]
    assert [event.done for event in found] == [1, 3, 0, 7, 5, 6], "a clock that is set back silences nobody"
    assert found[0].accuracy == 0.5


def test_a_run_that_never_started_does_not_end(tmp_path: Path, cells: list[Cell]) -> None:
    file = tmp_path / "events.jsonl"
    begin(log_of(file), cells)
    log_of(file)(RunEnded(exit_code=130, interrupted=True))
    assert [event.event for event in read_latest_run(file)] == ["run-started"]


def test_no_unicode_is_no_reason_to_stop(tmp_path: Path) -> None:
    begin(log_of(tmp_path / "events.jsonl"), [], results="a\udcffb")
    (event,) = read_latest_run(tmp_path / "events.jsonl")
    assert isinstance(event, RunStarted)
    assert event.options == {"results": "a?b"}


def test_a_full_disk_is_told_once_and_the_run_goes_on(finished: Path, tiny: Path, cli_here: Cli) -> None:
    work = tiny.parent / "results.work" / "tiny"
    work.mkdir(parents=True)
    (work / "events.jsonl").symlink_to("/dev/full")
    done = cli_here("run", tiny, cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("warning: cannot write") == 1
    assert "events.jsonl: No space left on device; the run goes on" in done.stdout
    assert contents(tiny.parent / "results" / "tiny") == contents(finished / "results" / "tiny")


# --- status --------------------------------------------------------------------------------------------------------


def start(folder: Path, *options: object) -> subprocess.Popen[str]:
    arguments = command("run", "long.yaml", "--jobs", 1, *options)
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True)


def epochs_of(folder: Path) -> list[EpochDone]:
    found = read_latest_run(store_of(folder, "long").events)
    return [event for event in found if isinstance(event, EpochDone)]


def seen(cli: Cli, *arguments: object) -> Any:
    done = cli("status", "long", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    return found


def test_status_of_a_run_under_way_then_killed_then_interrupted(tmp_path: Path, cli_here: Cli) -> None:
    (tmp_path / "long.yaml").write_text(LONG_SUITE)
    process = start(tmp_path)
    try:
        wait_for(lambda: len(epochs_of(tmp_path)) > 60)
        found = seen(cli_here)
        assert (found["state"], found["pid"]) == ("running", process.pid)
        assert (found["cells_done"], found["cells_total"], found["run_done"], found["run_total"]) == (0, 8, 0, 8)
        (cell,) = found["running"]
        assert (cell["title"], cell["text"], cell["total"]) == ("ce seed 0: train", "steps", 30000)
        assert 0 < cell["done"] < 30000
        assert 0.5 < cell["accuracy"] <= 1
        assert cell["seconds_left"] > 1
        assert found["seconds_left"] > cell["seconds_left"], "another training is to follow"
        said = cli_here("status").stdout
        assert said.startswith("long: a run is going on since ")
        assert "  cells: 0 of 8 done; this run: 0 of 8, about " in said
        assert "  now: ce seed 0: train: " in said
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    before = [event.numbers for event in epochs_of(tmp_path)]
    assert seen(cli_here)["state"] == "killed"
    assert "the latest was killed; the same command goes on from there" in cli_here("status", "long.yaml").stdout
    with store_of(tmp_path, "long").events.open("ab") as file:
        file.write(b'{"time":"2026-01-01T00:00:00Z","event":"epo')
    process = start(tmp_path)
    wait_for(lambda: {event.restored for event in epochs_of(tmp_path)} == {True, False})
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    found = seen(cli_here)
    assert (found["state"], found["exit_code"], found["running"]) == ("interrupted", 130, [])
    resumed = epochs_of(tmp_path)
    assert [event.numbers.epoch for event in resumed] == list(range(1, len(resumed) + 1)), "the whole curve"
    restored = [event.numbers for event in resumed if event.restored]
    # The kill may have come between an epoch's state and its event.
    assert 0 < len(restored) <= len(before) + 1
    assert restored[: len(before)] == before[: len(restored)]


def test_status_after_the_end_and_of_all_suites(copied: Path, cli_here: Cli) -> None:
    found = status_of(copied)
    assert (found.state, found.exit_code, found.cells_done, found.failures) == ("finished", 0, 8, [])
    (file,) = (copied / "results" / "tiny").glob("ce.s0.FGSM*")
    write_json(file, read_json(file) | {"status": "failed", "reason": "the attack crashed"})
    (copied / "results" / "empty").mkdir()
    for arguments in ((), ("tiny",), ("tiny.yaml",), ("--watch",)):
        done = cli_here("status", *arguments, cwd=copied)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[1:] == [
            "  cells: 7 of 8 done; the latest run: 8 of 8",
            "  failed: ce seed 0: FGSM linf eps 0.1: the attack crashed",
            "  records: results/tiny",
        ]
        assert done.stdout.startswith("tiny: no run is going on; the latest has ended (")


def test_results_without_a_run_that_is_known() -> None:
    folder = ROOT / "results" / "digits"
    found = suite_status(Store(folder, ROOT / "none"))
    n = len(read_results(folder).plan.cells)
    assert (found.state, found.cells_done, found.cells_total, found.started) == ("unknown", n, n, None)
    assert status_text(found).startswith(f"digits: no run is going on\n  cells: {n} of {n} done\n  records: ")


def test_a_run_that_has_just_begun_is_not_taken_for_the_one_before(copied: Path) -> None:
    with exclusive(copied / "results" / "tiny"):
        found = status_of(copied)
        assert (found.state, found.started, found.run_total) == ("running", None, 0)
        assert status_text(found).startswith("tiny: a run is going on, about to begin\n")
    assert status_of(copied).state == "finished"


def test_a_killed_run_is_not_taken_for_one_that_has_just_begun(copied: Path, cells: list[Cell]) -> None:
    work = copied / "results.work" / "tiny"
    gone = subprocess.Popen(["true"])
    gone.wait()
    file = store_of(copied).events
    log = log_of(file)
    begin(log, cells)
    file.write_text(file.read_text().replace(f'"pid":{os.getpid()}', f'"pid":{gone.pid}'))
    log(CellStarted(cell=cells[0].id))
    assert status_of(copied).state == "killed"
    with exclusive(work):
        found = status_of(copied)
        assert (found.state, found.running) == ("running", [])


def test_failures_of_a_run_that_is_going_on(copied: Path, cells: list[Cell]) -> None:
    """Two had failed before. One of them is to be done again; the run has just failed on a third."""
    folder = copied / "results" / "tiny"
    for cell in cells[1:3]:
        file = store_of(copied).record(cell.id)
        write_json(file, read_json(file) | {"status": "failed", "reason": "before"})
    log = log_of(store_of(copied).events)
    begin(log, [cells[2], cells[3]])
    log(CellStarted(cell=cells[3].id))
    log(CellEnded(cell=cells[3].id, status="failed", reason="just now", seconds=0.0))
    log(CellStarted(cell=cells[2].id))
    log(progress(cells[2], 0, 0, "a message"))
    log(progress(cells[2], 256, 599, "examples", accuracy=0.25))
    with exclusive(folder):
        found = status_of(copied)
    assert [(failure.cell, failure.reason) for failure in found.failures] == [
        (cells[1].id, "before"),
        (cells[3].id, "just now"),
    ]
    (running,) = found.running
    assert (running.cell, running.done, running.total, running.accuracy) == (cells[2].id, 256, 599, 0.25)
    assert (found.run_done, found.run_total) == (1, 2)
    assert "  now: ce seed 0: FGSM linf eps 0.1: 256 of 599 examples, accuracy 0.250" in status_text(found)


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        ("run-started", {"time": "0001-01-01T00:00:00Z"}),
        ("run-started", {"time": "9999-12-31T23:59:59Z"}),
        ("run-started", {"time": "0001-01-01T00:00:00+14:00"}),
        ("run-started", {"jobs": 0}),
        ("run-started", {"jobs": 10**400}),
        ("cell-started", {"time": "9999-12-31T23:59:59-14:00"}),
        ("cell-ended", {"seconds": math.inf}),
        ("cell-ended", {"seconds": math.nan}),
        ("cell-ended", {"seconds": -1.0}),
        ("progress", {"done": -1}),
        ("progress", {"total": 10**400}),
        ("progress", {"loss": math.nan}),
        ("run-ended", {"time": "9999-12-31T23:59:59Z"}),
    ],
)
def test_what_no_run_could_have_written_is_passed_over(
    copied: Path, cells: list[Cell], event: str, changes: dict[str, Any]
) -> None:
    work = copied / "results.work" / "tiny"
    file = store_of(copied).events
    file.unlink()
    log = log_of(file)
    begin(log, cells[:4])
    log(CellStarted(cell=cells[0].id))
    log(CellEnded(cell=cells[0].id, status="ok", seconds=3.0))
    log(CellStarted(cell=cells[1].id))
    log(progress(cells[1], 3, 10, "steps"))
    log(RunEnded(exit_code=0))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    whole = len(read_latest_run(file))
    (at, *_) = (number for number, line in enumerate(lines) if line["event"] == event)
    lines[at] |= changes
    texts = [json.dumps(line, separators=(",", ":")).replace("Infinity", "1e999") for line in lines]
    file.write_text("\n".join(texts) + "\n")
    assert len(read_latest_run(file)) == (0 if event == "run-started" else whole - 1)
    status_text(status_of(copied))
    file.write_text("\n".join(texts[:-1]) + "\n")
    with exclusive(work):
        status_text(status_of(copied))


def test_work_of_any_size_gives_no_impossible_estimate() -> None:
    one = CellEstimate(id="a", title="a", kind="train", attack="", eps=0.0, work=1e-300)
    other = one.model_copy(update={"id": "b", "kind": "audit", "work": 1e300})
    assert seconds_left({"a": one, "b": other}, {"a": 1e9}, {}, 1) is None


def test_names_and_reasons_cannot_steer_the_terminal(copied: Path, cli_here: Cli) -> None:
    folder = copied / "results" / "tiny"
    (file,) = folder.glob("ce.s0.FGSM*")
    write_json(
        file, read_json(file) | {"status": "failed", "reason": "\x1b[2J\x1b]0;x\x07bad\n  records: elsewhere\u202e"}
    )
    plan = read_json(folder / "plan.json")
    write_json(folder / "plan.json", plan | {"suite": "tiny\x1b[31m"})
    done = cli_here("status", "tiny", cwd=copied)
    assert done.returncode == 0, done.stderr
    assert all(character.isprintable() or character == "\n" for character in done.stdout)
    assert done.stdout.splitlines()[2:] == [
        "  failed: ce seed 0: FGSM linf eps 0.1: [2J ]0;x bad records: elsewhere",
        "  records: results/tiny",
    ]


def test_looking_never_keeps_a_run_from_starting(tmp_path: Path) -> None:
    """Somebody looks at the very moment when a run takes the lock, and for longer than anybody would."""
    with exclusive(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(UserError, match="another run is using"), exclusive(tmp_path):
            pass
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "none")
    looking = (tmp_path / ".lock").open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not is_held(tmp_path), "two may look at once"
    threading.Timer(0.2, looking.close).start()
    with exclusive(tmp_path):
        assert looking.closed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status",), "results holds no results"),
        (("status", "nothing"), "nothing"),
        (("status", "tiny.yaml"), "results/tiny holds no results"),
        (("status", "--results", "/none"), "/none holds no results"),
    ],
)
def test_a_suite_without_results_is_told_and_exit_2(
    tiny: Path, cli_here: Cli, arguments: tuple[str, ...], message: str
) -> None:
    done = cli_here(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tiny.parent.iterdir()] == ["tiny.yaml"]
