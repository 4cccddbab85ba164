"""What the parts of a suite's schema have in common: strictness, and kinds of values."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

_NAME, _NAME_LENGTH = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", 64
Name = Annotated[str, StringConstraints(pattern=_NAME, max_length=_NAME_LENGTH)]
"""A word that is safe as a file name: letters, digits, `_`, `.`, `+`, `-`."""

Text = Annotated[str, StringConstraints(max_length=2000)]
CUSTOM_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
CUSTOM_TAG = "package.module:name"  # what messages call code of a user's own
# The pattern is for editors: `custom` says in words what is wrong with a name.
CustomName = Annotated[Text, WithJsonSchema({"type": "string", "pattern": f"^{CUSTOM_NAME}$"})]

Norm = Literal["linf", "l2"]
NORM_NAMES = {"": "", "linf": "L-inf", "l2": "L2"}
Loss = Literal["ce", "margin", "dlr", "scaled_ce", "log_odds", "cmic"]

_DECIMAL = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_FRACTION = re.compile(rf"\s*({_DECIMAL})\s*(?:/\s*({_DECIMAL})\s*)?")
_RELATIVE = re.compile(rf"\s*(?:({_DECIMAL})\s*\*\s*)?eps\s*(?:([*/])\s*({_DECIMAL})\s*)?")
_NUMBER_SCHEMA = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": rf"^\s*{_DECIMAL}\s*(/\s*{_DECIMAL}\s*)?$"}]
}


def parse_number(value: Any) -> float:
    """A finite float from a number or from text such as `8/255`.

    Raises:
        ValueError: not a number, not finite, or a division by zero; the message says so.
    """
    match = _FRACTION.fullmatch(value) if isinstance(value, str) else None
    if match is None and (isinstance(value, bool) or not isinstance(value, int | float)):
        given = repr(value) if isinstance(value, str) else describe(value)
        raise ValueError(f"should be a number such as 0.1 or 8/255, not {given}")
    try:
        number = float(value) if match is None else _divide(float(match[1]), float(match[2] or 1))
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"should be a finite number, not {value}")
    return number


Number = Annotated[float, BeforeValidator(parse_number), WithJsonSchema(_NUMBER_SCHEMA)]
"""A finite number; `8/255` is one."""
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
UnitInterval = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Frozen(BaseModel):
    """Plain data that is never changed; unknown keys are errors; written under the names that files know."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, validate_by_name=True)


class Strict(Frozen):
    """A part of a suite file: wrong types are errors, too; nothing is converted silently."""

    model_config = ConfigDict(strict=True, validate_by_name=False)


def tag_of(value: Any) -> Any:
    """The `name` of a part of a suite, written or validated, as the tag that chooses its class."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return CUSTOM_TAG if isinstance(name, str) and ":" in name else name


def classes_by_name(union: Any) -> dict[str, type[Any]]:
    """The classes of an annotated union by the names that a suite may write; without those of code of a user's own."""
    members = [get_args(member)[0] if get_args(member) else member for member in get_args(get_args(union)[0])]
    return {name: member for member in members for name in get_args(member.model_fields["name"].annotation)}


class Threat(NamedTuple):
    """Perturbations of norm at most `eps` (in units of images in [0, 1]), of images that stay in [0, 1].

    Threats of one norm are ordered by eps. `CLEAN` stands for images that nobody perturbs.
    """

    norm: Literal["", "linf", "l2"]
    eps: float

    def __str__(self) -> str:
        """`L-inf 8/255`."""
        return f"{NORM_NAMES[self.norm]} {format_eps(self.eps)}".strip()


CLEAN = Threat("", 0.0)


def is_name(text: str) -> bool:
    """Whether a text is a `Name`."""
    return len(text) <= _NAME_LENGTH and re.fullmatch(_NAME, text) is not None


def radius_problem(threat: Threat) -> str | None:
    """What is wrong with a radius, as a sentence; None where it is right."""
    if threat.eps < 0:
        return f"should be at least 0, not {threat.eps:g}"
    if threat.norm == "linf" and threat.eps > 1:
        hint = f"; in pixel units? then write {threat.eps:g}/255" if threat.eps <= 255 else ""
        return f"{threat.eps:g} is outside [0, 1], the range of the images{hint}"
    return None


def resolve_relative(value: float | str, eps: float) -> float:
    """The step size that `alpha` means at this eps: `eps/10` at eps 0.2 is 0.02; a plain number is itself.

    Raises:
        ValueError: neither a number nor of the form `eps/10`, `0.1*eps` or `2.5*eps/40`.
    """
    match = _RELATIVE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return parse_number(value)
    scaled = float(match[1] or 1) * eps
    operand = float(match[3] or 1)
    number = scaled * operand if match[2] == "*" else _divide(scaled, operand)
    if not math.isfinite(number):
        raise ValueError(f"should be a finite number, not {value}")
    return number


def parse_parameter(value: Any, eps: float | None = None) -> Any:
    """A parameter of code that this package does not know: a number, a word, a truth value, or a list of these.

    Whole numbers stay whole; `1/3` is a number, and so is `eps/4` where there is an eps.

    Raises:
        ValueError: something else, or a number that is not finite; the message says so.
    """
    if isinstance(value, list):
        return [parse_parameter(item, eps) for item in value]
    if value is None or isinstance(value, dict):
        raise ValueError(f"should be a number, a word, true/false or a list of these, not {describe(value)}")
    if isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        if eps is not None and _RELATIVE.fullmatch(value):
            return resolve_relative(value, eps)
        if "/" not in value or not _FRACTION.fullmatch(value):
            return value
    return parse_number(value)


def _divide(numerator: float, denominator: float) -> float:
    if denominator == 0:
        raise ValueError("divides by zero")
    return numerator / denominator


def _check_step(value: Any) -> float | str:
    """Accept what `resolve_relative` will accept at any eps, and normalise plain numbers."""
    try:
        number = resolve_relative(value, 1.0)
    except ValueError as error:
        raise ValueError(str(error).replace("0.1 or 8/255", "0.01 or eps/10")) from None
    if number < 0:
        raise ValueError(f"should be at least 0, not {value}")
    return value if isinstance(value, str) and _RELATIVE.fullmatch(value) else number


def format_eps(eps: float) -> str:
    """An eps as people write it: `8/255` where that is what it is, else a decimal.

    >>> format_eps(8 / 255), format_eps(0.2), format_eps(0.0123456)
    ('8/255', '0.2', '0.01235')
    """
    levels = eps * 255
    short = float(f"{eps:.3g}") == eps
    return f"{levels:.4g}" + "/255" if not short and abs(levels - round(levels)) < 1e-9 else f"{eps:.4g}"


def spelled_number(value: float) -> str:
    """A number as its author may have written it: `1e9`, not `1000000000.0`.

    >>> spelled_number(1e9), spelled_number(2.0), spelled_number(0.1)
    ('1e9', '2.0', '0.1')
    """
    short = re.sub(r"e\+?(-?)0*", r"e\1", f"{value:g}")
    return short if "e" in short and float(short) == value else str(value)


def describe(value: Any) -> str:
    """What a wrong value is, in the words of a suite's author."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = f"'{value}'" if isinstance(value, str) else spelled_number(value) if type(value) is float else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_STEP_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string"}]}
Step = Annotated[float | str, BeforeValidator(_check_step), WithJsonSchema(_STEP_SCHEMA)]
"""A number, or a multiple of eps written as `eps/10`."""
NumberList = Annotated[
    list[Number],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, {"type": "array", "items": _NUMBER_SCHEMA, "minItems": 1}]}),
]
"""One number or a list of them."""
