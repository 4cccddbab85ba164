"""Objectives that a suite may name, and training against an adversary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, field_serializer, model_validator

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.attacks import PGD
from robustbench_cmic.suite.custom import OBJECTIVE, custom_code_sha256, custom_parameters, custom_problems


class Adversary(fields.Strict):
    """Adversarial training (Madry et al. 2018): every step learns from images that PGD finds near its own.

    The images are changed after their augmentation, by an attack on the model in eval mode. What a training's curve
    shows is measured on the changed images. So are the extra examples of `class_batches`.

    Attributes:
        alpha: as for `PGD`.
        steps: each costs a pass forward and one back.
        loss: what the attack raises, whatever the objective lowers; `ce` stalls where logits lead by 17 and more.
    """

    norm: fields.Norm = "linf"
    eps: fields.Positive
    alpha: fields.Step | None = None
    steps: fields.Count = 10
    loss: Literal["ce", "margin", "dlr"] = "ce"
    random_start: bool = True

    @model_validator(mode="after")
    def _step_size_is_finite(self) -> Adversary:
        self.step_size()
        return self

    def step_size(self) -> float:
        """`alpha` as a number.

        Raises:
            ValueError: a step that is not finite; no validated adversary has one.
        """
        return fields.resolve_relative(f"2.5*eps/{self.steps}" if self.alpha is None else self.alpha, self.eps)

    @property
    def attack(self) -> PGD:
        """The attack on every step's images, at its threat."""
        return PGD.model_validate(self.model_dump() | {"name": "PGD", "eps": [self.eps]})

    @field_serializer("alpha")
    def _alpha_as_number(self, _: float | str | None) -> float:
        return self.step_size()


