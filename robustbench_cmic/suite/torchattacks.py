"""What torchattacks offers, read from its source without importing it, which would import torch.

Planning and validating know every attack class and its parameters this way, in milliseconds.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from robustbench_cmic.suite.fields import NATIVE_ATTACKS, Name, Norm, NumberList, Text, describe, resolve_relative
from robustbench_cmic.suite.messages import suggestion
from robustbench_cmic.suite.signatures import REQUIRED, Signature, _defaults

_FIXED_NORMS: dict[str, Norm] = {"PGDL2": "l2", "PGDRSL2": "l2"}
"""Classes whose one norm is not L-inf; the others that take `eps` without `norm` are L-inf attacks."""

_CHOICES = {
    ("APGD", "loss"): ("ce", "dlr"),
    ("Square", "loss"): ("margin", "ce"),
    ("AutoAttack", "version"): ("standard", "plus", "rand"),
}
"""What the words of some parameters may be: the library finds out only when it runs."""

_OURS = {"model": "the harness passes the model", "seed": "the harness seeds every block of examples"}


def _package() -> Path:
    spec = importlib.util.find_spec("torchattacks")
    if spec is None or spec.origin is None:  # a dependency of this package: only a broken installation lacks it
        raise ModuleNotFoundError("torchattacks is not installed: pip install torchattacks")
    return Path(spec.origin).parent


@functools.cache
def attack_modules() -> dict[str, Path]:
    """Name of every attack class of torchattacks -> the file that defines it."""
    package = _package()
    modules: dict[str, Path] = {}
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attacks."):
            file = package / Path(*(node.module or "").split(".")).with_suffix(".py")
            modules.update({alias.name: file for alias in node.names})
    return modules


@functools.cache
def signature(name: str) -> Signature:
    """The parameters of the attack class `name`.

    Raises:
        KeyError: torchattacks has no such attack.
    """
    file = attack_modules()[name]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    return Signature(name, _defaults(item.args))
    return Signature(name, {})


def ball_norm(attack: TorchattacksAttack) -> Norm:
    """The norm of the ball in which the attack's result is judged.

    Raises:
        ValueError: the attack has no ball of its own and the suite names none, or the two disagree.
    """
    defaults = signature(attack.name).defaults
    if "norm" in defaults:
        return attack.norm or "linf"
    own = _FIXED_NORMS.get(attack.name, "linf") if "eps" in defaults else None
    if own is None:
        if attack.norm is None or attack.eps is None:
            raise ValueError(f"{attack.name} has no eps of its own: give `norm` and `eps`, the ball to judge it in")
        return attack.norm
    if attack.norm not in (None, own):
        raise ValueError(f"{attack.name} is an {own} attack; leave `norm` out")
    return own


def parameter_problems(attack: TorchattacksAttack) -> list[tuple[str, str]]:
    """What is wrong with the attack's own parameters: (key, sentence) pairs."""
    defaults = signature(attack.name).defaults
    known = [name for name in defaults if name not in _OURS]
    problems: list[tuple[str, str]] = []
    for key, value in attack.parameters.items():
        if key in _OURS:
            problems.append((key, f"cannot be set: {_OURS[key]}"))
        elif key not in defaults:
            problems.append((key, f"{attack.name} has no such parameter; {suggestion(key, known)}"))
        else:
            problem = _type_problem(attack.name, key, value, defaults[key])
            if problem:
                problems.append((key, problem))
    missing = [name for name in known if defaults[name] is REQUIRED and name not in {"eps", "norm", *attack.parameters}]
    return problems + [(name, f"{attack.name} needs this parameter") for name in missing]


def _type_problem(name: str, key: str, value: Any, default: Any) -> str | None:
    if isinstance(value, dict | list) or value is None:
        return f"should be a number, a word or true/false, not {describe(value)}"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"should be true or false, not {describe(value)}"
    if isinstance(default, int):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"should be a number, not {describe(value)}"
        counts = key == "steps" or key.startswith("n_") or key.endswith("_iter")
        return f"should be a whole number of at least 1, not {value}" if counts and (value < 1 or value % 1) else None
    if isinstance(default, str):
        choices = _CHOICES.get((name, key))
        if choices and value not in choices:
            return f"should be {' or '.join(choices)}, not {describe(value)}"
        return None if isinstance(value, str) else f"should be text, not {describe(value)}"
    if isinstance(default, float):
        try:
            resolve_relative(value, 1.0)
        except ValueError as error:
            return str(error)
    return None


def resolved_parameters(attack: TorchattacksAttack, eps: float) -> dict[str, Any]:
    """The attack's own parameters at one eps, as numbers; those the suite leaves out at the library's defaults.

    The defaults are in it so that a record says what was run, and a release that changes one makes another cell.
    """
    defaults = signature(attack.name).defaults
    own = {
        key: resolve_relative(value, eps) if isinstance(defaults[key], float) else value
        for key, value in attack.parameters.items()
    }
    left_out = {key for key in defaults if key in _OURS or key in ("eps", "norm", "n_classes", "verbose")}
    known = {key: value for key, value in defaults.items() if isinstance(value, bool | int | float | str)}
    return {key: value for key, value in known.items() if key not in left_out} | own


_LIBRARY_NAME = {"type": "string", "pattern": "^[^:]+$", "not": {"enum": list(NATIVE_ATTACKS)}}


class TorchattacksAttack(BaseModel):
    """Any attack class of torchattacks by name; further keys are its own parameters.

    `eps` and `norm` say in which ball the result is judged; they are also passed to the attack where it takes them.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: Annotated[Text, WithJsonSchema(_LIBRARY_NAME)]
    id: Name | None = None
    norm: Norm | None = None
    eps: NumberList | None = None

    @property
    def label(self) -> str:
        """What results call it: `id`, or the name."""
        return self.id or self.name

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the attack's own, as written."""
        return dict(self.model_extra or {})
