"""What every attack of a suite says of itself, whoever implements it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import ConfigDict, PrivateAttr

from robustbench_cmic.suite.fields import Name, Norm, NumberList, Strict, Threat, radius_problem

AttackKind = Literal["gradient", "one-step", "black-box", "transfer", "minimum-norm", "noise", "unknown"]
"""What an attack does: steps along the model's gradients (many, or one), anything without them, a search for a small
change in a norm of its own; `transfer` is what was found on another model, `unknown` a user's own."""


@dataclass(frozen=True)
class Passes:
    """Examples that go through a network.

    Attributes:
        forwards: forward.
        gradients: back to the images alone, as attacks need it.
        learned: back to the weights, as a step of a training needs it.
    """

    forwards: float = 0.0
    gradients: float = 0.0
    learned: float = 0.0

    @property
    def backwards(self) -> float:
        """Whatever for."""
        return self.gradients + self.learned

    @property
    def work(self) -> float:
        """In passes forward, roughly: one back takes about as long as two."""
        return self.forwards + 2 * self.backwards

    def __add__(self, other: Passes) -> Passes:
        sums = self.forwards + other.forwards, self.gradients + other.gradients, self.learned + other.learned
        return Passes(*sums)

    def times(self, factor: float) -> Passes:
        """So many times as many."""
        return Passes(factor * self.forwards, factor * self.gradients, factor * self.learned)


GRADIENT = Passes(1.0, 1.0)
"""What the gradient of an example in the image takes."""


class Attack(Strict):
    """An attack as a suite has it; with one eps and every parameter a number it is an attack at one threat, see `at`.

    Attributes:
        implementation: `module:function`, called with an `attacks.blocks.AttackCall`.
        family: what it does, unless its parameters decide.
        whole_blocks: it draws from generators that know of no blocks, and is run on a whole one at a time.
        distrusted: it runs on a copy of the model, for nobody knows what it does to it.
        wants_others: it walks towards other images, of which it gets some.
        of_the_suite: fields that say nothing of what the attack does in a ball.
        left_out: fields that cells do not declare at these values, at which the attack does what it did without them.
        counted: what it takes at most is known, see `passes`.
    """

    implementation: ClassVar[str]
    family: ClassVar[AttackKind]
    whole_blocks: ClassVar[bool] = False
    distrusted: ClassVar[bool] = False
    wants_others: ClassVar[bool] = False
    of_the_suite: ClassVar[set[str]] = {"id", "norm", "eps"}
    left_out: ClassVar[dict[str, Any]] = {"ascending": False}
    counted: ClassVar[bool] = True

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
        radii = sorted(self.eps or []) if self.carries_over else self.eps or []
        return [Threat(self.threat_norm(), eps) for eps in radii]

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
        return {
            key: value for key, value in declared.items() if key not in self.left_out or value != self.left_out[key]
        }

    @classmethod
    def from_declared(cls, declared: dict[str, Any], threat: Threat) -> Self:
        """The way back from `declared`, at its threat."""
        return cls.model_validate(declared | {"norm": threat.norm, "eps": [threat.eps]})

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What is wrong beyond types: (keys and positions within the attack, sentence) pairs."""
        radii = self.eps or []
        for position, eps in enumerate(radii):
            if problem := radius_problem(Threat(self.threat_norm(), eps)):
                yield ("eps", position), problem
            elif eps in radii[:position]:
                yield ("eps", position), f"eps {eps:g} is listed twice"

    def warnings(self) -> Iterator[tuple[str, str]]:
        """What is allowed but hardly meant: (key, sentence) pairs."""
        yield from ()

    @property
    def kind(self) -> AttackKind:
        """What it does."""
        return self.family

    @property
    def raised_loss(self) -> str | None:
        """The loss that it raises, where that is a parameter of it: its field `loss`."""
        return cast("str | None", getattr(self, "loss", None))

    @property
    def raises_cross_entropy(self) -> bool:
        """What it raises is cross entropy, as float32 computes it, or may be."""
        return self.raised_loss == "ce"

    @property
    def strong(self) -> bool:
        """A worst case may rest on it: it follows the model's gradients, but not those of cross entropy."""
        return self.kind == "gradient" and not self.raises_cross_entropy

    @property
    def reach(self) -> float | None:
        """How far its steps go from the image at one threat, added up; None where it does not go by steps of a size."""
        return None

    @property
    def reaches_edge(self) -> bool:
        """At one threat: its steps may go as far as the edge of the ball, as far as is known."""
        return self.reach is None or self.reach >= self.threat.eps * (1 - 1e-9)

    def misfit(self, shape: tuple[int, int, int], classes: int | None) -> str | None:  # noqa: ARG002
        """Why it cannot work on images of this shape, (C, H, W), and so many classes (None: not known), as a sentence.

        None where no reason is known.
        """
        return None

    @property
    def passes(self) -> Passes:
        """What it takes of an example at most, if `counted`, else about: one gradient, unless it says more."""
        return GRADIENT

    @property
    def share(self) -> float:
        """How much of that an example takes, as a guess: below 1 where examples are done once they are broken."""
        return 1.0

    @property
    def work(self) -> float:
        """Passes through the network an example, roughly."""
        return self.share * self.passes.work

    def same_but_for_loss(self, other: Attack) -> bool:
        """Another attack at one threat is this one on another loss; whether an example stops early is no difference."""
        if self.raised_loss is None:
            return False
        ours, theirs = self.declared(), other.declared()
        keys = (ours.keys() | {"samples"}) - {"loss", "early_stop", "ascending"}
        return all(ours.get(key) == theirs.get(key) for key in keys)

    def audited(self) -> dict[str, Self]:
        """As an audit tries it at one threat: on `other-loss` than cross entropy; `longer`; `active`, for tests."""
        return {}


class ForeignAttack(Attack):
    """An attack of other people's: further keys are its own parameters. At one threat it keeps what was declared."""

    model_config = ConfigDict(extra="allow")
    whole_blocks = True
    counted = False
    prefix: ClassVar[str] = ""  # what cells put before the name
    _declared: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def carries_over(self) -> bool:
        """Never: a parameter `ascending` would be a matter of its own."""
        return False

    def declared(self) -> dict[str, Any]:
        """As it was made, or read."""
        return self._declared

    @classmethod
    def from_declared(cls, declared: dict[str, Any], threat: Threat) -> Self:
        """The way back; the code behind it may be another by now, or gone."""
        given = {"name": declared["name"].removeprefix(cls.prefix), "norm": threat.norm, "eps": [threat.eps]}
        own = {} if "parameters" in declared else declared  # a user's own parameters may have any names
        attack = cls.model_validate(own | given)
        attack._declared = declared
        return attack


def reach_problem(alpha: float, steps: int, eps: float) -> str | None:
    """What is odd about steps that do not reach across a ball, as a sentence; None where they do."""
    if alpha * steps >= eps * (1 - 1e-9):
        return None
    return short_of_edge("alpha * steps is", alpha * steps, eps)


def short_of_edge(what: str, reach: float, eps: float) -> str:
    """The sentence on steps that go so far in all."""
    return f"{what} {reach:g}: cannot reach the edge of the ball at eps {eps:g}"
