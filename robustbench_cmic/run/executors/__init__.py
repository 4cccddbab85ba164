"""Carries out cells in the order of their dependencies. An executor knows nothing of suites or reports.

To write another, say for a cluster: a class that is called with `Settings` and the number of cells at a time and has
the methods of `Executor`, and a row in `EXECUTORS`. Its `run` takes cells from a `Queue`, calls `run.job.run_cell` for
each wherever it likes, hands on the events that this emits, and gives the last of them, `CellEnded`, to `Queue.end`.
For a cell that died without one there is `death`, and so for one that took longer than `Settings.timeout` and was
stopped, see `overdue`. Where no disk is shared, `node.Node` is what a
machine does: `Store.inputs` lists the files to bring there, beside data, given weights and code that `Settings` names,
`Store.outputs` those to bring back, which `Store.write_outputs` writes.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from typing import Protocol

from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import Status, Timing
from robustbench_cmic.records.store import Store, failed_record, read_record, write_record
from robustbench_cmic.run.options import Options, Settings
from robustbench_cmic.run.watch.events import CellEnded, CellPutBack, CellStarted, Emit

EXECUTORS = {
    "local": "robustbench_cmic.run.executors.local:LocalProcesses",
    "ray": "robustbench_cmic.run.executors.ray:RayCluster",
}
"""By name, where it is."""


class Executor(Protocol):
    """Something that can carry out cells."""

    def __init__(self, settings: Settings, jobs: int) -> None: ...

    @staticmethod
    def place(options: Options) -> tuple[str, int]:
        """The device of torch on which it carries out cells, and how many at a time; asked before anything is written.

        Raises:
            UserError: there is no such device, or it cannot carry out anything.
        """
        ...

    def run(self, cells: Sequence[Cell], emit: Emit) -> dict[str, Status]:
        """Carry out `cells`; what they need and is not among them is done already. Returns how each ended, by id.

        Args:
            cells: each after those that it depends on.
            emit: called with what happens, in this process and thread.

        Raises:
            KeyboardInterrupt: passed on after everything under way was stopped; what is recorded stays.
        """


class Queue:
    """Which cells may start: those that depend on nothing unfinished. Emits the start and the end of each.

    A cell that ran out of memory beside others is put back, and given out once more when all others are done, alone.

    Args:
        cells: each after those that it depends on.
        emit: called with what happens.
        store: where the record of a cell is that failed alone, too, which then says so; None: only its event does.

    Attributes:
        statuses: how cells have ended, by id.
        runs_alone: the cell that runs was given out alone, for lack of memory beside others; an executor ends idle
            processes first, which keep some.
    """

    def __init__(self, cells: Sequence[Cell], emit: Emit, store: Store | None = None) -> None:
        self._waiting = list(cells)
        self._running: dict[str, Cell] = {}
        self._beside: set[str] = set()  # of the running ones, those that others have run beside
        self._short: list[Cell] = []  # those that are to run alone
        self._emit = emit
        self._store = store
        self.statuses: dict[str, Status] = {}
        self.runs_alone = False

    @property
    def is_done(self) -> bool:
        """No cell waits or runs."""
        return not self._waiting and not self._running and not self._short

    @property
    def unfinished(self) -> list[Cell]:
        """Those that wait or run, in no particular order."""
        return [*self._waiting, *self._short, *self._running.values()]

    def take(self, node: str = "") -> Cell | None:
        """The next cell that may start, which begins with this; None where all that are left wait for running ones.

        `node` is the machine that takes it, where that is another one.
        """
        if self.runs_alone:
            return None
        unfinished = {other.id for other in self.unfinished}
        cell = next((cell for cell in self._waiting if unfinished.isdisjoint(cell.dependencies)), None)
        if cell is not None:
            self._waiting.remove(cell)
        elif self._short and not self._running:
            cell, self.runs_alone = self._short.pop(0), True
        if cell is not None:
            self._running[cell.id] = cell
            if len(self._running) > 1:
                self._beside |= self._running.keys()
            self._emit(CellStarted(cell=cell.id, node=node))
        return cell

    def put_back(self, cell: Cell, why: str) -> None:
        """A cell that was taken is to be taken again, the first of all; alone, if it ran alone."""
        del self._running[cell.id]
        self._beside.discard(cell.id)
        (self._short if self.runs_alone else self._waiting).insert(0, cell)
        self.runs_alone = False
        self._emit(CellPutBack(cell=cell.id, reason=why))

    def end(self, cell: Cell, event: CellEnded) -> None:
        """A cell has ended, or is put back; those that can never start because of it are skipped."""
        self._running.pop(cell.id, None)
        beside = cell.id in self._beside
        self._beside.discard(cell.id)
        if event.out_of_memory and beside:
            self._short.append(cell)
            reason = f"{event.reason}; to be tried once more, alone, when all others are done"
            self._emit(CellPutBack(cell=cell.id, reason=reason))
            return
        if event.out_of_memory and self.runs_alone:
            event = self._alone_in_vain(event)
        self.runs_alone = False
        self.statuses[cell.id] = event.status
        self._emit(event)
        lost = set() if event.status == "ok" else {cell.id}
        for other in self._waiting:  # in order, so that what depends on a skipped cell comes after it
            if not lost.isdisjoint(other.dependencies):
                lost.add(other.id)
                self.statuses[other.id] = "skipped"
                reason = f"{title(cell)} {event.status}"
                self._emit(CellEnded(cell=other.id, status="skipped", seconds=0.0, reason=reason))
        self._waiting = [other for other in self._waiting if other.id not in lost]

    def _alone_in_vain(self, event: CellEnded) -> CellEnded:
        """The end of a cell that did not fit alone, either; its record says so, too."""
        reason = f"{event.reason}; tried beside other cells, and once more alone"
        if self._store is not None:
            with contextlib.suppress(OSError):  # as of `death`
                record = read_record(self._store.record(event.cell)).model_copy(update={"reason": reason})
                write_record(self._store.results, record)
        return event.model_copy(update={"reason": reason})


def death(cell: Cell, reason: str, settings: Settings, seconds: float = 0.0) -> CellEnded:
    """The end of a cell that could not tell of it itself, recorded as failed; it took so many `seconds`, if known."""
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    timing = Timing(started=began.isoformat(timespec="seconds"), seconds=round(seconds, 3))
    record = failed_record(settings.suite, cell, reason, settings.provenance, timing)
    with contextlib.suppress(OSError):  # the outcome is told and counted all the same
        write_record(settings.store.results, record)
    return CellEnded(cell=cell.id, status="failed", seconds=timing.seconds, reason=reason)


def overdue(cell: Cell, seconds: float, settings: Settings) -> CellEnded:
    """The end of a cell that was stopped for the time it took. What a training has stored stays, to go on from."""
    goes_on = cell.kind == "train" and settings.store.resume_state(cell.id).is_file()
    hint = "it goes on from its last stored epoch when run again" if goes_on else "give it more, or none"
    limit = settings.timeout or seconds
    return death(cell, f"it took longer than --timeout allows ({limit:g} s) and was stopped; {hint}", settings, seconds)
