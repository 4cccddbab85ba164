"""Objectives of a user's own, named `package.module:name`."""

from __future__ import annotations

import pkgutil
from typing import Any

import torch
from torch import nn

from robustbench_cmic.objectives.base import Objective, terms_problem
from robustbench_cmic.objectives.last_layer import ObjectiveError
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.signatures import one_line


def custom_objective(classes: int, *, name: str, parameters: dict[str, Any], seed: int) -> Objective:
    """A user's objective, tried before it is trusted with a training; the generators are left as they were.

    Args:
        classes: C.
        name: `package.module:name`.
        parameters: to call it with, besides the number of classes.
        seed: with the name it decides what the objective draws when it is built.

    Raises:
        ObjectiveError: it cannot be built, or does not do what `Objective` says.
    """
    with seeded(derive_seed("objective", name, seed)):
        _try(_build(name, parameters, classes), name, classes)
    with seeded(derive_seed("objective", name, seed)):
        return _build(name, parameters, classes)  # a second one: the trial may have moved the state of the first


def _build(name: str, parameters: dict[str, Any], classes: int) -> Objective:
    try:
        objective = pkgutil.resolve_name(name)(classes, **parameters)
    except (Exception, SystemExit) as error:  # whatever a user's own code raises
        raise ObjectiveError(f"{name} failed for {classes} classes: {one_line(error)}") from error
    if not isinstance(objective, Objective):
        kind = type(objective).__name__
        raise ObjectiveError(f"{name} should return a robustbench_cmic.objectives.Objective, not {kind}")
    objective.classes = classes
    return objective


def _try(objective: Objective, name: str, classes: int) -> None:
    """One step on made-up logits, two examples of every class; a linear network gives features, and takes a head."""
    labels = torch.arange(2 * classes) % classes
    width = max(16, 2 * classes)
    network = nn.Sequential(nn.Linear(width, width), nn.Linear(width, classes))
    images = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(0))
    try:
        objective.attach(network, images)
        logits, *features = objective.outputs(network, images)
        if logits.shape != (len(labels), classes):
            what = f"features of shape {(len(labels), width)} it returned {tuple(logits.shape)}"
            raise ObjectiveError(f"its head should return logits (N, {classes}); for {what}")
        if not objective.owns_head:
            drawn = torch.randn(len(labels), classes, generator=torch.Generator().manual_seed(0))
            logits = drawn.requires_grad_()
        terms = objective(logits, labels, *features)
        problem = terms_problem(terms)
        if problem is None:
            terms["total"].backward()
            objective.update(logits.detach(), labels, *(each.detach() for each in features))
    except ObjectiveError as error:
        raise ObjectiveError(f"{name}: {error}") from error
    except Exception as error:  # whatever a user's own code raises
        what = f"logits of shape {(len(labels), classes)}"
        if objective.needs_features:
            what += f" and features of shape {(len(labels), width)}"
        raise ObjectiveError(f"{name} fails on {what}: {one_line(error)}") from error
    if problem is not None:
        raise ObjectiveError(f"{name} {problem}")
