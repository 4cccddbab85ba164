"""The rules of the audit on attacks, one against another and against the audit's own.

Thresholds are chosen so that chance raises no flag: a paired comparison has to differ by `POINTS` of the examples, with
an exact one-sided p (McNemar) of at most `ALPHA`. On the 128 examples of a standard audit that takes at least 10
examples, 8 points, and more where each breaks what the other leaves: what differs by less passes unnoticed. An attack
whose steps cannot reach the edge of the ball is flagged for that: what others break and it leaves says nothing of
gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from itertools import product
from operator import and_
from typing import TYPE_CHECKING

from robustbench_cmic.audit.case import ATHALYE, CARLINI, AttackResult, AuditedModel, CheckResult, Finding, Rule, ids
from robustbench_cmic.plan.audit import IN_TURN
from robustbench_cmic.statistics import discordant_pairs, mcnemar, wilson_interval
from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.attacks import FGSM, PGD, IteratedAttack
from robustbench_cmic.suite.fields import format_eps
from robustbench_cmic.suite.objectives import Adversary

if TYPE_CHECKING:
    from robustbench_cmic.audit.case import Correct
    from robustbench_cmic.suite.fields import Threat

ALPHA = 0.001
POINTS = 0.02
MARGIN_POINTS = 0.15
"""Between cross entropy and margin: with label smoothing honest models differ by up to 12 points, too."""
MIN_EXAMPLES = 100
SURVIVORS = 0.05
"""So many are forgiven in the ball that holds every image."""


CLEAR = math.ceil(-math.log2(ALPHA))
"""So many examples that one attack alone breaks, of two, are no chance: their exact p is 2 to the minus 10."""


HIDDEN = 4
"""So many examples that attacks without gradients break, of those that stronger ones with them leave: on honest models
none or one (docs/maskers.md).
"""


def _lead(strong: Correct, weak: Correct, points: float = POINTS) -> str | None:
    """By how much outcomes `strong` have clearly fewer survivors than `weak`, of the same examples; None: not clear."""
    n = len(weak)
    if len(strong) != n:  # of other data: nothing to compare
        return None
    only_weak, only_strong = discordant_pairs(weak, strong)
    p = mcnemar(only_weak, only_strong, "greater")
    if (only_weak - only_strong) / n < points or p > ALPHA:
        return None
    return f"{100 * int(strong.sum()) / n:.1f} % against {100 * int(weak.sum()) / n:.1f} % of {n}, p = {p:.1g}"


def _one_step_beats_iterated(model: AuditedModel) -> Iterator[Finding]:
    """One step of an attack breaks more than many steps do: the iterated attack is misled."""
    for rows in model.by_threat.values():
        for strong, weak in product(rows, rows):
            if strong.one_step and weak.search and weak.reaches_edge and (lead := _lead(strong.correct, weak.correct)):
                yield ids([weak]), "rows", f"{strong.cell.attack} {lead}"


def _black_box_beats_white_box(model: AuditedModel) -> Iterator[Finding]:
    """Noise, another model's examples, random search or another attack that says it needs no gradients break what
    attacks with full knowledge leave, whose steps reach the edge of the ball: the gradients hide what is there.
    """
    noise = list(model.checks("noise"))
    for threat, rows in model.by_threat.items():
        blind = [row for row in rows if row.black_box]
        seeing = [row for row in rows if row.search and row.reaches_edge]
        for weak in seeing:
            for strong in blind:
                if lead := _lead(strong.correct, weak.correct):
                    yield ids([weak]), "rows", f"{strong.cell.attack} {lead}"
            for check in noise:
                if check.attack.threat == threat and (lead := _lead(check.correct, weak.correct[model.positions])):
                    yield ids([weak]), "rows", f"noise {lead}"
        yield from _beyond_all(blind, seeing)
        yield from _hidden(model, threat, rows)
        # AutoAttack's random search comes last: what it breaks, three attacks with gradients left.
        for row in (row for row in rows if row.search):
            for part in row.record.parts:
                if part.name == "Square" and part.broken >= max(CLEAR, POINTS * row.n):
                    yield ids(rows), "balls", f"Square breaks {part.broken} of {row.n} that APGD and FAB leave"


def _beyond_all(blind: list[AttackResult], seeing: list[AttackResult]) -> Iterator[Finding]:
    """What survives every attack with gradients together, and still falls to one without."""
    if not seeing or len({row.n for row in (*blind, *seeing)}) > 1:
        return
    n = seeing[0].n
    survivors = reduce(and_, (row.correct for row in seeing))
    for strong in blind:
        more = int((survivors & ~strong.correct).sum())
        if more >= max(CLEAR, POINTS * n):
            evidence = f"{strong.cell.attack} breaks {more} of {n} that all attacks with gradients leave"
            yield ids([*blind, *seeing]), "balls", evidence


def _hidden(model: AuditedModel, threat: Threat, rows: list[AttackResult]) -> Iterator[Finding]:
    """What falls to the audit's attacks without gradients alone, and not to PGD with a larger budget than theirs."""
    before, after = model.audited(threat, "reference"), model.audited(threat, "gradient-free")
    longest = model.audited(threat, "confirm")
    if before is None or after is None or longest is None:
        return
    seeing = reduce(and_, (row.correct for row in rows if row.search), before)
    hidden, n = int((seeing & ~after & longest).sum()), len(model.positions)
    if hidden >= max(HIDDEN, POINTS * n):
        what = "fall to a walk, to rays or to random search, and not to 100 steps of PGD from 5 starts"
        yield ids(rows), "balls", f"{hidden} of {n} {what}"


