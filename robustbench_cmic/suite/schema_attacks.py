"""The schema's part on attacks; parameters have torchattacks' names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from robustbench_cmic.suite.fields import OWN_TAG, Count, Loss, Name, Norm, OwnName, Strict, Text
from robustbench_cmic.suite.numbers import NumberList, Step

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


class _Descent(_Native):
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


class Pgd(_Descent):
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


class Transfer(_Descent):
    """Adversarial examples of one model tried on another: PGD on the source, to the end of its steps.

    Attributes:
        sources: `all`: every model of the suite on every other and on itself; `pairs`: on its partners and itself.
    """

    name: Literal["Transfer"]
    sources: Literal["all", "pairs"] = "all"
    steps: Count = 40
    loss: Loss = "margin"


class OwnAttack(_Native):
    """An attack of your own: `name(model, images, labels, *, eps, norm, **parameters)` returns adversarial images.

    Further keys are its parameters: numbers (also as `eps/4`), words, true/false, or lists of these.

    Attributes:
        name: `package.module:name` of a function.
    """

    model_config = ConfigDict(extra="allow")

    name: OwnName
    norm: Norm

    @property
    def label(self) -> str:
        """What results call it; a colon there stands between a transfer and its source."""
        return self.id or self.name.replace(":", ".")

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the attack's own, as written."""
        return dict(self.model_extra or {})


NATIVE_ATTACKS = ("FGSM", "PGD", "AutoAttack", "Noise", "Transfer")
_LIBRARY_NAME = {"type": "string", "pattern": "^[^:]+$", "not": {"enum": list(NATIVE_ATTACKS)}}


class LibraryAttack(BaseModel):
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


AnyAttack = Fgsm | Pgd | AutoAttack | Noise | Transfer | OwnAttack | LibraryAttack


def _attack_kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if isinstance(name, str) and ":" in name:
        return OWN_TAG
    return name if name in NATIVE_ATTACKS else "library"


Attack = Annotated[
    Annotated[Fgsm, Tag("FGSM")]
    | Annotated[Pgd, Tag("PGD")]
    | Annotated[AutoAttack, Tag("AutoAttack")]
    | Annotated[Noise, Tag("Noise")]
    | Annotated[Transfer, Tag("Transfer")]
    | Annotated[OwnAttack, Tag(OWN_TAG)]
    | Annotated[LibraryAttack, Tag("library")],
    Discriminator(_attack_kind),
]
