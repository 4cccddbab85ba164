"""Carries out cells in the order of their dependencies. An executor knows nothing of suites, results or reports.

`LocalProcesses` is the one for a single machine. A cluster's would implement the same `Executor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import Epoch

Outcome = Literal["ok", "diverged", "failed", "skipped"]


class Listener(Protocol):
    """Hears what happens while cells run."""

    def started(self, cell: Cell) -> None:
        """A cell has begun."""

    def progressed(self, cell: Cell, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """A cell has done `done` of `total` units, with this accuracy so far; 0 of 0 is a message only."""

    def trained(self, cell: Cell, epoch: Epoch, restored: bool) -> None:
        """A training has finished an epoch, or taken one up again that an earlier run had finished."""

    def finished(self, cell: Cell, outcome: Outcome, reason: str, seconds: float) -> None:
        """A cell has ended, or was skipped because a cell that it depends on did not end well."""


class Listeners:
    """Tells several listeners, one after the other."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def started(self, cell: Cell) -> None:
        """See `Listener`."""
        for listener in self._listeners:
            listener.started(cell)

    def progressed(self, cell: Cell, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """See `Listener`."""
        for listener in self._listeners:
            listener.progressed(cell, done, total, text, accuracy)

    def trained(self, cell: Cell, epoch: Epoch, restored: bool) -> None:
        """See `Listener`."""
        for listener in self._listeners:
            listener.trained(cell, epoch, restored)

    def finished(self, cell: Cell, outcome: Outcome, reason: str, seconds: float) -> None:
        """See `Listener`."""
        for listener in self._listeners:
            listener.finished(cell, outcome, reason, seconds)


class Executor(Protocol):
    """Something that can carry out cells."""

    def run(self, cells: Sequence[Cell], listener: Listener) -> dict[str, Outcome]:
        """Carry out `cells`; what they need and is not among them is done already. Returns each cell's outcome.

        Raises:
            KeyboardInterrupt: passed on after everything under way was stopped; what is recorded stays.
        """


@dataclass
class _Queue:
    """Which cells may start: those that depend on nothing unfinished."""

    waiting: list[Cell]
    running: set[str] = field(default_factory=set)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def take(self) -> Cell | None:
        """The next cell that may start."""
        unfinished = {cell.id for cell in self.waiting} | self.running
        for cell in self.waiting:
            if unfinished.isdisjoint(cell.dependencies):
                self.waiting.remove(cell)
                self.running.add(cell.id)
                return cell
        return None

    def finish(self, cell: Cell, outcome: Outcome) -> list[Cell]:
        """Note an outcome; returns the cells that can never start because of it."""
        self.running.discard(cell.id)
        self.outcomes[cell.id] = outcome
        lost = set() if outcome == "ok" else {cell.id}
        blocked = []
        for other in self.waiting:  # in order, so that what depends on a blocked cell comes after it
            if not lost.isdisjoint(other.dependencies):
                lost.add(other.id)
                blocked.append(other)
        self.waiting = [other for other in self.waiting if other.id not in lost]
        self.outcomes |= {other.id: "skipped" for other in blocked}
        return blocked
