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
    shows is measured on the changed images. The extra examples of `centroids: class_batches` stay as they are.

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
    """What all objectives have in common: how tables call them, if not by the model's id, and what computes them.

    `implementation` is `package.module:name`; called with the number of classes and `arguments`, it returns a
    `robustbench_cmic.objectives.Objective`.
    """

    title: ClassVar[str | None] = None
    implementation: ClassVar[str]

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


class CrossEntropyObjective(DeclaredObjective):
    """The baseline; `label_smoothing` spreads a share of the target over all classes (Szegedy et al. 2016)."""

    title = "CE"
    implementation = "robustbench_cmic.objectives.ce:CrossEntropy"
    name: Literal["ce"]
    label_smoothing: fields.UnitInterval = 0.0
    adversary: Adversary | None = None


class CmicObjective(DeclaredObjective):
    """CMIC-DL (arXiv 2309.09123): cross entropy + lambda * concentration - beta * separation.

    Attributes:
        centroids: `batch` updates the centroids with the step's own outputs, at no extra forward pass;
            `class_batches` is the paper's Algorithm 1, with `class_batch_size` extra examples of every class a step.
        momentum: how much of a centroid an update keeps; by default 0.99 for `batch`, for `class_batches` the
            paper's 0.9999 (chosen there for 156,000 steps; over 500 steps it leaves the centroids uniform).
        class_batch_size: |B_c| of Algorithm 1; only for `class_batches`.
        floor: least probability inside the separation term, which is unbounded without one.
        label_smoothing: as for `ce`, in the cross-entropy term.
    """

    title = "CMIC-DL"
    implementation = "robustbench_cmic.objectives.cmic:Cmic"
    name: Literal["cmic"]
    lambda_: Annotated[fields.NonNegative, Field(alias="lambda")] = 0.7
    beta: fields.NonNegative = 0.4
    centroids: Literal["batch", "class_batches"] = "batch"
    momentum: fields.UnitInterval | None = None
    class_batch_size: fields.Count = 8
    floor: Annotated[fields.Number, Field(gt=0, lt=1)] = 1e-8
    label_smoothing: fields.UnitInterval = 0.0
    adversary: Adversary | None = None

    @field_serializer("momentum")
    def _momentum_or_default(self, momentum: float | None) -> float:
        default = 0.99 if self.centroids == "batch" else 0.9999
        return default if momentum is None else momentum

    def problems(self) -> Iterable[tuple[str, str]]:
        """A size of class batches where there are none."""
        if self.centroids == "batch" and "class_batch_size" in self.model_fields_set:
            yield "class_batch_size", "has no effect with `centroids: batch`: leave it out"


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
