"""The executor for one machine: worker processes, each carrying out one cell at a time."""

from __future__ import annotations

import multiprocessing
import pkgutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import Epoch
from robustbench_cmic.run.executors import Listener, Outcome, _Queue


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    cell: Cell | None = None

    def stop(self) -> None:
        """End the process: an idle one leaves by itself, a busy one is killed.

        Everything a worker writes is written atomically, so that no moment is a wrong one.
        """
        self.connection.close()
        if self.cell is None:
            self.process.join(timeout=10)
        self.process.kill()
        self.process.join()


class LocalProcesses:
    """Runs cells in `jobs` worker processes; a worker that dies fails its cell and is replaced.

    Args:
        jobs: processes at most.
        target: the worker's main function as `module:function`, imported in the worker only (this process stays
            light); called with its end of a pipe and `argument`.
        argument: picklable; what workers need to know besides the cells.
        on_death: called with a cell whose worker died and the reason, to record the failure.
        renew_after: whether to replace the worker after a cell with this outcome: what went on may stay in a process.
    """

    def __init__(
        self,
        jobs: int,
        target: str,
        argument: object,
        on_death: Callable[[Cell, str], None],
        renew_after: Callable[[Cell, Outcome], bool] = lambda _cell, _outcome: False,
    ) -> None:
        self._jobs = jobs
        self._target = target
        self._argument = argument
        self._on_death = on_death
        self._renew_after = renew_after
        # Forked children would share locks and threads of the parent; spawned ones start clean, on every platform.
        self._context = multiprocessing.get_context("spawn")

    def run(self, cells: Sequence[Cell], listener: Listener) -> dict[str, Outcome]:
        """See `Executor.run`."""
        queue = _Queue(list(cells))
        workers: list[_Worker] = []
        try:
            while queue.waiting or queue.running:
                self._assign(queue, workers, listener)
                self._hear(queue, workers, listener)
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave orphans behind
            for worker in workers:
                worker.stop()
            signal.signal(signal.SIGINT, before)
        return queue.outcomes

    def _assign(self, queue: _Queue, workers: list[_Worker], listener: Listener) -> None:
        while True:
            idle = next((worker for worker in workers if worker.cell is None), None)
            if idle is None and len(workers) >= self._jobs:
                return
            cell = queue.take()
            if cell is None:
                return
            if idle is None:
                idle = self._spawn()
                workers.append(idle)
            idle.cell = cell
            listener.started(cell)
            try:
                idle.connection.send(cell.model_dump())
            except OSError:  # died while idle or starting; `_hear` finds it
                continue

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        # No daemon: those may not have children, and a training that streams its images has some.
        process = self._context.Process(target=_enter, args=(theirs, self._target, self._argument))
        # Python's own helper process; starting it would undo the mask set here for the first worker.
        resource_tracker.ensure_running()
        # Ctrl-C reaches the whole group; the parent decides. The child inherits the mask, from its first instruction.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        return _Worker(process, ours)

    def _hear(self, queue: _Queue, workers: list[_Worker], listener: Listener) -> None:
        ready = wait([worker.connection for worker in workers])
        for worker in [worker for worker in workers if worker.connection in ready]:
            try:
                kind, _, content = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker, queue, workers, listener)
                continue
            if worker.cell is None:
                continue
            if kind == "progress":
                listener.progressed(worker.cell, *content)
            elif kind == "epoch":
                epoch, restored = content
                listener.trained(worker.cell, Epoch.model_validate(epoch), restored)
            else:
                outcome, reason, seconds = content
                cell, worker.cell = worker.cell, None
                self._finish(cell, outcome, reason, seconds, queue, listener)
                if self._renew_after(cell, outcome):
                    worker.stop()
                    workers.remove(worker)

    def _bury(self, worker: _Worker, queue: _Queue, workers: list[_Worker], listener: Listener) -> None:
        worker.stop()
        workers.remove(worker)
        if worker.cell is not None:
            reason = f"its process died ({_cause(worker.process.exitcode)})"
            self._on_death(worker.cell, reason)
            self._finish(worker.cell, "failed", reason, 0.0, queue, listener)

    @staticmethod
    def _finish(cell: Cell, outcome: Outcome, reason: str, seconds: float, queue: _Queue, listener: Listener) -> None:
        listener.finished(cell, outcome, reason, seconds)
        for blocked in queue.finish(cell, outcome):
            listener.finished(blocked, "skipped", f"{title(cell)} {outcome}", 0.0)


def _enter(connection: Connection, target: str, argument: object) -> None:
    pkgutil.resolve_name(target)(connection, argument)


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        known = {int(number): number.name for number in signal.Signals}
        name = known.get(-exitcode, f"signal {-exitcode}")
        return f"{name}; out of memory?" if name == "SIGKILL" else name
    return f"exit code {exitcode}"
