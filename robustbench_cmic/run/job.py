"""Carries out one cell, from what it declares to its record. Any executor calls this.

Knows nothing of other cells but what its own needs, whose records and products it reads from disk.
"""

from __future__ import annotations

import functools
import gc
import traceback
from pathlib import Path

import torch

from robustbench_cmic.attacks.model import in_float32, is_out_of_memory
from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Data
from robustbench_cmic.data.packed import packed_file, read_packed
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.records.store import failed_record, write_record
from robustbench_cmic.run.jobs.attack import run_attack
from robustbench_cmic.run.jobs.audit import run_audit
from robustbench_cmic.run.jobs.context import Job, Stopwatch, cell_provenance
from robustbench_cmic.run.jobs.train import load_given_weights, run_training
from robustbench_cmic.run.options import Settings
from robustbench_cmic.run.watch.events import CellEnded, Emit
from robustbench_cmic.suite.custom import changed_code
from robustbench_cmic.suite.data import AnyDataset, dataset_of
from robustbench_cmic.suite.messages import UserError, os_error_reason
from robustbench_cmic.suite.signatures import one_line


@functools.lru_cache(maxsize=1)
def _data(dataset: AnyDataset, folder: Path, memory: int | None, packed: Path | None) -> Data:
    """The data of a cell, as it was brought to this machine, or from the data folder."""
    file = None if packed is None else packed_file(packed, dataset)
    return load_data(dataset, folder, memory) if file is None or not file.is_file() else read_packed(file)


OUT_OF_MEMORY = "out of memory"
"""What the reason of a cell begins with that failed for that."""


def run_cell(cell: Cell, settings: Settings, emit: Emit) -> None:
    """Do a cell, write its record and emit its end: all that a worker of any executor does with a cell.

    The stored state of a training that is done is removed.
    """
    record = run_job(cell, settings, emit)
    status, reason = record.status, record.reason
    try:
        write_record(settings.store.results, record)
    except OSError as error:
        status, reason = "failed", f"cannot write the record: {os_error_reason(error)}"
    if cell.kind == "train" and status != "failed":
        settings.store.resume_state(cell.id).unlink(missing_ok=True)
    accuracy = None
    if status == "ok" and record.kind != "audit":
        accuracy = record.accuracy if record.kind == "attack" else record.curve[-1].accuracy if record.curve else None
    seconds, short = record.timing.seconds, status == "failed" and reason.startswith(OUT_OF_MEMORY)
    emit(CellEnded(cell=cell.id, status=status, seconds=seconds, reason=reason, accuracy=accuracy, out_of_memory=short))


def run_job(cell: Cell, settings: Settings, emit: Emit) -> AnyRecord:
    """Do a cell. What goes wrong inside it becomes a `failed` record, never an exception.

    The weights of a training are on disk when this returns; its record is for the caller to write.
    """
    stopwatch = Stopwatch()
    with in_float32():  # but for the search of attacks and the bfloat16 of trainings, which say so
        outcome = _dispatch(cell, settings, stopwatch, emit)
    # Looked at afterwards: what the process has imported is then at least as old as the file.
    if (changed := changed_code(cell.declared, settings.code)) is not None:
        outcome = f"the file of {changed}, or one that it imports, has been changed since the run began: run again"
    if isinstance(outcome, str):
        return failed_record(settings.suite, cell, outcome, cell_provenance(settings), stopwatch.timing(settings))
    return outcome


def _dispatch(cell: Cell, settings: Settings, stopwatch: Stopwatch, emit: Emit) -> AnyRecord | str:
    """The record of a cell, or why it failed."""
    try:
        declared = cell.network_declared
        dataset = dataset_of(declared["dataset"]).beside(settings.suite_folder).of_seed(cell.seed)
        data = _data(dataset, settings.data, settings.memory, settings.packed)
        _set_determinism(settings, training=cell.kind == "train")
        job = Job(cell, settings, data, stopwatch, emit)
        if cell.kind == "attack":
            return run_attack(job)
        if cell.kind == "audit":
            return run_audit(job)
        return load_given_weights(job) if declared["training"] is None else run_training(job)
    except UserError as error:
        return " ".join(str(error).split())
    except OSError as error:
        return f"cannot write {error.filename or 'a file'}: {os_error_reason(error)}"
    except Exception as error:  # a defect or a library's whim: it fails this cell only, its trace is in the log
        if is_out_of_memory(error):
            hint = "a smaller `batch_size`" if cell.kind == "train" else "a smaller model, or smaller images,"
            return f"{OUT_OF_MEMORY} on {settings.device}: {hint} would need less"
        traceback.print_exc()
        return one_line(error)


def _set_determinism(settings: Settings, training: bool) -> None:
    """Verdicts are given by algorithms that are not chosen by a race; trainings may be faster."""
    cuda = settings.device.startswith("cuda")
    torch.use_deterministic_algorithms(settings.deterministic and cuda)
    torch.backends.cudnn.deterministic = settings.deterministic or not training
    torch.backends.cudnn.benchmark = training and not settings.deterministic
    if cuda:
        torch.cuda.set_device(settings.device)  # streams and graphs belong to the current device
        gc.collect()
        torch.cuda.reset_peak_memory_stats(settings.device)