def _margin_beats_cross_entropy(model: AuditedModel) -> Iterator[Finding]:
    """The same attack on the margin between logits breaks clearly more than on cross entropy: the number is one of the
    loss, not of the model.
    """
    for rows in model.by_threat.values():
        for weak, strong in product((row for row in rows if row.on_cross_entropy), rows):
            if _differ_in_loss(weak, strong) and (lead := _lead(strong.correct, weak.correct, MARGIN_POINTS)):
                yield ids([weak]), "rows", f"{strong.cell.attack} {lead}"
    for check, weak, lead in _stronger_checks(model, "other-loss", MARGIN_POINTS):
        yield ids([weak]), "rows", f"on the {check.attack.raised_loss} {lead}"


def _differ_in_loss(first: AttackResult, second: AttackResult) -> bool:
    if first.attack is None or second.attack is None or second.attack.raised_loss == "ce":
        return False
    return first.attack.same_but_for_loss(second.attack)


def _stronger_checks(model: AuditedModel, name: str, points: float) -> Iterator[tuple[CheckResult, AttackResult, str]]:
    """The audit's attacks of one kind that break clearly more than the attack of the suite that they mirror."""
    for check in model.checks(name):
        rows = model.by_threat.get(check.attack.threat, [])
        weak = next((row for row in rows if row.cell.attack == check.of), None)
        if weak and (lead := _lead(check.correct, weak.correct[model.positions], points)):
            yield check, weak, lead


def _family(model: AuditedModel, one: AttackResult) -> list[AttackResult]:
    """The same attack in all balls of its norm."""
    return [row for row in model.rows if (row.cell.attack, row.cell.norm) == (one.cell.attack, one.cell.norm)]


def _not_monotone(model: AuditedModel) -> Iterator[Finding]:
    """A larger ball holds every smaller one, yet the attack breaks fewer examples in it."""
    for large in (row for row in model.rows if row.search and row.reaches_edge):
        smaller = [row for row in _family(model, large) if row.search and row.cell.eps < large.cell.eps]
        # One flag a number, by the smaller ball that tells most.
        for small in sorted(smaller, key=lambda row: int(row.correct.sum())):
            if lead := _lead(small.correct, large.correct):
                yield ids([large]), "rows", f"at eps {format_eps(small.cell.eps)} {lead}"
                break


def _survives_everything(model: AuditedModel) -> Iterator[Finding]:
    """Examples survive in a ball that holds every image there is, where each can be turned into any other."""
    for check in model.checks("huge"):
        n, survivors = len(check.correct), int(check.correct.sum())
        if wilson_interval(survivors, n)[0] > SURVIVORS:
            attack = f"PGD on {check.attack.raised_loss} at eps {check.attack.threat.eps:g}"
            reached = model.reached(whole=not check.attack.raises_cross_entropy)
            yield *reached, f"{survivors} of {n} examples survive {attack}"


def _not_converged(model: AuditedModel) -> Iterator[Finding]:
    """Twice the steps and a further start break clearly more: the attack was stopped too early."""
    # Where a longer attack breaks more, the attack is flagged at every eps.
    for check, weak, lead in _stronger_checks(model, "longer", POINTS):
        budget = f"{_budget(check.attack)} at eps {format_eps(check.attack.threat.eps)}"
        yield ids(_family(model, weak)), "rows", f"{budget}: {lead}"


def _budget(attack: Attack) -> str:
    return f"{attack.steps} steps, {attack.restarts} starts" if isinstance(attack, IteratedAttack) else attack.name


