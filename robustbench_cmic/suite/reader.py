"""Reads a suite's YAML strictly and within bounds: plain data, and the line of every key.

PyYAML keeps the last of two equal keys silently, reads `no` as false and `5e-4` as text, and expands aliases
without limit. Here duplicate keys are errors, scalars follow YAML 1.2, `<<` merges mappings as in YAML 1.1, and size,
depth and the number of values are bounded, so that a file cannot exhaust memory.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robustbench_cmic.suite.files import open_regular
from robustbench_cmic.suite.messages import Location, Problem, SuiteError, os_error_reason

MAX_BYTES = 256 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 20

_TOO_MANY = "aliases expand to more values than a suite can hold"
_Pair = tuple[yaml.Node, yaml.Node]

_TAG = "tag:yaml.org,2002:"
_NODES: dict[str, type[yaml.Node]] = {f"{_TAG}map": yaml.MappingNode, f"{_TAG}seq": yaml.SequenceNode}
_NODES |= {f"{_TAG}{name}": yaml.ScalarNode for name in ("str", "int", "float", "bool", "null")}


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's core scalars: no dates, no octal surprises, `5e-4` is a number."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_FLOAT = r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
for _type, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|false|False", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", rf"{_FLOAT}|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)", list("-+0123456789.")),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_type}", re.compile(f"^(?:{_pattern})$"), _first)


@dataclass
class Document:
    """A suite file as plain data (dict, list, str, int, float, bool, None), its hash, and the line of every value."""

    path: Path
    sha256: str
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)  # that leave the rest readable
    _merged: int = 0  # keys of mappings looked at so far, again for each `<<`
    _scalars: _Loader = field(default_factory=lambda: _Loader(""))

    def build(self, node: yaml.Node, location: Location = ()) -> Any:
        """A composed node as plain data; bounded, because an alias may repeat a node any number of times."""
        line = node.start_mark.line + 1
        self.lines.setdefault(location, line)
        if len(self.lines) > MAX_VALUES or len(location) > MAX_DEPTH:
            raise SuiteError(self.path, [Problem(_TOO_MANY, line=line)])
        if not isinstance(node, _NODES.get(node.tag, ())):
            self.problems.append(Problem(f"the tag {node.tag} is not allowed: plain YAML only", location, line))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*location, index)) for index, item in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except (ValueError, KeyError, IndexError, yaml.YAMLError):
            self.problems.append(Problem(f"{node.value!r} does not fit its tag {node.tag}", location, line))
            return None

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in self._pairs(node, location):
            key, line = key_node.value, key_node.start_mark.line + 1
            where = (*location, key)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem("a key should be a word, not a list or mapping", location, line))
            elif key in result:
                message = f"duplicate key; the first is on line {self.lines[where]}: keep one"
                self.problems.append(Problem(message, where, line))
            else:
                self.lines[where] = line
                result[key] = self.build(value_node, where)
        return result

    def _pairs(self, node: yaml.MappingNode, location: Location, depth: int = 0) -> list[_Pair]:
        """Keys and values of a mapping in the order of the file; in place of `<<` those of other mappings.

        As YAML 1.1's merge key says, keys of the mapping itself come before merged ones, and of those the first do.
        """
        self._merged += len(node.value)
        if depth > MAX_DEPTH or self._merged > MAX_VALUES:
            raise SuiteError(self.path, [Problem(_TOO_MANY, line=node.start_mark.line + 1)])
        own = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and not _is_merge(key)}
        pairs: list[_Pair] = []
        for key, value in node.value:
            if not _is_merge(key):
                pairs.append((key, value))
                continue
            line = key.start_mark.line + 1
            if "<<" in own:
                message = "`<<` stands here twice; several mappings are merged by one: `<<: [*first, *second]`"
                self.problems.append(Problem(message, location, line))
            own.add("<<")
            for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(other, yaml.MappingNode):
                    merged = self._pairs(other, location, depth + 1)
                    pairs += [pair for pair in merged if not _is_one_of(pair[0], own)]
                    own.update(key.value for key, _ in merged if isinstance(key, yaml.ScalarNode))
                else:
                    message = (
                        "`<<` should merge a mapping, or a list of mappings: `<<: *name` or `<<: [*first, *second]`"
                    )
                    self.problems.append(Problem(message, location, line))
        return pairs


def _is_merge(key: yaml.Node) -> bool:
    """It is `<<`, not quoted."""
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None


def _is_one_of(key: yaml.Node, words: set[str]) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value in words


def read_document(path: Path) -> Document:
    """Read one YAML file.

    Raises:
        SuiteError: the file cannot be read, is no YAML, is empty, or exceeds the bounds.
    """
    text = _read_text(path)
    try:
        _check_bounds(path, text)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SuiteError(path, [_syntax_problem(error)]) from None
    if node is None:
        raise SuiteError(path, [Problem("the file is empty; a suite begins with the line `suite: NAME`")])
    # UTF-8 was read strictly: these are the bytes of the file.
    document = Document(path, hashlib.sha256(text.encode()).hexdigest())
    document.data = document.build(node)
    return document


def read_value(text: str) -> Any:
    """One value as a suite file may hold it.

    Raises:
        ValueError: it is no YAML, none at all, or exceeds the bounds; the message says why.
    """
    here = Path("value")
    try:
        _check_bounds(here, text)
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            raise ValueError("the value is missing; write null where there shall be none")
        document = Document(here, "")
        value = document.build(node)
    except yaml.YAMLError as error:
        raise ValueError(_syntax_problem(error).message) from None
    except SuiteError as error:
        raise ValueError(error.problems[0].message) from None
    if document.problems:
        raise ValueError(document.problems[0].message)
    return value


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SuiteError(path, [Problem(f"cannot read the suite: {os_error_reason(error)}")]) from None
    if len(raw) > MAX_BYTES:
        raise SuiteError(path, [Problem(f"the file is larger than {MAX_BYTES // 1024} KiB; that is no suite")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SuiteError(path, [Problem("the file is not UTF-8 text", line=line)]) from None


def _check_bounds(path: Path, text: str) -> None:
    """Walk the events, which needs no recursion, before anything is composed, which does."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
        line = None if event.start_mark is None else event.start_mark.line + 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise SuiteError(path, [Problem(f"nested more than {MAX_DEPTH} levels deep", line=line)])
        if count > 2 * MAX_VALUES:
            raise SuiteError(path, [Problem(f"more than {MAX_VALUES} values; that is no suite", line=line)])


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = " ".join(part for part in (error.context, error.problem) if part)
        return Problem(f"YAML syntax error: {what}", line=error.problem_mark.line + 1)
    return Problem(f"YAML syntax error: {' '.join(str(error).split())}")
