"""`matrix` in a model entry: one model for every combination of the listed values.

    - {id: cmic, architecture: small_cnn, objective: {name: cmic}, matrix: {objective.lambda: [0.1, 0.7]}}

becomes the models `cmic-lambda0.1` and `cmic-lambda0.7`; a pair that names `cmic` means a pair with each of them.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from typing import Any

from robustbench_cmic.suite.fields import describe, parse_number
from robustbench_cmic.suite.messages import Location, Problem

MAX_MODELS = 1000


@dataclass
class ExpandedModels:
    """Model entries with matrices resolved.

    Attributes:
        entries: plain model mappings, not yet validated.
        origins: for each entry, its index in the file and, for values from a matrix, where they stand there.
        families: the ids that an id of the file stands for.
    """

    entries: list[Any] = field(default_factory=list)
    origins: list[tuple[int, dict[Location, Location]]] = field(default_factory=list)
    families: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def locate(self, location: Location) -> Location:
        """The place in the file of a location in the expanded suite."""
        if len(location) < 2 or location[0] != "models" or not isinstance(location[1], int):
            return location
        index, replaced = self.origins[location[1]]
        inner = location[2:]
        for end in range(len(inner), 0, -1):
            if inner[:end] in replaced:
                return replaced[inner[:end]]
        return ("models", index, *inner)

    def add(self, entry: Any, index: int, replaced: dict[Location, Location], family: Any) -> None:
        """Append one entry; `family` is the id by which the file names it."""
        self.entries.append(entry)
        self.origins.append((index, replaced))
        if isinstance(family, str) and isinstance(entry.get("id"), str):
            self.families.setdefault(family, []).append(entry["id"])


def expand_models(models: Any) -> ExpandedModels:
    """Resolve the matrices of a suite's raw `models` list; anything malformed is kept for the schema to report."""
    result = ExpandedModels()
    for index, entry in enumerate(models if isinstance(models, list) else []):
        if not isinstance(entry, dict):
            result.entries.append(entry)
            result.origins.append((index, {}))
            continue
        plain = {key: value for key, value in entry.items() if key != "matrix"}
        axes = _axes(entry["matrix"], index, result.problems) if "matrix" in entry else {}
        if not axes:
            result.add(plain, index, {}, entry.get("id"))
            continue
        if len(result.entries) + _size(axes) > MAX_MODELS:
            where = ("models", index, "matrix")
            result.problems.append(Problem(f"expands to more than {MAX_MODELS} models", where))
            continue
        for combination in itertools.product(*(enumerate(values) for values in axes.values())):
            _add_combination(result, plain, index, dict(zip(axes, combination, strict=True)))
    return result


def _size(axes: dict[str, list[Any]]) -> int:
    size = 1
    for values in axes.values():
        size *= len(values)
    return size


def _axes(matrix: Any, index: int, problems: list[Problem]) -> dict[str, list[Any]]:
    where: Location = ("models", index, "matrix")
    if not isinstance(matrix, dict) or not matrix:
        problems.append(Problem("should be a mapping such as {objective.lambda: [0.1, 0.7]}", where))
        return {}
    axes: dict[str, list[Any]] = {}
    for path, values in matrix.items():
        parts = path.split(".")
        if path != "architecture" and (len(parts) != 2 or parts[0] != "objective" or not parts[1]):
            message = "a matrix varies `architecture` or a parameter such as `objective.lambda`"
            problems.append(Problem(message, (*where, path)))
        elif not isinstance(values, list) or not values:
            found = "an empty one" if values == [] else describe(values)
            problems.append(Problem(f"should be a list of values, not {found}", (*where, path)))
        elif len({repr(value) for value in values}) < len(values):
            problems.append(Problem("a value is listed twice", (*where, path)))
        else:
            axes[path] = values
    return axes


def _add_combination(
    result: ExpandedModels, plain: dict[str, Any], index: int, chosen: dict[str, tuple[int, Any]]
) -> None:
    entry = copy.deepcopy(plain)
    replaced: dict[Location, Location] = {}
    for path, (position, value) in chosen.items():
        parts = path.split(".")
        target = entry.setdefault(parts[0], {}) if len(parts) == 2 else entry
        if isinstance(target, dict):
            target[parts[-1]] = value
        replaced[tuple(parts)] = ("models", index, "matrix", path, position)
        if isinstance(entry.get("id"), str):
            entry["id"] += f"-{parts[-1]}{_spelled(value)}"
    result.add(entry, index, replaced, plain.get("id"))


def _spelled(value: Any) -> str:
    try:
        return f"{parse_number(value):g}"
    except ValueError:
        return f"-{value}"
