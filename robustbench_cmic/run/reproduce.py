"""A suite made anew in a fresh folder and judged beside its recorded results. This process does not import torch."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records import provenance
from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.records.store import Store
from robustbench_cmic.report import Results, read_results
from robustbench_cmic.report.compare.certificate import Certificate, counts_of, overall, sentence
from robustbench_cmic.report.compare.differences import (
    Difference,
    declared_differences,
    environment,
    environment_differences,
    environment_of,
    hash_differences,
    identity,
    plan_differences,
)
from robustbench_cmic.report.compare.verdicts import CellVerdict, Pair, judge, missing
from robustbench_cmic.run import DONE
from robustbench_cmic.run.options import Options
from robustbench_cmic.run.runner import run_suite
from robustbench_cmic.suite import LoadedSuite
from robustbench_cmic.suite.messages import UserError

MARKER = "reproduction.json"


@dataclass(frozen=True)
class Reproduction:
    """What is to be made anew.

    Attributes:
        plan: the suite's, as it is now.
        recorded: the results to reproduce.
        chosen: cells of the plan to run, in order, each after those that it depends on; all have a recorded result.
        old: the recorded cell of each chosen one, by the chosen one's id.
        missing: verdicts on cells that only the suite or only the records have.
        inputs: in which the suite is not the recorded one.
    """

    plan: Plan
    recorded: Results
    chosen: list[Cell]
    old: dict[str, Cell]
    missing: list[CellVerdict]
    inputs: list[Difference]


def make_task(loaded: LoadedSuite, recorded: Results, fraction: float) -> Reproduction:
    """Match a suite with its recorded results and choose the sample.

    Args:
        loaded: the suite.
        recorded: its results.
        fraction: share of the recorded evaluations to make anew, in (0, 1]; which ones depends on their ids alone.
    """
    plan = make_plan(loaded.suite)
    known = {identity(cell): cell for cell in recorded.plan.cells}
    planned = {identity(cell) for cell in plan.cells}
    old = {cell.id: known[identity(cell)] for cell in plan.cells if identity(cell) in known}
    lacking = [missing(cell, "not in the recorded suite") for cell in plan.cells if cell.id not in old]
    lacking += [missing(c, "not in the suite any more") for c in recorded.plan.cells if identity(c) not in planned]
    lacking += [missing(cell, why) for cell in old.values() if (why := _unrecorded(cell, recorded))]
    chosen = sample(plan, {new for new, cell in old.items() if _has_result(cell, recorded)}, old, fraction)
    differences = plan_differences(recorded.plan, plan)
    inputs = [found for found in differences if not found.key.startswith("pairs")]
    inputs += declared_differences((old[cell.id], cell) for cell in plan.cells if cell.id in old)
    return Reproduction(plan, recorded, chosen, old, lacking, inputs)


def _has_result(cell: Cell, recorded: Results) -> bool:
    """A divergence is one, too."""
    record = recorded.records.get(cell.id)
    return record is not None and record.status != "failed"


def _unrecorded(cell: Cell, recorded: Results) -> str:
    """Why a cell of both suites has nothing to compare with; empty where it has, or where there never was anything."""
    record = recorded.records.get(cell.id)
    if record is not None:
        return f"recorded as failed: {record.reason}" if record.status == "failed" else ""
    trainings = [recorded.records.get(other or "") for other in (cell.needs, cell.source)]
    if any(training is not None and training.status == "diverged" for training in trainings):
        return ""
    problem = next((problem for problem in recorded.problems if f"{cell.id}.json: " in problem), None)
    return "not recorded" if problem is None else f"not usable: {problem.partition(': left out: ')[2]}"


def sample(plan: Plan, usable: set[str], old: dict[str, Cell], fraction: float) -> list[Cell]:
    """A part of a plan's cells: evaluations drawn by the hashes of their recorded ids, and what they depend on.

    With a training goes its clean evaluation: that says what weights are worth which are not the recorded ones.

    Args:
        plan: all cells.
        usable: ids of those that have a recorded result.
        old: the recorded cell of each, by id.
        fraction: share of the evaluations, in (0, 1], rounded up.
    """
    if fraction == 1:
        return [cell for cell in plan.cells if cell.id in usable]
    evaluations = [cell for cell in plan.cells if cell.kind != "train" and cell.id in usable]
    evaluations.sort(key=lambda cell: hashlib.sha256(old[cell.id].id.encode()).hexdigest())
    keep = {cell.id for cell in evaluations[: math.ceil(fraction * len(evaluations))]}
    for cell in reversed(plan.cells):  # what a cell depends on comes before it
        if cell.id in keep:
            keep.update(cell.dependencies)
    keep.update(cell.id for cell in plan.cells if cell.attack == "none" and cell.needs in keep)
    return [cell for cell in plan.cells if cell.id in keep & usable]


def default_folder(suite: str) -> Path:
    """A fresh folder under `reproductions`, named by the time (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    return Path("reproductions") / suite / now.strftime("%Y%m%dT%H%M%SZ")


def open_folder(folder: Path, place: Path, task: Reproduction, fraction: float) -> list[Path]:
    """Mark a fresh folder as one of this reproduction, or find that it is one that was interrupted.

    Args:
        folder: to run in.
        place: where the certificate goes.
        task: what is to be made anew.
        fraction: as asked for.

    Returns:
        The folders that were made, innermost first.

    Raises:
        UserError: it holds anything else: what is in it was not made from scratch, or is certified already. Or it is
            fresh, but its work folder is there: a run would take over checkpoints and resume states from it.
        OSError: it cannot be written to.
    """
    made = [path for leaf in (place, folder) for path in (leaf, *leaf.parents) if not path.exists()]
    own = {"suite": task.plan.suite, "fraction": fraction, "cells": [cell.id for cell in task.chosen]}
    if folder.is_dir() and any(folder.iterdir()):
        try:
            found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != own | {"certified": False}:
            raise UserError(f"{folder} is not empty, and no interrupted run of this reproduction: choose a fresh one")
    elif (work := Store.work_root(folder)).exists():
        raise UserError(
            f"{work} is there, and of no interrupted run of this reproduction: remove it, or choose other --results"
        )
    try:
        for path in (folder, place):
            path.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / MARKER, json.dumps(own | {"certified": False}).encode())
    except OSError:
        clean_up(folder, made)
        raise
    return made


