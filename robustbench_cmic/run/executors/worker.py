"""A worker process: takes cells from its pipe, carries them out one by one, writes their records, reports back."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

import torch

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.locks import exit_with_parent
from robustbench_cmic.records.schema import Epoch
from robustbench_cmic.records.store import resume_file, write_record
from robustbench_cmic.run.job import run_job
from robustbench_cmic.run.options import Settings


def work(connection: Connection, settings: Settings) -> None:
    """Serve cells until the pipe closes; the target of a worker process.

    It sends (`progress`, cell, (done, total, text, accuracy)), (`epoch`, cell, (epoch, restored)) and (`finished`,
    cell, (status, reason, seconds)).
    """
    exit_with_parent()
    _redirect_output(settings)
    torch.set_num_threads(1)
    if settings.deterministic:  # read by cuBLAS when it starts
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    while True:
        try:
            cell = Cell.model_validate(connection.recv())
        except EOFError:
            return
        _serve(connection, settings, cell)


def _serve(connection: Connection, settings: Settings, cell: Cell) -> None:
    def progress(done: int, total: int, text: str, accuracy: float | None = None) -> None:
        connection.send(("progress", cell.id, (done, total, text, accuracy)))

    def trained(epoch: Epoch, restored: bool) -> None:
        connection.send(("epoch", cell.id, (epoch.model_dump(), restored)))

    record = run_job(cell, settings, progress, trained)
    status, reason = record.status, record.reason
    try:
        write_record(settings.results, record)
    except OSError as error:
        status, reason = "failed", f"cannot write the record: {error.strerror or error}"
    if cell.kind == "train" and status != "failed":
        resume_file(settings.work, cell.id).unlink(missing_ok=True)
    connection.send(("finished", cell.id, (status, reason, record.timing.seconds)))


def _redirect_output(settings: Settings) -> None:
    """Whatever libraries print goes to a log file instead of into the parent's progress display."""
    log = os.open(settings.work / "workers.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
