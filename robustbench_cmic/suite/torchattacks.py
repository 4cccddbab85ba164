"""What torchattacks offers, read from its source in milliseconds: importing it would import torch."""

from __future__ import annotations

import ast
import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import WithJsonSchema

from robustbench_cmic.suite.attack_base import GRADIENT, AttackKind, ForeignAttack, Passes, short_of_edge
from robustbench_cmic.suite.attacks import NATIVE_ATTACKS
from robustbench_cmic.suite.fields import Norm, Text, Threat, describe, resolve_relative
from robustbench_cmic.suite.messages import suggestion
from robustbench_cmic.suite.signatures import installed_folder, parsed, read_signature

_FIXED_NORMS: dict[str, Norm] = {"PGDL2": "l2", "PGDRSL2": "l2"}
"""Classes whose one norm is not L-inf; the others that take `eps` without `norm` are L-inf attacks."""

_CHOICES = {
    ("APGD", "loss"): ("ce", "dlr"),
    ("Square", "loss"): ("margin", "ce"),
    ("AutoAttack", "version"): ("standard", "plus", "rand"),
}
"""What the words of some parameters may be: the library finds out only when it runs."""

_OURS = {"model": "the harness passes the model", "seed": "the harness seeds every block of examples"}

# What the classes are, for those that are not iterated attacks with the gradient of cross entropy.
ONE_STEP = {"FGSM", "FFGSM", "RFGSM"}
"""RFGSM where its `steps` are 1."""
BLACK_BOX = {"GN", "OnePixel", "Pixle", "Square", "SPSA"}
OTHER_LOSS = {"APGDT", "AutoAttack", "CW", "DeepFool", "EADEN", "EADL1", "FAB", "JSMA", "Jitter", "SparseFool"}
"""Besides those whose `loss` says so."""
MINIMAL = {"CW", "DeepFool", "EADEN", "EADL1", "JSMA", "SparseFool"}
"""They look for a small change in a norm of their own, not for any in the ball."""


@functools.cache
def attack_modules() -> dict[str, Path]:
    """Name of every attack class of torchattacks -> the file that defines it."""
    package = installed_folder("torchattacks")
    modules: dict[str, Path] = {}
    for node in parsed((package / "__init__.py").read_bytes(), "torchattacks").body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attacks."):
            file = package / Path(*(node.module or "").split(".")).with_suffix(".py")
            modules.update({alias.name: file for alias in node.names})
    return modules


@functools.cache
def class_parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """The parameters of the attack class `name`; none where its source does not tell them.

    Raises:
        KeyError: torchattacks has no such attack.
    """
    file = attack_modules()[name]
    signature = read_signature(parsed(file.read_bytes(), file.name), name)
    return {} if signature is None else signature.parameters


_THREE_CHANNELS = {"PIFGSM", "PIFGSMPP", "TIFGSM"}
"""Their kernels have three channels, whatever the images have."""
_STEP_KEYS = {"alpha": "steps", "lr": "nb_iter", "max_epsilon": ""}
"""What the size of a step may be called -> their number; PIFGSM's is a radius of its own."""
_JSMA_CLASSES = 10
"""It aims at the next class of so many, whatever the data has."""
_DLR_CLASSES = {("APGD", "dlr"): 3, ("UPGD", "dlr"): 3, ("APGDT", None): 4}
"""(name, loss) -> what the loss divides by is a gap between so many of the largest logits."""
FEWEST_ITERATIONS = 10
"""Of EAD while it stops early: it divides by a tenth of them."""

_LIBRARY_NAME = {"type": "string", "pattern": "^[^:]+$", "not": {"enum": list(NATIVE_ATTACKS)}}


