"""The schema's part on attacks; parameters have torchattacks' names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from robustbench_cmic.suite.custom import ATTACK, custom_code_sha256, custom_parameters
from robustbench_cmic.suite.fields import (
    CUSTOM_TAG,
    NATIVE_ATTACKS,
    Count,
    CustomName,
    Loss,
    Name,
    Norm,
    NumberList,
    Step,
    Strict,
    resolve_relative,
)
from robustbench_cmic.suite.torchattacks import TorchattacksAttack, ball_norm, resolved_parameters

Targets = Annotated[int, Field(ge=0, le=10_000)]


class _Native(Strict):
    """What every native attack says: the ball, and what results call it."""

    name: str
    id: Name | None = None
    norm: Norm = "linf"
    eps: NumberList

    @property
    def label(self) -> str:
        """What results call it."""
        return self.id or self.name


class Fgsm(_Native):
    """Fast gradient sign method (Goodfellow et al. 2015): one step of size eps; with `norm: l2` along the gradient."""

    name: Literal["FGSM"]
    loss: Loss = "ce"


class IteratedAttack(_Native):
    """What attacks that descend in steps have in common.

    Attributes:
        alpha: step size, absolute or as `eps/10`; by default 2.5 * eps / steps.
        steps: of one start.
        random_start: start at a random point of the ball.
        restarts: how often to start; an example that one restart breaks is done.
        targets: 0: away from the true class; k: towards each of the k most likely other classes in turn.
        schedule: how the step size goes from alpha towards 0, if it does.
        loss: what is raised.
    """

    alpha: Step | None = None
    steps: Count = 10
    random_start: bool = True
    restarts: Count = 1
    targets: Targets = 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    loss: Loss = "ce"


class Pgd(IteratedAttack):
    """Projected gradient descent (Madry et al. 2018).

    Attributes:
        early_stop: drop an example as soon as any iterate is misclassified, and return that iterate.
        ascending: an example that this attack broke in a smaller ball keeps its adversarial example, and is not
            attacked again in a larger one; exact for what can be broken, and cheaper.
    """

    name: Literal["PGD"]
    early_stop: bool = False
    ascending: bool = False


class AutoAttack(_Native):
    """AutoAttack, standard (Croce & Hein 2020): APGD-CE, APGD-T, FAB-T, Square, each on what is left.

    Attributes:
        targets: classes that APGD-T and FAB-T aim at, the most likely ones, at most all but the true one.
        steps: of APGD and FAB.
        queries: of Square.
        ascending: as for `PGD`.
    """

    name: Literal["AutoAttack"]
    targets: Count = 9
    steps: Count = 100
    queries: Count = 5000
    ascending: bool = False


class Noise(_Native):
    """Random points of the ball: no attack worth the name should do worse.

    Attributes:
        samples: points tried for each example.
    """

    name: Literal["Noise"]
    samples: Count = 100


class Transfer(IteratedAttack):
    """Adversarial examples of one model tried on another: PGD on the source, to the end of its steps.

    Attributes:
        sources: `all`: every model of the suite on every other and on itself; `pairs`: on its partners and itself.
    """

    name: Literal["Transfer"]
    sources: Literal["all", "pairs"] = "all"
    steps: Count = 40
    loss: Loss = "margin"


class CustomAttack(_Native):
    """An attack of your own: `name(model, images, labels, *, eps, norm, **parameters)` returns adversarial images.

    Further keys are its parameters: numbers (also as `eps/4`), words, true/false, or lists of these.

    Attributes:
        name: `package.module:name` of a function.
    """

    model_config = ConfigDict(extra="allow")

    name: CustomName
    norm: Norm

    @property
    def label(self) -> str:
        """What results call it; a colon there stands between a transfer and its source."""
        return self.id or self.name.replace(":", ".")

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the attack's own, as written."""
        return dict(self.model_extra or {})


AnyAttack = Fgsm | Pgd | AutoAttack | Noise | Transfer | CustomAttack | TorchattacksAttack


def _attack_kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if isinstance(name, str) and ":" in name:
        return CUSTOM_TAG
    return name if name in NATIVE_ATTACKS else "library"


Attack = Annotated[
    Annotated[Fgsm, Tag("FGSM")]
    | Annotated[Pgd, Tag("PGD")]
    | Annotated[AutoAttack, Tag("AutoAttack")]
    | Annotated[Noise, Tag("Noise")]
    | Annotated[Transfer, Tag("Transfer")]
    | Annotated[CustomAttack, Tag(CUSTOM_TAG)]
    | Annotated[TorchattacksAttack, Tag("library")],
    Discriminator(_attack_kind),
]

CLEAN: dict[str, Any] = {"name": "none"}


def balls(attack: AnyAttack) -> list[tuple[Norm, float]]:
    """Norm and radius of every ball that an attack is run in: ascending, where smaller ones decide larger ones."""
    norm: Norm = ball_norm(attack) if isinstance(attack, TorchattacksAttack) else attack.norm
    radii = attack.eps or []
    if isinstance(attack, Pgd | AutoAttack) and attack.ascending:
        radii = sorted(radii)
    return [(norm, eps) for eps in radii]


def attack_setting(attack: AnyAttack, eps: float) -> dict[str, Any]:
    """An attack's name and parameters at one eps, as numbers."""
    if isinstance(attack, Fgsm):
        return {"name": "FGSM", "loss": attack.loss}
    if isinstance(attack, Noise):
        return {"name": "Noise", "samples": attack.samples}
    if isinstance(attack, AutoAttack):
        numbers = {"targets": attack.targets, "steps": attack.steps, "queries": attack.queries}
        return {"name": "AutoAttack"} | numbers | _ascending(attack)
    if isinstance(attack, Pgd | Transfer):
        alpha = 2.5 * eps / attack.steps if attack.alpha is None else resolve_relative(attack.alpha, eps)
        own = ("steps", "random_start", "restarts", "targets", "schedule", "loss")
        setting = {"name": attack.name, "alpha": alpha} | {key: getattr(attack, key) for key in own}
        return (
            setting
            if isinstance(attack, Transfer)
            else setting | {"early_stop": attack.early_stop} | _ascending(attack)
        )
    if isinstance(attack, CustomAttack):
        parameters = custom_parameters(attack.name, ATTACK, attack.parameters, eps)
        return {"name": attack.name, "code_sha256": custom_code_sha256(attack.name), "parameters": parameters}
    return {"name": f"torchattacks.{attack.name}", **resolved_parameters(attack, eps)}


def _ascending(attack: Pgd | AutoAttack) -> dict[str, Any]:
    """Only where it is so: what the attack does to an example is the same."""
    return {"ascending": True} if attack.ascending else {}
