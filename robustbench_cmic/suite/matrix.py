"""`matrix` in a model entry: one model for every combination of the listed values.

    - {id: cmic, architecture: small_cnn, objective: {name: cmic}, matrix: {objective.lambda: [0.1, 0.7]}}

becomes the models `cmic-lambda0.1` and `cmic-lambda0.7`; a pair that names `cmic` means a pair with each of them.

`training` in a model entry is what differs from the suite's:

    - {id: short, architecture: small_cnn, objective: {name: ce}, training: {epochs: 5}}
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from robustbench_cmic.suite.fields import describe, parse_number
from robustbench_cmic.suite.messages import Location, Problem

MAX_MODELS = 1000
_VARIED = ("architecture", "width", "depth")
_LENGTHS = {"objective": (2,), "training": (2, 3)}
"""Of the paths that begin so: `training.epochs`, `training.optimizer.lr`."""


@dataclass
class ExpandedModels:
    """Model entries with matrices resolved.

    Attributes:
        entries: plain model mappings, not yet validated.
        origins: for each entry, its index in the file and, for values from a matrix, where they stand there.
        families: the ids that an id of the file stands for.
        taken_over: for an entry with a `training` of its own the places in it that are the suite's.
    """

    entries: list[Any] = field(default_factory=list)
    origins: list[tuple[int, dict[Location, Location]]] = field(default_factory=list)
    families: dict[str, list[str]] = field(default_factory=dict)
    taken_over: dict[int, set[Location]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def with_own_trainings(self, training: Any) -> None:
        """Add to every `training` of an entry what it does not say of the suite's; malformed ones stay as they are.

        Mappings are merged key by key, but for one of another `name` than the suite's, an optimiser's or a schedule's,
        which stands alone.
        """
        for position, entry in enumerate(self.entries):
            own = entry.get("training") if isinstance(entry, dict) else None
            if isinstance(own, dict) and own and isinstance(training, dict):
                taken = self.taken_over[position] = set()
                entry["training"] = _merged(own, training, ("training",), taken)

    def locate(self, location: Location) -> Location:
        """The place in the file of a location in the expanded suite; of what a model takes over, in `training`."""
        if len(location) < 2 or location[0] != "models" or not isinstance(location[1], int):
            return location
        if location[2:] in self.taken_over.get(location[1], ()):
            return location[2:]
        index, replaced = self.origins[location[1]]
        inner = location[2:]
        for end in range(len(inner), 0, -1):
            if inner[:end] in replaced:
                return replaced[inner[:end]]
        return ("models", index, *inner)

    def add(self, plain: Any, index: int, chosen: dict[str, tuple[int, Any]]) -> None:
        """Append the entry `plain` of the file, with the values that are chosen: path -> (position, value)."""
        entry = copy.deepcopy(plain)
        replaced: dict[Location, Location] = {}
        for path, (position, value) in chosen.items():
            parts = path.split(".")
            target: Any = entry
            for part in parts[:-1]:
                target = target.setdefault(part, {}) if isinstance(target, dict) else None
            if isinstance(target, dict):
                target[parts[-1]] = value
            replaced[tuple(parts)] = ("models", index, "matrix", path, position)
            if isinstance(entry.get("id"), str):
                entry["id"] += f"-{parts[-1]}{_spelled(value)}"
        self.entries.append(entry)
        self.origins.append((index, replaced))
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            self.families.setdefault(plain["id"], []).append(entry["id"])


def expand_models(models: Any) -> ExpandedModels:
    """Resolve the matrices of a suite's raw `models` list; anything malformed is kept for the schema to report."""
    result = ExpandedModels()
    for index, entry in enumerate(models if isinstance(models, list) else []):
        axes: dict[str, list[Any]] = {}
        plain = entry
        if isinstance(entry, dict) and "matrix" in entry:
            axes = _axes(entry["matrix"], index, result.problems)
            plain = {key: value for key, value in entry.items() if key != "matrix"}
        if axes and len(result.entries) + math.prod(map(len, axes.values())) > MAX_MODELS:
            problem = Problem(f"expands to more than {MAX_MODELS} models", ("models", index, "matrix"))
            result.problems.append(problem)
            continue
        for combination in itertools.product(*map(enumerate, axes.values())):  # one, of nothing, without a matrix
            result.add(plain, index, dict(zip(axes, combination, strict=True)))
    return result


def _axes(matrix: Any, index: int, problems: list[Problem]) -> dict[str, list[Any]]:
    where: Location = ("models", index, "matrix")
    if not isinstance(matrix, dict) or not matrix:
        problems.append(Problem("should be a mapping such as {objective.lambda: [0.1, 0.7]}", where))
        return {}
    axes: dict[str, list[Any]] = {}
    for path, values in matrix.items():
        parts = path.split(".")
        if path not in _VARIED and (not all(parts) or len(parts) not in _LENGTHS.get(parts[0], ())):
            message = "a matrix varies `architecture`, `width`, `depth` or a parameter such as `objective.lambda`"
            problems.append(Problem(message, (*where, path)))
        elif not isinstance(values, list) or not values:
            what = "an empty one" if values == [] else describe(values)
            problems.append(Problem(f"should be a list of values, not {what}", (*where, path)))
        elif len({repr(value) for value in values}) < len(values):
            problems.append(Problem("a value is listed twice", (*where, path)))
        else:
            axes[path] = values
    return axes


def _merged(own: dict[str, Any], base: dict[str, Any], where: Location, taken: set[Location]) -> dict[str, Any]:
    merged = dict(own)
    for key, value in base.items():
        mine = own.get(key)
        if key not in own:
            merged[key] = copy.deepcopy(value)
            taken.update(_places(value, (*where, key)))
        elif (
            isinstance(mine, dict)
            and isinstance(value, dict)
            and mine.get("name", value.get("name")) == value.get("name")
        ):
            merged[key] = _merged(mine, value, (*where, key), taken)
    return merged


def _places(value: Any, where: Location) -> Iterator[Location]:
    """Where a value and all that is in it stand."""
    yield where
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        yield from _places(inner, (*where, key))


def _spelled(value: Any) -> str:
    try:
        return f"{parse_number(value):g}"
    except ValueError:
        return f"-{value}"
