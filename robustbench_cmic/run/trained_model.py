"""A finished training as a network in memory, for code of a user's own."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from torch import nn

from robustbench_cmic.models.build import build_model
from robustbench_cmic.models.layout import lay_out
from robustbench_cmic.models.weights import load_weights
from robustbench_cmic.objectives import head_owner, holds_own_head
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.plan.command import suite_words
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.records.state import cell_states
from robustbench_cmic.records.store import PLAN_FILE, Store
from robustbench_cmic.report.folder import ReportError, read_plan
from robustbench_cmic.report.results import folders_of, named_folder
from robustbench_cmic.suite import shipped_suites
from robustbench_cmic.suite.custom import changed_code
from robustbench_cmic.suite.messages import UserError, suggestion
from robustbench_cmic.suite.models import model_of
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.signatures import one_line


def load_model(results: str | Path, model: str, seed: int, *, work: str | Path | None = None) -> nn.Sequential:
    """A model of a suite as its training has left it.

    Code of your own that the suite names (`my_model:build`) is imported, from the suite's folder where it lies there.

    Args:
        results: the suite's results folder, such as `mine/digits`.
        model: its id in the suite.
        seed: of its training.
        work: the suite's work folder, where weights lie; by default beside the results, `mine.work/digits`.

    Returns:
        A module on the CPU, in eval mode: images (N, C, H, W) in [0, 1] -> logits (N, classes). Its first layer is the
        normalisation, and the network is behind it. Weights are those whose hash is recorded.

    Raises:
        ReportError: the folder holds no results of a suite.
        UserError: no such model or seed, no finished training of it, or its weights are not there or not the
            recorded ones; the message says which, and how to get them.
    """
    folder = named_folder(results)
    if not (folder / PLAN_FILE).exists() and (suites := folders_of(folder)):
        raise ReportError(f"{folder} holds a folder for each suite: name one of them, such as {suites[0]}")
    plan = read_plan(folder)
    cell = _training(plan, folder, model, seed)
    store = Store(folder, None if work is None else Path(work))
    record = _finished(cell, store, plan)
    weights = store.weights(cell.id)
    if not weights.is_file():
        _again(
            cell, plan, folder, f"the weights of {_name(cell)} are not there ({weights}): records travel without them"
        )
    if record.image_shape is None or record.classes is None:
        _again(
            cell, plan, folder, f"the record of {_name(cell)} is from a version that did not tell the shape of images"
        )
    state = load_weights(weights, record.checkpoint_sha256 or "")
    own_head = holds_own_head(state)
    _let_own_code_be_found(cell, plan, folder, own_head)
    goal = None if cell.declared["objective"] is None else objective_of(cell.declared["objective"])
    # What is loaded replaces all weights: timm's own play no part here.
    declared = model_of(cell.declared["model"] | {"pretrained": False})
    moments = (record.mean, record.std)
    owner = head_owner(goal, record.classes, seed, state)
    built = build_model(declared, record.image_shape, record.classes, moments, seed, objective=owner)
    try:
        built.load_state_dict(state)
    except RuntimeError as error:  # names or shapes differ: torch names them, line by line
        raise UserError(f"{declared.architecture} does not take the weights in {weights}: {one_line(error)}") from None
    return lay_out(built, declared.architecture, record.image_shape).eval()


def _training(plan: Plan, folder: Path, model: str, seed: int) -> Cell:
    """The cell of the training that is asked for."""
    trainings = plan.of("train")
    of_model = [cell for cell in trainings if cell.model == model]
    if not of_model:
        known = suggestion(model, (cell.model for cell in trainings), "it has")
        raise UserError(f"{folder} has no model '{model}'; {known}")
    for cell in of_model:
        if cell.seed == seed:
            return cell
    seeds = ", ".join(str(cell.seed) for cell in of_model)
    raise UserError(f"{folder} has no seed {seed!r} of {model}; its seeds are {seeds}")


def _finished(cell: Cell, store: Store, plan: Plan) -> TrainRecord:
    """The record of a training that gave weights."""
    folder = store.results
    standing = cell_states([cell], folder)[cell.id]
    if standing.state == "missing":
        _again(cell, plan, folder, f"{_name(cell)} was not trained yet")
    if standing.state == "diverged":
        raise UserError(f"the training of {_name(cell)} diverged, so that there is no model: {standing.why}")
    if standing.state == "newer":
        raise UserError(f"{store.record(cell.id)}: {standing.why}; update robustbench_cmic")
    if standing.state != "done" or not isinstance(standing.record, TrainRecord):
        _again(cell, plan, folder, f"the training of {_name(cell)} gave no model: {standing.why}")
    return standing.record


def _let_own_code_be_found(cell: Cell, plan: Plan, folder: Path, own_head: bool) -> None:
    """What a suite names lies beside it, as for the command line; it has to be what was trained.

    Raises:
        UserError: it is another by now, or not to be found.
    """
    parts = [cell.declared["model"]] if ":" in cell.architecture else []
    if own_head and ":" in cell.objective:  # of whose code the network has its head
        parts.append(cell.declared["objective"])
    if not parts:
        return
    if plan.file and plan.file not in shipped_suites():
        beside = str(Path(os.path.abspath(folder / plan.file)).parent)  # noqa: PTH100 - `resolve` would follow links
        if beside not in sys.path:
            sys.path.append(beside)  # behind everything else, so that it hides no library
    changed = next(filter(None, map(changed_code, parts)), None)
    if changed is not None:
        raise UserError(
            f"{changed} is not the code that {_name(cell)} was trained with, or cannot be found: put that file beside "
            "the suite, or run the suite again"
        )


def _name(cell: Cell) -> str:
    return f"{cell.model} seed {cell.seed}"


def _again(cell: Cell, plan: Plan, folder: Path, why: str) -> NoReturn:
    """Raise a `UserError` that says which command trains the model."""
    words = [*suite_words(plan, folder), "--results", "NEW", "--only", cell.model, "--seeds", str(cell.seed)]
    command = f"robustbench-cmic run {shlex.join(words)}"
    raise UserError(f"{why}; run the suite again, `{command}`, and load it from NEW/{plan.suite}")
