"""`--set KEY=VALUE`: values of a suite file that the command line changes, and the name of a suite so changed.

A key is the way to a value, with dots: `training.epochs`, `models.cmic.objective.lambda`, `attacks.PGD.steps`. In a
list an entry is named by its id (an attack without one by its name) or by its position, which counts from 0. Values are
YAML, as in the file. The file is changed before it is checked, so that the whole suite is checked as if it said so.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from robustbench_cmic.suite.fields import describe, spelled_number
from robustbench_cmic.suite.messages import Location, Problem, UserError, suggestion
from robustbench_cmic.suite.reader import read_value

MAX_NAME = 100
"""Characters of the name of a changed suite: of a folder, beside which others of longer names are put."""


class Override(NamedTuple):
    """One value that the command line sets.

    Attributes:
        option: as it was written: `--set training.epochs=2`.
        location: the way to the value in the file.
        key: the same as text, entries of lists by their ids.
        value: plain data.
        spelled: the value as it was written, in one way for equal values.
    """

    option: str
    location: Location
    key: str
    value: Any
    spelled: str

    @property
    def text(self) -> str:
        """`training.epochs=2`."""
        return f"{self.key}={self.spelled}"


def override(data: Any, settings: Sequence[str]) -> tuple[Any, list[Override]]:
    """A suite file's data with the values of `--set`, and these by their keys; the data given stays as it is.

    Args:
        data: plain data of a file; what is no suite is left for the schema to report.
        settings: `KEY=VALUE` each.

    Raises:
        UserError: a setting that names nothing in the file, is no YAML, or sets what another one sets.
    """
    if not settings:
        return data, []
    changed = copy.deepcopy(data)
    found: list[Override] = []
    for setting in settings:
        one = _parsed(changed, setting)
        for other in found:
            shorter = min(len(one.location), len(other.location))
            if one.location[:shorter] == other.location[:shorter]:
                raise UserError(f"{one.option}: {other.option} sets this already: keep one of them")
        _put(changed, one)
        found.append(one)
    return changed, sorted(found, key=lambda own: own.key)


def _parsed(data: Any, setting: str) -> Override:
    key, equals, written = setting.partition("=")
    option = f"--set {setting}"
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UserError(f"{option}: should be KEY=VALUE, such as training.epochs=2")
    if key == "suite":
        raise UserError(f"{option}: the name of a changed suite is that of --as")
    try:
        value = read_value(written)
        location, names = _location(data, key.split("."))
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None
    return Override(option, location, ".".join(names), value, _spelled(value))


def _location(data: Any, parts: Sequence[str]) -> tuple[Location, list[str]]:
    """The way to a value, and the names on it; ids and keys of a matrix may hold dots themselves.

    Raises:
        ValueError: it leads into a value that has nothing in it, or to no entry of a list.
    """
    location: list[str | int] = []
    names: list[str] = []
    while parts:
        if isinstance(data, list):
            index, name, used = _entry(data, parts, names)
            location.append(index)
            data = data[index]
        elif isinstance(data, dict) or data is None:
            known = data or {}
            used = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in known), 1)
            name = ".".join(parts[:used])
            location.append(name)
            data = known.get(name)
            _refuse_varied(known, parts, names)
        else:
            raise ValueError(f"{'.'.join(names)} is {describe(data)}, which has no '{parts[0]}' in it")
        names.append(name)
        parts = parts[used:]
    return tuple(location), names


def _entry(entries: list[Any], parts: Sequence[str], names: Sequence[str]) -> tuple[int, str, int]:
    """Position and name of the entry of a list that a key goes on with, and how many of its parts name it."""
    called = [_name(entry) for entry in entries]
    for used in range(len(parts), 0, -1):
        name = ".".join(parts[:used])
        if called.count(name) > 1:
            raise ValueError(
                f"{called.count(name)} entries of {'.'.join(names)} are called {name}: say which by position"
            )
        if name in called:
            return called.index(name), name, used
    if re.fullmatch("[0-9]{1,6}", parts[0]):
        index = int(parts[0])
        if index >= len(entries):
            raise ValueError(f"{'.'.join(names)} has {len(entries)} entries, the first of which is 0")
        own = called[index]
        return index, own if own and called.count(own) == 1 else parts[0], 1
    known = suggestion(parts[0], [name for name in called if name])
    raise ValueError(f"{'.'.join(names)} has no entry '{parts[0]}'; {known}")


def _name(entry: Any) -> str:
    """What an entry of a list is called; empty where it is not."""
    named = entry if isinstance(entry, dict) else {}
    return next((named[key] for key in ("id", "name") if isinstance(named.get(key), str)), "")


def _refuse_varied(entry: dict[str, Any], parts: Sequence[str], names: Sequence[str]) -> None:
    """A value that a matrix varies is set by the matrix, whatever stands beside it."""
    matrix, key = entry.get("matrix"), ".".join(parts)
    if isinstance(matrix, dict) and key in matrix:
        raise ValueError(f"the matrix varies it: set {'.'.join([*names, 'matrix', key])} to a list")


def _put(data: Any, one: Override) -> None:
    """Write a value into the data; mappings on the way to it are made where there are none."""
    *way, last = one.location
    for part in way:
        if isinstance(data, dict) and data.get(part) is None:
            data[part] = {}
        data = data[part]
    data[last] = one.value


def _spelled(value: Any) -> str:
    """A value in one line, as YAML would read it again: `2`, `0.5`, `8/255`, `[0, 1]`, `{name: ce}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_spelled(own)}" for key, own in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return spelled_number(value) if isinstance(value, float) else str(value)


def changed_name(suite: str, overrides: Iterable[Override]) -> str:
    """`digits+training.epochs=2`: the name of a changed suite, the same for the same changes in any order.

    It is safe as the name of a folder. What is not is written as `_`, and what is too long is cut; a hash of the
    changes follows then, so that other changes have another name. No suite file can have such a name.
    """
    texts = [own.text for own in overrides]
    whole = "+".join([suite, *texts])
    safe = re.sub(r"[^A-Za-z0-9_.+=-]+", "_", whole)
    if safe == whole and len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256("\n".join([suite, *texts]).encode()).hexdigest()[:8]
    return f"{safe[: MAX_NAME - 9]}~{digest}"


def naming(problems: Iterable[Problem], overrides: Sequence[Override]) -> list[Problem]:
    """Problems of a changed suite: those of what was set name the option, and no line, where something else stands."""
    told = []
    for problem in problems:
        own = next((one for one in overrides if problem.location[: len(one.location)] == one.location), None)
        if own is None:
            told.append(problem)
            continue
        place = () if problem.location == own.location else problem.location  # the option names it
        told.append(Problem(f"{own.option}: {problem.message}", place))
    return told


def blaming(problems: Sequence[Problem], overrides: Sequence[Override]) -> list[Problem]:
    """Errors of a changed suite; where none is of what was set, the first says what it was read with."""
    told = naming(problems, overrides)
    if overrides and told and not any(problem.message.startswith("--set ") for problem in told):
        told[0] = replace(told[0], message=f"{told[0].message} ({', '.join(one.option for one in overrides)})")
    return told