class TorchattacksAttack(ForeignAttack):
    """Any attack class of torchattacks by name; further keys are its own parameters.

    `eps` and `norm` say in which ball the result is judged; they are also passed to the attack where it takes them.
    """

    implementation = "robustbench_cmic.attacks.foreign:run_torchattacks"
    family = "gradient"
    prefix = "torchattacks."
    name: Annotated[Text, WithJsonSchema(_LIBRARY_NAME)]

    @property
    def parameters(self) -> dict[str, Any]:
        """What the class is made with: as the suite has it, and at one threat as numbers, defaults among them."""
        return dict(self.model_extra or {})

    def threat_norm(self) -> Norm:
        """The norm of the ball in which the attack's result is judged: its own, or what the suite says."""
        if self._declared and self.norm is not None:
            return self.norm
        taken = class_parameters(self.name)
        if "norm" in taken:
            return self.norm or "linf"
        if "eps" not in taken:
            if self.norm is None or self.eps is None:
                raise ValueError(f"{self.name} has no eps of its own: give `norm` and `eps`, the ball to judge it in")
            return self.norm
        own = _FIXED_NORMS.get(self.name, "linf")
        if self.norm not in (None, own):
            raise ValueError(f"{self.name} is an {own} attack; leave `norm` out")
        return own

    def at(self, threat: Threat) -> Self:
        """With the parameters as numbers, and those that the suite leaves out at the library's defaults.

        The defaults are in it so that a record says what was run, and a release that changes one makes another cell.
        """
        defaults = {key: parameter.default for key, parameter in class_parameters(self.name).items()}
        own = {
            key: resolve_relative(value, threat.eps) if isinstance(defaults[key], float) else value
            for key, value in self.parameters.items()
        }
        left_out = {*_OURS, "eps", "norm", "n_classes", "verbose"}
        plain = {key: value for key, value in defaults.items() if isinstance(value, bool | int | float | str)}
        declared = {key: value for key, value in plain.items() if key not in left_out} | own
        return self.from_declared({"name": self.prefix + self.name} | declared, threat)

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """A class that there is not, parameters that it does not take, and a ball that is left open."""
        if self.name not in attack_modules():
            known = [*NATIVE_ATTACKS, *attack_modules()]
            yield ("name",), f"unknown attack '{self.name}'; {suggestion(self.name, known)}"
            return
        yield from self._parameter_problems()
        try:
            self.threat_norm()
        except ValueError as error:
            yield (), str(error)
            return
        if self.eps is None:
            yield (), f"{self.name} needs `eps`, the radius of the ball"
        yield from super().problems()

    def _parameter_problems(self) -> Iterator[tuple[tuple[str], str]]:
        taken = class_parameters(self.name)
        known = [name for name in taken if name not in _OURS]
        for key, value in self.parameters.items():
            if key in _OURS:
                yield (key,), f"cannot be set: {_OURS[key]}"
            elif key not in taken:
                yield (key,), f"{self.name} has no such parameter; {suggestion(key, known)}"
            elif problem := _type_problem(self.name, key, value, taken[key].default):
                yield (key,), problem
        stops = self.parameters.get("abort_early", True)
        if self.name in ("EADEN", "EADL1") and stops and self.parameters.get("max_iterations", 100) < FEWEST_ITERATIONS:
            yield ("max_iterations",), f"{self.name} needs at least {FEWEST_ITERATIONS}, or `abort_early: false`"
        for name in known:
            if taken[name].default is inspect.Parameter.empty and name not in {"eps", "norm", *self.parameters}:
                yield (name,), f"{self.name} needs this parameter"

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Steps that cannot reach the edge of the ball, the library's defaults too."""
        for threat in self.threats():
            here = self.at(threat)
            if here.reach is not None and not here.reaches_edge:
                key = here._step_key
                what = " * ".join(filter(None, (key, _STEP_KEYS[key] if _STEP_KEYS[key] in here.parameters else "")))
                left_out = "" if key in self.parameters else ", the library's default,"
                yield key, short_of_edge(f"{what}{left_out} is", here.reach, threat.eps)

    @property
    def _step_key(self) -> str:
        """What the size of its steps is called; empty where it has none, or chooses it."""
        steps = ("alpha", "max_epsilon") if self.name != "SPSA" else ("lr",)
        return next((key for key in steps if key in self.parameters), "")

    @property
    def reach(self) -> float | None:
        """Steps of one size; Adam's steps, which SPSA takes, are about as long as its learning rate."""
        key = self._step_key
        return float(self.parameters[key]) * self.parameters.get(_STEP_KEYS[key], 1) if key else None

    def misfit(self, shape: tuple[int, int, int], classes: int | None) -> str | None:
        """What its code takes for granted: three channels, square images, ten classes, or as many as its loss needs."""
        channels, height, width = shape
        if self.name in _THREE_CHANNELS and channels != 3:
            return f"{self.name} is made for images of three channels, these have {channels}: leave it out"
        if self.name == "Pixle" and height != width:
            return f"Pixle is made for square images, these have {height}x{width} pixels: leave it out"
        if self.name == "JSMA" and classes is not None and classes < _JSMA_CLASSES:
            return f"JSMA is made for {_JSMA_CLASSES} classes at least, the data has {classes}: leave it out"
        fewest = _DLR_CLASSES.get((self.name, self.raised_loss), 0)
        if classes is not None and classes < fewest:
            return f"{self.name} needs {fewest} classes for its DLR loss, the data has {classes}: leave it out"
        return None

    @property
    def addend(self) -> float:
        """What it adds to the length of a gradient before it divides by it, to no effect while gradients are longer."""
        return float(self.parameters.get("eps_for_division", 0.0))

    @property
    def kind(self) -> AttackKind:
        """By the tables above; all else steps along a gradient."""
        if self.name in ONE_STEP and self.parameters.get("steps", 1) == 1:
            return "one-step"
        return "black-box" if self.name in BLACK_BOX else "minimum-norm" if self.name in MINIMAL else "gradient"

    @property
    def raises_cross_entropy(self) -> bool:
        """Most do without saying so."""
        return self.name not in OTHER_LOSS | BLACK_BOX and self.raised_loss in (None, "ce")

    @property
    def passes(self) -> Passes:
        """A gradient for every step of every start, as far as its parameters tell."""
        starts = self.parameters.get("restarts", self.parameters.get("n_restarts", 1))
        return GRADIENT.times(float(self.parameters.get("steps", 1)) * float(starts))


def _type_problem(name: str, key: str, value: Any, default: Any) -> str | None:
    if isinstance(value, dict | list) or value is None:
        return f"should be a number, a word or true/false, not {describe(value)}"
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"should be true or false, not {describe(value)}"
    if isinstance(default, int):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"should be a number, not {describe(value)}"
        if not math.isfinite(value):
            return f"should be a finite number, not {value}"
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
