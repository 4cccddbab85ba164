"""A suite made anew in a fresh folder and judged beside its recorded results. This process does not import torch."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan, title
from robustbench_cmic.records import provenance
from robustbench_cmic.records.files import unwritten, write_atomically
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.records.store import Store
from robustbench_cmic.report import Results, read_results
from robustbench_cmic.report.compare import differences
from robustbench_cmic.report.compare.certificate import CellVerdict, Certificate, conclude, counts_of, judge
from robustbench_cmic.report.compare.matching import CellPair, compare_cells, match_cells
from robustbench_cmic.run import INTERRUPTED
from robustbench_cmic.run.console import show
from robustbench_cmic.run.options import Options
from robustbench_cmic.run.runner import run_suite
from robustbench_cmic.suite import LoadedSuite
from robustbench_cmic.suite.files import read_regular
from robustbench_cmic.suite.messages import UserError

MARKER = "reproduction.json"


@dataclass(frozen=True)
class Reproduction:
    """What is to be made anew.

    Attributes:
        fraction: share of the recorded evaluations that was asked for, in (0, 1].
        chosen: cells of the suite's plan to run, in order, each after those that it depends on.
        old: by the ids of chosen cells the recorded ones; all have a result.
        missing: verdicts on cells that only the suite or only the records have.
        inputs: in which the suite is not the recorded one.
    """

    loaded: LoadedSuite
    recorded: Results
    fraction: float
    chosen: list[Cell]
    old: dict[str, Cell]
    missing: list[CellVerdict]
    inputs: list[differences.Difference]


def plan_reproduction(loaded: LoadedSuite, recorded: Results, fraction: float) -> Reproduction:
    """Match a suite with its recorded results and choose the sample; which it is depends on the cells' ids alone."""
    plan = make_plan(loaded.suite)
    matches = match_cells(plan.cells, recorded.plan.cells)
    both = [(cell, old) for cell, old in matches if cell is not None and old is not None]
    lacking = [(cell, "not in the recorded suite") for cell, old in matches if cell is not None and old is None]
    lacking += [(old, "not in the suite any more") for cell, old in matches if old is not None and cell is None]
    lacking += [(old, why) for _, old in both if (why := _unrecorded(old, recorded))]
    missing = [
        CellVerdict(cell=cell.id, title=title(cell), kind=cell.kind, verdict="missing", why=why)
        for cell, why in lacking
    ]
    usable = {cell.id: old for cell, old in both if _has_result(old, recorded)}
    changes = differences.plan_differences(recorded.plan, plan)
    inputs = [change for change in changes if not change.key.startswith(("pairs", "claims"))]
    inputs += differences.declared_differences((old, cell) for cell, old in both)
    return Reproduction(loaded, recorded, fraction, sample(plan, usable, fraction), usable, missing, inputs)


def _has_result(cell: Cell, recorded: Results) -> bool:
    """A divergence is one, too."""
    record = recorded.records.get(cell.id)
    return record is not None and record.status != "failed"


def _unrecorded(cell: Cell, recorded: Results) -> str:
    """Why a cell of both suites has nothing to compare with; empty where it has, or where there never was anything."""
    record = recorded.records.get(cell.id)
    if record is not None:
        return f"recorded as failed: {record.reason}" if record.status == "failed" else ""
    needed = recorded.records.get(recorded.status(cell)[1])  # a training that gave nothing to go on with, if any
    if needed is not None and needed.status == "diverged":
        return ""
    problem = next((problem for problem in recorded.problems if f"{cell.id}.json: " in problem), None)
    return "not recorded" if problem is None else f"not usable: {problem.partition(': left out: ')[2]}"


def sample(plan: Plan, recorded: Mapping[str, Cell], fraction: float) -> list[Cell]:
    """A part of a plan's cells: evaluations drawn by the hashes of their recorded ids, and what they depend on.

    With a training goes its clean evaluation: that says what weights are worth which are not the recorded ones.
    `recorded` holds the recorded cells that have a result, by the plan's ids; `fraction` is in (0, 1], rounded up.
    """
    usable = [cell for cell in plan.cells if cell.id in recorded]
    if fraction == 1:
        return usable
    evaluations = [cell.id for cell in usable if cell.kind != "train"]
    evaluations.sort(key=lambda name: hashlib.sha256(recorded[name].id.encode()).hexdigest())
    keep = plan.with_dependencies(evaluations[: math.ceil(fraction * len(evaluations))])
    keep.update(cell.id for cell in plan.cells if cell.attack == "none" and cell.needs in keep)
    return [cell for cell in usable if cell.id in keep]


