"""Code of a user's own, which a suite names as `package.module:name`; only the job that needs it imports it."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, cast, get_args

from pydantic import Field

from robustbench_cmic.suite.attack_base import AttackKind, ForeignAttack
from robustbench_cmic.suite.fields import CustomName, Norm, NumberList, Threat, parse_parameter
from robustbench_cmic.suite.imports import own_folders, own_modules
from robustbench_cmic.suite.messages import suggestion
from robustbench_cmic.suite.signatures import UNREAD, CustomCodeError, custom_attribute, custom_signature


class Call(NamedTuple):
    """How a user's function is called besides its own parameters; `reserved` keys of the suite are none."""

    by: str
    positional: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    reserved: tuple[str, ...] = ()


OBJECTIVE = Call("the training", ("classes",), reserved=("adversary",))
ATTACK = Call("the harness", ("model", "images", "labels"), ("eps", "norm"), reserved=("id", "kind"))
StatedKind = Literal["gradient", "black-box", "minimum-norm", "transfer"]
"""What an attack of a user's own may say that it is, see `AttackKind`."""


def custom_code_sha256(name: str, folders: Sequence[Path] | None = None) -> str | None:
    """SHA-256 (hex) of a user's own code; None for names without a colon, and where there is no such module.

    That of its file, where this imports no other module of the user's; else of all of them, see `own_modules`.
    `folders` are those of `own_folders`, by default as they are now.
    """
    modules = own_modules(name, own_folders() if folders is None else folders) if ":" in name else []
    if not modules:
        return None
    digest = hashlib.sha256(modules[0][1])
    for module, source in sorted(modules[1:]):
        digest.update(f"\0{module}\0{len(source)}\0".encode() + source)
    return digest.hexdigest()


def changed_code(declared: Mapping[str, Any], folders: Sequence[Path] | None = None) -> str | None:
    """The name of a user's own code that a cell declares and which is another by now; None where none is."""
    expected = declared.get("code_sha256")
    name = declared.get("architecture") or declared.get("name")
    if expected is not None and custom_code_sha256(str(name), folders) != expected:
        return str(name)
    nested = (changed_code(value, folders) for value in declared.values() if isinstance(value, dict))
    return next(filter(None, nested), None)


def declared_code(declared: Mapping[str, Any]) -> Iterator[str]:
    """The names of all of a user's own code that a cell declares, as `changed_code` looks at them."""
    if declared.get("code_sha256") is not None:
        yield str(declared.get("architecture") or declared.get("name"))
    for value in declared.values():
        if isinstance(value, dict):
            yield from declared_code(value)


def custom_problems(
    name: str, call: Call, given: dict[str, Any], radii: Sequence[float] = ()
) -> Iterator[tuple[str, str]]:
    """Code that is not there or does not take what is given, at any of the radii: one (key, sentence) pair a key."""
    problems = {}
    for key, value in given.items():
        try:
            for eps in radii or (None,):
                parse_parameter(value, eps)
        except ValueError as error:
            problems[key] = str(error)
    yield from (problems | dict(_call_problems(name, call, given))).items()


