"""How a suite's run stands, for whoever watches from outside: read from events, records and the lock.

Writes nothing and imports no torch.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime

from robustbench_cmic.plan.cell import title
from robustbench_cmic.records.locks import is_held
from robustbench_cmic.report import Results, of_own_making, read_results
from robustbench_cmic.run.executors import Outcome
from robustbench_cmic.run.watch.estimate import CellEstimate, Estimator, Pace, cell_estimate
from robustbench_cmic.run.watch.event_log import read_latest_run
from robustbench_cmic.run.watch.events import (
    EVENTS_FILE,
    CellEnded,
    CellProgress,
    CellStarted,
    EpochDone,
    Event,
    RunEnded,
    RunStarted,
)
from robustbench_cmic.suite.fields import Frozen

State = Literal["running", "finished", "interrupted", "stopped", "killed", "unknown"]
_ROUNDS = 3
"""How often to look again where a run began or ended between two looks."""


class RunningCell(Frozen):
    """A cell that is being carried out.

    Attributes:
        seconds: since it began.
        done, total: units, such as steps or examples, as `text` says; 0 of 0 where nothing was heard yet.
        accuracy, loss: of a training those of its last epoch, of an attack the accuracy so far.
        seconds_left: at its pace; None until it is known.
    """

    cell: str
    title: str
    seconds: float
    done: int = 0
    total: int = 0
    text: str = ""
    accuracy: float | None = None
    loss: float | None = None
    seconds_left: float | None = None


class Failure(Frozen):
    """A cell that ended without a result."""

    cell: str
    title: str
    status: Outcome
    reason: str


class Status(Frozen):
    """How a suite stands.

    Attributes:
        state: of the latest run: it is `running` (a lock is held), has `finished` (all done, or some failed), was
            `interrupted`, has `stopped` because it could not go on, or was `killed`; `unknown` where none is known.
        reason: why it stopped.
        started, ended: UTC; None where unknown: a run that has just begun, for instance.
        pid, host, device, jobs: of the latest run.
        exit_code: of the latest run, where it has ended by itself.
        cells_done, cells_total: of the suite's plan, by its records.
        run_done, run_total: of the latest run.
        seconds_left: estimated, of a run that is going on.
        running: what is being carried out now.
        failures: so far; while a run is going on, those of cells that it is still to do again are left out.
        records: the folder where records and tables are.
    """

    suite: str
    state: State
    reason: str = ""
    started: AwareDatetime | None = None
    ended: AwareDatetime | None = None
    pid: int | None = None
    host: str | None = None
    device: str | None = None
    jobs: int | None = None
    exit_code: int | None = None
    cells_done: int
    cells_total: int
    run_done: int = 0
    run_total: int = 0
    seconds_left: float | None = None
    running: list[RunningCell] = []
    failures: list[Failure] = []
    records: Path


def suite_status(folder: Path, work: Path) -> Status:
    """How a suite stands.

    Args:
        folder: its results folder.
        work: its work folder.

    Raises:
        ReportError: there are no results, or they are damaged.
    """
    held, events = _look(folder, work)
    with of_own_making(folder):
        return _status(folder, held, events)


def _status(folder: Path, held: bool, events: list[Event]) -> Status:
    results = read_results(folder)
    run = _Run(events, results, datetime.datetime.now(datetime.UTC) if held else None)
    done = sum(record.status == "ok" for cell in results.plan.cells if (record := results.records.get(cell.id)))
    status = Status(
        suite=results.plan.suite,
        state="running" if held else "unknown",
        cells_done=done,
        cells_total=len(results.plan.cells),
        failures=run.failures(held),
        records=folder,
    )
    return status.model_copy(update=run.facts(held))


def _look(folder: Path, work: Path) -> tuple[bool, list[Event]]:
    """Whether a run is going on, and the events of the latest; of one that has not yet said anything there are none."""
    for _ in range(_ROUNDS):
        held = is_held(folder) or is_held(work)
        events = read_latest_run(work / EVENTS_FILE)
        if held == (is_held(folder) or is_held(work)) and (held or not _is_open(events)):
            break
    if held and not (_is_open(events) and _may_live(events[0])):
        return True, []  # those are of the run before
    return held, events


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


class _Run:
    """What the events of one run say; `now` is None where it is over."""

    def __init__(self, events: Sequence[Event], results: Results, now: datetime.datetime | None) -> None:
        self.results = results
        self.now = now
        self.begin = next((event for event in events if isinstance(event, RunStarted)), None)
        self.end = next((event for event in reversed(events) if isinstance(event, RunEnded)), None)
        self.ended = {event.cell: event for event in events if isinstance(event, CellEnded)}
        self.reports: dict[str, list[CellProgress]] = defaultdict(list)
        self.epochs: dict[str, EpochDone] = {}
        self.begun: dict[str, datetime.datetime] = {}
        for event in events:
            if isinstance(event, CellStarted):
                self.begun[event.cell] = event.time
            elif isinstance(event, EpochDone):
                self.epochs[event.cell] = event
            elif isinstance(event, CellProgress) and event.total:
                self.reports[event.cell].append(event)
        planned = {} if self.begin is None else {one.id: one for one in self.begin.cells}
        known = {cell.id: cell for cell in [*results.plan.cells, *results.limited]}
        self.titles = {cell.id: title(cell) for cell in known.values()} | {
            one.id: one.title for one in planned.values()
        }
        later = [cell for cell in self.begun if cell not in planned and cell in known]
        self.tasks: list[CellEstimate] = [*planned.values(), *(cell_estimate(known[cell]) for cell in later)]

    def failures(self, running: bool) -> list[Failure]:
        """What ended without a result, by the records and, where there is none, by what the run has said."""
        ours = {one.id for one in self.tasks} if running else set()
        bad: dict[str, tuple[Outcome, str]] = {
            cell: (record.status, record.reason)
            for cell, record in self.results.records.items()
            if record.status != "ok" and cell not in ours
        }
        for cell, event in self.ended.items():
            if event.status in ("failed", "diverged") and (running or cell not in self.results.records):
                bad[cell] = (event.status, event.reason)
        return [
            Failure(cell=cell, title=self.titles.get(cell, cell), status=status, reason=reason)
            for cell, (status, reason) in bad.items()
        ]

    def facts(self, held: bool) -> dict[str, object]:
        """The fields of a `Status` that the run's events decide."""
        if self.begin is None:
            return {}
        begin, end = self.begin, self.end
        facts: dict[str, object] = {
            "started": begin.time,
            "pid": begin.pid,
            "host": begin.host,
            "device": begin.device,
            "jobs": begin.jobs,
            "run_done": len(self.ended),
            "run_total": len(self.tasks),
        }
        if held:
            running, left = self._running(begin)
            return facts | {"running": running, "seconds_left": left}
        if end is None:
            return facts | {"state": "killed"}
        state = "interrupted" if end.interrupted else "finished" if end.exit_code in (0, 1) else "stopped"
        return facts | {"state": state, "ended": end.time, "exit_code": end.exit_code, "reason": end.reason}

    def _running(self, begin: RunStarted) -> tuple[list[RunningCell], float | None]:
        """The cells under way, and the seconds that the whole run will take from now."""
        estimator = Estimator(self.tasks, begin.jobs)
        for cell, event in self.ended.items():
            estimator.finished(cell, event.seconds)
        running = [self._cell(cell, since) for cell, since in self.begun.items() if cell not in self.ended]
        for one in running:
            if one.seconds_left is not None:
                estimator.running(one.cell, one.seconds, one.seconds_left)
        return running, estimator.seconds_left()

    def _cell(self, cell: str, since: datetime.datetime) -> RunningCell:
        assert self.now is not None, "asked for a run that is going on only"
        reports, epoch = self.reports[cell], self.epochs.get(cell)
        shown = RunningCell(cell=cell, title=self.titles.get(cell, cell), seconds=(self.now - since).total_seconds())
        if epoch is not None:
            shown = shown.model_copy(
                update={"accuracy": epoch.numbers.accuracy, "loss": epoch.numbers.loss.get("total")}
            )
        if not reports:
            return shown
        pace, left = Pace(), None
        for report in reports:
            left = pace.seconds_left(report.time.timestamp(), report.done, report.total)
        last = reports[-1]
        if left is not None:
            left = max(0.0, left - (self.now - last.time).total_seconds())
        update = {"done": last.done, "total": last.total, "text": last.text, "seconds_left": left}
        return shown.model_copy(update=update if epoch else update | {"accuracy": last.accuracy, "loss": last.loss})
