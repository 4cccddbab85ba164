"""Attacks that a suite may name: their parameters (with torchattacks' names), and all that others need to know of them.

A new attack is a class here, its name in `NativeAttack`, and the function that computes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field

from robustbench_cmic.suite.attack_base import GRADIENT, Attack, AttackKind, Passes, short_of_edge
from robustbench_cmic.suite.fields import Count, Loss, Norm, NumberList, Step, Threat, classes_by_name, resolve_relative

Schedule = Literal["constant", "linear", "cosine"]
FEW_STEPS = 10
OTHERS = 256
"""Images among which attacks that walk towards others find them."""


class _InBall(Attack):
    norm: Norm = "linf"
    eps: NumberList


class _OverDraws(_InBall):
    """An attack on the expectation over a randomised model's draws (Athalye et al. 2018), of which it takes `samples`.

    One is the model as it is, and not declared.
    """

    left_out = _InBall.left_out | {"samples": 1}
    samples: Count = 1


class FGSM(_OverDraws):
    """Fast gradient sign method (Goodfellow et al. 2015): one step of size eps; with `norm: l2` along the gradient.

    `samples` as for `PGD`.
    """

    implementation = "robustbench_cmic.attacks.pgd:run"
    family = "one-step"
    name: Literal["FGSM"]
    loss: Loss = "ce"

    @property
    def passes(self) -> Passes:
        """A gradient for every draw."""
        return GRADIENT.times(self.samples)

    @property
    def search(self) -> PGD:
        """PGD with one step of size eps from the image."""
        step = {"name": "PGD", "alpha": self.threat.eps, "steps": 1, "random_start": False}
        return PGD.model_validate(self.model_dump() | step)

    def audited(self) -> dict[str, Self]:
        """On the margin, too."""
        return {"other-loss": self.varied(loss="margin")} if self.raises_cross_entropy else {}


class IteratedAttack(_InBall):
    """What attacks that descend in steps have in common.

    Attributes:
        alpha: step size, absolute or as `eps/10`; by default 2.5 * eps / steps.
        random_start: start at a random point of the ball.
        restarts: how often to start; an example that one restart breaks is done.
        targets: 0: away from the true class; k: towards each of the k most likely other classes in turn.
        schedule: how the step size goes from alpha towards 0, if it does.
    """

    implementation = "robustbench_cmic.attacks.pgd:run"
    family = "gradient"

    alpha: Step | None = None
    steps: Count = 10
    random_start: bool = True
    restarts: Count = 1
    targets: Annotated[int, Field(ge=0, le=10_000)] = 0
    schedule: Schedule = "constant"
    loss: Loss = "ce"

    def at(self, threat: Threat) -> Self:
        """With `alpha` as a number."""
        return self.varied(norm=threat.norm, eps=[threat.eps], alpha=self._alpha(threat.eps))

    def _alpha(self, eps: float) -> float:
        return 2.5 * eps / self.steps if self.alpha is None else resolve_relative(self.alpha, eps)

    def step_size(self, step: int) -> float:
        """The size of a step, counted from 0, at one threat.

        At step t of T: `constant`: alpha; `linear`: alpha (1 - t / T); `cosine`: alpha (1 + cos(pi t / T)) / 2.
        """
        alpha = self._alpha(self.threat.eps)
        if self.schedule == "linear":
            return alpha * (1 - step / self.steps)
        if self.schedule == "cosine":
            return alpha * (1 + math.cos(math.pi * step / self.steps)) / 2
        return alpha

    @property
    def kind(self) -> AttackKind:
        """A single step is not many."""
        return "one-step" if self.steps == 1 and self.restarts == 1 else self.family

    @property
    def reach(self) -> float:
        """All steps in one direction, as the schedule has them."""
        if self.schedule == "constant":
            return self.steps * self._alpha(self.threat.eps)
        return sum(self.step_size(step) for step in range(self.steps))

    @property
    def strong(self) -> bool:
        """With `FEW_STEPS` or more, which reach across the ball."""
        return super().strong and self.steps >= FEW_STEPS and self.reaches_edge

    def warnings(self) -> Iterator[tuple[str, str]]:
        """Steps that cannot reach the edge of the ball."""
        for threat in self.threats() if self.alpha is not None else []:
            here = self.at(threat)
            if not here.reaches_edge:
                what = "alpha * steps is" if self.schedule == "constant" else f"the {self.schedule} steps add up to"
                yield "alpha", short_of_edge(what, here.reach, threat.eps)

    @property
    def passes(self) -> Passes:
        """A gradient for every step, a look at each run but the last, and one at the likeliest classes."""
        runs = self.restarts * max(1, self.targets)
        return GRADIENT.times(runs * self.steps) + Passes(runs - 1 + (self.targets > 0))

    @property
    def search(self) -> PGD:
        """The attack as PGD on the model whose gradients it follows."""
        return PGD.model_validate(self.model_dump(exclude={"sources"}) | {"name": "PGD"})


class PGD(IteratedAttack, _OverDraws):
    """Projected gradient descent (Madry et al. 2018).

    Attributes:
        early_stop: drop an example as soon as any iterate is misclassified, and return that iterate.
        ascending: an example that this attack broke in a smaller ball keeps its adversarial example, and is not
            attacked again in a larger one; exact for what can be broken, and cheaper.
        samples: gradients, losses and logits are means over so many draws of a randomised model (expectation over
            transformation, Athalye et al. 2018).
    """

    name: Literal["PGD"]
    early_stop: bool = False
    ascending: bool = False

    @property
    def passes(self) -> Passes:
        """All of them for every draw."""
        return super().passes.times(self.samples)

    @property
    def share(self) -> float:
        """Of what early stop leaves, a quarter is a guess."""
        return 0.25 if self.early_stop else 1.0

    def audited(self) -> dict[str, Self]:
        """On the margin; with twice the steps and a further start; in tests any iterate counts, not only the last."""
        variants = {"other-loss": self.varied(loss="margin")} if self.raises_cross_entropy else {}
        variants["longer"] = self.varied(steps=2 * self.steps, restarts=self.restarts + 1, early_stop=True)
        return variants | {"active": self.varied(early_stop=True)}


class AutoAttack(_OverDraws):
    """AutoAttack, standard (Croce & Hein 2020): APGD-CE, APGD-T, FAB-T, Square, each on what is left.

    APGD and FAB take `steps`, Square `queries`; APGD-T and FAB-T aim at `targets` classes, the most likely ones, at
    most all but the true one. `ascending` and `samples` as for `PGD`: with more than one it is the version `rand` for
    randomised models, APGD-CE and APGD-DLR alone, the authors with 20.
    """

    implementation = "robustbench_cmic.attacks.autoattack:run"
    family = "gradient"
    name: Literal["AutoAttack"]
    targets: Count = 9
    steps: Count = 100
    queries: Count = 5000
    ascending: bool = False

    @property
    def passes(self) -> Passes:
        """Of an example that survives all parts; each begins where it starts, and a look at what it left ends it.

        APGD takes a gradient to begin with, FAB a further look at every step, both one at the likeliest classes.
        """
        apgd, look = GRADIENT.times(self.steps + 1), Passes(1)
        if self.samples > 1:
            return (apgd.times(2) + look.times(3)).times(self.samples)
        fab = GRADIENT.times(self.steps) + look.times(self.steps)
        targeted = (apgd + fab).times(self.targets) + look.times(2)
        return look + apgd + look + targeted + look.times(2) + Passes(self.queries + 1) + look

    @property
    def share(self) -> float:
        """Most examples fall to the first steps of its first part: a fiftieth is a guess."""
        return 1 / 4 if self.samples > 1 else 1 / 50

    def audited(self) -> dict[str, Self]:
        """In tests as it is."""
        return {"active": self}


class Noise(_InBall):
    """Random points of the ball, `samples` for each example: no attack worth the name should do worse."""

    implementation = "robustbench_cmic.attacks.noise:run"
    family = "noise"
    name: Literal["Noise"]
    samples: Count = 100

    @property
    def passes(self) -> Passes:
        """A pass for every point."""
        return Passes(self.samples)


class Walk(_InBall):
    """A step of size eps towards each of `images` other evaluated images of other classes; no gradients, no logits."""

    implementation = "robustbench_cmic.attacks.walk:run"
    family = "black-box"
    wants_others = True
    name: Literal["Walk"]
    images: Annotated[int, Field(ge=1, le=OTHERS)] = 40

    @property
    def passes(self) -> Passes:
        """A pass for every step."""
        return Passes(self.images)


class RayS(_InBall):
    """RayS (Chen & Gu 2020): a search over directions by the predicted class alone, `queries` times an example."""

    implementation = "robustbench_cmic.attacks.rays:run"
    family = "black-box"
    name: Literal["RayS"]
    queries: Count = 200

    @property
    def passes(self) -> Passes:
        """A pass for every query."""
        return Passes(self.queries)


class GradientFree(_InBall):
    """`Walk`, `RayS` and Square (on the margin), each on what is left: what hides from gradients may not hide from it.

    Attributes:
        images: of `Walk`.
        queries: of RayS, and of Square.
    """

    implementation = "robustbench_cmic.attacks.gradient_free:run"
    family = "black-box"
    wants_others = True
    name: Literal["GradientFree"]
    images: Annotated[int, Field(ge=1, le=OTHERS)] = 40
    queries: Count = 200

    @property
    def passes(self) -> Passes:
        """Of an example that survives: its verdict, and one after each part; Square also asks about where it starts."""
        return Passes(4 + self.images + 2 * self.queries + 1)


class Transfer(IteratedAttack):
    """Adversarial examples of one model tried on another: PGD on the source, to the end of its steps.

    `sources: all` tries every model of the suite on every other and on itself, `pairs` on its partners and itself.
    """

    of_the_suite = {"id", "norm", "eps", "sources"}
    name: Literal["Transfer"]
    sources: Literal["all", "pairs"] = "all"
    steps: Count = 40
    loss: Loss = "margin"


NativeAttack = Annotated[
    FGSM | PGD | AutoAttack | Noise | Walk | RayS | GradientFree | Transfer, Field(discriminator="name")
]
"""Attacks that this package implements; every other name without a colon is a class of torchattacks."""
NATIVE_ATTACKS: dict[str, type[Attack]] = classes_by_name(NativeAttack)
