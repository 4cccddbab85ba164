"""What a suite means beyond its syntax: names that exist, pairs that are fair, balls that make sense.

Each check takes only the parts of the file that are well formed, so that these errors appear together with those of
the syntax.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from robustbench_cmic.suite.attack_base import reach_problem
from robustbench_cmic.suite.beginnings import beginning_errors
from robustbench_cmic.suite.data import AnyDataset, DeclaredDataset, ImageFolder
from robustbench_cmic.suite.fairness import unfair_differences
from robustbench_cmic.suite.fields import Norm, Threat, parse_number, radius_problem
from robustbench_cmic.suite.matrix import ExpandedModels
from robustbench_cmic.suite.messages import Location, Problem, suggestion
from robustbench_cmic.suite.models import Model, architecture_problem, size_problems
from robustbench_cmic.suite.objectives import Adversary, AnyObjective
from robustbench_cmic.suite.on_tables import fold_warnings, table_errors
from robustbench_cmic.suite.schema import AnyAttack, Suite
from robustbench_cmic.suite.training import WITHOUT_BEST, Training

MAX_CELLS = 100_000
MAX_PAIRS = 10_000
UNCLEAR = "null is unclear: write `none` for none, or leave the key out for the moments of the training images"


def errors(raw: dict[str, Any], expanded: ExpandedModels) -> Iterator[Problem]:
    """Every error of meaning in a suite; locations of models are those of the expanded list."""
    models: dict[int, Model] = _well_formed(TypeAdapter(Model), expanded.entries)
    attacks = _well_formed(TypeAdapter(AnyAttack), raw.get("attacks"))
    seeds = raw["seeds"] if isinstance(raw.get("seeds"), list) else [0]
    cells = len(expanded.entries) * len(seeds) * (2 + sum(len(attack.eps or []) for attack in attacks.values()))
    if cells > MAX_CELLS:
        yield Problem(f"asks for {cells} trainings and evaluations; more than {MAX_CELLS} are no suite")
        return
    for index, entry in enumerate(expanded.entries):
        name = entry.get("architecture") if isinstance(entry, dict) else None
        if isinstance(name, str):
            problem = architecture_problem(
                name,
                small_stem=entry.get("stem") == "small",
                pretrained=entry.get("pretrained") is True,
                zero_init_residual=entry.get("zero_init_residual") is not False,
            )
            if problem is not None:
                yield Problem(problem, ("models", index, "architecture"))
            for key, sentence in size_problems(name, entry):
                yield Problem(sentence, ("models", index, key))
        if isinstance(entry, dict) and "normalization" in entry and entry["normalization"] is None:
            yield Problem(UNCLEAR, ("models", index, "normalization"))
    for index, model in models.items():
        trains = "training" in raw or model.training is not None
        yield from _model_errors(("models", index), model, len(seeds) > 1, trains)
    yield from _training_errors(raw.get("training"), models.values(), len(models) == len(expanded.entries))
    entries = [(index, entry) for index, entry in enumerate(expanded.entries) if isinstance(entry, dict)]
    ids = {index: entry["id"] for index, entry in entries if isinstance(entry.get("id"), str)}
    yield from beginning_errors(models, ids, expanded.families)
    for index, first, name in _repeated(ids.items()):
        taken = f"models[{expanded.origins[first][0]}]"
        yield Problem(f"the id '{name}' is taken by {taken}: ids are unique", ("models", index, "id"))
    yield from _pair_errors(raw, expanded, dict.fromkeys(ids.values()), {model.id: model for model in models.values()})
    for index, _, seed in _repeated((index, seed) for index, seed in enumerate(seeds) if type(seed) is int):
        yield Problem(f"the seed {seed} is listed twice", ("seeds", index))
    dataset: DeclaredDataset | None = _well_formed(TypeAdapter(AnyDataset), [raw.get("dataset")]).get(0)
    yield from table_errors(raw, dataset, expanded.entries, attacks)
    if isinstance(dataset, ImageFolder) and not dataset.train:
        yield from _untrained_errors(raw, dataset, models)
    for index, attack in attacks.items():
        yield from (Problem(sentence, ("attacks", index, *key)) for key, sentence in attack.problems())
        if dataset and dataset.image_shape and (problem := attack.misfit(dataset.image_shape, None)):
            yield Problem(problem, ("attacks", index, "name"))
        if attack.label == "none":
            yield Problem("'none' is the name of the clean evaluation: choose another id", ("attacks", index))
    yield from _radius_errors(raw.get("attacks"), attacks)
    for index, first, label in _repeated((index, attack.label) for index, attack in attacks.items()):
        message = f"attacks[{first}] is named '{label}' too: give one of them another `id`"
        yield Problem(message, ("attacks", index))


def _radius_errors(values: Any, well_formed: Collection[int]) -> Iterator[Problem]:
    """What is wrong with the radii that are numbers, of attacks of which something else is wrong as well."""
    for index, value in enumerate(values if isinstance(values, list) else []):
        radii = value.get("eps") if isinstance(value, dict) and index not in well_formed else None
        norm: Norm = "linf" if radii is not None and value.get("norm", "linf") == "linf" else "l2"
        for position, radius in enumerate(radii if isinstance(radii, list) else []):
            with contextlib.suppress(ValueError):  # that it is no number is an error of syntax
                if problem := radius_problem(Threat(norm, parse_number(radius))):
                    yield Problem(problem, ("attacks", index, "eps", position))


def _well_formed(adapter: TypeAdapter[Any], values: Any) -> dict[int, Any]:
    """Position -> item of those that fit the schema."""
    items = {}
    for index, value in enumerate(values if isinstance(values, list) else []):
        with contextlib.suppress(ValidationError):
            items[index] = adapter.validate_python(value)
    return items


def _repeated(values: Iterable[tuple[int, Hashable]]) -> Iterator[tuple[int, int, Any]]:
    """(position, position of the first, value) of every value that was there before."""
    first: dict[Hashable, int] = {}
    for position, value in values:
        if first.setdefault(value, position) != position:
            yield position, first[value], value


def warnings(suite: Suite) -> Iterator[Problem]:
    """What is allowed but hardly meant."""
    for index, attack in enumerate(suite.attacks):
        yield from (Problem(sentence, ("attacks", index, key)) for key, sentence in attack.warnings())
    yield from fold_warnings(suite)
    for index, model in enumerate(suite.models):
        if model.objective is not None and not model.given:
            training = model.training or suite.training
            steps, epochs = _steps(suite, training), None if training is None else training.epochs
            found = model.objective.warnings(steps, model.initial_weights is not None, epochs)
            yield from (Problem(sentence, ("models", index, "objective", key)) for key, sentence in found)
        adversary = None if model.objective is None else model.objective.adversary
        if adversary is not None:
            where: Location = ("models", index, "objective", "adversary")
            problem = reach_problem(adversary.step_size(), adversary.steps, adversary.eps)
            if problem is not None:
                yield Problem(problem, (*where, "alpha"))
            found = () if adversary.robust_cmi is None else adversary.robust_cmi.warnings(steps)
            yield from (Problem(sentence, (*where, "robust_cmi", key)) for key, sentence in found)
    if suite.evaluation.per_class and suite.evaluation.limit is None:
        yield Problem("has no effect without `limit`: all examples are taken", ("evaluation", "per_class"))
    own: list[tuple[Location, Training | None]] = [(("models", i), m.training) for i, m in enumerate(suite.models)]
    for where, training in [((), suite.training), *own]:
        for place, sentence in () if training is None else training.schedule.warnings(training.epochs):
            yield Problem(sentence, (*where, "training", "schedule", *place))


def _steps(suite: Suite, training: Training | None) -> int | None:
    """The steps of a training, where the number of training images is known before they are read."""
    known = suite.dataset.images_to_train_on
    if training is None or (known is None and training.limit is None):
        return None
    images = min(size for size in (known, training.limit) if size is not None)
    return training.steps(images, suite.adversarial)


def _model_errors(where: Location, model: Model, several: bool, trains: bool) -> Iterator[Problem]:
    """A model is trained, or its weights are given; a file holds one training, and a seed stands for one."""
    if model.weights is not None and model.pretrained:
        yield Problem("`weights` and `pretrained` exclude each other", (*where, "pretrained"))
    elif not model.given and model.objective is None:
        yield Problem("needs an `objective` to train with, or `weights` to load", where)
    elif not model.given and not trains:
        yield Problem("is to be trained, but the suite has no `training`", where)
    elif model.file_key and several and model.weights_file(0) == model.weights_file(1):
        hint = "write `{seed}` in the file's name, or give one seed"
        yield Problem(f"is one training, but the suite has several seeds: {hint}", (*where, model.file_key))
    elif model.pretrained and several:
        yield Problem("is one training, but the suite has several seeds: give one seed", (*where, "pretrained"))
    if model.weights_key is not None and not model.file_key:
        yield Problem("has no effect without `weights`: leave it out", (*where, "weights_key"))
    if model.initial_weights is not None:
        yield from _initial_errors(where, model)
    if model.given and model.training is not None:
        yield Problem("has no effect on given weights: leave it out", (*where, "training"))
    if model.given and not model.zero_init_residual:
        message = "has no effect on given weights: leave it out"
        yield Problem(message, (*where, "zero_init_residual"))
    if model.objective is not None:
        for key, sentence in model.objective.problems():
            yield Problem(sentence, (*where, "objective", key))
        adversary = model.objective.adversary
        if adversary is not None:
            yield from _adversary_errors((*where, "objective", "adversary"), model.objective, adversary)


def _adversary_errors(where: Location, objective: AnyObjective, adversary: Adversary) -> Iterator[Problem]:
    """A ball that there is not, and a method that adds to a loss what this one does not have."""
    outside = radius_problem(Threat(adversary.norm, adversary.eps))
    if outside is not None:
        yield Problem(outside, (*where, "eps"))
    if adversary.method == "mart" and not objective.cross_entropy:
        message = f"mart boosts a cross entropy, and {objective.name} lowers none: choose pgd_at or trades"
        yield Problem(message, (*where, "method"))


def _training_errors(training: Any, models: Iterable[Model], whole: bool) -> Iterator[Problem]:
    """`held_out` alone, where `select: best` is not the default; `whole`: no model is left out of `models`."""
    if not whole or not isinstance(training, dict) or training.get("select") is not None:
        return
    if training.get("held_out") is not None and all(model.adversary is None for model in models):
        yield Problem(WITHOUT_BEST, ("training",))


def _untrained_errors(raw: dict[str, Any], dataset: ImageFolder, models: dict[int, Model]) -> Iterator[Problem]:
    """What needs training images, where a suite has none."""
    for index, model in models.items():
        if not model.given:
            yield Problem("is to be trained, but the data set has `train: false`", ("models", index))
    if dataset.holdout is not None:
        yield Problem("has no training images to hold out, for the data set has `train: false`", ("dataset", "holdout"))
    evaluation = raw.get("evaluation")
    if isinstance(evaluation, dict) and evaluation.get("split") == "train":
        yield Problem("should be test, for the data set has `train: false`", ("evaluation", "split"))


def _initial_errors(where: Location, model: Model) -> Iterator[Problem]:
    """A training begins with weights; what is loaded is no training, and a new last layer has no weights."""
    if model.given:
        yield Problem("are to begin a training with, but this model is not trained", (*where, "initial_weights"))
    elif model.objective is not None and model.objective.owns_head:
        message = f"have no last layer for {model.objective.name}, which brings its own: leave them out"
        yield Problem(message, (*where, "initial_weights"))


def _pair_families(raw: dict[str, Any], expanded: ExpandedModels) -> Iterator[tuple[int, list[str], list[str]]]:
    """(position in the file, first ids, second ids) of every well-formed pair."""
    pairs = raw.get("pairs")
    for index, pair in enumerate(pairs if isinstance(pairs, list) else []):
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair):
            left, right = (expanded.families.get(name, [name]) for name in pair)
            yield index, left, right


def expanded_pairs(raw: dict[str, Any], expanded: ExpandedModels) -> Iterator[tuple[int, str, str]]:
    """(position in the file, first id, second id) of every pair; an id with a matrix stands for all its models."""
    for index, left, right in _pair_families(raw, expanded):
        yield from ((index, first, second) for first, second in itertools.product(left, right))


def _pair_errors(
    raw: dict[str, Any], expanded: ExpandedModels, ids: dict[str, None], models: dict[str, Model]
) -> Iterator[Problem]:
    """Pairs that name unknown models, one model twice, the same pair twice, or models that cannot be compared."""
    total = sum(len(left) * len(right) for _, left, right in _pair_families(raw, expanded))
    if total > MAX_PAIRS:
        yield Problem(f"asks for {total} pairs; more than {MAX_PAIRS} are no suite", ("pairs",))
        return
    seen: set[tuple[str, str]] = set()
    shared: Training | None = _well_formed(TypeAdapter(Training), [raw.get("training")]).get(0)
    for index, first, second in expanded_pairs(raw, expanded):
        where: Location = ("pairs", index)
        unknown = [(side, name) for side, name in enumerate((first, second)) if name not in ids]
        for side, name in unknown:
            yield Problem(f"no model has the id '{name}'; {suggestion(name, ids)}", (*where, side))
        if unknown:
            continue
        if first == second:
            yield Problem(f"pairs '{first}' with itself", where)
        elif (first, second) in seen:
            yield Problem(f"the pair of '{first}' and '{second}' is listed twice", where)
        elif first in models and second in models:
            differing = unfair_differences(models[first], models[second], shared)
            if differing:
                what = ", ".join(differing)
                message = f"unfair: '{first}' and '{second}' differ in {what}; only the objective may, or its adversary"
                yield Problem(message, where)
        seen.add((first, second))
