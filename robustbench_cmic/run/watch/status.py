"""How a suite's run stands, for whoever watches from outside: read from events, records and the lock; as text, too."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime

from robustbench_cmic.records.schema import AnyRecord, Status
from robustbench_cmic.records.store import Store
from robustbench_cmic.report import Results, of_own_making, read_results
from robustbench_cmic.report.tables import plain
from robustbench_cmic.run.watch.estimate import duration
from robustbench_cmic.run.watch.event_log import read_latest_run
from robustbench_cmic.run.watch.events import CellEnded, Event, RunEnded, RunStarted
from robustbench_cmic.run.watch.state import RunningCell, RunState
from robustbench_cmic.suite.fields import Frozen

_LONGEST = 1e10  # seconds; more than any cell is told to take
RunPhase = Literal["running", "finished", "interrupted", "stopped", "killed", "unknown"]


class Failure(Frozen):
    """A cell that ended without a result."""

    cell: str
    title: str
    status: Status
    reason: str


class SuiteStatus(Frozen):
    """How a suite stands, and its latest run.

    Attributes:
        state: of the latest run: it is `running` (a lock is held), has `finished` (all done, or some failed), was
            `interrupted`, has `stopped` because it could not go on, or was `killed`; `unknown` where none is known.
        failures: so far; while a run is going on, those of cells that it is still to do again are left out.
    """

    suite: str
    state: RunPhase
    reason: str = ""  # why it stopped
    started: AwareDatetime | None = None  # UTC; None where unknown: a run that has just begun, for instance
    ended: AwareDatetime | None = None
    pid: int | None = None
    host: str | None = None
    device: str | None = None
    jobs: int | None = None
    timeout: float | None = None  # seconds that a cell may take; None: any time
    exit_code: int | None = None  # where it has ended by itself
    cells_done: int  # of the suite's plan, by its records
    cells_total: int
    run_done: int = 0  # of the latest run
    run_total: int = 0
    seconds_left: float | None = None  # estimated, of a run that is going on
    running: list[RunningCell] = []
    failures: list[Failure] = []
    records: Path  # the folder where records and tables are


def suite_status(store: Store) -> SuiteStatus:
    """How a suite stands.

    Raises:
        ReportError: there are no results, or they are damaged.
    """
    is_running, events = _look(store)
    with of_own_making(store.results):
        results = read_results(store.results)
        run = RunState(planned={cell.id: cell for cell in [*results.plan.cells, *results.limited]})
        for event in events:
            run.add(event)
        records = (results.records.get(cell.id) for cell in results.plan.cells)
        return SuiteStatus(
            suite=results.plan.suite,
            cells_done=sum(record is not None and record.status == "ok" for record in records),
            cells_total=len(results.plan.cells),
            failures=_failures(run, results, is_running),
            records=store.results,
            **_of_run(run, is_running),
        )


def _look(store: Store) -> tuple[bool, list[Event]]:
    """Whether a run is going on, and the events of the latest; of one that has not yet said anything there are none."""
    for _ in range(3):  # again where a run began or ended between two looks
        is_running = store.is_in_use()
        events = read_latest_run(store.events)
        if is_running == store.is_in_use() and (is_running or not _is_open(events)):
            break
    if is_running and not (_is_open(events) and _may_live(events[0])):
        return True, []  # those are of the run before
    return is_running, events


def _is_open(events: Sequence[Event]) -> bool:
    return bool(events) and not isinstance(events[-1], RunEnded)


def _may_live(first: Event) -> bool:
    """Whether the process that began a run can be alive; of another machine's nobody here can tell."""
    if not isinstance(first, RunStarted) or first.host != socket.gethostname():
        return True
    try:
        os.kill(first.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _failures(run: RunState, results: Results, is_running: bool) -> list[Failure]:
    """What ended without a result, by the records and, where there is none, by what the run has said."""
    ends: dict[str, AnyRecord | CellEnded] = {
        cell: record for cell, record in results.records.items() if not (is_running and cell in run.cells)
    }
    ends |= {cell: event for cell, event in run.ended.items() if is_running or cell not in results.records}
    return [
        Failure(cell=cell, title=run.title(cell), status=end.status, reason=end.reason)
        for cell, end in ends.items()
        if end.status in ("failed", "diverged")
    ]


def _of_run(run: RunState, is_running: bool) -> dict[str, Any]:
    """The fields of a `SuiteStatus` that the latest run's events decide."""
    begin, end = run.begin, run.end
    if begin is None:
        return {"state": "running" if is_running else "unknown"}
    fields: dict[str, Any] = begin.model_dump(include={"pid", "host", "device", "jobs"})
    limit = begin.options.get("timeout")
    fields["timeout"] = limit if isinstance(limit, float) and 0 < limit <= _LONGEST else None
    fields |= {"started": begin.time, "run_done": len(run.ended), "run_total": len(run.cells)}
    if is_running:
        now = datetime.datetime.now(datetime.UTC)
        return fields | {"state": "running", "running": run.running(now), "seconds_left": run.seconds_left(now)}
    if end is None:
        return fields | {"state": "killed"}
    state = "interrupted" if end.interrupted else "finished" if end.exit_code in (0, 1) else "stopped"
    return fields | {"state": state, "ended": end.time, "exit_code": end.exit_code, "reason": end.reason}


_PHASES: dict[RunPhase, str] = {
    "running": "a run is going on",
    "finished": "no run is going on; the latest has ended",
    "interrupted": "no run is going on; the latest was interrupted; the same command goes on from there",
    "stopped": "no run is going on; the latest could not go on",
    "killed": "no run is going on; the latest was killed; the same command goes on from there",
    "unknown": "no run is going on",
}


def status_text(status: SuiteStatus) -> str:
    """The lines, without a last newline; no name or reason in them can begin a line or steer a terminal."""
    return "\n  ".join(map(plain, _lines(status)))


def _lines(status: SuiteStatus) -> Iterator[str]:
    yield f"{status.suite}: {_headline(status)}"
    yield f"cells: {status.cells_done} of {status.cells_total} done{_this_run(status)}"
    for cell in status.running:
        node = f" ({cell.node})" if cell.node else ""
        yield f"now: {cell.title}{node}{_progress(cell)}"
    for failure in status.failures:
        yield f"{failure.status}: {failure.title}: {failure.reason}"
    yield f"records: {status.records}"


def _headline(status: SuiteStatus) -> str:
    phase = _PHASES[status.state]
    if status.started is None:
        return f"{phase}, about to begin" if status.state == "running" else phase
    began = _clock(status.started)
    if status.state == "running":
        where = f"process {status.pid} on {status.host}, device {status.device}, {status.jobs} at a time"
        where += "" if status.timeout is None else f", at most {duration(status.timeout)} each"
        since = datetime.datetime.now(datetime.UTC) - status.started
        return f"{phase} since {began} ({duration(since.total_seconds())}), {where}"
    if status.ended is None:
        return f"{phase} (it began {began})"
    reason = f": {status.reason}" if status.reason else ""
    return f"{phase} ({began} to {_clock(status.ended)}, exit code {status.exit_code}){reason}"


def _this_run(status: SuiteStatus) -> str:
    if status.state == "unknown" or status.started is None:
        return ""
    left = "" if status.seconds_left is None else f", about {duration(status.seconds_left)} left"
    which = "this run" if status.state == "running" else "the latest run"
    return f"; {which}: {status.run_done} of {status.run_total}{left}"


def _progress(cell: RunningCell) -> str:
    parts = [f"{cell.done} of {cell.total} {cell.text}"] if cell.total else [f"for {duration(cell.seconds)}"]
    if cell.accuracy is not None:
        parts.append(f"accuracy {cell.accuracy:.3f}")
    if cell.loss is not None:
        parts.append(f"loss {cell.loss:.3g}")
    if cell.seconds_left is not None:
        parts.append(f"about {duration(cell.seconds_left)} left")
    return ": " + ", ".join(parts)


def _clock(moment: datetime.datetime) -> str:
    """In the reader's own time."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"
