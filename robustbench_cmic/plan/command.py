"""What a command line has to say to ask for a recorded suite again, as `--set`, `--as` and `--toy` had made it."""

from __future__ import annotations

import os
from pathlib import Path

from robustbench_cmic.plan.cell import Plan
from robustbench_cmic.suite import shipped_suites
from robustbench_cmic.suite.fields import is_name
from robustbench_cmic.suite.toy import MARK, SUFFIX


def suite_words(plan: Plan, folder: Path | None = None) -> list[str]:
    """The words behind `run` that make the suite of a plan: its file, `--set`, `--as` and `--toy`.

    A file whose place is not known is taken for that of a suite that comes along, or for `NAME.yaml`.

    Args:
        plan: of the results.
        folder: that the plan lies in, from which its file is found; None: the command is given beside the file.
    """
    words = [_file(plan, folder)]
    for change in plan.changes:
        words += ["--set", change]
    if (name := name_given(plan)) is not None:
        words += ["--as", name]
    return [*words, "--toy"] if _at_toy_size(plan) else words


def name_given(plan: Plan) -> str | None:
    """The name that `--as` gave the suite; None where it is the file's, or follows from what was changed.

    A name that only changes have, such as `digits+training.epochs=2`, is none that `--as` takes.
    """
    name = _name(plan)
    return name if (plan.file_name or plan.changes) and is_name(name) else None


def _file(plan: Plan, folder: Path | None) -> str:
    if not plan.file:
        name = plan.file_name or _name(plan)
        return name if name in shipped_suites() else f"{name}.yaml"
    if plan.file in shipped_suites():
        return plan.file
    return Path(plan.file).name if folder is None else os.path.normpath(folder / plan.file)


def _name(plan: Plan) -> str:
    """The suite's name without what toy size adds to it."""
    return plan.suite.removesuffix(SUFFIX) if _at_toy_size(plan) else plan.suite


def _at_toy_size(plan: Plan) -> bool:
    """A suite may have a name that ends so by itself; its description says no such thing."""
    return plan.suite.endswith(SUFFIX) and MARK in plan.description
