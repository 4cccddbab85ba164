"""What is wrong with a suite file, pydantic's findings among it, in sentences for its author."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from robustbench_cmic.suite.fields import describe

Location = tuple[str | int, ...]
"""The way to a value in a suite file: keys and list positions, as in `("models", 1, "id")`."""


@dataclass(frozen=True)
class Problem:
    """One error or warning of a suite file: what is wrong and what would be right.

    An empty `location` stands for the file as a whole; lines count from 1.
    """

    message: str
    location: Location = ()
    line: int | None = None

    def text(self, file: str) -> str:
        """`suites/x.yaml:12: models[1].objective.lamda: unknown key; did you mean 'lambda'?`."""
        where = f"{file}:{self.line}" if self.line is not None else file
        dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.location)
        parts = [where, dotted.removeprefix("."), self.message] if self.location else [where, self.message]
        return ": ".join(map(printable, parts))


class UserError(Exception):
    """What a user can set right: one sentence that says what is wrong, where, and what would be right.

    The command line prints it and exits with 2; inside a cell it becomes the reason of a `failed` record.

    Args:
        lines: the sentence, and what a few have to list below it. Line breaks within them, and all else that would
            steer a terminal, are not ours but those of names in it, and are escaped.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(*map(escaped_controls, lines))

    def __str__(self) -> str:
        return "\n".join(self.args)


class SuiteError(UserError):
    """A suite that cannot be run; `problems` holds every reason found, in the order of the file."""

    def __init__(self, file: Path | str, problems: Iterable[Problem]) -> None:
        self.file = str(file)
        self.problems = sorted(problems, key=lambda problem: problem.line or 0)
        super().__init__(*(problem.text(self.file) for problem in self.problems))


def os_error_reason(error: OSError) -> str:
    """Why the operating system refused, for people: `No space left on device`."""
    return error.strerror or str(error)


def printable(text: str, most: int = 400) -> str:
    """Words of a file, a suite's or another: they must neither steer the terminal nor flood it."""
    plain = escaped_controls(text[: most + 1])
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def escaped_controls(text: str) -> str:
    r"""Words in one line, with whatever is no character to see as Python writes it: `\n`, `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def suggestion(word: str, known: Iterable[str], listing: str = "known here") -> str:
    """`did you mean 'lambda'?`, or all known words where none is near."""
    words = list(dict.fromkeys(known))
    folded = {candidate.casefold(): candidate for candidate in words}
    near = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{folded[near[0]]}'?"
    return f"{listing}: {', '.join(words)}" if words else f"{listing}: none"


_NO_MAPPING = "should be a mapping of keys to values, not {value}"
_SENTENCES = {
    "missing": "this key is missing",
    "value_error": "{error}",
    "union_tag_not_found": "the key 'name' is missing",
    "literal_error": "should be {expected}, not {value}",
    "model_type": _NO_MAPPING,
    "model_attributes_type": _NO_MAPPING,
    "dict_type": _NO_MAPPING,
    "list_type": "should be a list, not {value}",
    "string_type": "should be text (quote it if it looks like a number), not {value}",
    "int_type": "should be a whole number, not {value}",
    "bool_type": "should be true or false, not {value}",
    "greater_than": "should be greater than {gt}, not {value}",
    "greater_than_equal": "should be at least {ge}, not {value}",
    "less_than_equal": "should be at most {le}, not {value}",
    "less_than": "should be less than {lt}, not {value}",
    "too_short": "should have at least {min_length} entries, not {actual_length}",
    "too_long": "should have at most {max_length} entries, not {actual_length}",
    "string_too_short": "should not be empty",
    "string_too_long": "should be at most {max_length} characters long",
    "string_pattern_mismatch": (
        "should be letters, digits, '_', '.', '+', '-', the first a letter or digit, not {value}"
    ),
}
"""Type of a pydantic error -> sentence, with pydantic's context, the `value` and pydantic's own `message`."""


def problems_of(error: ValidationError, data: Any, model: type[BaseModel]) -> list[Problem]:
    """One problem for each finding, located in `data`, the value that was validated against `model`."""
    schema = model.model_json_schema()
    locations = [(details, _location_in(data, details)) for details in error.errors()]
    # Of a key that may be left out pydantic says, besides what is wrong with its value, that it might be null.
    if any(details["type"] != "none_required" for details, _ in locations):
        locations = [(details, place) for details, place in locations if details["type"] != "none_required"]
    return [Problem(_sentence(details, location, data, schema), location) for details, location in locations]


def _location_in(data: Any, details: ErrorDetails) -> Location:
    """Drop what pydantic adds to a location: the tags of unions, and the position in a list written as one value."""
    location: list[str | int] = []
    for position, part in enumerate(details["loc"]):
        items = dict(enumerate(data)) if isinstance(data, list) else data if isinstance(data, dict) else {}
        if part in items:
            data = items[part]
            location.append(part)
        elif details["type"] == "missing" and position == len(details["loc"]) - 1:
            location.append(part)
    return tuple(location)


def _sentence(details: ErrorDetails, location: Location, data: Any, schema: dict[str, Any]) -> str:
    context = details.get("ctx", {})
    if details["type"] == "extra_forbidden":
        return f"unknown key; {suggestion(str(location[-1]), _known_keys(schema, data, location[:-1]))}"
    if details["type"] == "union_tag_invalid":
        tags = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
        return f"unknown name '{context['tag']}'; {suggestion(str(context['tag']), tags)}"
    sentence = _SENTENCES.get(details["type"], "{message}, not {value}")
    bounds = {key: f"{value:.0f}" for key, value in context.items() if isinstance(value, float) and value.is_integer()}
    return sentence.format_map({**context, **bounds, "message": details["msg"], "value": describe(details["input"])})


def _known_keys(schema: dict[str, Any], data: Any, location: Location) -> list[str]:
    """The keys that the JSON schema allows at a location in `data`, whose names choose among classes."""
    node = schema
    for part in location:
        data = data[part]
        below = node["items"] if isinstance(part, int) else node["properties"][part]
        node = next(each for each in _alternatives(below, schema["$defs"]) if _is_named(each, data))
    return list(node["properties"])


def _alternatives(node: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    """What a reference or a union stands for, unions within unions flattened."""
    if "$ref" in node:
        return _alternatives(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    options = node.get("anyOf", node.get("oneOf"))
    return [node] if options is None else [flat for option in options for flat in _alternatives(option, definitions)]


def _is_named(node: dict[str, Any], data: Any) -> bool:
    """The `name` in `data` is one of this class; every one, where the class has none."""
    name = node.get("properties", {}).get("name", {"pattern": ""})
    given = str(data["name"]) if isinstance(data, dict) and "name" in data else ""
    return given in (name.get("const"), *name.get("enum", [])) or bool(re.search(name.get("pattern", "(?!)"), given))