def clean_up(folder: Path, made: Sequence[Path]) -> None:
    """Leave nothing behind of a run that could not begin: the marker, and the folders that `open_folder` made."""
    if folder.is_dir() and [file.name for file in folder.iterdir()] == [MARKER]:
        (folder / MARKER).unlink()
    for path in made:
        with contextlib.suppress(OSError):  # not empty, or gone already
            path.rmdir()


def mark_certified(folder: Path) -> None:
    """Mark a folder as certified, so that nothing in it is taken for made anew again."""
    marker = folder / MARKER
    write_atomically(marker, json.dumps(json.loads(marker.read_text(encoding="utf-8")) | {"certified": True}).encode())


def rerun(task: Reproduction, loaded: LoadedSuite, options: Options, console: Console) -> int:
    """Run the chosen cells; 0 all are done, 1 some failed, 130 interrupted. See `run.run_suite` for errors."""
    if not task.chosen:
        console.print(f"{task.plan.suite}: none of its cells is recorded: nothing to run", markup=False)
        return DONE
    return run_suite(loaded.suite, options, console)


def options_for(task: Reproduction, folder: Path, device: str | None, data: Path | None, jobs: int | None) -> Options:
    """How to run: on the recorded kind of device unless another is asked for, deterministic if the records are."""
    origins = [record.provenance for record in task.recorded.records.values()]
    on_cpu = bool(origins) and all(origin.get("device") == "cpu" for origin in origins)
    settings = [origin.get("determinism", {}) for origin in origins]
    return Options(
        results=folder,
        only=[cell.id for cell in task.chosen],
        device=device or ("cpu" if on_cpu else "auto"),
        data=data,
        jobs=jobs,
        deterministic=bool(settings) and all(found.get("deterministic") for found in settings),
    )


def certify(
    task: Reproduction, loaded: LoadedSuite, folder: Path, against: Path, fraction: float, began: float
) -> Certificate:
    """Judge what a run has left in `folder`.

    Args:
        task: what was to be made anew.
        loaded: the suite.
        folder: where it was run.
        against: the recorded results, for the certificate to name.
        fraction: as asked for.
        began: when the run began, in seconds since the epoch.
    """
    new = read_results(folder / task.plan.suite) if task.chosen else None
    pairs = [_pair(task, cell, new) for cell in task.chosen]
    both = [(pair.old, pair.new) for pair in pairs if pair.new is not None]
    inputs = task.inputs + hash_differences(both)
    cells = judge(pairs) + task.missing
    verdict, code = overall(cells, inputs)
    everything = sum(_has_result(cell, task.recorded) for cell in task.recorded.plan.cells)
    sampled = f"a sample of {everything} recorded cells" if fraction < 1 else ""
    recorded = environment([old for old, _ in both] or task.recorded.records.values())
    here = environment(record for _, record in both) or environment_of(provenance.collect())
    return Certificate(
        suite=task.plan.suite,
        sentence=sentence(task.plan.suite, verdict, cells, inputs, sampled),
        verdict=verdict,
        exit_code=code,
        started=datetime.datetime.fromtimestamp(began, datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - began, 1),
        suite_file=loaded.path.name,
        suite_sha256=loaded.sha256,
        against=str(against),
        results=str(folder / task.plan.suite),
        fraction=fraction,
        recorded=everything,
        counts=counts_of(cells),
        inputs=inputs,
        environment=environment_differences(recorded, here),
        environment_recorded=recorded,
        environment_here=here,
        dataset_sha256={"recorded": _data(old for old, _ in both), "here": _data(record for _, record in both)},
        cells=cells,
    )


def _pair(task: Reproduction, cell: Cell, new: Results | None) -> Pair:
    old = task.old[cell.id]
    record = None if new is None else new.records.get(cell.id)
    return Pair(old, task.recorded.records[old.id], record)


def _data(records: Iterable[AnyRecord]) -> list[str]:
    return sorted({record.dataset_sha256 for record in records if record.dataset_sha256 is not None})
