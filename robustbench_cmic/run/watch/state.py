"""What the events of a run amount to so far: folded here, once, for bars, lines and `status`."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.run.watch.estimate import CellEstimate, Estimator, Pace, cell_estimate
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
    """A cell under way, as of its last events; `left` is in seconds from the last report on."""

    since: datetime.datetime
    pace: Pace = field(default_factory=Pace)
    report: CellProgress | None = None
    left: float | None = None
    accuracy: float | None = None
    loss: float | None = None


class RunState:
    """The fold over events: call `add` with each in turn.

    Args:
        cells: to run, where no `RunStarted` tells them.
        jobs: cells at a time, likewise.
        known: cells by id, which may start although the run had not announced them.

    Attributes:
        begin, end: the run's first and last event; None where it had none.
        cells: those to run, by id.
        ended: those that have ended, by id.
    """

    def __init__(
        self, cells: Iterable[CellEstimate] = (), jobs: int = 1, known: Mapping[str, Cell] | None = None
    ) -> None:
        self.begin: RunStarted | None = None
        self.end: RunEnded | None = None
        self.ended: dict[str, CellEnded] = {}
        self._known = known or {}
        self._running: dict[str, _Running] = {}
        self._expect(cells, jobs)

    def _expect(self, cells: Iterable[CellEstimate], jobs: int) -> None:
        self.cells = {cell.id: cell for cell in cells}
        self._estimator = Estimator(list(self.cells.values()), jobs)

    def add(self, event: Event) -> None:
        """Take an event into account."""
        match event:
            case RunStarted():
                self.begin = event
                self._expect(event.cells, event.jobs)
            case CellStarted():
                self._start(event)
            case CellProgress():
                self._progress(event)
            case EpochDone():
                if (running := self._running.get(event.cell)) is not None:
                    running.accuracy, running.loss = event.numbers.accuracy, event.numbers.loss.get("total")
            case CellEnded():
                self._running.pop(event.cell, None)
                self.ended[event.cell] = event
                self._estimator.finished(event.cell, event.seconds)
            case RunEnded():
                self.end = event

    def _start(self, event: CellStarted) -> None:
        self._running[event.cell] = _Running(event.time)
        if event.cell not in self.cells and event.cell in self._known:
            self.cells[event.cell] = cell_estimate(self._known[event.cell])
            self._estimator.add(self.cells[event.cell])

    def _progress(self, event: CellProgress) -> None:
        running = self._running.get(event.cell)
        if running is None or event.total == 0:  # a message only
            return
        running.report = event
        running.left = running.pace.seconds_left(event.time.timestamp(), event.done, event.total)
        if event.accuracy is not None:
            running.accuracy = event.accuracy
        if event.loss is not None:
            running.loss = event.loss

    def title(self, cell: str) -> str:
        """A cell in words; its id where nobody knows it."""
        return self.cells[cell].title if cell in self.cells else cell

    def running(self, now: datetime.datetime) -> list[RunningCell]:
        """The cells under way, in the order in which they began."""
        return [self._running_cell(cell, now) for cell in self._running]

    def _running_cell(self, cell: str, now: datetime.datetime) -> RunningCell:
        running = self._running[cell]
        shared = {"cell": cell, "title": self.title(cell), "seconds": (now - running.since).total_seconds()}
        shared |= {"accuracy": running.accuracy, "loss": running.loss}
        report, left = running.report, running.left
        if report is None:
            return RunningCell.model_validate(shared)
        if left is not None:
            left = max(0.0, left - (now - report.time).total_seconds())
        numbers = {"done": report.done, "total": report.total, "text": report.text, "seconds_left": left}
        return RunningCell.model_validate(shared | numbers)

    def seconds_left_of(self, cell: str) -> float | None:
        """Of a cell under way, as of its last report."""
        return self._running[cell].left if cell in self._running else None

    def seconds_left(self, now: datetime.datetime) -> float | None:
        """Of the whole run; None until something is known."""
        for cell in self.running(now):
            if cell.seconds_left is not None:
                self._estimator.running(cell.cell, cell.seconds, cell.seconds_left)
        return self._estimator.seconds_left()
