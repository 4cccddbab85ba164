"""A suite's status for people, as lines of text."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from robustbench_cmic.report.tables import plain
from robustbench_cmic.run.watch.estimate import duration
from robustbench_cmic.run.watch.status import RunningCell, State, Status

_STATES: dict[State, str] = {
    "running": "a run is going on",
    "finished": "no run is going on; the latest has ended",
    "interrupted": "no run is going on; the latest was interrupted; the same command goes on from there",
    "stopped": "no run is going on; the latest could not go on",
    "killed": "no run is going on; the latest was killed; the same command goes on from there",
    "unknown": "no run is going on",
}


def status_text(status: Status) -> str:
    """The lines, without a last newline; no name or reason in them can begin a line or steer a terminal."""
    return "\n  ".join(map(plain, _lines(status)))


def _lines(status: Status) -> Iterator[str]:
    yield f"{status.suite}: {_headline(status)}"
    yield f"cells: {status.cells_done} of {status.cells_total} done{_this_run(status)}"
    for cell in status.running:
        yield f"now: {cell.title}{_progress(cell)}"
    for failure in status.failures:
        yield f"{failure.status}: {failure.title}: {failure.reason}"
    yield f"records: {status.records}"


def _headline(status: Status) -> str:
    said = _STATES[status.state]
    if status.started is None:
        return f"{said}, about to begin" if status.state == "running" else said
    began = f"{_clock(status.started)}"
    if status.state == "running":
        where = f"process {status.pid} on {status.host}, device {status.device}, {status.jobs} at a time"
        since = datetime.datetime.now(datetime.UTC) - status.started
        return f"{said} since {began} ({duration(since.total_seconds())}), {where}"
    if status.ended is None:
        return f"{said} (it began {began})"
    reason = f": {status.reason}" if status.reason else ""
    return f"{said} ({began} to {_clock(status.ended)}, exit code {status.exit_code}){reason}"


def _this_run(status: Status) -> str:
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
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
