"""Cells carried out in the test's own process: what a run does, without the seconds that processes take to start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustbench_cmic.carry_out import carry_out
from robustbench_cmic.plan import make_plan
from robustbench_cmic.record import write_json, write_record
from robustbench_cmic.record_schema import AnyRecord
from robustbench_cmic.report import PLAN_FILE
from robustbench_cmic.settings import Settings
from robustbench_cmic.suite import load_suite


def settings_for(folder: Path, **others: Any) -> Settings:
    """Results, work and data in one folder."""
    chosen: dict[str, Any] = {
        "suite": folder.name, "results": folder, "work": folder, "device": "cpu", "batch_size": 8, "data": folder,
        "memory": None, "loaders": 1, "deterministic": True, "pictured_seed": 0, "weights": {}, "provenance": {},
    }  # fmt: skip
    return Settings(**chosen | others)


def carried_out(suite: Path, folder: Path) -> list[AnyRecord]:
    """The records of every cell of a suite whose trainings end well, written to a new folder with the plan."""
    folder.mkdir()
    plan = make_plan(load_suite(suite).suite)
    write_json(folder / PLAN_FILE, plan.model_dump(mode="json"))
    records = []
    for cell in plan.cells:
        record = carry_out(cell, settings_for(folder), lambda *_: None, lambda *_: None)
        write_record(folder, record)
        records.append(record)
    return records
