"""Whether two models of a pair may be compared: they differ in their objective, or in its adversary, alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import to_jsonable_python

from robustbench_cmic.suite.fields import spelled_number
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import Adversary
from robustbench_cmic.suite.training import TUNED, Training

_OF_WEIGHTS = ("id", "objective", "weights", "weights_key", "initial_weights")
"""Keys in which two models of a pair may differ."""


def unfair_differences(first: Model, second: Model, shared: Training | None) -> list[str]:
    """What differs between two models but should not; weights carry the objective they were trained with.

    `shared` is the training of the models that have none of their own.

    Returns:
        Each key with the values of both, such as `training.epochs (2, 5)`.
    """
    keys = [key for key in Model.model_fields if key not in (*_OF_WEIGHTS, "training")]
    values: dict[str, tuple[Any, Any]] = {key: (getattr(first, key), getattr(second, key)) for key in keys}
    values |= _differing("training", *(_untuned(each.training or shared) for each in (first, second)))
    if first.objective is not None and second.objective is not None:  # else one training is not known
        both = (first.objective, second.objective)
        plain = [each.model_copy(update={"adversary": None}) for each in both]
        if plain[0] != plain[1]:  # of one and the same objective, the adversary is what the pair compares
            # Robust CMI adds to the objective.
            ours, theirs = (each.adversary and each.adversary.without_robust_cmi() for each in both)
            values["adversary"] = (ours, theirs)
    return [
        f"{key} ({_spelled(key, ours)}, {_spelled(key, theirs)})"
        for key, (ours, theirs) in values.items()
        if to_jsonable_python(ours) != to_jsonable_python(theirs)
    ]


def _untuned(training: Training | None) -> dict[str, Any] | None:
    """A training without what suits one objective and need not suit another, and without what decides nothing."""
    if training is None:
        return None
    return training.model_dump(exclude={"outputs": True, "optimizer": set(TUNED)})


def _differing(key: str, ours: Any, theirs: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The keys below `key` of which two values differ, as `training.optimizer.momentum`, and both values."""
    if ours == theirs:
        return
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        yield key, (ours, theirs)
        return
    # An optimiser or schedule of another name has keys of its own.
    keys = list(ours) if ours.get("name") == theirs.get("name") else ["name"]
    for inner in keys:
        yield from _differing(f"{key}.{inner}", ours[inner], theirs[inner])


def _spelled(key: str, value: object) -> str:
    """A normalisation that is not declared must not read like one that is declared to be none."""
    if isinstance(value, Adversary):
        return f"{{{', '.join(f'{name}: {own}' for name, own in value.__repr_args__() if own is not None)}}}"
    if key in ("adversary", "training"):
        return "none" if value is None else "its own"
    if key.startswith("training."):
        return _in_yaml(value)
    return "the default" if key in ("normalization", "width", "depth") and value is None else str(value)


def _in_yaml(value: object) -> str:
    """A value of a training as a suite may say it."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return str(value).lower()
    return spelled_number(value) if isinstance(value, float) else str(value)
