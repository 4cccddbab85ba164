"""Shows a run: live bars on a terminal, plain lines elsewhere; both with an estimate of the time left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import Epoch
from robustbench_cmic.run.executors import Listener, Outcome
from robustbench_cmic.run.watch.estimate import Estimator, Pace, cell_estimate, duration


class Display(Listener, Protocol):
    """A listener that can be switched on and off."""

    def __enter__(self) -> Display:
        """Begin to show."""

    def __exit__(self, *exception: object) -> None:
        """Leave the terminal clean."""


class _Counts:
    """What both displays keep track of."""

    def __init__(self, cells: Sequence[Cell], jobs: int) -> None:
        self.total = len(cells)
        self.done = 0
        self._estimator = Estimator([cell_estimate(cell) for cell in cells], jobs)
        self._began: dict[str, float] = {}
        self._pace: dict[str, Pace] = defaultdict(Pace)

    def finish(self, cell: Cell, seconds: float) -> None:
        self.done += 1
        self._estimator.finished(cell.id, seconds)

    def left_of(self, cell: Cell, done: int, total: int) -> str:
        """Time left for a running cell."""
        now = time.monotonic()
        left = self._pace[cell.id].seconds_left(now, done, total)
        if left is None:
            self._began.setdefault(cell.id, now)
            return ""
        self._estimator.running(cell.id, now - self._began[cell.id], left)
        return f", about {duration(left)} left"

    def left(self) -> str:
        if self.done == self.total:
            return ""
        seconds = self._estimator.seconds_left()
        return "" if seconds is None else f"about {duration(seconds)} left"


def _note(text: str, accuracy: float | None) -> str:
    return text if accuracy is None else f"{text}, accuracy {accuracy:.3f}"


def _ending(outcome: Outcome, reason: str, seconds: float) -> str:
    if outcome == "ok":
        return f"done in {seconds:.1f} s"
    return f"{outcome}: {reason}" if reason else outcome


class PlainDisplay:
    """One line for each cell that ends; for a long cell, a line every `every` seconds."""

    def __init__(self, console: Console, cells: Sequence[Cell], jobs: int, every: float = 30.0) -> None:
        self._console = console
        self._counts = _Counts(cells, jobs)
        self._every = every
        self._spoke: dict[str, float] = {}

    def __enter__(self) -> PlainDisplay:
        """Nothing to prepare."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing to tidy up."""

    def started(self, cell: Cell) -> None:
        """Starts are not worth a line."""
        self._spoke[cell.id] = time.monotonic()

    def progressed(self, cell: Cell, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """Say something now and then, messages at once."""
        left = self._counts.left_of(cell, done, total) if total else ""
        now = time.monotonic()
        if total and now - self._spoke[cell.id] < self._every:
            return
        self._spoke[cell.id] = now
        amount = f"{done} of {total} " if total else ""
        self._say(f"{title(cell)}: {amount}{_note(text, accuracy)}{left}".rstrip())

    def trained(self, cell: Cell, epoch: Epoch, restored: bool) -> None:
        """Epochs show in what is said of progress."""

    def finished(self, cell: Cell, outcome: Outcome, reason: str, seconds: float) -> None:
        """Say how the cell ended, and how much is left."""
        self._counts.finish(cell, seconds)
        line = f"[{self._counts.done}/{self._counts.total}] {title(cell)}: {_ending(outcome, reason, seconds)}"
        left = self._counts.left()
        self._say(f"{line}; {left}" if left else line)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """A bar for each running cell and one for the whole; failures stay on the screen above them."""

    def __init__(self, console: Console, cells: Sequence[Cell], jobs: int) -> None:
        self._counts = _Counts(cells, jobs)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._whole = self._progress.add_task("all cells", total=len(cells), note="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> LiveDisplay:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the bars."""
        self._progress.stop()

    def started(self, cell: Cell) -> None:
        """Add a bar."""
        self._tasks[cell.id] = self._progress.add_task(title(cell), total=1, note="")

    def progressed(self, cell: Cell, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """Move the cell's bar; print what is a message only."""
        if total:
            note = f"{_note(text, accuracy)}{self._counts.left_of(cell, done, total)}"
            self._progress.update(self._tasks[cell.id], completed=done, total=total, note=note)
        else:
            self._progress.console.print(f"{title(cell)}: {text}", markup=False, highlight=False)

    def trained(self, cell: Cell, epoch: Epoch, restored: bool) -> None:
        """Epochs show in what is said of progress."""

    def finished(self, cell: Cell, outcome: Outcome, reason: str, seconds: float) -> None:
        """Remove the cell's bar and move that of the whole."""
        self._counts.finish(cell, seconds)
        if cell.id in self._tasks:
            self._progress.remove_task(self._tasks.pop(cell.id))
        if outcome != "ok":
            line = f"{title(cell)}: {_ending(outcome, reason, seconds)}"
            self._progress.console.print(line, markup=False, highlight=False)
        self._progress.update(self._whole, completed=self._counts.done, note=self._counts.left())


def make_display(console: Console, cells: Sequence[Cell], jobs: int) -> Display:
    """Bars on a terminal, lines elsewhere."""
    return LiveDisplay(console, cells, jobs) if console.is_terminal else PlainDisplay(console, cells, jobs)
