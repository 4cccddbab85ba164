"""What the events of a run amount to so far: folded here, once, for bars, lines and `status`."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.run.watch.estimate import CellEstimate, cell_estimate, seconds_left
from robustbench_cmic.run.watch.events import (
    CellEnded,
    CellProgress,
    CellStarted,
    EpochDone,
    Event,
    RunEnded,
    RunStarted,
)
from robustbench_cmic.suite.fields import Frozen


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


@dataclass
class _Running:
    """A cell under way, with its first and its last report."""

    since: datetime.datetime
    first: CellProgress | None = None
    last: CellProgress | None = None
    accuracy: float | None = None
    loss: float | None = None

    def seconds_left(self) -> float | None:
        """From the last report on, at the pace since the first: a resumed training begins in the middle."""
        first, last = self.first, self.last
        if first is None or last is None or not first.done < last.done < last.total:
            return None
        seconds = max(0.0, (last.time - first.time).total_seconds())  # a clock may be set back
        return seconds / (last.done - first.done) * (last.total - last.done)


class RunState:
    """The fold over events: call `add` with each in turn.

    Args:
        cells: to run, where no `RunStarted` tells them.
        jobs: cells at a time, likewise.
        planned: cells by id, which may start although the run had not announced them.

    Attributes:
        begin, end: the run's first and last event; None where it had none.
        cells: those to run, by id.
        ended: those that have ended, by id.
    """

    def __init__(
        self, cells: Iterable[CellEstimate] = (), jobs: int = 1, planned: Mapping[str, Cell] | None = None
    ) -> None:
        self.begin: RunStarted | None = None
        self.end: RunEnded | None = None
        self.cells = {cell.id: cell for cell in cells}
        self.ended: dict[str, CellEnded] = {}
        self._jobs = jobs
        self._planned = planned or {}
        self._running: dict[str, _Running] = {}

    def add(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case RunStarted():
                self.begin, self._jobs = event, event.jobs
                self.cells = {cell.id: cell for cell in event.cells}
            case CellStarted():
                self._running[event.cell] = _Running(event.time)
                if event.cell not in self.cells and event.cell in self._planned:
                    self.cells[event.cell] = cell_estimate(self._planned[event.cell])
            case CellProgress() | EpochDone() if event.cell in self._running:
                self._hear(self._running[event.cell], event)
            case CellEnded():
                self._running.pop(event.cell, None)
                self.ended[event.cell] = event
            case RunEnded():
                self.end = event

    @staticmethod
    def _hear(running: _Running, event: CellProgress | EpochDone) -> None:
        if isinstance(event, EpochDone):
            running.accuracy, running.loss = event.numbers.accuracy, event.numbers.loss.get("total")
        elif event.total:  # else a message only
            running.first, running.last = running.first or event, event
            running.accuracy = running.accuracy if event.accuracy is None else event.accuracy
            running.loss = running.loss if event.loss is None else event.loss

    def title(self, cell: str) -> str:
        """A cell in words; its id where nobody knows it."""
        if cell in self.cells:
            return self.cells[cell].title
        return title(self._planned[cell]) if cell in self._planned else cell

    def running(self, now: datetime.datetime) -> list[RunningCell]:
        """The cells under way, in the order in which they began."""
        return [self._running_cell(cell, running, now) for cell, running in self._running.items()]

    def _running_cell(self, cell: str, running: _Running, now: datetime.datetime) -> RunningCell:
        last, left = running.last, running.seconds_left()
        if last is not None and left is not None:
            left = max(0.0, left - (now - last.time).total_seconds())
        return RunningCell(
            cell=cell,
            title=self.title(cell),
            seconds=(now - running.since).total_seconds(),
            done=last.done if last else 0,
            total=last.total if last else 0,
            text=last.text if last else "",
            accuracy=running.accuracy,
            loss=running.loss,
            seconds_left=left,
        )

    def seconds_left_of(self, cell: str) -> float | None:
        """Of a cell under way, as of its last report."""
        return self._running[cell].seconds_left() if cell in self._running else None

    def seconds_left(self, now: datetime.datetime) -> float | None:
        """Of the whole run; None until something is known."""
        running = {one.cell: (one.seconds, one.seconds_left) for one in self.running(now)}
        paces = {cell: (seconds, left) for cell, (seconds, left) in running.items() if left is not None}
        ended = {cell: event.seconds for cell, event in self.ended.items()}
        return seconds_left(self.cells, ended, paces, self._jobs)
