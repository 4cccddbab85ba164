"""What happens in a run, as it happens. Workers emit events, an executor hands them on, listeners take them.

The log, bars, curves and `status` are functions of these events and of nothing else.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter, field_validator

from robustbench_cmic.records.schema import Epoch, Status
from robustbench_cmic.run.watch.estimate import CellEstimate
from robustbench_cmic.suite.fields import Frozen

# What is read may be damaged: within these bounds every sum and every date can be computed and shown.
_EPOCH, _FAR = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (1970, 2200))
_Time = Annotated[AwareDatetime, Field(ge=_EPOCH, le=_FAR)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e10)]
_Fraction = Annotated[float, Field(ge=0, le=1)]


class _Event(Frozen):
    """`time` is UTC; a run's main process sets it anew when it hears of the event, so that times in its log ascend."""

    model_config = ConfigDict(allow_inf_nan=False)

    time: _Time = Field(default_factory=lambda: datetime.datetime.now(datetime.UTC))


class RunStarted(_Event):
    """A run has looked at what is done and begins with the rest."""

    event: Literal["run-started"] = "run-started"
    schema_: Literal["robustbench_cmic/events/1"] = Field("robustbench_cmic/events/1", alias="schema")
    version: str  # of this package
    pid: Annotated[int, Field(ge=1, le=2**31 - 1)]  # of the run's main process
    host: str
    options: dict[str, Any]  # what the command line said, by name
    device: str  # of torch
    jobs: Annotated[int, Field(ge=1, le=2**31 - 1)]  # cells at a time
    cells: list[CellEstimate]  # to run, in order; more may follow where a training done anew gives other weights


class CellStarted(_Event):
    """A cell has begun, or begins again elsewhere."""

    event: Literal["cell-started"] = "cell-started"
    cell: str
    node: str = ""  # the machine that carries it out; empty: the one of the run's main process


class CellPutBack(_Event):
    """A cell that had begun is to begin again later."""

    event: Literal["cell-put-back"] = "cell-put-back"
    cell: str
    reason: str


class CellProgress(_Event):
    """How far a cell is; 0 of 0 is a message only."""

    event: Literal["progress"] = "progress"
    cell: str
    done: _Count
    total: _Count
    text: str  # what is counted (`steps`, `examples`), or the message
    accuracy: _Fraction | None = None  # of a training that of its last epoch, of an attack that of the examples so far
    loss: float | None = None  # of a training, that of its last epoch


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
    """A cell has ended, or was skipped because a cell that it depends on did not end well."""

    event: Literal["cell-ended"] = "cell-ended"
    cell: str
    status: Status
    seconds: _Seconds  # its wall time; 0 where it is not known
    reason: str = ""
    accuracy: _Fraction | None = None  # of an attack the robust accuracy, of a training that of its last epoch
    out_of_memory: bool = False  # it failed for that


class RunEnded(_Event):
    """A run has ended by itself, or was interrupted by Ctrl-C or SIGTERM; one that was killed leaves no such line."""

    event: Literal["run-ended"] = "run-ended"
    exit_code: Annotated[int, Field(ge=0, le=255)]
    interrupted: bool = False
    reason: str = ""  # why it could not go on, where it could not


Event = RunStarted | CellStarted | CellPutBack | CellProgress | EpochDone | CellEnded | RunEnded
EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
Emit = Callable[[Event], None]
"""Takes an event: what a worker calls to tell something, and what a listener is."""
