"""What a run does, in the test's own process: without the seconds that a process takes to start."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from robustbench_cmic.cli import app
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import write_json
from robustbench_cmic.records.schema import AnyRecord, Status
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.executors import Queue
from robustbench_cmic.run.job import _data, run_cell
from robustbench_cmic.run.options import Options, Settings, resolve_device
from robustbench_cmic.run.watch.events import CellEnded, Emit, Event
from robustbench_cmic.suite import load_suite


def settings_for(folder: Path, **others: Any) -> Settings:
    """Results, work and data in one folder."""
    chosen: dict[str, Any] = {
        "suite": folder.name, "store": Store(folder, folder), "device": "cpu", "batch_size": 8, "data": folder,
        "memory": None, "loaders": 1, "deterministic": True, "pictured_seed": 0, "weights": {}, "provenance": {},
    }  # fmt: skip
    return Settings(**chosen | others)


def carried_out(suite: Path, folder: Path, work: Path | None = None, **others: Any) -> list[AnyRecord]:
    """The records of every cell of a suite, written to a new folder with the plan."""
    store = Store(folder, work or folder)
    for place in (store.results, store.work):
        place.mkdir(parents=True, exist_ok=True)
    plan = make_plan(load_suite(suite).suite)
    write_json(store.plan, plan.model_dump(mode="json"))
    for cell in plan.cells:
        run_cell(cell, settings_for(folder, store=store, **others), lambda _: None)
    return [read_record(store.record(cell.id)) for cell in plan.cells]


def command_here(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command in this process. An exception of its own gives exit code 1 and empty output.

    What is to run cells here, too, needs `InProcess` as the executor, see the fixture `cli_here`.
    """
    words = [str(argument) for argument in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "path", list(sys.path))
        done = CliRunner(env={**os.environ, "COLUMNS": "120"}).invoke(app, words)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


class InProcess:
    """An executor that carries out cells in this process, one after the other."""

    def __init__(self, settings: Settings, _: int) -> None:
        self._settings = settings
        _data.cache_clear()  # as a new process

    @staticmethod
    def place(options: Options) -> tuple[str, int]:
        """One at a time."""
        return resolve_device(options.device), 1

    def run(self, cells: Sequence[Cell], emit: Emit) -> dict[str, Status]:
        """See `run.executors.Executor`."""
        queue = Queue(cells, emit)
        while (cell := queue.take()) is not None:
            ends: list[CellEnded] = []

            def hear(event: Event, ends: list[CellEnded] = ends) -> None:
                ends.append(event) if isinstance(event, CellEnded) else emit(event)

            with warnings.catch_warnings(action="ignore"):  # a worker's are in its log; pytest makes errors of them
                run_cell(cell, self._settings, hear)
            queue.end(cell, *ends)
        return queue.statuses
