"""Trainings that begin with the weights of another model of the suite: whether there are such weights, and they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from robustbench_cmic.suite.messages import Location, Problem, suggestion
from robustbench_cmic.suite.models import Model

_OF_NETWORKS = ("architecture", "width", "depth", "stem", "zero_init_residual", "logits", "normalization")
"""Keys in which a model and the one that it begins with are alike."""


def beginning_errors(
    models: Mapping[int, Model], ids: Mapping[int, str], families: Mapping[str, Sequence[str]]
) -> Iterator[Problem]:
    """What is wrong with each `initial_weights: {model: ID}`; one that is listed above is trained before.

    That the other stands above leaves no circle.

    Args:
        models: the well-formed ones, by their positions in the expanded list.
        ids: of all models, by position.
        families: the ids that an id of the file stands for.
    """
    positions = {name: index for index, name in sorted(ids.items(), reverse=True)}  # of equal ids the first
    for index, model in models.items():
        if model.begins_with and not model.given:
            where: Location = ("models", index, "initial_weights", "model")
            problem = _problem(index, model, models, positions, families)
            if problem:
                yield Problem(problem, where)


def _problem(
    index: int,
    model: Model,
    models: Mapping[int, Model],
    positions: Mapping[str, int],
    families: Mapping[str, Sequence[str]],
) -> str:
    """A sentence; empty where nothing is wrong."""
    name = model.begins_with
    several = families.get(name, ())
    if name not in positions and len(several) > 1:
        return f"'{name}' stands for {len(several)} models: name one of them, '{several[0]}' say"
    if name not in positions:
        return f"no model has the id '{name}'; {suggestion(name, positions)}"
    if positions[name] == index:
        return f"'{name}' cannot begin with its own weights: name another model"
    if positions[name] > index:
        return f"'{name}' is listed below this model: list it above, so that it is trained first"
    other = models.get(positions[name])
    if other is None:
        return ""  # malformed, which is told at its place
    if other.objective is not None and other.objective.owns_head:
        return f"'{name}' has the last layer of {other.objective.name}, which this model has not: name another model"
    for key in _OF_NETWORKS:
        ours, theirs = getattr(model, key), getattr(other, key)
        if ours != theirs:
            return f"'{name}' is another network ({key} {theirs}, not {ours}): name one that is the same"
    return ""
