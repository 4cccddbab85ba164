"""How precisely a cell is computed, and what its record says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.run import job
from robustbench_cmic.run.jobs.context import cell_provenance
from robustbench_cmic.run.watch.events import CellEnded, Event
from robustbench_cmic.suite import load_suite
from tests.in_process import settings_for


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("kind", ["train", "attack"])
def test_a_cell_is_carried_out_in_float32(
    kind: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []

    def stop(*_: Any) -> None:
        seen.append(flags())
        raise RuntimeError("far enough")

    for name in ("run_training", "run_attack"):
        monkeypatch.setattr(job, name, stop)
    cell = next(cell for cell in make_plan(load_suite(tiny).suite).cells if cell.kind == kind)
    before = flags()
    record = job.run_job(cell, settings_for(tmp_path), lambda _: None)
    assert record.status == "failed"
    assert record.reason.startswith("RuntimeError: far enough (test_job.py, line ")
    assert seen == [(False, False)]
    assert flags() == before == (False, True), "PyTorch's defaults"


def test_records_say_how_precisely_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    said = {
        device: cell_provenance(settings_for(tmp_path, device=device))["determinism"]["evaluation"]
        for device in ("cpu", "cuda:0")
    }
    assert said == {"cpu": "float32", "cuda:0": "TF32 search, float32 verdicts"}


@pytest.mark.parametrize(("error", "short"), [(torch.OutOfMemoryError("no"), True), (RuntimeError("no"), False)])
def test_a_lack_of_memory_is_told_from_other_failures(
    error: Exception, short: bool, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr(job, "run_attack", stop)
    cell = next(cell for cell in make_plan(load_suite(tiny).suite).cells if cell.kind == "attack")
    events: list[Event] = []
    job.run_cell(cell, settings_for(tmp_path), events.append)
    end = events[-1]
    assert isinstance(end, CellEnded)
    assert (end.status, end.out_of_memory) == ("failed", short)
    assert end.reason.startswith("out of memory on cpu: ") is short
