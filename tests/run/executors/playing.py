"""A worker that plays its part. It imports nothing that takes long, so that its processes start at once."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.connection import Connection

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.run.options import Settings
from robustbench_cmic.run.watch.events import CellEnded, CellProgress, EpochDone


def play(connection: Connection, _: Settings) -> None:
    """A worker that does what a cell's declaration tells it."""
    while True:
        try:
            task: Cell = connection.recv()
        except EOFError:
            return
        declared = task.declared
        connection.send(CellProgress(cell=task.id, done=1, total=2, text=f"pid {os.getpid()}"))
        if "epoch" in declared:
            connection.send(EpochDone(cell=task.id, restored=True, numbers=declared["epoch"]))
        if declared.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if declared.get("hang"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
            while True:
                pass
        if declared.get("signal"):
            os.kill(os.getpid(), 40)
        if declared.get("leave") or declared.get("slowly"):
            connection.close()
            time.sleep(0.5 if declared.get("slowly") else 0)
            os._exit(3)
        time.sleep(declared.get("sleep", 0))
        status, reason = declared.get("outcome", "ok"), declared.get("why", "")
        short = declared.get("short", False)
        connection.send(CellEnded(cell=task.id, status=status, reason=reason, seconds=0.1, out_of_memory=short))
