"""Suite -> plan, the part on audits: which checks show whether the attacks on a model were able to succeed.

The audit's own attacks run on a part of the evaluated examples. They mirror the attacks of the suite: with another
loss, with more steps, in a ball that holds every image, at random; `audit` judges what they find.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from robustbench_cmic.plan.cell import Cell, cell_id
from robustbench_cmic.plan.versions import AUDIT, EVALUATION
from robustbench_cmic.suite.attacks import AutoAttack, Fgsm, Noise, Pgd, attack_setting, balls
from robustbench_cmic.suite.schema import Suite

LEVELS: dict[str, dict[str, int]] = {
    "standard": {"examples": 128, "active_examples": 48, "samples": 20},
    "strict": {"examples": 512, "active_examples": 192, "samples": 200},
}
HUGE = ("linf", 1.0)
"""The ball that holds every image there is."""


def audit_cell(training: Cell, suite: Suite, evaluation: dict[str, Any]) -> Cell:
    """The audit of one trained model under a suite's attacks."""
    level = LEVELS[suite.audit]
    declared = {
        "train": training.declared,
        "evaluation": evaluation,
        "judge": EVALUATION,
        "audit": {
            "version": AUDIT,
            "level": suite.audit,
            "examples": level["examples"],
            "active_examples": level["active_examples"],
            "step": _step(suite),
            "checks": list(_checks(suite)),
            "active": list(_active(suite)),
        },
    }
    return training.model_copy(
        update={
            "id": cell_id([training.model, f"s{training.seed}", "audit"], declared),
            "kind": "audit",
            "needs": training.id,
            "declared": declared,
        }
    )


def _step(suite: Suite) -> float:
    """A tenth of the smallest L-inf ball, or of 8/255: what a gradient tells should hold that far at least."""
    radii = [eps for attack in suite.attacks for norm, eps in balls(attack) if norm == "linf" and eps > 0]
    return min([*radii, 8 / 255]) / 10


def _checks(suite: Suite) -> Iterator[dict[str, Any]]:
    yield from _references(suite)
    yield from _other_losses(suite)
    yield from _longer(suite)
    yield from _noise(suite)
    steps = {"name": "PGD", "alpha": 2.5 / 40, "steps": 40, "random_start": True, "restarts": 1, "targets": 0}
    steps |= {"schedule": "constant", "early_stop": True}
    losses = {attack.loss for attack in suite.attacks if isinstance(attack, Fgsm | Pgd)}
    for loss in ("ce", "margin"):
        if loss in losses or loss == "margin":
            yield _check("huge", "", HUGE, steps | {"loss": loss})


def _references(suite: Suite) -> Iterator[dict[str, Any]]:
    """In every ball the same strong attack, whatever the suite runs there: no worst case may be clearly above it."""
    own = {"name": "PGD", "steps": 40, "random_start": True, "restarts": 2, "targets": 0, "schedule": "linear"}
    for norm, eps in sorted({ball for attack in suite.attacks for ball in balls(attack) if ball[1] > 0}):
        yield _check("reference", "", (norm, eps), own | {"alpha": eps / 4, "loss": "margin", "early_stop": True})


def _other_losses(suite: Suite) -> Iterator[dict[str, Any]]:
    """Attacks on cross entropy again, on the margin; not where the suite has that attack itself."""
    theirs = [
        (ball, _without_loss(attack_setting(attack, ball[1])))
        for attack in suite.attacks
        if isinstance(attack, Fgsm | Pgd) and attack.loss != "ce"
        for ball in balls(attack)
    ]
    for attack in suite.attacks:
        if isinstance(attack, Fgsm | Pgd) and attack.loss == "ce":
            for ball in balls(attack):
                setting = attack_setting(attack, ball[1])
                if ball[1] > 0 and (ball, _without_loss(setting)) not in theirs:
                    yield _check("other-loss", attack.label, ball, setting | {"loss": "margin"})


def _without_loss(setting: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in setting.items() if key not in ("loss", "early_stop", "ascending")}


def _longer(suite: Suite) -> Iterator[dict[str, Any]]:
    """Iterated attacks with twice the steps and a further restart: in the smallest and a middle ball, if strict in all.

    In large balls little is left that more steps could break.
    """
    for attack in suite.attacks:
        if isinstance(attack, Pgd):
            all_balls = sorted(ball for ball in balls(attack) if ball[1] > 0)
            some = [*all_balls[:1], *all_balls[len(all_balls) // 2 :][:1]]
            for ball in all_balls if suite.audit == "strict" else dict.fromkeys(some):
                setting = attack_setting(attack, ball[1])
                more = {"steps": 2 * setting["steps"], "restarts": setting["restarts"] + 1, "early_stop": True}
                yield _check("longer", attack.label, ball, setting | more)


def _noise(suite: Suite) -> Iterator[dict[str, Any]]:
    samples = LEVELS[suite.audit]["samples"]
    every = sorted({ball for attack in suite.attacks for ball in balls(attack) if ball[1] > 0})
    theirs = {ball for attack in suite.attacks if isinstance(attack, Noise) for ball in balls(attack)}
    for norm in sorted({norm for norm, _ in every}):
        of_norm = [ball for ball in every if ball[0] == norm]
        for ball in of_norm if suite.audit == "strict" else of_norm[-1:]:
            if ball not in theirs:
                yield _check("noise", "", ball, {"name": "Noise", "samples": samples})


def _active(suite: Suite) -> Iterator[dict[str, Any]]:
    """Iterated attacks to be tried on models that are altered so that an adversarial example is there."""
    for attack in suite.attacks:
        if isinstance(attack, Pgd | AutoAttack):
            ball = min((ball for ball in balls(attack) if ball[1] > 0), default=None)
            if ball is not None:
                # Whether any iterate gets there is asked, not whether the last one stays there.
                early = {"early_stop": True} if isinstance(attack, Pgd) else {}
                yield _check("active", attack.label, ball, attack_setting(attack, ball[1]) | early)


def _check(check: str, of: str, ball: tuple[str, float], setting: dict[str, Any]) -> dict[str, Any]:
    return {"check": check, "of": of, "norm": ball[0], "eps": ball[1], "attack": setting}
