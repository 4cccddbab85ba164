"""Suite -> plan, the part on audits: which checks show whether the attacks on a model were able to succeed.

The audit's own attacks mirror the suite's, on a part of the evaluated examples; `audit` judges what they find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.plan.versions import AUDIT, EVALUATION
from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.fields import Frozen, Norm, Threat
from robustbench_cmic.suite.schema import Suite

LEVELS: dict[str, dict[str, int]] = {
    "standard": {"examples": 128, "active_examples": 48, "samples": 20, "queries": 200},
    "strict": {"examples": 512, "active_examples": 192, "samples": 200, "queries": 1000},
}
IN_TURN = ("reference", "gradient-free", "confirm")
"""Checks that are made in turn in every ball, each on what earlier ones left, the last on what the second broke."""
HUGE = Threat("linf", 1.0)  # holds every image there is


class PlannedCheck(Frozen):
    """One of the audit's own attacks.

    Attributes:
        check: what for: `reference`, `gradient-free`, `confirm`, `other-loss`, `longer`, `noise`, `huge`, `active`.
        of: label of the suite's attack that it mirrors; empty where it mirrors none.
    """

    check: str
    of: str
    norm: Norm
    eps: float
    attack: dict[str, Any]

    @property
    def threat(self) -> Threat:
        """The ball."""
        return Threat(self.norm, self.eps)


class PlannedAudit(Frozen):
    """What an audit does, whatever the model.

    Attributes:
        examples, active_examples: how many of the evaluated ones it is made on, and how many binarization tests are.
        step: of the gradients' test, in units of images in [0, 1].
        checks, active: the audit's own attacks, on the model and in binarization tests.
    """

    version: int
    level: str
    examples: int
    active_examples: int
    step: float
    checks: list[PlannedCheck]
    active: list[PlannedCheck]


def plan_audit(suite: Suite) -> PlannedAudit:
    """The audit of any trained model under a suite's attacks."""
    level = LEVELS[suite.audit]
    radii = [threat.eps for threat in _threats(suite) if threat.norm == "linf"]
    return PlannedAudit(
        version=AUDIT,
        level=suite.audit,
        examples=level["examples"],
        active_examples=level["active_examples"],
        step=min([*radii, 8 / 255]) / 10,  # what a gradient tells should hold that far at least
        checks=list(_checks(suite)),
        active=list(_active(suite)),
    )


def audit_cell(training: Cell, audit: PlannedAudit, evaluation: dict[str, Any]) -> Cell:
    """The audit of one trained model."""
    declared = {"train": training.declared, "evaluation": evaluation, "judge": EVALUATION, "audit": audit.model_dump()}
    return training.dependent("audit", ["audit"], declared)


def _attacks(suite: Suite) -> list[Attack]:
    """Every attack at each of its threats."""
    return [attack.at(threat) for attack in suite.attacks for threat in attack.threats()]


def _threats(suite: Suite) -> list[Threat]:
    """Every ball of the suite that holds more than the image, once."""
    return sorted({threat for attack in suite.attacks for threat in attack.threats() if threat.eps > 0})


def _checks(suite: Suite) -> Iterator[PlannedCheck]:
    for threat in _threats(suite):
        yield from _in_ball(threat, LEVELS[suite.audit]["queries"])
    yield from _other_losses(suite)
    yield from _longer(suite)
    yield from _noise(suite)
    steps = {"name": "PGD", "alpha": 2.5 / 40, "steps": 40, "random_start": True, "restarts": 1, "targets": 0}
    steps |= {"schedule": "constant", "early_stop": True}
    if any("other-loss" in attack.audited() for attack in _attacks(suite)):
        yield _check("huge", "", HUGE, steps | {"loss": "ce"})
    yield _check("huge", "", HUGE, steps | {"loss": "margin"})


def _in_ball(threat: Threat, queries: int) -> Iterator[PlannedCheck]:
    """In every ball the same attacks, whatever the suite runs there: no worst case may be clearly above them.

    PGD on the margin, and on a loss that no scale of the logits changes; then, on what is left, attacks without
    gradients. Where those find more, PGD with a larger budget says whether gradients hid it, or too few steps.
    """
    own = {"name": "PGD", "alpha": threat.eps / 4, "random_start": True, "targets": 0, "schedule": "linear"}
    own |= {"early_stop": True}
    for loss in ("margin", "scaled_ce"):
        yield _check("reference", "", threat, own | {"loss": loss, "steps": 40, "restarts": 2})
    yield _check("gradient-free", "", threat, {"name": "GradientFree", "images": 40, "queries": queries})
    for loss in ("margin", "scaled_ce"):
        yield _check("confirm", "", threat, own | {"loss": loss, "steps": 100, "restarts": 5})


def _other_losses(suite: Suite) -> Iterator[PlannedCheck]:
    """Attacks on cross entropy again, on the margin; not where the suite has that attack itself, on any other loss."""
    attacks = _attacks(suite)
    others = [attack for attack in attacks if not attack.raises_cross_entropy]
    for attack in attacks:
        theirs = any(other.threat == attack.threat and other.same_but_for_loss(attack) for other in others)
        if attack.threat.eps > 0 and not theirs:
            yield from _variant("other-loss", attack)


def _longer(suite: Suite) -> Iterator[PlannedCheck]:
    """Iterated attacks with twice the steps and a further restart: in the smallest and a middle ball, if strict in all.

    In large balls little is left that more steps could break.
    """
    for attack in suite.attacks:
        threats = sorted(threat for threat in attack.threats() if threat.eps > 0)
        some = [*threats[:1], *threats[len(threats) // 2 :][:1]]
        for threat in threats if suite.audit == "strict" else dict.fromkeys(some):
            yield from _variant("longer", attack.at(threat))


def _noise(suite: Suite) -> Iterator[PlannedCheck]:
    noise = {"name": "Noise", "samples": LEVELS[suite.audit]["samples"]}
    every = _threats(suite)
    theirs = {threat for attack in suite.attacks if attack.kind == "noise" for threat in attack.threats()}
    largest = {threat.norm: threat for threat in every}
    for threat in every if suite.audit == "strict" else largest.values():
        if threat not in theirs:
            yield _check("noise", "", threat, noise)


def _active(suite: Suite) -> Iterator[PlannedCheck]:
    """Attacks to be tried on models that are altered so that an adversarial example is there."""
    for attack in suite.attacks:
        for threat in sorted(threat for threat in attack.threats() if threat.eps > 0)[:1]:
            yield from _variant("active", attack.at(threat))


def _variant(check: str, attack: Attack) -> Iterator[PlannedCheck]:
    """An attack of the suite, at one threat, as a check tries it; nothing where it does not."""
    variant = attack.audited().get(check)
    if variant is not None:
        yield _check(check, attack.label, attack.threat, variant.declared())


def _check(check: str, of: str, threat: Threat, attack: dict[str, Any]) -> PlannedCheck:
    return PlannedCheck.model_validate({"check": check, "of": of, **threat._asdict(), "attack": attack})
