"""A machine that shares no disk with a run's main process: files in, a worker process, events and files out.

Knows nothing of how messages travel; see `ray`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import DataError
from robustbench_cmic.data.packed import packed_file
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records import provenance
from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.locks import exclusive, is_held
from robustbench_cmic.records.store import Store
from robustbench_cmic.run.executors import Queue
from robustbench_cmic.run.executors.local import LocalProcesses
from robustbench_cmic.run.options import Settings, cores
from robustbench_cmic.run.watch.events import CellEnded, CellStarted, Event
from robustbench_cmic.suite.data import AnyDataset, TorchvisionDataset
from robustbench_cmic.suite.messages import UserError

STATE_EVERY = 60.0
"""Seconds between two resume states of a training that are sent to the main process."""
_TOGETHER = 0.2
"""Seconds in which what happens is told together."""
_LOG = 100_000
"""Bytes of what libraries have printed that are sent of a cell, the last ones."""
_PREFIX = "robustbench_cmic.node."
"""Of folders among the machine's temporary files."""


class Parcel(NamedTuple):
    """A file that travels: its SHA-256 (hex), and what stands for its content in a message."""

    sha256: str
    content: Any


class Task(NamedTuple):
    """A cell, with the files that it reads.

    Attributes:
        inputs: of `Store.inputs`, in its order; None where there is none.
        dataset: as models of the cell's seed get it.
        dataset_sha256: its fingerprint.
        data: what stands for it, packed; None where it has to be on the machine.
    """

    cell: Cell
    inputs: Sequence[Parcel | None]
    dataset: AnyDataset
    dataset_sha256: str
    data: Any


class Heard(NamedTuple):
    """What has happened since the last time.

    Attributes:
        state: a new resume state.
        log: what was printed, of a cell that has ended.
        outputs: the contents of `Store.outputs`, in its order, once the cell has ended: then its end is the last event.
    """

    events: list[Event]
    state: bytes | None = None
    log: bytes = b""
    outputs: list[bytes | None] | None = None


