"""The log of a run's events, `events.jsonl`: written as they happen, read by whoever watches."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import CorruptRecordError
from robustbench_cmic.records.schema import AttackRecord, Epoch
from robustbench_cmic.records.store import read_record, record_path
from robustbench_cmic.run.executors import Outcome
from robustbench_cmic.run.watch.estimate import CellEstimate
from robustbench_cmic.run.watch.events import (
    _ADAPTER,
    PROGRESS_EVERY,
    CellEnded,
    CellProgress,
    CellStarted,
    EpochDone,
    Event,
    RunEnded,
    RunStarted,
)

_RUN_STARTS = b'"event":"run-started"'
"""As it is written; inside a text the quotes would be escaped."""


class EventLog:
    """Appends to `events.jsonl`; a listener of a run. What cannot be written is said once and never stops the run.

    Args:
        file: `events.jsonl`.
        results: the suite's results folder, with the records of finished cells.
        say: told about what cannot be written.
    """

    def __init__(self, file: Path, results: Path, say: Callable[[str], None]) -> None:
        self._file = file
        self._results = results
        self._say = say
        self._begun = False
        self._warned = False
        self._spoke: dict[str, float] = {}
        self._epochs: dict[str, Epoch] = {}

    def run_started(
        self, version: str, options: dict[str, Any], device: str, jobs: int, cells: list[CellEstimate]
    ) -> None:
        """See `RunStarted`."""
        self._begun = True
        pid, host = os.getpid(), socket.gethostname()
        self._write(
            RunStarted(version=version, pid=pid, host=host, options=options, device=device, jobs=jobs, cells=cells)
        )

    def started(self, cell: Cell) -> None:
        """See `CellStarted`."""
        self._write(CellStarted(cell=cell.id))

    def progressed(self, cell: Cell, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """See `CellProgress`."""
        now = time.monotonic()
        if total and now - self._spoke.get(cell.id, float("-inf")) < PROGRESS_EVERY:
            return
        if total:
            self._spoke[cell.id] = now
        epoch = self._epochs.get(cell.id)
        loss = None if epoch is None else epoch.loss.get("total")
        self._write(CellProgress(cell=cell.id, done=done, total=total, text=text, accuracy=accuracy, loss=loss))

    def trained(self, cell: Cell, epoch: Epoch, restored: bool) -> None:
        """See `EpochDone`."""
        self._epochs[cell.id] = epoch
        self._write(EpochDone(cell=cell.id, restored=restored, numbers=epoch))

    def finished(self, cell: Cell, outcome: Outcome, reason: str, seconds: float) -> None:
        """See `CellEnded`."""
        accuracy = self._accuracy(cell) if outcome == "ok" else None
        self._write(CellEnded(cell=cell.id, status=outcome, seconds=seconds, reason=reason, accuracy=accuracy))

    def run_ended(self, exit_code: int, interrupted: bool = False, reason: str = "") -> None:
        """See `RunEnded`; without effect where no run has started."""
        if self._begun:
            self._write(RunEnded(exit_code=exit_code, interrupted=interrupted, reason=reason))

    def _accuracy(self, cell: Cell) -> float | None:
        if cell.kind == "train":
            epoch = self._epochs.get(cell.id)
            return None if epoch is None else epoch.accuracy
        try:
            record = read_record(record_path(self._results, cell.id))
        except (FileNotFoundError, CorruptRecordError):
            return None
        return record.accuracy if isinstance(record, AttackRecord) else None

    def _write(self, event: Event) -> None:
        text = json.dumps(event.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
        line = text.encode(errors="replace") + b"\n"  # names of files may hold what is no Unicode
        try:
            _append(self._file, line)
        except OSError as error:
            if not self._warned:
                self._warned = True
                why = error.strerror or error
                self._say(f"warning: cannot write {self._file}: {why}; the run goes on, `status` will miss it")


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
        content = file.read_bytes()
    except OSError:
        return []
    end = len(content)
    while (found := content.rfind(_RUN_STARTS, 0, end)) >= 0:
        start = content.rfind(b"\n", 0, found) + 1
        events = [event for line in content[start:].split(b"\n") if (event := _parsed(line)) is not None]
        if events and isinstance(events[0], RunStarted):
            return events
        end = start
    return []


def _parsed(line: bytes) -> Event | None:
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None
