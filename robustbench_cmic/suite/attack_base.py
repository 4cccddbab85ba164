"""What every attack of a suite says of itself, whoever implements it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self, cast

from robustbench_cmic.suite.fields import Name, Norm, NumberList, Strict, Threat, radius_problem

Kind = Literal["gradient", "one-step", "black-box", "transfer", "minimum-norm", "noise", "unknown"]
"""What an attack does: steps along the model's gradients (many, or one), anything without them, a search for a small
change in a norm of its own; `transfer` is what was found on another model, `unknown` a user's own."""

GRADIENT = 3.0
"""Passes that an example's gradient costs: one forward, and one back that costs two."""


class Attack(Strict):
    """An attack as a suite has it; with one eps and every parameter a number it is an attack at one threat, see `at`.

    Attributes:
        implementation: `module:function`, called with an `attacks.blocks.AttackCall`.
        whole_blocks: it draws from generators that know of no blocks, and is run on a whole one at a time.
        distrusted: it runs on a copy of the model, for nobody knows what it does to it.
    """

    implementation: ClassVar[str]
    whole_blocks: ClassVar[bool] = False
    distrusted: ClassVar[bool] = False
    of_the_suite: ClassVar[set[str]] = {"id", "norm", "eps"}
    """Fields that say nothing of what the attack does in a ball."""

    name: str
    id: Name | None = None
    norm: Norm | None = None
    eps: NumberList | None = None

    @property
    def label(self) -> str:
        """What results call it: `id`, or the name."""
        return self.id or self.name

    @property
    def carries_over(self) -> bool:
        """What it broke in a smaller ball it leaves as it is in a larger one: its field `ascending`, if it has one."""
        return bool(getattr(self, "ascending", False))

    def threat_norm(self) -> Norm:
        """The norm of the balls.

        Raises:
            ValueError: the suite leaves it open, or contradicts the attack.
        """
        return cast(Norm, self.norm)

    def threats(self) -> list[Threat]:
        """Every ball that it is run in, in the suite's order; ascending, where smaller ones decide larger ones."""
        radii = self.eps or []
        return [Threat(self.threat_norm(), eps) for eps in (sorted(radii) if self.carries_over else radii)]

    @property
    def threat(self) -> Threat:
        """The ball of an attack at one threat."""
        (threat,) = self.threats()
        return threat

    def at(self, threat: Threat) -> Self:
        """The attack at one threat: every parameter is a number."""
        return self.varied(norm=threat.norm, eps=[threat.eps])

    def varied(self, **changes: Any) -> Self:
        """The attack with some fields changed, checked as a suite's are."""
        return type(self).model_validate(self.model_dump() | changes)

    def declared(self) -> dict[str, Any]:
        """What a cell declares of an attack at one threat: name and parameters as plain data."""
        declared = self.model_dump(exclude=self.of_the_suite)
        if declared.get("ascending") is False:  # what the attack does to an example is the same
            del declared["ascending"]
        return declared

    @classmethod
    def from_declared(cls, declared: dict[str, Any], threat: Threat) -> Self:
        """The way back from `declared`, at its threat."""
        return cls.model_validate(declared | {"norm": threat.norm, "eps": [threat.eps]})

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What is wrong beyond types: (keys and positions within the attack, sentence) pairs."""
        radii = self.eps or []
        for position, eps in enumerate(radii):
            problem = radius_problem(Threat(self.threat_norm(), eps))
            if problem is None and eps in radii[:position]:
                problem = f"eps {eps:g} is listed twice"
            if problem is not None:
                yield ("eps", position), problem

    def warnings(self) -> Iterator[tuple[str, str]]:
        """What is allowed but hardly meant: (key, sentence) pairs."""
        yield from ()

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What it does, at one threat."""

    @property
    def raised_loss(self) -> str | None:
        """The loss that it raises, where that is a parameter of it: its field `loss`."""
        loss: str | None = getattr(self, "loss", None)
        return loss

    @property
    def raises_cross_entropy(self) -> bool:
        """What it raises is cross entropy, as float32 computes it, or may be."""
        return self.raised_loss == "ce"

    @property
    def uses_centroids(self) -> bool:
        """Its loss needs the mean outputs of each class."""
        return self.raised_loss == "cmic"

    @property
    def strong(self) -> bool:
        """A worst case may rest on it: it follows the model's gradients, but not those of cross entropy."""
        return self.kind == "gradient" and not self.raises_cross_entropy

    @property
    @abstractmethod
    def work(self) -> float:
        """Passes through the network an example at one threat, roughly."""

    @property
    def budget(self) -> str:
        """What it is given, in words; empty where that is not counted in steps and starts."""
        return ""

    def same_but_for_loss(self, other: Attack) -> bool:
        """Another attack at one threat is this one on another loss; whether an example stops early is no difference."""
        ours, theirs = self.declared(), other.declared()
        ignored = ("loss", "early_stop", "ascending")
        same = all(value == theirs.get(key) for key, value in ours.items() if key not in ignored)
        return same and self.raised_loss is not None

    def on_margin(self) -> Self | None:
        """For the audit: the same on the margin, where it raises cross entropy and could raise another loss."""
        return None

    def longer(self) -> Self | None:
        """For the audit: the same with more steps and starts, where there are any."""
        return None

    def for_binarization(self) -> Self | None:
        """For the audit's binarization test: as it should find what is hidden there; None where it need not."""
        return None
