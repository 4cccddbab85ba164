"""Pydantic's findings as sentences for the author of a suite file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from robustbench_cmic.suite.fields import describe


def problems_of(error: ValidationError, data: Any, model: type[BaseModel]) -> list[Problem]:
    """One problem for each finding, located in `data`, the value that was validated against `model`."""
    schema = model.model_json_schema()
    return [
        Problem(_sentence(details, schema), _location_in(data, details["loc"], missing=details["type"] == "missing"))
        for details in error.errors()
    ]


def _location_in(data: Any, loc: Location, missing: bool) -> Location:
    """Drop what pydantic adds to a location: the tags of unions, and the position in a list written as one value."""
    location: list[str | int] = []
    last = len(loc) - 1
    for position, part in enumerate(loc):
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            data = data[part]
            location.append(part)
        elif missing and position == last:
            location.append(part)
    return tuple(location)


def _sentence(details: ErrorDetails, schema: dict[str, Any]) -> str:
    writer = _SENTENCES.get(details["type"])
    if writer is not None:
        return writer(details, details.get("ctx", {}))
    if details["type"] == "extra_forbidden":
        known = _known_keys(schema, details["loc"][:-1])
        return f"unknown key; {suggestion(str(details['loc'][-1]), known)}"
    return f"{details['msg']}, not {describe(details['input'])}"


def _should_be(what: str) -> Callable[[ErrorDetails, dict[str, Any]], str]:
    return lambda details, _: f"should be {what}, not {describe(details['input'])}"


def _tag_missing(_: ErrorDetails, __: dict[str, Any]) -> str:
    return "the key 'name' is missing"


def _tag_unknown(_: ErrorDetails, context: dict[str, Any]) -> str:
    tags = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
    return f"unknown name '{context['tag']}'; {suggestion(str(context['tag']), tags)}"


def _literal(details: ErrorDetails, context: dict[str, Any]) -> str:
    return f"should be {context['expected']}, not {describe(details['input'])}"


_SENTENCES: dict[str, Callable[[ErrorDetails, dict[str, Any]], str]] = {
    "missing": lambda _, __: "this key is missing",
    "value_error": lambda _, context: str(context["error"]),
    "union_tag_not_found": _tag_missing,
    "union_tag_invalid": _tag_unknown,
    "literal_error": _literal,
    "model_type": _should_be("a mapping of keys to values"),
    "model_attributes_type": _should_be("a mapping of keys to values"),
    "dict_type": _should_be("a mapping of keys to values"),
    "list_type": _should_be("a list"),
    "string_type": _should_be("text (quote it if it looks like a number)"),
    "int_type": _should_be("a whole number"),
    "bool_type": _should_be("true or false"),
    "greater_than": lambda d, c: f"should be greater than {c['gt']:g}, not {describe(d['input'])}",
    "greater_than_equal": lambda d, c: f"should be at least {c['ge']:g}, not {describe(d['input'])}",
    "less_than_equal": lambda d, c: f"should be at most {c['le']:g}, not {describe(d['input'])}",
    "less_than": lambda d, c: f"should be less than {c['lt']:g}, not {describe(d['input'])}",
    "too_short": lambda _, c: f"should have at least {c['min_length']} entries, not {c['actual_length']}",
    "too_long": lambda _, c: f"should have at most {c['max_length']} entries, not {c['actual_length']}",
    "string_too_short": lambda _, __: "should not be empty",
    "string_too_long": lambda _, c: f"should be at most {c['max_length']} characters long",
    "string_pattern_mismatch": lambda d, _: (
        f"should be letters, digits, '_', '.', '+', '-', the first a letter or digit, not {describe(d['input'])}"
    ),
}


def _known_keys(schema: dict[str, Any], loc: Location) -> list[str]:
    """The keys that the JSON schema allows at a location, tags of unions included in the way there."""
    node = schema
    for part in loc:
        node = _resolve(node, schema)
        if isinstance(part, int):
            node = node.get("items", {})
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        else:
            node = _branch(node, schema, part)
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference, or what may be absent, stands for."""
    while True:
        present = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif len(present) == 1:
            node = present[0]
        else:
            return node


def _branch(node: dict[str, Any], schema: dict[str, Any], tag: str) -> dict[str, Any]:
    for option in node.get("oneOf", []) + node.get("anyOf", []):
        resolved = _resolve(option, schema)
        name = resolved.get("properties", {}).get("name", {})
        if tag in (name.get("const"), *name.get("enum", [])) or re.search(name.get("pattern", r"(?!)"), tag):
            return resolved
        if found := _branch(resolved, schema, tag):  # a union that may be absent is a union within one
            return found
    return {}


Location = tuple[str | int, ...]
"""The way to a value in a suite file: keys and list positions, as in `("models", 1, "id")`."""


@dataclass(frozen=True)
class Problem:
    """One error or warning of a suite file.

    Attributes:
        message: what is wrong and what would be right.
        location: the key it is about; empty for the file as a whole.
        line: one-based line in the file, where there is one.
    """

    message: str
    location: Location = ()
    line: int | None = None

    def text(self, file: str) -> str:
        """`suites/x.yaml:12: models[1].objective.lamda: unknown key; did you mean 'lambda'?`."""
        where = f"{file}:{self.line}" if self.line is not None else file
        parts = [where, dotted(self.location), self.message] if self.location else [where, self.message]
        return ": ".join(map(_printable, parts))


class UserError(Exception):
    """What a user can set right: one sentence that says what is wrong, where, and what would be right.

    The command line prints it and exits with 2; inside a cell it becomes the reason of a `failed` record.
    """


def os_error_reason(error: OSError) -> str:
    """Why the operating system refused, for people: `No space left on device`."""
    return error.strerror or str(error)


class SuiteError(UserError):
    """A suite that cannot be run; `problems` holds every reason found, in the order of the file."""

    def __init__(self, file: Path | str, problems: Iterable[Problem]) -> None:
        self.file = str(file)
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)
        super().__init__("\n".join(problem.text(self.file) for problem in self.problems))


def _printable(text: str) -> str:
    """A suite's own words must neither steer the terminal nor flood it."""
    plain = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return plain if len(plain) <= 400 else f"{plain[:397]}..."


def dotted(location: Location) -> str:
    """`models[1].objective.lambda` for `("models", 1, "objective", "lambda")`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggestion(word: str, known: Iterable[str], listing: str = "known here") -> str:
    """`did you mean 'lambda'?`, or all known words where none is near."""
    words = list(dict.fromkeys(known))
    folded = {candidate.casefold(): candidate for candidate in words}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{folded[near[0]]}'?"
    return f"{listing}: {', '.join(words)}" if words else f"{listing}: none"


def line_of(location: Location, lines: Mapping[Location, int]) -> int | None:
    """Line of a location, or of the nearest place around it that is in the file."""
    for end in range(len(location), -1, -1):
        if location[:end] in lines:
            return lines[location[:end]]
    return None
