"""What happens in a run, as it happens: `events.jsonl` in the suite's work folder, one JSON object a line.

The main process of a run appends to it; whoever watches reads it. Runs follow each other in one file, each from its
`run-started`. A run that was killed may leave a torn last line: readers pass over it, and the next run begins on a
fresh one. Imports no torch.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from robustbench_cmic.cell import Cell
from robustbench_cmic.estimate import Task
from robustbench_cmic.execute import Outcome
from robustbench_cmic.record import CorruptRecordError, read_record, record_path
from robustbench_cmic.record_schema import AttackRecord, Epoch

SCHEMA: Literal["robustbench_cmic/events/1"] = "robustbench_cmic/events/1"
EVENTS_FILE = "events.jsonl"
PROGRESS_EVERY = 1.0
"""Seconds between two reports of progress of one cell, at least."""


# What is read may be damaged: within these bounds every sum and every date can be computed and shown.
_EPOCH, _FAR = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (1970, 2200))
_Time = Annotated[AwareDatetime, Field(ge=_EPOCH, le=_FAR)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e10)]
_Fraction = Annotated[float, Field(ge=0, le=1)]


class _Event(BaseModel):
    """`time` is UTC."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True, allow_inf_nan=False
    )

    time: _Time = Field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


class RunStarted(_Event):
    """A run has looked at what is done and begins with the rest.

    Attributes:
        version: of this package.
        pid, host: the run's main process.
        options: what the command line said, by name.
        device: a torch device.
        jobs: cells at a time.
        cells: to run, in order; further ones may follow where a training that is done anew gives other weights.
    """

    event: Literal["run-started"] = "run-started"
    schema_: Literal["robustbench_cmic/events/1"] = Field(SCHEMA, alias="schema")
    version: str
    pid: Annotated[int, Field(ge=1, le=2**31 - 1)]
    host: str
    options: dict[str, Any]
    device: str
    jobs: Annotated[int, Field(ge=1, le=2**31 - 1)]
    cells: list[Task]


class CellStarted(_Event):
    """A cell has begun."""

    event: Literal["cell-started"] = "cell-started"
    cell: str


class CellProgress(_Event):
    """How far a cell is, at most once a second; 0 of 0 is a message only.

    Attributes:
        text: what is counted (`steps`, `examples`), or the message.
        accuracy: fraction in [0, 1]; of a training that of its last epoch, of an attack that of the examples so far.
        loss: of a training, that of its last epoch.
    """

    event: Literal["progress"] = "progress"
    cell: str
    done: _Count
    total: _Count
    text: str
    accuracy: _Fraction | None = None
    loss: float | None = None


class EpochDone(_Event):
    """A training has finished an epoch; `restored`: an earlier run had, and this one has taken it up."""

    event: Literal["epoch"] = "epoch"
    cell: str
    restored: bool
    numbers: Epoch

    @field_validator("numbers")
    @classmethod
    def _can_be_shown(cls, numbers: Epoch) -> Epoch:
        if not (0 <= numbers.accuracy <= 1 and all(map(math.isfinite, numbers.loss.values()))):
            raise ValueError("an accuracy or a loss is out of range")
        return numbers


class CellEnded(_Event):
    """A cell has ended, or was skipped because a cell that it depends on did not end well.

    Attributes:
        seconds: its wall time; 0 where it is not known.
        accuracy: of an attack the robust accuracy, of a training that of its last epoch; None where there is none.
    """

    event: Literal["cell-ended"] = "cell-ended"
    cell: str
    status: Outcome
    seconds: _Seconds
    reason: str = ""
    accuracy: _Fraction | None = None


class RunEnded(_Event):
    """A run has ended by itself or was interrupted; one that was killed leaves no such line.

    Attributes:
        exit_code: of the command.
        interrupted: by Ctrl-C or SIGTERM.
        reason: why it could not go on, where it could not.
    """

    event: Literal["run-ended"] = "run-ended"
    exit_code: Annotated[int, Field(ge=0, le=255)]
    interrupted: bool = False
    reason: str = ""


Event = RunStarted | CellStarted | CellProgress | EpochDone | CellEnded | RunEnded
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
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

    def run_started(self, version: str, options: dict[str, Any], device: str, jobs: int, cells: list[Task]) -> None:
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