def _beaten_by_reference(model: AuditedModel) -> Iterator[Finding]:
    """The audit's own attacks, the same for all models, break clearly more than all attacks of the suite together: on
    the examples that the audit did not take, the worst case is too high.
    """
    for threat, rows in model.by_threat.items():
        ours, positions = model.audited(threat, *IN_TURN), model.positions
        if ours is not None:
            theirs = reduce(and_, (row.correct[positions] for row in rows))
            more = (int(theirs.sum()) - int(ours[positions].sum())) / len(positions)
            lead = _lead(ours[positions], theirs)
            if lead and more * (1 - len(positions) / len(ours)) >= POINTS:  # what it broke counts as broken
                yield ids(rows), "balls", lead


def _short_steps(model: AuditedModel) -> Iterator[Finding]:
    """All steps of the attack in one direction do not reach the edge of the ball: what is there it cannot find, however
    good the gradients are.
    """
    for row in model.rows:
        if row.attack is not None and not row.reaches_edge and row.correct.any():
            yield ids([row]), "rows", f"its steps go {row.attack.reach:.3g} in all, the radius is {row.cell.eps:g}"


def _vanishing_gradients(model: AuditedModel) -> Iterator[Finding]:
    """Where examples survive, most gradients were 0 or shorter than what the attack adds to their length before it
    divides by it: its steps hardly moved them.
    """
    for row in model.rows:
        if (row.record.vanished or 0) >= max(CLEAR, POINTS * row.n):
            yield ids([row]), "rows", f"{row.record.vanished} of {row.n} examples"


def _invalid_examples(model: AuditedModel) -> Iterator[Finding]:
    """The attack left ball or box; its examples were projected back, and may be weaker than what it found. Of an attack
    that looks for the smallest change, only what left the box counts: that its change is too large is its result.
    """
    for row in model.rows:
        outside = row.record.outside_box if row.kind == "minimum-norm" else row.record.outside
        if outside:
            yield ids([row]), "rows", f"{outside} of {row.n} examples"


def _attacked_as_trained(model: AuditedModel) -> Iterator[Finding]:
    """The attack is the one that the model was trained against: the number shows training, not robustness."""
    declared = (model.training.declared["objective"] or {}).get("adversary")
    if declared is None:
        return
    adversary = Adversary.model_validate(declared)
    for row in model.rows:
        if isinstance(row.attack, FGSM | PGD) and row.cell.norm == adversary.norm:
            search = row.attack.search
            same = search.loss == adversary.raised_loss and search.targets == 0
            # One step against a training with many is weaker, but not the attack that it was trained on.
            as_long = search.steps == adversary.steps or 1 < search.steps < adversary.steps
            if same and as_long:
                trained = f"trained with {adversary.steps} steps on {adversary.loss}"
                yield ids([row]), "rows", f"{trained}, attacked with {search.steps}"


def _few_examples(model: AuditedModel) -> Iterator[Finding]:
    """Fewer than 100 examples: an interval of ten points to either side at best."""
    if few := [row for row in model.rows if row.n < MIN_EXAMPLES]:
        yield ids(few), "balls", f"{few[0].n} examples"


def _no_strong_attack(_: AuditedModel) -> Iterator[Finding]:
    """No unflagged attack with many steps on another loss than cross entropy was run in this ball: the worst case is
    one of weak attacks.
    """
    yield from ()  # a worst case has it, not an attack: see `judge`


COMPARISON_RULES = (
    Rule(
        "one-step-beats-iterated",
        _one_step_beats_iterated,
        f"{ATHALYE} (one-step attacks perform better than iterative attacks)",
    ),
    Rule(
        "black-box-beats-white-box",
        _black_box_beats_white_box,
        f"{ATHALYE} (black-box attacks are better than white-box attacks)",
    ),
    Rule("margin-beats-cross-entropy", _margin_beats_cross_entropy, "Gowal et al. 2019; Croce & Hein 2020, section 4"),
    Rule("not-monotone", _not_monotone, f"{CARLINI}, section 4.6"),
    Rule("survives-everything", _survives_everything, f"{ATHALYE} (unbounded attacks do not reach 100 % success)"),
    Rule("not-converged", _not_converged, f"{CARLINI}, section 4.7"),
)
"""On one attack against another."""
NUMBER_RULES = (
    Rule("short-steps", _short_steps, f"{CARLINI}, section 4.7"),
    Rule("vanishing-gradients", _vanishing_gradients, f"{ATHALYE} (vanishing gradients)"),
    Rule("invalid-examples", _invalid_examples, f"{CARLINI}, section 4.8"),
    Rule("attacked-as-trained", _attacked_as_trained, f"{CARLINI}, section 3.2"),
    Rule("beaten-by-reference", _beaten_by_reference, "Croce & Hein 2020: a worst case over weak attacks is none"),
    Rule("few-examples", _few_examples, f"{CARLINI}, section 4.9"),
    Rule("no-strong-attack", _no_strong_attack, "Croce & Hein 2020"),
)
"""On what numbers are worth."""
