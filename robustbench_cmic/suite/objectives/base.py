"""What all objectives have in common, and training against an adversary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

import robustbench_cmic.suite.fields as fields
from robustbench_cmic.suite.attacks import PGD

START_LEFT = 0.01
"""A larger share of its start in a centroid at the end of a training is worth a warning."""


def start_warning(momentum: float, steps: int | None, start: str) -> str | None:
    """What is to be said of centroids that stay near their start over so many steps (None: not known); or None."""
    if steps is None or momentum**steps <= START_LEFT:
        return None
    return (
        f"the momentum {momentum:g} leaves {100 * momentum**steps:.0f} % of {start} in the centroids after "
        f"{steps:,} steps: lower it, or give a `horizon` (0.1, say) in its place"
    )


class DeclaredRobustCmi(fields.Strict):
    """Robust CMI: concentration and separation at images that a second adversary finds, in the loss of any method.

    Adds lambda * mean KL(P || Q_y) - beta * separation at images x'' that PGD finds, from a uniform start in the
    adversary's ball, by ascending KL(P || Q_y) - (beta / lambda) * separation. Defaults are those of the authors' code
    (ICLR2025-Robust-NCMI).

    Attributes:
        lambda: weight of the concentration.
        momentum: how much of a centroid a step keeps; centroids begin as the class means of the untrained network.
        horizon: as of `cmic`, in place of a momentum.
        alpha, steps: of the second adversary, as of `PGD`.
    """

    lambda_: Annotated[fields.Number, Field(alias="lambda")] = 0.05
    beta: fields.NonNegative = 0.0
    momentum: fields.UnitInterval = 0.9999
    horizon: Annotated[fields.Number, Field(gt=0, le=1)] | None = None
    alpha: fields.Step | None = None
    steps: fields.Count = 10

    @field_validator("lambda_")
    @classmethod
    def _above_zero(cls, value: float) -> float:
        if value <= 0:
            raise ValueError(f"should be above 0, not {value:g}: the second adversary divides beta by it")
        return value

    @model_validator(mode="after")
    def _one_horizon(self) -> DeclaredRobustCmi:
        if self.horizon is not None and "momentum" in self.model_fields_set:
            raise ValueError("`horizon` and `momentum` say the same in two ways: leave out one of the two")
        return self

    def warnings(self, steps: int | None) -> Iterable[tuple[str, str]]:
        """As of objectives."""
        sentence = start_warning(self.momentum, steps, "the untrained network") if self.horizon is None else None
        if sentence is not None:
            yield "momentum", sentence

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        declared: dict[str, Any] = handler(self)
        del declared["momentum" if self.horizon is not None else "horizon"]
        return declared


METHODS = {"pgd_at": "PGD-AT", "trades": "TRADES", "mart": "MART", "fgsm_rs": "FGSM-RS"}
"""Methods of robust training, and what people call them."""
_OF_METHOD: dict[str, dict[str, Any]] = {
    "trades": {"weight": 6.0},
    "mart": {"weight": 5.0},
    "fgsm_rs": {"alpha": "1.25*eps", "steps": 1},
}
"""Defaults that hang on the method: those of its paper, of MART for a ResNet-18."""


class Adversary(fields.Strict):
    """Robust training: every step learns from images that an attack finds near its own.

    The images are changed after their augmentation, by an attack on the model in eval mode. What a training's curve
    shows is measured on the changed images. Whatever the objective, with L its loss, x' the images that were found:

    - `pgd_at` (Madry et al. 2018): L(x'); so are the extra examples of `class_batches` attacked.
    - `trades` (Zhang et al. 2019): L(x) + weight * KL(P_x || P_x'), which is also what the attack raises, from
      x + 0.001 N(0, 1).
    - `mart` (Wang et al. 2020): L(x') - log(1 - max over k != y of p_k(x')) + weight * (1 - p_y(x)) KL(P_x || P_x'),
      from the same start.
    - `fgsm_rs` (Wong et al. 2020): L(x'), one step of 1.25 eps from a uniform start. When accuracy under 5 steps on a
      training batch falls by more than 0.2 from one epoch to the next, it stops with the weights before the fall.

    Attributes:
        weight: of the divergence; by default 6 for `trades`, 5 for `mart`.
        alpha: as for `PGD`; by default 2.5 * eps / steps, for `fgsm_rs` 1.25 * eps.
        steps: each costs a pass forward and one back; `fgsm_rs` takes one.
        loss: what the attack raises, whatever the objective lowers; `ce` stalls where logits lead by 17 and more.
        random_start: only `pgd_at` can do without.
        robust_cmi: a second adversary, and its terms in the loss.
    """

    method: Literal["pgd_at", "trades", "mart", "fgsm_rs"] = "pgd_at"
    weight: fields.Positive | None = None
    norm: fields.Norm = "linf"
    eps: fields.Positive
    alpha: fields.Step | None = None
    steps: fields.Count = 10
    loss: Literal["ce", "margin", "dlr"] = "ce"
    random_start: bool = True
    robust_cmi: DeclaredRobustCmi | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, keys: Any) -> Any:
        method = keys.get("method") if isinstance(keys, dict) else None
        return _OF_METHOD.get(method, {}) | keys if isinstance(method, str) else keys

    @model_validator(mode="after")
    def _keys_fit_the_method(self) -> Adversary:
        if self.weight is not None and not self.two_outputs:
            raise ValueError(f"`weight` has no effect with `method: {self.method}`: leave it out")
        if self.two_outputs and self.weight is None:
            raise ValueError(f"`method: {self.method}` needs a `weight`: leave it out for the default, not null")
        if self.method == "fgsm_rs" and self.steps != 1:
            raise ValueError("`method: fgsm_rs` takes one step: leave `steps` out, or choose `pgd_at`")
        if self.method == "trades" and "loss" in self.model_fields_set:
            raise ValueError("`loss` has no effect with `method: trades`, whose attack raises KL: leave it out")
        if self.method != "pgd_at" and not self.random_start:
            raise ValueError(f"`method: {self.method}` has a random start of its own: leave `random_start` out")
        self.step_size()
        if self.robust_cmi is not None:
            self.second.step_size()
        return self

    def step_size(self) -> float:
        """`alpha` as a number.

        Raises:
            ValueError: a step that is not finite; no validated adversary has one.
        """
        return fields.resolve_relative(f"2.5*eps/{self.steps}" if self.alpha is None else self.alpha, self.eps)

    @property
    def two_outputs(self) -> bool:
        """The method compares a model's outputs on clean and on changed images."""
        return self.method in ("trades", "mart")

    @property
    def learns_clean(self) -> bool:
        """The objective sees clean images; what was found enters the loss beside it."""
        return self.method == "trades"

    @property
    def raised_loss(self) -> str:
        """What the attack raises, as attacks call it; `kl` of `trades` is none of theirs."""
        return "kl" if self.method == "trades" else self.loss

    @property
    def attack(self) -> PGD:
        """The attack on every step's images, at its threat; for `trades` but for its loss."""
        keys = self.model_dump(include={"norm", "steps", "loss"}) | {"alpha": self.step_size()}
        return PGD.model_validate(keys | {"name": "PGD", "eps": [self.eps], "random_start": self.random_start})

    @property
    def second(self) -> Adversary:
        """The adversary of `robust_cmi` as one of its own, but for its loss: from a uniform start."""
        assert self.robust_cmi is not None
        return self._pgd(alpha=self.robust_cmi.alpha, steps=self.robust_cmi.steps)

    @property
    def judge(self) -> Adversary:
        """What epochs are judged under: PGD from a uniform start; of `pgd_at` itself."""
        if self.method == "pgd_at":
            return self
        return (
            self._pgd(loss=self.loss)
            if self.method == "fgsm_rs"
            else self._pgd(alpha=self.step_size(), steps=self.steps)
        )

    @property
    def overfitting_check(self) -> Adversary | None:
        """What tells catastrophic overfitting: PGD with 5 steps of eps/4, as in the paper's code; only of `fgsm_rs`."""
        return self._pgd(alpha="eps/4", steps=5) if self.method == "fgsm_rs" else None

    def _pgd(self, **keys: Any) -> Adversary:
        return Adversary.model_validate({"norm": self.norm, "eps": self.eps, **keys})

    @property
    def title(self) -> str:
        """`TRADES and robust CMI`."""
        return METHODS[self.method] + (" and robust CMI" if self.robust_cmi is not None else "")

    def without_robust_cmi(self) -> Adversary:
        """The same method alone."""
        return self.model_copy(update={"robust_cmi": None})

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Every number written out; what came later than `pgd_at` only where it is asked for."""
        declared: dict[str, Any] = handler(self)
        off = {key for key in ("weight", "robust_cmi") if getattr(self, key) is None}
        off |= {"method"} if self.method == "pgd_at" else {"random_start"}
        off |= {"loss"} if self.method == "trades" else set()
        if "alpha" in declared:
            declared["alpha"] = self.step_size()
        if declared.get("robust_cmi"):
            declared["robust_cmi"]["alpha"] = self.second.step_size()
        return {key: value for key, value in declared.items() if key not in off}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What messages show: what came later than `pgd_at` only where it is asked for."""
        for key, value in super().__repr_args__():
            if value != {"method": "pgd_at", "weight": None, "robust_cmi": None}.get(str(key), ...):
                yield key, value


class DeclaredObjective(fields.Strict):
    """What all objectives have in common: what computes them, and how tables call them.

    `implementation` is `package.module:name`; called with the number of classes and `arguments`, it returns a
    `robustbench_cmic.objectives.Objective`.
    """

    implementation: ClassVar[str]
    owns_head: ClassVar[bool] = False  # it replaces the last linear layer
    needs_features: ClassVar[bool] = False  # it sees what goes into that layer
    any_features: ClassVar[bool] = True  # however many these are; else its code tells what it needs
    cross_entropy: ClassVar[bool] = True  # it lowers one, or a relative of it, on the softmax of the logits

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

    def further_examples(self, _images: int, _steps: int, _classes: int) -> tuple[float, float]:
        """Examples through the network beside those of the steps: before the training, and in each of its epochs.

        Of so many images that are learned from, in so many steps an epoch.
        """
        return 0.0, 0.0

    def problems(self) -> Iterable[tuple[str, str]]:
        """What is wrong beyond the types of its values: (key, sentence) pairs."""
        return ()

    def warnings(
        self, _steps: int | None, _from_weights: bool = False, _epochs: int | None = None
    ) -> Iterable[tuple[str, str]]:
        """What is allowed but hardly meant: (key, sentence) pairs.

        Of a training of so many steps and epochs (None: not known) that begins with given weights, or with random ones.
        """
        return ()
