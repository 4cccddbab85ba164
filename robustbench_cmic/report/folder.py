"""Whether a results folder is that of a suite: of its file as it is now, and of no other file of the same name."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from robustbench_cmic.plan.cell import PLAN_SCHEMA, Plan
from robustbench_cmic.records.files import CorruptRecordError, NewerFileError, newer_file, read_json
from robustbench_cmic.records.store import PLAN_FILE
from robustbench_cmic.suite import SuiteError, shipped_suites
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.reader import read_document
from robustbench_cmic.suite.toy import SUFFIX


class ReportError(UserError):
    """A results folder that cannot be reported; the message says why."""


def read_plan(folder: Path) -> Plan:
    """The plan of a suite's results folder.

    Raises:
        ReportError: there is none, it is damaged, or it is of another version.
    """
    file = folder / PLAN_FILE
    if os.path.isfile(folder):  # noqa: PTH113 - a name too long is no file either, where Path raises
        raise ReportError(f"{folder}: is a file; it should be a suite's results folder, such as results/digits")
    damaged = ReportError(f"{file} is damaged; `run` the suite again to renew it")
    try:
        payload = read_json(file)
        plan = Plan.model_validate(payload)
    except FileNotFoundError:
        raise ReportError(f"{folder} holds no results: there is no {PLAN_FILE} in it; `run` the suite first") from None
    except ValidationError as error:
        if (newer := newer_file(payload, PLAN_SCHEMA, error)) is not None:
            raise ReportError(_newer_plan(file, newer)) from None
        if payload.get("schema") in (None, PLAN_SCHEMA):
            raise damaged from None
        schemas = f"{payload['schema']}, and this version reads {PLAN_SCHEMA}"
        raise ReportError(f"{file} is of schema {schemas}; `run` the suite again") from None
    except CorruptRecordError:
        raise damaged from None
    if not {cell.model for cell in plan.cells} <= {cell.model for cell in plan.of("train")}:
        raise damaged
    return plan


def _newer_plan(file: Path, newer: NewerFileError) -> str:
    return f"{file} is {newer}; update robustbench_cmic, or choose another --results"


def check_plan(folder: Path, plan: Plan, file: Path) -> None:
    """Check that the results in a folder are those of a suite file as it is now, whose plan this is.

    A folder without results, or with results that cannot be read, is left to whoever reads it.

    Raises:
        ReportError: they are of another suite, or of this one as it was before.
    """
    try:
        recorded = read_plan(folder)
    except ReportError:
        return
    if is_equal(recorded, plan):
        return
    raise ReportError(
        f"{folder} holds results of another suite, or of {file} as it was before ({plan_changes(recorded, plan)}): "
        f"`run` this one, or name the folder to see what is in it: {folder.name}"
    )


def plan_changes(first: Plan, second: Plan) -> str:
    """In what two unequal plans differ first, and how much more: `training.epochs: 20 -> 30 (cnn-ce), and 1 more`."""
    from robustbench_cmic.report.compare import differences
    from robustbench_cmic.report.compare.matching import match_cells

    words = (each.model_dump(include={"suite", "description", "dataset"}) for each in (first, second))
    changes = differences.value_differences(*words) + differences.plan_differences(first, second)
    both = [(old, new) for old, new in match_cells(first.cells, second.cells) if old is not None and new is not None]
    changes += differences.declared_differences(both)
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{changes[0].text() if changes else 'the order of its cells'}{more}"


def is_equal(first: Plan, second: Plan) -> bool:
    """Whether two plans are of the same suite, wherever its file lies."""
    return first.model_copy(update={"file": ""}) == second.model_copy(update={"file": ""})


def claimed(folder: Path, plan: Plan, file: Path | None) -> Plan:
    """The plan of a suite that is to be run in a folder, with the place of the suite's file.

    A copy of a file that asks for the same is no other suite: the folder stays that of the first.

    Args:
        folder: the suite's results folder; need not exist.
        plan: of the suite.
        file: of the suite; None where it is not known, which makes it no other than the one before.

    Raises:
        NewerFileError: the plan in the folder is from a newer version.
        UserError: the folder is that of another suite of this name, whose file is still there, or of this one with
            other changes.
    """
    place = "" if file is None else _place(file, folder)
    try:
        payload = read_json(folder / PLAN_FILE)
        before = Plan.model_validate(payload)
    except ValidationError as error:
        if (newer := newer_file(payload, PLAN_SCHEMA, error)) is not None:
            raise NewerFileError(_newer_plan(folder / PLAN_FILE, newer)) from None
        return plan.model_copy(update={"file": place})
    except (FileNotFoundError, CorruptRecordError):
        return plan.model_copy(update={"file": place})
    other = _other_file(before, folder, plan.suite, file)
    if other is None:
        _check_changes(folder, before, plan)
        return plan.model_copy(update={"file": place or before.file})
    if not is_equal(before, plan):
        raise UserError(
            f"{folder} holds the results of {os.path.relpath(other)}, another suite of the name {plan.suite}: rename "
            "one of them (`suite: NAME`), or choose another --results"
        )
    return plan.model_copy(update={"file": before.file})


def _check_changes(folder: Path, before: Plan, plan: Plan) -> None:
    """Check that what the command line changed of a suite is what it changed before, under this name."""
    if before.suite == plan.suite and sorted(before.changes) != sorted(plan.changes):
        was, now = (
            f"changed by --set {', '.join(own.changes)}" if own.changes else "unchanged" for own in (before, plan)
        )
        raise UserError(
            f"{folder} holds the results of a suite of the name {plan.suite} that is {was}, and this one is {now}: "
            "give it another name (--as NAME), or choose another --results"
        )


def _place(file: Path, folder: Path) -> str:
    """A suite's file as a plan names it: from the results folder; of a suite that comes along its name alone."""
    shipped = shipped_suites().get(file.stem)
    if shipped is not None and shipped.resolve() == file.resolve():
        return file.stem
    return os.path.relpath(file.resolve(), folder.resolve())


def _other_file(before: Plan, folder: Path, suite: str, file: Path | None) -> Path | None:
    """The file that a plan is from, where that is another one than `file` and still there under the suite's name."""
    if file is None or not before.file:
        return None
    other = shipped_suites().get(before.file, folder.resolve() / before.file)
    try:
        if other.resolve() == file.resolve():
            return None
        document = read_document(other).data
    except (SuiteError, OSError):  # renamed, moved or gone: one suite of the name is left
        return None
    name = document.get("suite") if isinstance(document, dict) else None
    return other if name in (suite, suite.removesuffix(SUFFIX), before.file_name or None) else None
