"""The executor for one machine: worker processes, each carrying out one cell at a time."""

from __future__ import annotations

import math
import multiprocessing
import pkgutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from robustbench_cmic.plan.cell import Cell, runs_custom_code
from robustbench_cmic.records.locks import exit_with_parent
from robustbench_cmic.records.schema import Status
from robustbench_cmic.run.executors import Queue, death, overdue
from robustbench_cmic.run.options import Options, Settings, jobs_at_once, resolve_device
from robustbench_cmic.run.watch.events import CellEnded, Emit, Event

_READY = "ready"
"""What a worker sends first: it has started, which takes seconds, and is no part of a cell's time."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    cell: Cell | None = None
    is_ready: bool = False
    began: float = 0.0  # on the monotonic clock, the cell; or the worker's readiness for its first

    def seconds(self) -> float | None:
        """That its cell has taken; None where it has none, or has not begun."""
        return time.monotonic() - self.began if self.cell is not None and self.is_ready else None


class LocalProcesses:
    """Runs cells in `jobs` worker processes; one that dies, or takes too long, fails its cell and is replaced.

    Args:
        settings: for the workers.
        jobs: processes at most.
        main: the worker's main function as `module:function`, imported in the worker only (this process stays light);
            called with its end of a pipe and `settings`. It receives cells and sends events, `CellEnded` last.
    """

    def __init__(self, settings: Settings, jobs: int, main: str = "robustbench_cmic.run.executors.worker:main") -> None:
        self._settings = settings
        self._jobs = jobs
        self._main = main
        self._workers: list[_Worker] = []

    @staticmethod
    def place(options: Options) -> tuple[str, int]:
        """See `Executor`."""
        device = resolve_device(options.device)
        return device, jobs_at_once(options, device)

    def run(self, cells: Sequence[Cell], emit: Emit) -> dict[str, Status]:
        """See `Executor`."""
        queue = Queue(cells, emit, self._settings.store)
        try:
            while not queue.is_done:
                self.step(queue, emit)
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave orphans behind
            self.close()
            signal.signal(signal.SIGINT, before)
        return queue.statuses

    def step(self, queue: Queue, emit: Emit, patience: float = math.inf) -> None:
        """Give out what can be begun, and wait until something happens, or for as many seconds."""
        self._dispatch(queue)
        self._receive(queue, emit, patience)
        self._stop_overdue(queue, emit)

    def close(self) -> None:
        """End all workers, whatever they do."""
        for worker in self._workers:
            worker.connection.close()  # all idle ones leave at once, not one after the other
        for worker in list(self._workers):
            self._remove(worker)

    def _dispatch(self, queue: Queue) -> None:
        """Give cells to idle workers, as long as there are both."""
        while True:
            idle = next((worker for worker in self._workers if worker.cell is None), None)
            if idle is None and len(self._workers) >= self._jobs:
                return
            cell = queue.take()
            if cell is None:
                return
            if queue.runs_alone:  # what idle ones keep of the memory is for this cell
                for worker in list(self._workers):
                    self._remove(worker)
                idle = None
            if idle is None:
                idle = _Worker(*start_process(self._main, self._settings))
                self._workers.append(idle)
            idle.cell, idle.began = cell, time.monotonic()
            try:
                idle.connection.send(cell)
            except OSError:  # died while idle or starting; `_receive` finds it
                continue

    def _remove(self, worker: _Worker) -> None:
        """An idle one leaves by itself, a busy one is killed: all it writes is atomic, so that no moment is wrong."""
        worker.connection.close()
        if worker.cell is None:
            worker.process.join(timeout=10)
        worker.process.kill()
        worker.process.join()
        self._workers.remove(worker)

    def _receive(self, queue: Queue, emit: Emit, patience: float) -> None:
        """Wait until workers have something to tell, or a cell has taken too long, and hand on what they tell."""
        seconds = min(patience, self._patience())
        ready = wait([worker.connection for worker in self._workers], None if seconds == math.inf else seconds)
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            try:
                event = worker.connection.recv()
            except (EOFError, OSError):
                worker.process.join(timeout=10)  # it is leaving: killed on its way out it could not tell why
                self._remove(worker)
                if worker.cell is not None:
                    reason = f"its process died ({_cause(worker.process.exitcode)})"
                    queue.end(worker.cell, death(worker.cell, reason, self._settings))
                continue
            self._hear(worker, event, queue, emit)

    def _hear(self, worker: _Worker, event: Event | str, queue: Queue, emit: Emit) -> None:
        if isinstance(event, str):
            worker.is_ready, worker.began = True, time.monotonic()
        elif worker.cell is not None and not isinstance(event, CellEnded):
            emit(event)
        elif worker.cell is not None and isinstance(event, CellEnded):
            cell, worker.cell = worker.cell, None
            queue.end(cell, event)
            if needs_fresh_process(cell, event.status, self._settings):
                self._remove(worker)

    def _patience(self) -> float:
        """Seconds until the first cell has taken too long; infinity: there is no limit, or no cell."""
        if self._settings.timeout is None:
            return math.inf
        taken = [seconds for worker in self._workers if (seconds := worker.seconds()) is not None]
        return max(0.0, self._settings.timeout - max(taken)) if taken else math.inf

    def _stop_overdue(self, queue: Queue, emit: Emit) -> None:
        """Stop what has taken too long, whatever a user's own code is doing: its process is killed."""
        limit = self._settings.timeout
        for worker in list(self._workers) if limit is not None else []:
            while worker.cell is not None and worker.connection.poll():  # it may have ended just now
                try:
                    self._hear(worker, worker.connection.recv(), queue, emit)
                except (EOFError, OSError):
                    return  # it has died: `_receive` sees that
            seconds = worker.seconds()
            if limit is not None and worker.cell is not None and seconds is not None and seconds >= limit:
                cell = worker.cell
                self._remove(worker)
                queue.end(cell, overdue(cell, seconds, self._settings))


def needs_fresh_process(cell: Cell, status: Status, settings: Settings) -> bool:
    """An error of CUDA makes whatever comes after it in a process fail; a user's code may leave anything changed."""
    return (status == "failed" and settings.device.startswith("cuda")) or runs_custom_code(cell)


def start_process(main: str, given: Any) -> tuple[BaseProcess, Connection]:
    """A process that computes, and our end of a pipe to it, on which it first says that it has started.

    Args:
        main: its main function as `module:function`, imported there only; called with the other end of the pipe.
        given: what it is called with besides.
    """
    # Forked children would share locks and threads of the parent; spawned ones start clean, on every platform.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # No daemon: those may not have children, and a training that streams its images has some.
    process = context.Process(target=_enter, args=(theirs, main, given))
    # Python's own helper process; starting it would undo the mask set here for the first worker.
    resource_tracker.ensure_running()
    # Ctrl-C reaches the whole group; the parent decides. The child inherits the mask, from its first instruction.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return process, ours


def _enter(connection: Connection, main: str, given: Any) -> None:
    """What a worker process begins with; where its run is gone meanwhile, killed say, it ends without a word."""
    exit_with_parent()  # before the imports, which take seconds
    work = pkgutil.resolve_name(main)
    try:
        connection.send(_READY)
    except BrokenPipeError:
        return
    work(connection, given)


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = {int(number): number.name for number in signal.Signals}.get(-exitcode, f"signal {-exitcode}")
        return f"{name}; out of memory?" if name == "SIGKILL" else name
    return f"exit code {exitcode}"