class DeclaredObjective(fields.Strict):
    """What all objectives have in common: what computes them, and how tables call them.

    `implementation` is `package.module:name`; called with the number of classes and `arguments`, it returns a
    `robustbench_cmic.objectives.Objective`.
    """

    implementation: ClassVar[str]

    @property
    def title(self) -> str | None:
        """How tables call a model with this objective; None: by its id."""
        return None

    def declared(self) -> dict[str, Any]:
        """Everything that decides the objective, as a cell declares it: plain data, defaults that depend resolved."""
        declared = self.model_dump()
        if declared["adversary"] is None:
            del declared["adversary"]
        return declared

    def arguments(self, _seed: int) -> dict[str, Any]:
        """The keywords to call `implementation` with; the seed is for objectives that draw random numbers."""
        return self.model_dump(by_alias=False, exclude={"name", "adversary"})

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong beyond the types of its values: (key, sentence) pairs."""
        return ()

    def warnings(self, _steps: int | None) -> Iterable[tuple[str, str]]:
        """What is allowed but hardly meant, in a training of so many steps (None: not known): (key, sentence) pairs."""
        return ()


class CrossEntropyObjective(DeclaredObjective):
    """The baseline; `label_smoothing` spreads a share of the target over all classes (Szegedy et al. 2016)."""

    implementation = "robustbench_cmic.objectives.ce:CrossEntropy"
    name: Literal["ce"]
    label_smoothing: fields.UnitInterval = 0.0
    adversary: Adversary | None = None

    @property
    def title(self) -> str:
        """`CE`, whatever its label smoothing."""
        return "CE"


PRESETS: dict[str, dict[str, Any]] = {
    "printed": {"separation_gradient": "both", "separation_mean": "all_pairs", "floor": 1e-8},
    "authors": {"separation_gradient": "first", "separation_mean": "unlike_pairs", "floor": 1e-25},
}
"""The two readings: the formula taken literally, and the loss in the code that the authors have published."""
START_LEFT = 0.01
"""A larger share of the uniform start in a centroid at the end of a training is worth a warning."""


class CmicObjective(DeclaredObjective):
    """CMIC-DL (arXiv 2309.09123): cross entropy + lambda * concentration - beta * separation.

    There are two readings of the separation term, see docs/definitions.md, "What is CMIC-DL?".

    Attributes:
        preset: `printed` is the formula taken literally (`separation_gradient: both`, `separation_mean: all_pairs`,
            `floor: 1e-8`), `authors` the loss in the code that its authors have published (`first`, `unlike_pairs`,
            1e-25). Stands for these three keys; without it they are those of `printed`.
        lambda: below 0 concentration is undone (MCMI, arXiv 2401.08732), which collapses from random weights.
        separation_gradient: of -P_x . log P_u, `both` factors are differentiated, or the `first` alone, P_x.
        separation_mean: over `all_pairs`, whose sum is divided by |B|^2, or over the `unlike_pairs` alone.
        floor: least probability inside the separation term, which is unbounded without one.
        centroids: `batch` updates the centroids with the step's own outputs, at no extra forward pass;
            `class_batches` is the paper's Algorithm 1, with `class_batch_size` extra examples of every class a step;
            `fixed` are the class means over the training set, see `refresh`. With an adversary all of them are taken
            from attacked images.
        momentum: how much of a centroid an update keeps; by default 0.99 for `batch`, for `class_batches` the
            paper's 0.9999 (over 500 steps it leaves the centroids uniform).
        horizon: in place of a momentum m, the number 1 / (1 - m) of steps that a centroid looks back on, as a share of
            the training's steps.
        class_batch_size: |B_c| of Algorithm 1; only for `class_batches`.
        class_batch_mode: the model's mode for class batches; in `train` mode they also enter the running statistics of
            batch normalisation; only for `class_batches`.
        refresh: when `fixed` centroids are computed: `once` before the training, or at the start of each `epoch`.
        label_smoothing: as for `ce`, in the cross-entropy term.
    """

    implementation = "robustbench_cmic.objectives.cmic:Cmic"
    name: Literal["cmic"]
    preset: Literal["printed", "authors"] | None = None
    lambda_: Annotated[fields.Number, Field(alias="lambda")] = 0.7
    beta: fields.NonNegative = 0.4
    separation_gradient: Literal["both", "first"] = "both"
    separation_mean: Literal["all_pairs", "unlike_pairs"] = "all_pairs"
    floor: Annotated[fields.Number, Field(gt=0, lt=1)] = 1e-8
    centroids: Literal["batch", "class_batches", "fixed"] = "batch"
    momentum: fields.UnitInterval | None = None
    horizon: Annotated[fields.Number, Field(gt=0, le=1)] | None = None
    class_batch_size: fields.Count = 8
    class_batch_mode: Literal["eval", "train"] = "eval"
    refresh: Literal["once", "epoch"] = "once"
    label_smoothing: fields.UnitInterval = 0.0
    adversary: Adversary | None = None

    @field_serializer("momentum")
    def _momentum_or_default(self, momentum: float | None) -> float | None:
        if self.horizon is not None or self.centroids == "fixed":
            return None
        default = 0.99 if self.centroids == "batch" else 0.9999
        return default if momentum is None else momentum

    @property
    def title(self) -> str:
        """`CMIC-DL` and the reading; where it is neither of the two, what sets it apart."""
        mine = self.arguments(0)
        for reading, keys in PRESETS.items():
            if all(mine[key] == value for key, value in keys.items() if key != "floor"):
                return f"CMIC-DL {reading}"
        return f"CMIC-DL ({mine['separation_gradient']}, {mine['separation_mean']})"

    def declared(self) -> dict[str, Any]:
        """As of every objective; a preset is written out."""
        return {key: value for key, value in self._written_out(super().declared()).items() if value is not None}

    def arguments(self, seed: int) -> dict[str, Any]:
        """As of every objective; a preset is written out."""
        return self._written_out(super().arguments(seed))

    def _written_out(self, keys: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (keys | self._of_preset).items() if key != "preset"}

    @property
    def _of_preset(self) -> dict[str, Any]:
        return PRESETS.get(self.preset or "", {})

    def problems(self) -> Iterable[tuple[str, str]]:
        """Keys that contradict each other or have no effect."""
        for key in self._of_preset:
            if key in self.model_fields_set:
                yield key, f"is set by `preset: {self.preset}`: leave out one of the two"
        if self.horizon is not None and self.momentum is not None:
            yield "horizon", "and `momentum` say the same in two ways: leave out one of the two"
        for key, needed in _CENTROID_KEYS.items():
            if key in self.model_fields_set and getattr(self, key) is not None and self.centroids not in needed:
                yield key, f"has no effect with `centroids: {self.centroids}`: leave it out"

    def warnings(self, steps: int | None) -> Iterable[tuple[str, str]]:
        """A sign of lambda that needs trained weights, and centroids that stay near their start."""
        if self.lambda_ < 0:
            sentence = "below 0 maximises CMI: from random weights a training collapses, it takes trained ones"
            yield "lambda", sentence
        momentum = self._momentum_or_default(self.momentum)
        by_default = self.centroids == "batch" and momentum == 0.99  # short enough, where a training is not a trial
        if steps is not None and momentum is not None and momentum**steps > START_LEFT and not by_default:
            left = 100 * momentum**steps
            key = "centroids" if self.momentum is None else "momentum"
            yield (
                key,
                f"the momentum {momentum:g} leaves {left:.0f} % of the uniform start in the centroids after "
                f"{steps:,} steps: lower it, or give a `horizon` (0.1, say) in its place",
            )


_CENTROID_KEYS = {
    "momentum": ("batch", "class_batches"),
    "horizon": ("batch", "class_batches"),
    "class_batch_size": ("class_batches",),
    "class_batch_mode": ("class_batches",),
    "refresh": ("fixed",),
}
"""Which `centroids` a key is for."""


class CustomObjective(DeclaredObjective):
    """An objective of your own: `name(classes, **parameters)` returns a `robustbench_cmic.objectives.Objective`.

    `name` is `package.module:name` of a class or function. Further keys are its parameters: numbers, words, true/false,
    or lists of these.
    """

    model_config = ConfigDict(extra="allow")

    implementation = "robustbench_cmic.objectives.custom:custom_objective"
    name: fields.CustomName
    adversary: Adversary | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the objective's own, as written."""
        return dict(self.model_extra or {})

    def declared(self) -> dict[str, Any]:
        """Name, hash of the file, and parameters, those that the suite leaves out at their defaults."""
        declared: dict[str, Any] = {"name": self.name, "code_sha256": custom_code_sha256(self.name)}
        declared["parameters"] = custom_parameters(self.name, OBJECTIVE, self.parameters)
        return declared if self.adversary is None else declared | {"adversary": self.adversary.model_dump()}

    def arguments(self, seed: int) -> dict[str, Any]:
        """What decides a user's own objective."""
        return {"name": self.name, "parameters": self.parameters, "seed": seed}

    def problems(self) -> Iterable[tuple[str, str]]:
        """Code that is not there, cannot be called, or does not take its parameters: one sentence for each key."""
        return custom_problems(self.name, OBJECTIVE, self.parameters)


def _objective_kind(value: Any) -> str | None:
    if not isinstance(value, dict | BaseModel):
        return next(iter(OBJECTIVES))  # any: what they all say first is that it should be a mapping
    tag = fields.tag_of(value)
    return None if tag is None else str(tag)


AnyObjective = Annotated[
    Annotated[CrossEntropyObjective, Tag("ce")]
    | Annotated[CmicObjective, Tag("cmic")]
    | Annotated[CustomObjective, Tag(fields.CUSTOM_TAG)],
    Discriminator(_objective_kind),
]
OBJECTIVES: dict[str, type[DeclaredObjective]] = fields.classes_by_name(AnyObjective)
_ADAPTER: TypeAdapter[AnyObjective] = TypeAdapter(AnyObjective)


def objective_of(declared: Mapping[str, Any]) -> AnyObjective:
    """The objective that a cell declares, see `DeclaredObjective.declared`."""
    keys = {key: value for key, value in declared.items() if key not in ("code_sha256", "parameters")}
    # A parameter that cannot be written in a suite was left at its default, and is so again.
    parameters = {k: v for k, v in declared.get("parameters", {}).items() if k not in CustomObjective.model_fields}
    return _ADAPTER.validate_python(parameters | keys)