def _call_problems(name: str, call: Call, given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    try:
        signature = custom_signature(name)
        if signature is None:
            return
        own = _own(signature, call)
    except CustomCodeError as error:
        yield "name", str(error)
        return
    except TypeError as error:
        passed = [*call.positional, *(("*", *call.keywords) if call.keywords else ()), "…"]
        yield "name", f"{name} cannot be called as {name.partition(':')[2]}({', '.join(passed)}): {error}"
        return
    accepted = signature.parameters
    anything = any(one.kind is one.VAR_KEYWORD for one in accepted.values())
    for key in given:
        if key in call.positional or key in call.keywords or (key in accepted and key not in own):
            yield key, f"cannot be set: {call.by} passes it"
        elif key not in own and not anything:
            yield key, f"{name} has no such parameter; {suggestion(key, [*own, *call.reserved])}"
    for key, parameter in own.items():
        if parameter.default is parameter.empty and key not in given:
            yield key, f"{name} needs this parameter"


def _own(signature: inspect.Signature, call: Call) -> dict[str, inspect.Parameter]:
    """The parameters that are left to the suite; a `TypeError` says that what is always passed does not fit."""
    bound = signature.bind_partial(*call.positional, **dict.fromkeys(call.keywords)).arguments
    rest = [one for one in signature.parameters.values() if one.name not in bound]
    return {one.name: one for one in rest if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}


def custom_parameters(name: str, call: Call, given: dict[str, Any], eps: float | None = None) -> dict[str, Any]:
    """The parameters to call `name` with, as plain data; those that the suite leaves out at their defaults.

    Defaults that are no number, word or truth value are left to the function; its file's hash stands for them.

    Raises:
        CustomCodeError: it is not there or cannot be called; no checked suite names such code.
    """
    signature = custom_signature(name)
    own = {} if signature is None else _own(signature, call)
    plain = {key: one.default for key, one in own.items() if isinstance(one.default, bool | int | float | str)}
    defaults = {key: value for key, value in plain.items() if not isinstance(value, float) or math.isfinite(value)}
    taken = defaults | {key: parse_parameter(value, eps) for key, value in given.items()}
    return {key: taken[key] for key in own if key in taken} | taken  # in the order of the signature


class CustomAttack(ForeignAttack):
    """An attack of your own: `name(model, images, labels, *, eps, norm, **parameters)` returns adversarial images.

    `name` is `package.module:name` of a function. Further keys are its parameters: numbers (also as `eps/4`), words,
    true/false, or lists of these.

    Attributes:
        stated_kind: `kind`: what it does, if the function does not say so in an attribute of that name; it is not
            passed on. What a black-box attack breaks and attacks with gradients leave raises flags; an attack that says
            nothing of itself raises none on others. Examples of a minimum-norm attack may lie outside the ball.
    """

    implementation = "robustbench_cmic.attacks.foreign:run_custom"
    family = "unknown"
    distrusted = True
    name: CustomName
    norm: Norm
    eps: NumberList
    stated_kind: Annotated[StatedKind | None, Field(alias="kind")] = None

    @property
    def kind(self) -> AttackKind:
        """What suite or function say, as it was when the cell was planned; `unknown` where they do not."""
        stated = self._declared.get("kind") if self._declared else self.stated_kind or self._attribute
        return cast(AttackKind, stated) if stated in get_args(StatedKind) else "unknown"

    @property
    def _attribute(self) -> Any:
        return custom_attribute(self.name, "kind")

    @property
    def label(self) -> str:
        """What results call it; a colon there stands between a transfer and its source."""
        return self.id or self.name.replace(":", ".")

    @property
    def parameters(self) -> dict[str, Any]:
        """What the function is called with: as the suite has it, and at one threat as numbers, defaults among them."""
        return dict(self._declared["parameters"] if self._declared else self.model_extra or {})

    def at(self, threat: Threat) -> Self:
        """With the file's hash, the parameters as plain data and those that the suite leaves out at their defaults."""
        parameters = custom_parameters(self.name, ATTACK, self.parameters, threat.eps)
        declared = {"name": self.name, "code_sha256": custom_code_sha256(self.name), "parameters": parameters}
        stated = {} if self.kind == "unknown" else {"kind": self.kind}
        return self.from_declared(declared | stated, threat)

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Those of the code and of its parameters, too."""
        for key, sentence in custom_problems(self.name, ATTACK, self.parameters, self.eps):
            yield (key,), sentence
        yield from self._kind_problems()
        yield from super().problems()

    def _kind_problems(self) -> Iterator[tuple[tuple[str], str]]:
        kinds = ", ".join(get_args(StatedKind))
        try:
            signature, attribute = custom_signature(self.name), self._attribute
        except CustomCodeError:  # which is told already
            return
        if attribute is not None and attribute not in get_args(StatedKind):
            given = "not a word" if attribute is UNREAD else f"not {attribute!r}"
            yield ("name",), f"{self.name}: its attribute `kind` should be one of {kinds}, {given}"
        if self.stated_kind is not None and signature is not None and "kind" in signature.parameters:
            yield ("kind",), f"says what the attack does ({kinds}): give the parameter of {self.name} another name"

    @property
    def raised_loss(self) -> None:
        """Its parameters mean what its author says."""

    @property
    def raises_cross_entropy(self) -> bool:
        """Nobody knows: it is taken for the least that it may be."""
        return True
