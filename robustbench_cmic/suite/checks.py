"""What a suite means beyond its syntax: names that exist, pairs that are fair, balls that make sense.

Each check takes only the parts of the file that are well formed, so that these errors appear together with those of
the syntax.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.attacks import reach_problem
from robustbench_cmic.suite.fields import Threat, radius_problem
from robustbench_cmic.suite.matrix import ExpandedModels
from robustbench_cmic.suite.messages import Location, Problem, suggestion
from robustbench_cmic.suite.models import Model, architecture_problem
from robustbench_cmic.suite.schema import AnyAttack, Suite

Well = list[tuple[int, Any]]
"""(position in the list, well-formed item)"""


@dataclass
class Parts:
    """The well-formed items of a suite that may have errors elsewhere."""

    raw: dict[str, Any]
    models: list[tuple[int, Model]]
    attacks: list[tuple[int, Attack]]


def well_formed(raw: dict[str, Any]) -> Parts:
    """The models and attacks of `raw` (matrices expanded) that fit the schema."""
    return Parts(raw, _items(TypeAdapter(Model), raw.get("models")), _items(TypeAdapter(AnyAttack), raw.get("attacks")))


def _items(adapter: TypeAdapter[Any], values: Any) -> Well:
    items: Well = []
    for index, value in enumerate(values if isinstance(values, list) else []):
        try:
            items.append((index, adapter.validate_python(value)))
        except ValidationError:
            continue
    return items


MAX_CELLS = 100_000
MAX_PAIRS = 10_000


def errors(parts: Parts, expanded: ExpandedModels) -> Iterator[Problem]:
    """Every error of meaning; locations of models are those of the expanded list."""
    seeds = parts.raw.get("seeds", [0])
    radii = sum(len(attack.eps or []) for _, attack in parts.attacks)
    cells = len(expanded.entries) * (len(seeds) if isinstance(seeds, list) else 1) * (2 + radii)
    if cells > MAX_CELLS:
        yield Problem(f"asks for {cells} trainings and evaluations; more than {MAX_CELLS} are no suite")
        return
    yield from _model_errors(parts, expanded)
    yield from pair_errors(parts, expanded)
    yield from _seed_errors(parts)
    yield from _attack_errors(parts)


def warnings(suite: Suite) -> Iterator[Problem]:
    """What is allowed but hardly meant."""
    for index, attack in enumerate(suite.attacks):
        yield from (Problem(sentence, ("attacks", index, key)) for key, sentence in attack.warnings())
    for index, model in enumerate(suite.models):
        adversary = None if model.objective is None else model.objective.adversary
        if adversary is not None:
            problem = reach_problem(adversary.step_size(), adversary.steps, adversary.eps)
            if problem is not None:
                yield Problem(problem, ("models", index, "objective", "adversary", "alpha"))
    if suite.evaluation.per_class and suite.evaluation.limit is None:
        yield Problem("has no effect without `limit`: all examples are taken", ("evaluation", "per_class"))
    if suite.training is not None:
        for place, sentence in suite.training.schedule.warnings(suite.training.epochs):
            yield Problem(sentence, ("training", "schedule", *place))


def _model_errors(parts: Parts, expanded: ExpandedModels) -> Iterator[Problem]:
    for index, entry in enumerate(expanded.entries):
        name = entry.get("architecture") if isinstance(entry, dict) else None
        if isinstance(name, str):
            problem = architecture_problem(name, entry.get("stem") == "small", entry.get("pretrained") is True)
            if problem is not None:
                yield Problem(problem, ("models", index, "architecture"))
    for index, model in parts.models:
        yield from _given_errors(parts, index, model)
        objective = model.objective
        where: Location = ("models", index, "objective")
        for key, sentence in [] if objective is None else objective.problems():
            yield Problem(sentence, (*where, key))
        if objective is not None and objective.adversary is not None:
            outside = radius_problem(Threat(objective.adversary.norm, objective.adversary.eps))
            if outside is not None:
                yield Problem(outside, (*where, "adversary", "eps"))
    seen: dict[str, int] = {}
    for index, entry in enumerate(expanded.entries):
        own = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(own, str):
            continue
        first = seen.setdefault(own, index)
        if first != index:
            taken = f"models[{expanded.origins[first][0]}]"
            yield Problem(f"the id '{own}' is taken by {taken}: ids are unique", ("models", index, "id"))


def _given_errors(parts: Parts, index: int, model: Model) -> Iterator[Problem]:
    """A model is trained, or its weights are given; a file holds one training, and a seed stands for one."""
    where: Location = ("models", index)
    seeds = parts.raw.get("seeds", [0])
    several = isinstance(seeds, list) and len(seeds) > 1
    if model.weights is not None and model.pretrained:
        yield Problem("`weights` and `pretrained` exclude each other", (*where, "pretrained"))
    elif not model.given and model.objective is None:
        yield Problem("needs an `objective` to train with, or `weights` to load", where)
    elif not model.given and "training" not in parts.raw:
        yield Problem("is to be trained, but the suite has no `training`", where)
    elif model.weights is not None and several and "{seed}" not in model.weights:
        message = (
            "is one training, but the suite has several seeds: write `{seed}` in the file's name, or give one seed"
        )
        yield Problem(message, (*where, "weights"))
    elif model.pretrained and several:
        yield Problem("is one training, but the suite has several seeds: give one seed", (*where, "pretrained"))


def expanded_pairs(raw: dict[str, Any], expanded: ExpandedModels) -> list[tuple[int, str, str]]:
    """(position in the file, first id, second id) of every pair; an id with a matrix stands for all its models.

    At most `MAX_PAIRS`; `pair_errors` says where there are more.
    """
    pairs: list[tuple[int, str, str]] = []
    for index, left, right in _paired_families(raw, expanded):
        if len(pairs) + len(left) * len(right) > MAX_PAIRS:
            break
        pairs += [(index, first, second) for first, second in itertools.product(left, right)]
    return pairs


def _paired_families(raw: dict[str, Any], expanded: ExpandedModels) -> Iterator[tuple[int, list[str], list[str]]]:
    """(position in the file, first ids, second ids) of every well-formed pair."""
    pairs = raw.get("pairs")
    for index, pair in enumerate(pairs if isinstance(pairs, list) else []):
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair):
            left, right = (expanded.families.get(name, [name]) for name in pair)
            yield index, left, right


def pair_errors(parts: Parts, expanded: ExpandedModels) -> Iterator[Problem]:
    """Pairs that name unknown models, one model twice, the same pair twice, or models that cannot be compared."""
    known = [entry["id"] for entry in expanded.entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    models = {model.id: model for _, model in parts.models}
    names = set(known)
    total = sum(len(left) * len(right) for _, left, right in _paired_families(parts.raw, expanded))
    if total > MAX_PAIRS:
        yield Problem(f"asks for {total} pairs; more than {MAX_PAIRS} are no suite", ("pairs",))
        return
    seen: set[tuple[str, str]] = set()
    for index, first, second in expanded_pairs(parts.raw, expanded):
        unknown = [(side, name) for side, name in enumerate((first, second)) if name not in names]
        for side, name in unknown:
            yield Problem(f"no model has the id '{name}'; {suggestion(name, known)}", ("pairs", index, side))
        where: Location = ("pairs", index)
        if unknown:
            continue
        if first == second:
            yield Problem(f"pairs '{first}' with itself", where)
        elif (first, second) in seen:
            yield Problem(f"the pair of '{first}' and '{second}' is listed twice", where)
        elif first in models and second in models:
            differing = unfair_differences(models[first], models[second])
            if differing:
                message = f"unfair: '{first}' and '{second}' differ in {', '.join(differing)}; only the objective may"
                yield Problem(message, where)
        seen.add((first, second))


def unfair_differences(first: Model, second: Model) -> list[str]:
    """The keys in which two models differ but should not; weights carry the objective they were trained with."""
    keys = [key for key in type(first).model_fields if key not in ("id", "objective", "weights")]
    differing = [
        f"{key} ({getattr(first, key)}, {getattr(second, key)})"
        for key in keys
        if getattr(first, key) != getattr(second, key)
    ]
    return differing + _adversary_differences(first, second)


def _adversary_differences(first: Model, second: Model) -> list[str]:
    """Likewise for the adversaries that two models are trained against, where both trainings are known."""
    if first.objective is None or second.objective is None:
        return []
    ours, theirs = first.objective.adversary, second.objective.adversary
    alike = (ours and ours.model_dump()) == (theirs and theirs.model_dump())
    return [] if alike else [f"adversary ({ours}, {theirs})"]


def _seed_errors(parts: Parts) -> Iterator[Problem]:
    seeds = parts.raw.get("seeds")
    seen: list[Any] = []
    for index, seed in enumerate(seeds if isinstance(seeds, list) else []):
        if isinstance(seed, int) and not isinstance(seed, bool) and seed in seen:
            yield Problem(f"the seed {seed} is listed twice", ("seeds", index))
        seen.append(seed)


def _attack_errors(parts: Parts) -> Iterator[Problem]:
    labels: dict[str, int] = {}
    for index, attack in parts.attacks:
        where: Location = ("attacks", index)
        yield from (Problem(sentence, (*where, *key)) for key, sentence in attack.problems())
        label = attack.label
        if label == "none":
            yield Problem("'none' is the name of the clean evaluation: choose another id", where)
        first = labels.setdefault(label, index)
        if first != index:
            yield Problem(f"attacks[{first}] is named '{label}' too: give one of them another `id`", where)
