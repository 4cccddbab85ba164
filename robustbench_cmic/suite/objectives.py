"""Objectives that a suite may name, and training against an adversary."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from robustbench_cmic.suite.fields import (
    CUSTOM_TAG,
    Count,
    CustomName,
    NonNegative,
    Norm,
    Number,
    Positive,
    Step,
    Strict,
    UnitInterval,
    resolve_relative,
)


class Adversary(Strict):
    """Adversarial training (Madry et al. 2018): every step learns from images that PGD finds near its own.

    The images are changed after their augmentation, by an attack on the model in eval mode. What a training's curve
    shows is measured on the changed images. The extra examples of `centroids: class_batches` stay as they are.

    Attributes:
        norm: of the ball.
        eps: its radius.
        alpha: step size, absolute or as `eps/4`; by default 2.5 * eps / steps.
        steps: of the attack; each costs a pass forward and one back.
        loss: what the attack raises, whatever the objective lowers; `ce` stalls where logits lead by 17 and more.
        random_start: start at a random point of the ball.
    """

    norm: Norm = "linf"
    eps: Positive
    alpha: Step | None = None
    steps: Count = 10
    loss: Literal["ce", "margin", "dlr"] = "ce"
    random_start: bool = True

    @model_validator(mode="after")
    def _alpha_is_finite(self) -> Adversary:
        self.resolved()
        return self

    def resolved(self) -> dict[str, Any]:
        """Every parameter, `alpha` as a number.

        Raises:
            ValueError: a step that is not finite; no validated adversary has one.
        """
        alpha = f"2.5*eps/{self.steps}" if self.alpha is None else self.alpha
        return self.model_dump() | {"alpha": resolve_relative(alpha, self.eps)}


class CrossEntropy(Strict):
    """The baseline.

    Attributes:
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016).
        adversary: changes the images that it is trained on; None: nobody does.
    """

    name: Literal["ce"]
    label_smoothing: UnitInterval = 0.0
    adversary: Adversary | None = None


class Cmic(Strict):
    """CMIC-DL (arXiv 2309.09123): cross entropy + lambda * concentration - beta * separation.

    Attributes:
        lambda_: weight of the concentration term.
        beta: weight of the separation term.
        centroids: `batch` updates the centroids with the step's own outputs, at no extra forward pass;
            `class_batches` is the paper's Algorithm 1, with `class_batch_size` extra examples of every class a step.
        momentum: how much of a centroid an update keeps; by default 0.99 for `batch`, for `class_batches` the
            paper's 0.9999 (chosen there for 156,000 steps; over 500 steps it leaves the centroids uniform).
        class_batch_size: |B_c| of Algorithm 1; only for `class_batches`.
        floor: least probability inside the separation term, which is unbounded without one.
        label_smoothing: as for `ce`, in the cross-entropy term.
        adversary: as for `ce`.
    """

    name: Literal["cmic"]
    lambda_: Annotated[NonNegative, Field(alias="lambda")] = 0.7
    beta: NonNegative = 0.4
    centroids: Literal["batch", "class_batches"] = "batch"
    momentum: UnitInterval | None = None
    class_batch_size: Count = 8
    floor: Annotated[Number, Field(gt=0, lt=1)] = 1e-8
    label_smoothing: UnitInterval = 0.0
    adversary: Adversary | None = None

    @property
    def centroid_momentum(self) -> float:
        """`momentum`, or the default that goes with `centroids`."""
        if self.momentum is not None:
            return self.momentum
        return 0.99 if self.centroids == "batch" else 0.9999


class CustomObjective(BaseModel):
    """An objective of your own: `name(classes, **parameters)` returns a `robustbench_cmic.objectives.Objective`.

    Further keys are its parameters: numbers, words, true/false, or lists of these.

    Attributes:
        name: `package.module:name` of a class or function.
        adversary: as for `ce`.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: CustomName
    adversary: Adversary | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the objective's own, as written."""
        return dict(self.model_extra or {})


OBJECTIVES = ("ce", "cmic")


def _objective_kind(value: Any) -> str | None:
    if not isinstance(value, dict | BaseModel):
        return OBJECTIVES[0]  # any: what they all say first is that it should be a mapping
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if isinstance(name, str) and ":" in name:
        return CUSTOM_TAG
    return None if name is None else str(name)


Objective = Annotated[
    Annotated[CrossEntropy, Tag("ce")] | Annotated[Cmic, Tag("cmic")] | Annotated[CustomObjective, Tag(CUSTOM_TAG)],
    Discriminator(_objective_kind),
]
