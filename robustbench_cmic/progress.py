"""Shows a run: live bars on a terminal, plain lines elsewhere; both with an estimate of the time left."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from robustbench_cmic.cell import Cell, title
from robustbench_cmic.execute import Listener, Outcome


class Estimator:
    """Time left, learned from the cells that are done.

    Cells that differ only in model and seed take about equally long. A kind of cell not seen yet is estimated by its
    declared work (epochs, gradient steps), scaled by how long such work took so far.
    """

    def __init__(self, cells: Sequence[Cell], jobs: int) -> None:
        self._left = {cell.id: cell for cell in cells}
        self._jobs = jobs
        self._seconds: dict[tuple[str, str, float], list[float]] = defaultdict(list)
        self._work = 0.0
        self._spent = 0.0

    def finished(self, cell: Cell, seconds: float) -> None:
        """Learn from a finished cell; 0 seconds teach nothing."""
        self._left.pop(cell.id, None)
        if seconds > 0:
            self._seconds[cell.kind, cell.attack, cell.eps].append(seconds)
            self._work += declared_work(cell)
            self._spent += seconds

    def seconds_left(self) -> float | None:
        """None until something is known."""
        if self._work == 0:
            return None
        return sum(self._expected(cell) for cell in self._left.values()) / self._jobs

    def _expected(self, cell: Cell) -> float:
        known = self._seconds.get((cell.kind, cell.attack, cell.eps))
        if known:
            return sum(known) / len(known)
        return declared_work(cell) * self._spent / self._work


def declared_work(cell: Cell) -> float:
    """A cell's work in passes over the data, roughly; a training set is taken for twice the test set."""
    if cell.kind == "train":
        training = cell.declared["training"]
        return 6.0 * float(training["epochs"]) if training is not None else 1.0
    if cell.kind == "audit":
        return sum(_attack_work(check["attack"]) for check in cell.declared["audit"]["checks"]) / 4
    return _attack_work(cell.declared["attack"])


def _attack_work(setting: dict[str, Any]) -> float:
    if setting["name"] == "AutoAttack":
        # Most examples fall to the first steps of its first part: a fiftieth of what it may take is a guess.
        gradients: int = setting["steps"] * (1 + 2 * setting["targets"])
        return (3.0 * gradients + float(setting["queries"])) / 50
    return float(setting.get("samples", 0)) + 3.0 * float(setting.get("steps", 1)) * float(
        setting.get("restarts", setting.get("n_restarts", 1))
    )


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
        self._estimator = Estimator(cells, jobs)
        self._first: dict[str, tuple[float, int]] = {}

    def finish(self, cell: Cell, seconds: float) -> None:
        self.done += 1
        self._estimator.finished(cell, seconds)

    def left_of(self, cell: Cell, done: int, total: int) -> str:
        """Time left for a running cell, from how fast it has been since its first report."""
        now = time.monotonic()
        began, at_first = self._first.setdefault(cell.id, (now, done))
        if done == at_first or done >= total:
            return ""
        return f", about {duration((now - began) / (done - at_first) * (total - done))} left"

    def left(self) -> str:
        if self.done == self.total:
            return ""
        seconds = self._estimator.seconds_left()
        return "" if seconds is None else f"about {duration(seconds)} left"


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

    def progressed(self, cell: Cell, done: int, total: int, text: str) -> None:
        """Say something now and then, messages at once."""
        left = self._counts.left_of(cell, done, total) if total else ""
        now = time.monotonic()
        if total and now - self._spoke[cell.id] < self._every:
            return
        self._spoke[cell.id] = now
        amount = f"{done} of {total} " if total else ""
        self._say(f"{title(cell)}: {amount}{text}{left}".rstrip())

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

    def progressed(self, cell: Cell, done: int, total: int, text: str) -> None:
        """Move the cell's bar; print what is a message only."""
        if total:
            note = f"{text}{self._counts.left_of(cell, done, total)}"
            self._progress.update(self._tasks[cell.id], completed=done, total=total, note=note)
        else:
            self._progress.console.print(f"{title(cell)}: {text}", markup=False, highlight=False)

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
