"""A worker process of `LocalProcesses`: takes cells from its pipe, carries them out one by one, sends events back."""

from __future__ import annotations

import gc
import os
from multiprocessing.connection import Connection

import torch

from robustbench_cmic.run.console import encode_anything
from robustbench_cmic.run.job import run_cell
from robustbench_cmic.run.options import Settings


def main(connection: Connection, settings: Settings) -> None:
    """Carry out cells until the pipe closes."""
    # Whatever libraries print goes to a log file instead of into the parent's progress display. A FIFO in its
    # place is an error, and not waited for.
    log = os.open(settings.store.worker_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    encode_anything()  # a user's own code may print anything, too
    torch.set_num_threads(1)
    if settings.deterministic:  # read by cuBLAS when it starts
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    while True:
        try:
            cell = connection.recv()
        except EOFError:
            gc.freeze()  # without it the interpreter goes through all that torch has made, twice, before it ends
            return
        run_cell(cell, settings, connection.send)
