"""Reads a suite's results folder: its plan and the records that belong to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robustbench_cmic.plan.cell import Cell, Plan, canonical_json
from robustbench_cmic.records.files import CorruptRecordError
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.records.state import cell_states
from robustbench_cmic.records.store import PLAN_FILE, Store, read_record
from robustbench_cmic.report.folder import ReportError, read_plan
from robustbench_cmic.suite.fields import Threat

NOT_RUN = "not run"


@dataclass(frozen=True)
class Results:
    """What a report is made from.

    Attributes:
        records: by cell id; of the plan's cells, and of evaluations that the command line limited.
        limited: cells that the command line limited to some examples, by id; shown, never ranked.
        problems: sentences about files that were left out.
    """

    folder: Path
    plan: Plan
    records: dict[str, AnyRecord]
    limited: list[Cell]
    problems: list[str]

    @cached_property
    def models(self) -> list[str]:
        """Ids of the models, in the suite's order."""
        return list(dict.fromkeys(cell.model for cell in self.plan.cells))

    @cached_property
    def seeds(self) -> int:
        """How many seeds the suite has."""
        return len({cell.seed for cell in self.plan.cells})

    @cached_property
    def threats(self) -> list[Threat]:
        """The norms and radii attacked, ascending within a norm."""
        return sorted({cell.threat for cell in self.plan.of("attack") if cell.norm})

    @cached_property
    def judged_on(self) -> str:
        """What accuracies are of: test examples, of each fold where seeds are folds, or held-out training examples."""
        if any(cell.declared["dataset"].get("holdout") for cell in self.plan.of("train")):
            return "held-out training examples"
        return "test examples of each fold" if self.folds else "test examples"

    @cached_property
    def folds(self) -> int:
        """Into how many folds the examples are dealt, one a seed; 0 where all seeds are judged on the same ones."""
        return next((cell.declared["dataset"].get("folds") or 0 for cell in self.plan.of("train")), 0)

    @cached_property
    def trainings(self) -> dict[str, Cell]:
        """The first training of each model."""
        return {cell.model: cell for cell in reversed(self.plan.of("train"))}

    def status(self, cell: Cell) -> tuple[str, str]:
        """What became of a cell, and the id of the record that says so: a training's, where that gave no model."""
        needed = [other for other in (cell.needs, cell.source) if other is not None]
        for other in needed:  # which grows by what a training begins with
            needed += [self._begun_with[other]] if other in self._begun_with else []
            training = self.records.get(other)
            if training is not None and training.status != "ok":
                return "skipped", training.cell.id
        record = self.records.get(cell.id)
        return NOT_RUN if record is None else record.status, cell.id

    @cached_property
    def _begun_with(self) -> dict[str, str]:
        """By the ids of trainings those whose weights they begin with, where they do."""
        return {cell.id: cell.source for cell in self.plan.of("train") if cell.source is not None}

    def attack(self, cell: str) -> AttackRecord | None:
        """The record of an attack that gave a result, by the cell's id; None where there is none."""
        record = self.records.get(cell)
        return record if isinstance(record, AttackRecord) and record.status == "ok" else None


@contextmanager
def of_own_making(folder: Path) -> Iterator[None]:
    """Work on a folder whose plan and records can be read; what they declare may still be anything.

    Raises:
        ReportError: they lack what every plan and record of this version has, or it is of another type.
    """
    try:
        yield
    except (LookupError, TypeError, AttributeError, StopIteration, RuntimeError, ValueError, ArithmeticError) as error:
        why = "its plan or records are not of this version's making; `run` the suite again"
        raise ReportError(f"{folder}: {why}") from error


def check_name(folder: Path) -> None:
    """Check that a folder can be named in a text.

    Raises:
        ReportError: its path is not UTF-8.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        readable = str(folder).encode(errors="replace").decode()
        raise ReportError(f"{readable}: the name of the folder is not UTF-8; rename it") from None


def named_folder(path: str | Path) -> Path:
    """A folder as a caller names it.

    Raises:
        ReportError: the name is empty, which would be the folder that one is in.
    """
    if path == "":
        raise ReportError('the name of the folder is empty; it should be a results folder such as "results/digits"')
    return Path(path)


def folders_of(results: Path) -> list[Path]:
    """The results folders of suites in a folder, by name."""
    return sorted(file.parent for file in results.glob(f"*/{PLAN_FILE}"))


def read_results(folder: Path) -> Results:
    """Read a suite's results folder.

    Raises:
        ReportError: see `read_plan`.
    """
    plan = read_plan(folder)
    limited = list(_limited_cells(folder, plan))
    records: dict[str, AnyRecord] = {}
    problems: list[str] = []
    # The same judgement as a run's: what a run would set aside is not shown either.
    for cell, standing in cell_states([*plan.cells, *limited], folder).items():
        if standing.state in ("unusable", "newer"):
            problems.append(f"{Store(folder).record(cell)}: left out: {standing.why}")
        elif standing.record is not None:
            records[cell] = standing.record
    order = {cell.id: index for index, cell in enumerate(plan.cells)}
    limited.sort(key=lambda cell: (order[cell.needs or ""], cell.attack != "none", cell.attack, cell.threat))
    return Results(folder, plan, records, limited, problems)


def _limited_cells(folder: Path, plan: Plan) -> Iterator[Cell]:
    """The cells of evaluations that the command line limited, of what the plan evaluates on more examples."""
    planned = {cell.id for cell in plan.cells}
    whole = {_without_limit(cell): _limit(cell) for cell in plan.of("attack")}
    for file in sorted(folder.glob("*.json")):
        if file.stem not in planned and file.name != PLAN_FILE and file.is_file():
            with suppress(CorruptRecordError, FileNotFoundError):  # a run does not read it, and nothing is shown of it
                cell = read_record(file).cell
                evaluation = cell.declared.get("evaluation")
                by_command_line = isinstance(evaluation, dict) and evaluation.get("by_command_line")
                if by_command_line and _limit(cell) <= whole.get(_without_limit(cell), 0):
                    yield cell


def _without_limit(cell: Cell) -> str:
    """An attack on a model, whatever the number of examples; equal texts for equal ones."""
    declared = {key: value for key, value in cell.declared.items() if key not in ("evaluation", "after")}
    evaluation = cell.declared.get("evaluation")
    drawn = evaluation if isinstance(evaluation, dict) else {}
    drawn = {key: value for key, value in drawn.items() if key not in ("limit", "by_command_line")}
    return canonical_json([cell.needs, cell.source, cell.attack, cell.norm, cell.eps, declared, drawn])


def _limit(cell: Cell) -> float:
    """How many examples a cell evaluates at most; infinity: all."""
    evaluation = cell.declared.get("evaluation")
    limit = evaluation.get("limit") if isinstance(evaluation, dict) else None
    return limit if isinstance(limit, int) else math.inf