def rerun(
    reproduction: Reproduction, folder: Path, place: Path, device: str | None, data: Path | None, jobs: int | None
) -> bool:
    """Run the chosen cells in a fresh folder, or go on in that of an interrupted run of this reproduction.

    It runs on the recorded kind of device unless another is asked for, deterministically if the records were made so.
    `place`, where the certificate goes, is made, too. Where the run cannot begin, nothing is left behind. Returns
    whether it was interrupted.

    Raises:
        UserError: the folder holds anything else: what is in it was not made from scratch, or is certified already. Or
            it is fresh, but its work folder is there: a run would take over checkpoints and resume states from it. Or
            it cannot be written to. Or see `run_suite`.
    """
    loaded = reproduction.loaded
    made = _open(reproduction, folder, place)
    for difference in reproduction.inputs:
        show(f"not the recorded experiment: {difference.text()}", error=True)
    console = Console(soft_wrap=True)
    if not reproduction.chosen:
        show(f"{loaded.suite.suite}: none of its cells is recorded: nothing to run")
        return False
    origins = [record.provenance for record in reproduction.recorded.records.values()]
    recorded_device = "cpu" if all(origin.get("device") == "cpu" for origin in origins) else "auto"
    options = Options(
        results=folder,
        only=[cell.id for cell in reproduction.chosen],
        device=device or recorded_device,
        data=data,
        jobs=jobs,
        deterministic=all(origin.get("determinism", {}).get("deterministic") for origin in origins),
    )
    try:
        with loaded.locating():
            return run_suite(loaded.suite, options, console) == INTERRUPTED
    except KeyboardInterrupt:
        return True
    except UserError:
        _clean_up(folder, made)
        raise


def _open(reproduction: Reproduction, folder: Path, place: Path) -> list[Path]:
    """Mark the folder as one of this reproduction; returns the folders that were made, innermost first."""
    made = [path for leaf in (place, folder) for path in (leaf, *leaf.parents) if not path.exists()]
    marker, found = _marker(reproduction), b""
    with contextlib.suppress(OSError):  # it is not there, or cannot be read
        found = read_regular(folder / MARKER)
    try:
        if folder.is_dir() and any(folder.iterdir()):
            if found != marker:
                raise UserError(
                    f"{folder} is not empty, and no interrupted run of this reproduction: choose a fresh one"
                )
        elif (work := Store.work_root(folder)).exists():
            raise UserError(
                f"{work} is there, and of no interrupted run of this reproduction: remove it, or choose other --results"
            )
        for path in (folder, place):
            path.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / MARKER, marker)
    except OSError as error:
        _clean_up(folder, made)
        raise UserError(f"cannot write to {unwritten(error, folder)}") from None
    return made


def _marker(reproduction: Reproduction, certified: bool = False) -> bytes:
    suite, cells = reproduction.loaded.suite.suite, [cell.id for cell in reproduction.chosen]
    marker = {"suite": suite, "fraction": reproduction.fraction, "cells": cells, "certified": certified}
    return json.dumps(marker).encode()


def _clean_up(folder: Path, made: Sequence[Path]) -> None:
    """Leave nothing behind of a run that could not begin: the marker, and the folders that `_open` made."""
    with contextlib.suppress(OSError):  # it is not there, or cannot be read
        if [file.name for file in folder.iterdir()] == [MARKER]:
            (folder / MARKER).unlink()
    for path in made:
        with contextlib.suppress(OSError):  # not empty, or gone already
            path.rmdir()


def mark_certified(folder: Path, reproduction: Reproduction) -> None:
    """Mark a folder as certified, so that nothing in it is taken for made anew again."""
    write_atomically(folder / MARKER, _marker(reproduction, certified=True))


def certify(reproduction: Reproduction, folder: Path, began: datetime.datetime) -> Certificate:
    """Judge what a run has left in a folder."""
    suite, results, fraction = reproduction.loaded.suite.suite, reproduction.recorded, reproduction.fraction
    new = read_results(folder / suite).records if reproduction.chosen else {}
    matches = [(reproduction.old[cell.id], cell) for cell in reproduction.chosen]
    pairs = [CellPair(old, cell, results.records[old.id], new.get(cell.id)) for old, cell in matches]
    records = [pair.records for pair in pairs if pair.records is not None]
    inputs = reproduction.inputs + differences.hash_differences(records)
    cells = judge(compare_cells(pairs, across_data=True)) + reproduction.missing
    everything = sum(_has_result(cell, results) for cell in results.plan.cells)
    sampled = f"a sample of {everything} recorded cells" if fraction < 1 else ""
    verdict, code, sentence = conclude(suite, cells, inputs, sampled)
    origins = [old.provenance for old, _ in records] or [record.provenance for record in results.records.values()]
    recorded = differences.environment(origins)
    here = differences.environment([new.provenance for _, new in records] or [provenance.collect()])
    return Certificate(
        suite=suite,
        sentence=sentence,
        verdict=verdict,
        exit_code=code,
        started=began.isoformat(timespec="seconds"),
        seconds=round((datetime.datetime.now(datetime.UTC) - began).total_seconds(), 1),
        suite_file=reproduction.loaded.path.name,
        suite_sha256=reproduction.loaded.sha256,
        against=str(results.folder),
        results=str(folder / suite),
        fraction=fraction,
        recorded=everything,
        counts=counts_of(cells),
        inputs=inputs,
        environment=differences.value_differences(recorded, here),
        environment_recorded=recorded,
        environment_here=here,
        dataset_sha256={"recorded": _data(old for old, _ in records), "here": _data(new for _, new in records)},
        cells=cells,
    )


def _data(records: Iterable[AnyRecord]) -> list[str]:
    return sorted({record.dataset_sha256 for record in records if record.dataset_sha256 is not None})
