"""The executor for one machine: worker processes, each carrying out one cell at a time."""

from __future__ import annotations

import multiprocessing
import pkgutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from robustbench_cmic.plan.cell import Cell, runs_custom_code
from robustbench_cmic.records.schema import Status
from robustbench_cmic.run.executors import Queue, death
from robustbench_cmic.run.options import Settings
from robustbench_cmic.run.watch.events import CellEnded, Emit


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    cell: Cell | None = None


class LocalProcesses:
    """Runs cells in `jobs` worker processes; a worker that dies fails its cell and is replaced.

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
        # Forked children would share locks and threads of the parent; spawned ones start clean, on every platform.
        self._context = multiprocessing.get_context("spawn")

    def run(self, cells: Sequence[Cell], emit: Emit) -> dict[str, Status]:
        """See `Executor`."""
        queue = Queue(cells, emit)
        try:
            while not queue.is_done:
                self._dispatch(queue)
                self._receive(queue, emit)
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave orphans behind
            for worker in list(self._workers):
                self._remove(worker)
            signal.signal(signal.SIGINT, before)
        return queue.statuses

    def _dispatch(self, queue: Queue) -> None:
        """Give cells to idle workers, as long as there are both."""
        while True:
            idle = next((worker for worker in self._workers if worker.cell is None), None)
            if idle is None and len(self._workers) >= self._jobs:
                return
            cell = queue.take()
            if cell is None:
                return
            if idle is None:
                idle = self._spawn()
                self._workers.append(idle)
            idle.cell = cell
            try:
                idle.connection.send(cell)
            except OSError:  # died while idle or starting; `_receive` finds it
                continue

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        # No daemon: those may not have children, and a training that streams its images has some.
        process = self._context.Process(target=_enter, args=(theirs, self._main, self._settings))
        # Python's own helper process; starting it would undo the mask set here for the first worker.
        resource_tracker.ensure_running()
        # Ctrl-C reaches the whole group; the parent decides. The child inherits the mask, from its first instruction.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        return _Worker(process, ours)

    def _remove(self, worker: _Worker) -> None:
        """An idle one leaves by itself, a busy one is killed: all it writes is atomic, so that no moment is wrong."""
        worker.connection.close()
        if worker.cell is None:
            worker.process.join(timeout=10)
        worker.process.kill()
        worker.process.join()
        self._workers.remove(worker)

    def _receive(self, queue: Queue, emit: Emit) -> None:
        """Wait until workers have something to tell, and hand it on."""
        ready = wait([worker.connection for worker in self._workers])
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
            if worker.cell is None:
                continue
            if not isinstance(event, CellEnded):
                emit(event)
                continue
            cell, worker.cell = worker.cell, None
            queue.end(cell, event)
            if needs_fresh_process(cell, event.status, self._settings):
                self._remove(worker)


def needs_fresh_process(cell: Cell, status: Status, settings: Settings) -> bool:
    """An error of CUDA makes whatever comes after it in a process fail; a user's code may leave anything changed."""
    return (status == "failed" and settings.device.startswith("cuda")) or runs_custom_code(cell)


def _enter(connection: Connection, main: str, settings: Settings) -> None:
    pkgutil.resolve_name(main)(connection, settings)


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = {int(number): number.name for number in signal.Signals}.get(-exitcode, f"signal {-exitcode}")
        return f"{name}; out of memory?" if name == "SIGKILL" else name
    return f"exit code {exitcode}"
