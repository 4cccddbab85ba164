"""What the events of a run amount to so far: folded here, once, for bars, lines and `status`."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.run.watch import events
from robustbench_cmic.run.watch.estimate import CellEstimate, cell_estimate, seconds_left
from robustbench_cmic.suite.fields import Frozen


class RunningCell(Frozen):
    """A cell that is being carried out."""

    cell: str
    title: str
    seconds: float  # since it began
    done: int = 0  # as all to `loss` in `CellProgress`; 0 of 0 where nothing was heard yet
    total: int = 0
    text: str = ""
    accuracy: float | None = None
    loss: float | None = None
    seconds_left: float | None = None  # at its pace; None until it is known
    node: str = ""  # as in `CellStarted`


@dataclass
class _Running:
    """A cell under way, with its first and its last report."""

    since: datetime.datetime
    node: str = ""
    first: events.CellProgress | None = None
    last: events.CellProgress | None = None
    accuracy: float | None = None
    loss: float | None = None

    def seconds_left(self, now: datetime.datetime | None = None) -> float | None:
        """From now or the last report on, at the pace since the first: a resumed training begins in the middle."""
        first, last = self.first, self.last
        if first is None or last is None or not first.done < last.done < last.total:
            return None
        seconds = max(0.0, (last.time - first.time).total_seconds())  # a clock may be set back
        left = seconds / (last.done - first.done) * (last.total - last.done)
        return left if now is None else max(0.0, left - (now - last.time).total_seconds())


class RunState:
    """The fold over events: call `add` with each in turn.

    Args:
        cells: to run, where no `RunStarted` tells them.
        jobs: cells at a time, likewise.
        planned: cells by id, which may start although the run had not announced them.

    Attributes:
        begin, end: the run's first and last event; None where it had none.
        cells, ended: those to run, and those that have ended, by id.
    """

    def __init__(
        self, cells: Iterable[CellEstimate] = (), jobs: int = 1, planned: Mapping[str, Cell] | None = None
    ) -> None:
        self.begin: events.RunStarted | None = None
        self.end: events.RunEnded | None = None
        self.cells = {cell.id: cell for cell in cells}
        self.ended: dict[str, events.CellEnded] = {}
        self._jobs = jobs
        self._planned = planned or {}
        self._running: dict[str, _Running] = {}

    def add(self, event: events.Event) -> None:
        """Take an event into account."""
        match event:
            case events.RunStarted():
                self.begin, self._jobs = event, event.jobs
                self.cells = {cell.id: cell for cell in event.cells}
            case events.CellStarted():
                self._running[event.cell] = _Running(event.time, event.node)
                if event.cell not in self.cells and event.cell in self._planned:
                    self.cells[event.cell] = cell_estimate(self._planned[event.cell])
            case events.EpochDone(numbers=epoch) if running := self._running.get(event.cell):
                running.accuracy, running.loss = epoch.accuracy, epoch.loss.get("total")
            case events.CellProgress() if event.total and (running := self._running.get(event.cell)):
                running.first, running.last = running.first or event, event
                running.accuracy = running.accuracy if event.accuracy is None else event.accuracy
                running.loss = running.loss if event.loss is None else event.loss
            case events.CellPutBack():
                self._running.pop(event.cell, None)
            case events.CellEnded():
                self._running.pop(event.cell, None)
                self.ended[event.cell] = event
            case events.RunEnded():
                self.end = event

    def title(self, cell: str) -> str:
        """A cell in words; its id where nobody knows it."""
        if cell in self.cells:
            return self.cells[cell].title
        return title(self._planned[cell]) if cell in self._planned else cell

    def running(self, now: datetime.datetime) -> list[RunningCell]:
        """The cells under way, in the order in which they began."""
        return [
            RunningCell(
                cell=cell,
                title=self.title(cell),
                seconds=(now - running.since).total_seconds(),
                accuracy=running.accuracy,
                loss=running.loss,
                seconds_left=running.seconds_left(now),
                node=running.node,
                **running.last.model_dump(include={"done", "total", "text"}) if running.last else {},
            )
            for cell, running in self._running.items()
        ]

    def title_with_node(self, cell: str) -> str:
        """A cell in words, and where it is carried out, if that is another machine: `cnn-ce seed 0: train (node-2)`."""
        node = self._running[cell].node if cell in self._running else ""
        return f"{self.title(cell)} ({node})" if node else self.title(cell)

    def seconds_left_of(self, cell: str) -> float | None:
        """Of a cell under way, as of its last report."""
        return self._running[cell].seconds_left() if cell in self._running else None

    def seconds_left(self, now: datetime.datetime) -> float | None:
        """Of the whole run; None until something is known."""
        running = {
            one.cell: (one.seconds, one.seconds_left) for one in self.running(now) if one.seconds_left is not None
        }
        ended = {cell: event.seconds for cell, event in self.ended.items()}
        return seconds_left(self.cells, ended, running, self._jobs)