class Node:
    """Carries out cells one after the other in a process of its own, in a folder of its own.

    Args:
        settings: of the main process; what in them is of its machine is replaced.
        name: of this machine, for records.
        executor: likewise.
        weights: contents of files of given weights by their hash, or what stands for them.
        code: a user's own modules: paths and contents.
        every: seconds between two resume states that are told.
        fetch: returns the content that something stands for.
        main: of the worker process, see `LocalProcesses`.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        executor: str,
        weights: Mapping[str, Any],
        code: Mapping[str, bytes],
        every: float = STATE_EVERY,
        fetch: Callable[[Any], Any] = lambda content: content,
        main: str = "robustbench_cmic.run.executors.worker:main",
    ) -> None:
        _remove_abandoned()
        self._leave = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._leave.enter_context(exclusive(self.folder))
        self._fetch, self._every = fetch, every
        self.store = Store(self.folder / "results", self.folder / "work")
        for folder in (self.store.results, self.store.pictures_folder, self.store.work, self.folder / "data"):
            folder.mkdir()
        for path, source in code.items():
            _write(self.folder / "code" / path, source)
        sys.path.append(str(self.folder / "code"))  # behind everything else, as a suite's folder
        own = provenance.collect()
        here = {key: own[key] for key in ("platform", "processor", "cores")} | {"node": name, "executor": executor}
        self.settings = replace(
            settings,
            store=self.store,
            weights={sha256: self._given(sha256, content) for sha256, content in weights.items()},
            provenance=settings.provenance | here,
            suite_folder=None,
            loaders=min(settings.loaders, cores()),
            code=(self.folder / "code",),
            packed=self.folder / "data",
        )
        self._processes = LocalProcesses(self.settings, 1, main)
        self._has: dict[Path, str] = {}  # files of the store, with their hashes
        self._knows: set[Path] = set()  # where the data sets that are here would lie if they had to be brought
        self._events: list[Event] = []
        self._queue: Queue | None = None
        self._state_sent, self._state_time, self._log_sent = 0.0, 0, 0

    def carry_out(self, task: Task, patience: float) -> Heard:
        """Begin with a cell; see `hear`.

        Raises:
            UserError: its data is not on this machine, and too much to travel.
        """
        self._bring(task)
        self._queue = Queue([task.cell], self._events.append)
        self._cell = task.cell
        self._state_sent, self._state_time = time.monotonic(), self._time_of_state()
        return self.hear(patience)

    def hear(self, patience: float) -> Heard:
        """What has happened, after as many seconds at most."""
        assert self._queue is not None
        end, events = time.monotonic() + patience, list[Event]()
        while not (events and isinstance(events[-1], CellEnded)) and (left := end - time.monotonic()) > 0:
            self._processes.step(self._queue, self._events.append, left)
            new = [event for event in self._events if not isinstance(event, CellStarted)]
            self._events.clear()
            if new and not events:
                end = min(end, time.monotonic() + _TOGETHER)
            events += new
        if events and isinstance(events[-1], CellEnded):
            return Heard(events, None, self._log(), list(self._outputs()))
        state, now = None, self._time_of_state()
        if now not in (0, self._state_time) and time.monotonic() - self._state_sent >= self._every:
            state = self.store.resume_state(self._cell.id).read_bytes()
            self._state_sent, self._state_time = time.monotonic(), now
        return Heard(events, state)

    def close(self) -> None:
        """End the worker and remove the folder."""
        self._processes.close()
        self._leave.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _bring(self, task: Task) -> None:
        """Put what a cell reads where it reads it, and remove what earlier ones have left."""
        wanted = dict(zip(self.store.inputs(task.cell), task.inputs, strict=True))
        for path in [path for path in self._has if wanted.get(path) is None]:
            path.unlink(missing_ok=True)
            del self._has[path]
        for path, parcel in wanted.items():
            if parcel is not None and self._has.get(path) != parcel.sha256:
                _write(path, self._fetch(parcel.content))
                self._has[path] = parcel.sha256
        self._bring_data(task)

    def _bring_data(self, task: Task) -> None:
        """Data that lies here, with the same fingerprint, is read where it lies; else it is brought."""
        file = packed_file(self.folder / "data", task.dataset)
        if file not in self._knows and not self._finds(task):
            if task.data is None:
                raise UserError(
                    f"the images of {task.dataset.label} are too many to be kept in memory, and not on the node "
                    f"{self.settings.provenance['node']}: put them there, in the folder that --data names"
                )
            _write(file, self._fetch(task.data))
        self._knows.add(file)

    def _finds(self, task: Task) -> bool:
        """Whether the data is on this machine; nothing is downloaded."""
        dataset, settings = task.dataset.beside(None), self.settings
        if isinstance(dataset, TorchvisionDataset) and not (settings.data / f"{dataset.name}.npz").is_file():
            return False
        if dataset.absence(settings.data) is not None:
            return False
        try:
            return load_data(dataset, settings.data, settings.memory).sha256 == task.dataset_sha256
        except DataError:
            return False

    def _given(self, sha256: str, content: Any) -> Path:
        file = self.folder / "weights" / sha256
        _write(file, self._fetch(content))
        return file

    def _time_of_state(self) -> int:
        """When the cell's resume state was written; 0 where there is none."""
        try:
            return self.store.resume_state(self._cell.id).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _log(self) -> bytes:
        try:
            content = self.store.worker_log.read_bytes()
        except FileNotFoundError:
            return b""
        new, self._log_sent = content[self._log_sent :], len(content)
        return new[-_LOG:]

    def _outputs(self) -> Iterator[bytes | None]:
        """What the cell has left, which stays for those that need it next."""
        for path in self.store.outputs(self._cell):
            content = path.read_bytes() if path.is_file() else None
            if content is not None:
                self._has[path] = hashlib.sha256(content).hexdigest()
            yield content


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def _remove_abandoned() -> None:
    """Remove our folders of nodes that were killed; one that has just been made may not be locked yet."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            facts = folder.lstat()
            if facts.st_uid == os.getuid() and time.time() - facts.st_mtime > 60 and not is_held(folder):
                shutil.rmtree(folder, ignore_errors=True)
