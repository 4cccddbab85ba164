"""Before the first cell: objectives that do not fit the networks that they are to train.

Some need a network that ends in a linear layer, or one with enough features, which shows only when it is built. That
needs torch, which the process of a run does not import: networks are built in one of its own, as their trainings do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robustbench_cmic.data.base import Data, Split
from robustbench_cmic.plan.cell import Cell, canonical_json
from robustbench_cmic.run.executors.local import start_process
from robustbench_cmic.run.options import Settings
from robustbench_cmic.suite import Suite
from robustbench_cmic.suite.messages import Problem
from robustbench_cmic.suite.models import ARCHITECTURES
from robustbench_cmic.suite.objectives import objective_of

_NAMED = 3
"""Models of one network and objective that a sentence names."""


@dataclass(frozen=True)
class Trial:
    """Training cells to be tried, how they would be carried out, and data of which two images are enough."""

    cells: Sequence[Cell]
    settings: Settings
    data: Data


def may_misfit(cell: Cell) -> bool:
    """Whether only torch can tell that a cell's objective fits its network; not of what trains nothing.

    The architectures of this package end in a linear layer.
    """
    if cell.kind != "train" or cell.declared["training"] is None:
        return False
    goal = objective_of(cell.declared["objective"])
    if not goal.any_features:
        return True
    return (goal.needs_features or goal.owns_head) and cell.architecture not in ARCHITECTURES


def misfit_problems(suite: Suite, cells: Sequence[Cell], settings: Settings, data: Data) -> list[Problem]:
    """A sentence for each network and objective of some trainings that do not fit, at the first model that has them.

    One that cannot be built for another reason is left to its training, which says why.

    Args:
        suite: whose trainings they are.
        cells: such that `may_misfit`.
        settings: of the run.
        data: which they would be trained on.
    """
    alike: dict[str, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(canonical_json([cell.declared["model"], cell.declared["objective"]]), []).append(cell)
    if not alike:
        return []
    two = Split(np.array(data.train.images[:2]), data.train.labels[:2])
    small = replace(data, train=two, test=two, known_sha256="", known_moments=data.moments)
    firsts = [own[0] for own in alike.values()]
    reasons = _reasons(Trial(firsts, replace(settings, device="cpu"), small))
    positions = {model.id: index for index, model in enumerate(suite.models)}
    return [
        Problem(_sentence(own, reason), ("models", positions[own[0].model], "objective"))
        for own, reason in zip(alike.values(), reasons, strict=True)
        if reason
    ]


def _sentence(cells: Sequence[Cell], reason: str) -> str:
    names = list(dict.fromkeys(cell.model for cell in cells))
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    who = ", ".join([*names[:_NAMED], *more])
    return f"{cells[0].objective} cannot train {cells[0].architecture} ({who}): {reason}"


def _reasons(trial: Trial) -> list[str]:
    """Why each cell of a trial does not fit; empty where it does, or its training has something else to say."""
    reasons: list[str] = []
    while len(reasons) < len(trial.cells):
        reasons += _heard(replace(trial, cells=trial.cells[len(reasons) :]))
        if len(reasons) < len(trial.cells):  # the next one ends its process, or takes too long, as its training will
            reasons.append("")
    return reasons


def _heard(trial: Trial) -> list[str]:
    """What a process tells until it ends, or takes longer for a cell than the run allows."""
    process, connection = start_process("robustbench_cmic.run.jobs.fit:main", trial)
    heard: list[str] = []
    try:
        connection.recv()  # that it has started
        while len(heard) < len(trial.cells) and connection.poll(trial.settings.timeout):
            heard.append(connection.recv())
    except (EOFError, OSError):  # it has died
        pass
    finally:
        process.kill()
        process.join()
        connection.close()
    return heard
