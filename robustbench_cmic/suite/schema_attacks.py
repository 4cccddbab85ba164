"""The schema's part on attacks; parameters have torchattacks' names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag

from robustbench_cmic.suite.fields import Count, Loss, Name, Norm, Strict, Text
from robustbench_cmic.suite.numbers import NumberList, Step


class Fgsm(Strict):
    """Fast gradient sign method (Goodfellow et al. 2015): one step of size eps; with `norm: l2` along the gradient."""

    name: Literal["FGSM"]
    id: Name | None = None
    norm: Norm = "linf"
    eps: NumberList
    loss: Loss = "ce"

    @property
    def label(self) -> str:
        """What results call it."""
        return self.id or self.name


class Pgd(Strict):
    """Projected gradient descent (Madry et al. 2018).

    Attributes:
        alpha: step size, absolute or as `eps/10`; by default 2.5 * eps / steps.
        random_start: start at a random point of the ball.
        restarts: how often to start; an example that one restart breaks is done.
        early_stop: drop an example as soon as any iterate is misclassified, and return that iterate.
    """

    name: Literal["PGD"]
    id: Name | None = None
    norm: Norm = "linf"
    eps: NumberList
    alpha: Step | None = None
    steps: Count = 10
    random_start: bool = True
    restarts: Count = 1
    loss: Loss = "ce"
    early_stop: bool = False

    @property
    def label(self) -> str:
        """What results call it."""
        return self.id or self.name


class LibraryAttack(BaseModel):
    """Any attack class of torchattacks by name; further keys are its own parameters.

    `eps` and `norm` say in which ball the result is judged; they are also passed to the attack where it takes them.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: Text
    id: Name | None = None
    norm: Norm | None = None
    eps: NumberList | None = None

    @property
    def label(self) -> str:
        """What results call it: `id`, or the name. The field's AutoAttack is another than torchattacks'."""
        return self.id or ("torchattacks.AutoAttack" if self.name == "AutoAttack" else self.name)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the attack's own, as written."""
        return dict(self.model_extra or {})


NATIVE_ATTACKS = ("FGSM", "PGD")


def _attack_kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in NATIVE_ATTACKS else "library"


Attack = Annotated[
    Annotated[Fgsm, Tag("FGSM")] | Annotated[Pgd, Tag("PGD")] | Annotated[LibraryAttack, Tag("library")],
    Discriminator(_attack_kind),
]
