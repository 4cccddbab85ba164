"""Shows a run: live bars on a terminal, plain lines elsewhere; both with an estimate of the time left."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.run.console import sayer
from robustbench_cmic.run.watch.estimate import cell_estimate, duration
from robustbench_cmic.run.watch.events import CellEnded, CellProgress, CellPutBack, CellStarted, Emit, Event
from robustbench_cmic.run.watch.state import RunState


@contextlib.contextmanager
def display(console: Console, cells: Sequence[Cell], jobs: int) -> Iterator[Emit]:
    """A listener that shows the run of `cells`: bars on a terminal, lines elsewhere."""
    state = RunState([cell_estimate(cell) for cell in cells], jobs)
    if not console.is_terminal or console.quiet:  # bars would take what is printed meanwhile with them
        yield PlainLines(console, state)
        return
    bars = LiveBars(console, state)
    with bars.progress:
        yield bars


def _note(state: RunState, event: CellProgress) -> str:
    accuracy = "" if event.accuracy is None else f", accuracy {event.accuracy:.3f}"
    left = state.seconds_left_of(event.cell) if event.total else None
    return event.text + accuracy + ("" if left is None else f", about {duration(left)} left")


def _ending(event: CellEnded) -> str:
    if event.status == "ok":
        return f"done in {event.seconds:.1f} s"
    return f"{event.status}: {event.reason}" if event.reason else event.status


def _left(state: RunState, now: datetime.datetime) -> str:
    seconds = None if len(state.ended) == len(state.cells) else state.seconds_left(now)
    return "" if seconds is None else f"about {duration(seconds)} left"


class PlainLines:
    """One line for each cell that ends and for each message; for a long cell, a line every `every` seconds."""

    def __init__(self, console: Console, state: RunState, every: float = 30.0) -> None:
        self._say = sayer(console, soft_wrap=True)
        self._state = state
        self._every = datetime.timedelta(seconds=every)
        self._last_line: dict[str, datetime.datetime] = {}

    def __call__(self, event: Event) -> None:
        """Say what is worth a line."""
        state = self._state
        title = state.title_with_node(event.cell) if isinstance(event, CellEnded) else ""
        state.add(event)
        match event:
            case CellStarted():
                self._last_line[event.cell] = event.time
            case CellPutBack():
                self._say(f"{state.title(event.cell)}: {event.reason}")
            case CellProgress():
                if event.total and abs(event.time - self._last_line[event.cell]) < self._every:
                    return
                self._last_line[event.cell] = event.time
                amount = f"{event.done} of {event.total} " if event.total else ""
                self._say(f"{state.title_with_node(event.cell)}: {amount}{_note(state, event)}".rstrip())
            case CellEnded():
                line = f"[{len(state.ended)}/{len(state.cells)}] {title}: {_ending(event)}"
                left = _left(state, event.time)
                self._say(f"{line}; {left}" if left else line)


class LiveBars:
    """A bar for each running cell and one for the whole; messages and failures stay on the screen above them."""

    def __init__(self, console: Console, state: RunState) -> None:
        self._say = sayer(console)
        self._state = state
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._whole = self.progress.add_task("all cells", total=len(state.cells), note="")
        self._bars: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        """Move the bars."""
        state = self._state
        state.add(event)
        match event:
            case CellStarted():
                self._bars[event.cell] = self.progress.add_task(state.title_with_node(event.cell), total=1, note="")
            case CellPutBack():
                self.progress.remove_task(self._bars.pop(event.cell))
                self._say(f"{state.title(event.cell)}: {event.reason}")
            case CellProgress(total=0):
                self._say(f"{state.title_with_node(event.cell)}: {event.text}")
            case CellProgress():
                note = _note(state, event)
                self.progress.update(self._bars[event.cell], completed=event.done, total=event.total, note=note)
            case CellEnded():
                if event.cell in self._bars:
                    self.progress.remove_task(self._bars.pop(event.cell))
                if event.status != "ok":
                    self._say(f"{state.title(event.cell)}: {_ending(event)}")
                self.progress.update(self._whole, completed=len(state.ended), note=_left(state, event.time))
