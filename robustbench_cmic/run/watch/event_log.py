"""The log of events: one JSON object a line, which the main process of a run appends and whoever watches reads.

Runs follow each other in one file, each from its `run-started`. A run that was killed may leave a torn last line:
readers pass over it, and the next run begins on a fresh one.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from robustbench_cmic.run.watch.events import EVENT_ADAPTER, CellProgress, Event, RunStarted
from robustbench_cmic.suite.files import read_regular
from robustbench_cmic.suite.messages import os_error_reason

_RUN_STARTS = b'"event":"run-started"'
"""As it is written; inside a text the quotes would be escaped."""


class EventLog:
    """A listener that appends to a log; what cannot be written is said once and never stops the run.

    Of progress it writes a report a second for each cell, and messages at once. It begins with a `RunStarted`.
    """

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        self._file = file
        self._say = say
        self._begun = False
        self._warned = False
        self._reported: dict[str, datetime.datetime] = {}

    def __call__(self, event: Event) -> None:
        """Write an event, if it is time to."""
        self._begun = self._begun or isinstance(event, RunStarted)
        if isinstance(event, CellProgress) and event.total:
            last = self._reported.get(event.cell)
            if last is not None and abs(event.time - last) < datetime.timedelta(seconds=1):
                return
            self._reported[event.cell] = event.time
        if not self._begun:
            return
        text = json.dumps(event.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
        line = text.encode(errors="replace") + b"\n"  # names of files may hold what is no Unicode
        try:
            _append(self._file, line)
        except OSError as error:
            if not self._warned:
                why = os_error_reason(error)
                self._say(f"warning: cannot write {self._file}: {why}; the run goes on, `status` will miss it")
            self._warned = True


def _append(file: Path, line: bytes) -> None:
    """Append a line, beginning a fresh one after what a full disk or a kill has torn."""
    with file.open("a+b", buffering=0) as opened:
        if opened.seek(0, os.SEEK_END) > 0:
            opened.seek(-1, os.SEEK_END)
            if opened.read(1) != b"\n":
                line = b"\n" + line
        if opened.write(line) != len(line):
            raise OSError(None, "only a part of a line fits")


def read_latest_run(file: Path) -> list[Event]:
    """The events of the latest run, from its `run-started`; none where no run is known.

    Lines that are torn, of a schema that this version does not know, or with numbers or times out of any sensible range
    are passed over.
    """
    try:
        content = read_regular(file)
    except OSError:
        return []
    end = len(content)
    while (beginning := content.rfind(_RUN_STARTS, 0, end)) >= 0:
        start = content.rfind(b"\n", 0, beginning) + 1
        events: list[Event] = []
        for line in content[start:].split(b"\n"):
            with contextlib.suppress(ValidationError):
                events.append(EVENT_ADAPTER.validate_json(line))
        if events and isinstance(events[0], RunStarted):
            return events
        end = start
    return []
