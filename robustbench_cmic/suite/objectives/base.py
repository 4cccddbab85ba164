"""What all objectives have in common, and training against an adversary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from pydantic import field_serializer, model_validator

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.attacks import PGD


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
    owns_head: ClassVar[bool] = False  # it replaces the last linear layer

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

    def warnings(self, _steps: int | None, _from_weights: bool = False) -> Iterable[tuple[str, str]]:
        """What is allowed but hardly meant: (key, sentence) pairs.

        Of a training of so many steps (None: not known) that begins with given weights, or with random ones.
        """
        return ()
