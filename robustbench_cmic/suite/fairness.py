"""Whether two models of a pair may be compared: they differ in their objective, or in its adversary, alone."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_jsonable_python

from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import Adversary
from robustbench_cmic.suite.training import TUNED, Training

_OF_WEIGHTS = ("id", "objective", "weights", "weights_key", "initial_weights")
"""Keys in which two models of a pair may differ."""


def unfair_differences(first: Model, second: Model, shared: Training | None) -> list[str]:
    """What differs between two models but should not; weights carry the objective they were trained with.

    `shared` is the training of the models that have none of their own.
    """
    keys = [key for key in Model.model_fields if key not in _OF_WEIGHTS]
    values: dict[str, tuple[Any, Any]] = {key: (getattr(first, key), getattr(second, key)) for key in keys}
    if _untuned(first.training or shared) == _untuned(second.training or shared):
        del values["training"]
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


def _spelled(key: str, value: object) -> str:
    """A normalisation that is not declared must not read like one that is declared to be none."""
    if isinstance(value, Adversary):
        return f"{{{', '.join(f'{name}: {own}' for name, own in value.__repr_args__() if own is not None)}}}"
    if key == "adversary":
        return "none"
    if key == "training":
        return "the suite's" if value is None else "its own"
    return "the default" if key in ("normalization", "width", "depth") and value is None else str(value)
