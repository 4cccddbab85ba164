"""A network with the objective that is to train it: what a training begins with, and what is tried before a run."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from torch import nn

from robustbench_cmic.attacks.model import in_float32
from robustbench_cmic.objectives import Objective, ObjectiveError, build_objective
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.run.console import encode_anything
from robustbench_cmic.run.jobs.context import Job, Stopwatch
from robustbench_cmic.run.preflight import Trial
from robustbench_cmic.suite.objectives import objective_of


def fitted_model(job: Job, objective: Objective) -> nn.Sequential:
    """The model that a training cell declares, newly drawn, with its objective attached.

    Raises:
        ObjectiveError: the objective does not fit the network: no last linear layer, or too few features, say.
        ModelError: the network cannot be built or used.
    """
    model = job.model(job.cell.declared["model"], to_train=True, objective=objective)
    objective.attach(model, job.checked_images[:2])
    return model


def main(connection: Connection, trial: Trial) -> None:
    """Send for each cell of a trial why its objective does not fit, empty where that is not what is wrong."""
    silence = os.open(os.devnull, os.O_WRONLY)  # what a user's own code prints it prints again when it trains
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    encode_anything()
    for cell in trial.cells:
        with in_float32():
            reason = _misfit(cell, trial)
        connection.send(reason)


def _misfit(cell: Cell, trial: Trial) -> str:
    job = Job(cell, trial.settings, trial.data, Stopwatch(), lambda _: None)
    try:
        objective = build_objective(objective_of(cell.declared["objective"]), job.data.classes, cell.seed)
    except (Exception, SystemExit):  # whatever a user's own code raises: its training says so
        return ""
    if not (objective.needs_features or objective.owns_head):
        return ""
    try:
        fitted_model(job, objective)
    except ObjectiveError as error:
        return " ".join(str(error).split())
    except (Exception, SystemExit):  # a network that cannot be built, which its training says
        return ""
    return ""
