"""The rules of the audit on attacks, one against another and against the audit's own.

Thresholds are chosen so that chance raises no flag: a paired comparison has to differ by `POINTS` of the examples, with
an exact one-sided p (McNemar) of at most `ALPHA`. On the 128 examples of a standard audit that takes at least 10
examples, 8 points: what differs by less passes unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from robustbench_cmic.audit.case import AttackResult, AuditedModel, CheckResult
from robustbench_cmic.audit.flags import ATHALYE, CARLINI, Finding, Rule
from robustbench_cmic.audit.rules_model import scope_of
from robustbench_cmic.statistics import discordant_pairs, mcnemar, wilson_interval
from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.attacks import FGSM, PGD, IteratedAttack
from robustbench_cmic.suite.fields import format_eps
from robustbench_cmic.suite.objectives import Adversary

if TYPE_CHECKING:
    from robustbench_cmic.audit.case import Correct

ALPHA = 0.001
POINTS = 0.02
MARGIN_POINTS = 0.15
"""Between cross entropy and margin: with label smoothing honest models differ by up to 12 points, too."""
MIN_EXAMPLES = 100
SURVIVORS = 0.05


def _ids(rows: Iterable[AttackResult]) -> frozenset[str]:
    return frozenset(row.cell.id for row in rows)


def _about(row: AttackResult, evidence: str) -> Finding:
    return Finding(frozenset({row.cell.id}), "rows", evidence)


def _lead(strong: Correct, weak: Correct, points: float) -> str | None:
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
    for rows in model.by_threat.values():
        for strong in rows:
            for weak in rows:
                if strong.one_step and weak.search:
                    lead = _lead(strong.correct, weak.correct, POINTS)
                    if lead is not None:
                        yield _about(weak, f"{strong.cell.attack} {lead}")


def _black_box_beats_white_box(model: AuditedModel) -> Iterator[Finding]:
    """Attacks that know nothing of the gradients, against those that follow them."""
    positions = [] if model.probe is None else model.probe.positions
    noise = model.checks("noise")
    for threat, rows in model.by_threat.items():
        blind = [row for row in rows if row.black_box]
        seeing = [row for row in rows if row.search]
        for weak in seeing:
            for strong in blind:
                lead = _lead(strong.correct, weak.correct, POINTS)
                if lead is not None:
                    yield _about(weak, f"{strong.cell.attack} {lead}")
            for check in noise:
                lead = _lead(check.correct, weak.at(positions), POINTS) if check.attack.threat == threat else None
                if lead is not None:
                    yield _about(weak, f"noise {lead}")
        yield from _beyond_all(blind, seeing)
        yield from _square(rows)


def _beyond_all(blind: list[AttackResult], seeing: list[AttackResult]) -> Iterator[Finding]:
    """What survives every attack with gradients together, and still falls to one without."""
    if not seeing or len({row.n for row in (*blind, *seeing)}) > 1:
        return
    n = seeing[0].n
    survivors = seeing[0].correct.copy()
    for row in seeing:
        survivors &= row.correct
    for strong in blind:
        more = int((survivors & ~strong.correct).sum())
        if more >= max(3, POINTS * n):
            evidence = f"{strong.cell.attack} breaks {more} of {n} that all attacks with gradients leave"
            yield Finding(_ids([*blind, *seeing]), "balls", evidence)


def _square(rows: list[AttackResult]) -> Iterator[Finding]:
    """AutoAttack's random search comes last: what it breaks, three attacks with gradients left."""
    for row in rows:
        for part in row.record.parts:
            if part.name == "Square" and part.broken >= max(3, POINTS * row.n):
                yield Finding(_ids(rows), "balls", f"Square breaks {part.broken} of {row.n} that APGD and FAB leave")


def _margin_beats_cross_entropy(model: AuditedModel) -> Iterator[Finding]:
    """The same attack on cross entropy and on the margin: of the suite, or with the audit's own on its examples."""
    for rows in model.by_threat.values():
        for weak in (row for row in rows if row.on_cross_entropy):
            for strong in rows:
                lead = _lead(strong.correct, weak.correct, MARGIN_POINTS) if _differ_in_loss(weak, strong) else None
                if lead is not None:
                    yield _about(weak, f"{strong.cell.attack} {lead}")
    for check, weak, lead in _stronger_checks(model, "other-loss", MARGIN_POINTS):
        yield _about(weak, f"on the {check.attack.raised_loss} {lead}")


def _differ_in_loss(first: AttackResult, second: AttackResult) -> bool:
    if first.attack is None or second.attack is None or second.attack.raised_loss == "ce":
        return False
    return first.attack.same_but_for_loss(second.attack)


def _stronger_checks(model: AuditedModel, name: str, points: float) -> Iterator[tuple[CheckResult, AttackResult, str]]:
    """The audit's attacks of one kind that break clearly more than the attack of the suite that they mirror."""
    for check in model.checks(name):
        weak = model.mirrored(check)
        if weak is not None and model.probe is not None:
            lead = _lead(check.correct, weak.at(model.probe.positions), points)
            if lead is not None:
                yield check, weak, lead


def _family(model: AuditedModel, one: AttackResult) -> list[AttackResult]:
    """The same attack in all balls of its norm."""
    return [row for row in model.rows if (row.cell.attack, row.cell.norm) == (one.cell.attack, one.cell.norm)]


def _not_monotone(model: AuditedModel) -> Iterator[Finding]:
    """An iterated attack in balls of growing size."""
    for large in (row for row in model.rows if row.search):
        smaller = [row for row in _family(model, large) if row.search and row.cell.eps < large.cell.eps]
        # One flag a number, by the smaller ball that tells most.
        for small in sorted(smaller, key=lambda row: int(row.correct.sum())):
            lead = _lead(small.correct, large.correct, POINTS)
            if lead is not None:
                yield _about(large, f"at eps {format_eps(small.cell.eps)} {lead}")
                break


def _survives_everything(model: AuditedModel) -> Iterator[Finding]:
    """Survivors where there should be none; 1 in 20 is forgiven."""
    for check in model.checks("huge"):
        n, survivors = len(check.correct), int(check.correct.sum())
        if wilson_interval(survivors, n)[0] > SURVIVORS:
            whole = not check.attack.raises_cross_entropy
            cells = model.attacked() if whole else model.cross_entropy_rows()
            attack = f"PGD on {check.attack.raised_loss} at eps {check.attack.threat.eps:g}"
            yield Finding(cells, scope_of(whole), f"{survivors} of {n} examples survive {attack}")


def _not_converged(model: AuditedModel) -> Iterator[Finding]:
    """An attack with twice the steps and a further start; where it breaks more, the attack is flagged at every eps."""
    for check, weak, lead in _stronger_checks(model, "longer", POINTS):
        evidence = f"{_budget(check.attack)} at eps {format_eps(check.attack.threat.eps)}: {lead}"
        yield Finding(_ids(_family(model, weak)), "rows", evidence)


def _budget(attack: Attack) -> str:
    return f"{attack.steps} steps, {attack.restarts} starts" if isinstance(attack, IteratedAttack) else attack.name


def _beaten_by_reference(model: AuditedModel) -> Iterator[Finding]:
    """All attacks of the suite in a ball together, against the audit's own attack there."""
    positions = [] if model.probe is None else model.probe.positions
    for check in model.checks("reference"):
        rows = model.by_threat.get(check.attack.threat, [])
        if rows:
            together = rows[0].at(positions)
            for row in rows:
                together = together & row.at(positions)
            lead = _lead(check.correct, together, POINTS)
            if lead is not None:
                yield Finding(_ids(rows), "balls", f"{_budget(check.attack)} on the margin: {lead}")


def _invalid_examples(model: AuditedModel) -> Iterator[Finding]:
    for row in model.rows:
        if row.record.outside:
            yield _about(row, f"{row.record.outside} of {row.n} examples")


def _attacked_as_trained(model: AuditedModel) -> Iterator[Finding]:
    declared = (model.training.declared["objective"] or {}).get("adversary")
    if declared is None:
        return
    adversary = Adversary.model_validate(declared)
    for row in model.rows:
        if isinstance(row.attack, FGSM | PGD) and row.cell.norm == adversary.norm:
            search = row.attack.search
            same = search.loss == adversary.loss and search.targets == 0
            # One step against a training with many is weaker, but not the attack that it was trained on.
            as_long = search.steps == adversary.steps or 1 < search.steps < adversary.steps
            if same and as_long:
                trained = f"trained with {adversary.steps} steps on {adversary.loss}"
                yield _about(row, f"{trained}, attacked with {search.steps}")


def _few_examples(model: AuditedModel) -> Iterator[Finding]:
    few = [row for row in model.rows if row.n < MIN_EXAMPLES]
    if few:
        yield Finding(_ids(few), "balls", f"{few[0].n} examples")


COMPARISON_RULES = (
    Rule(
        "one-step-beats-iterated",
        "One step of an attack breaks more than many steps do: the iterated attack is misled.",
        f"{ATHALYE} (one-step attacks perform better than iterative attacks)",
        _one_step_beats_iterated,
    ),
    Rule(
        "black-box-beats-white-box",
        "Noise, another model's examples, random search or an attack of unknown kind break what attacks with full "
        "knowledge leave: the gradients hide what is there.",
        f"{ATHALYE} (black-box attacks are better than white-box attacks)",
        _black_box_beats_white_box,
    ),
    Rule(
        "margin-beats-cross-entropy",
        "The same attack on the margin between logits breaks clearly more than on cross entropy: the number is one of "
        "the loss, not of the model.",
        "Gowal et al. 2019; Croce & Hein 2020, section 4",
        _margin_beats_cross_entropy,
    ),
    Rule(
        "not-monotone",
        "A larger ball holds every smaller one, yet the attack breaks fewer examples in it.",
        f"{CARLINI}, section 4.6",
        _not_monotone,
    ),
    Rule(
        "survives-everything",
        "Examples survive in a ball that holds every image there is, where each can be turned into any other.",
        f"{ATHALYE} (unbounded attacks do not reach 100 % success)",
        _survives_everything,
    ),
    Rule(
        "not-converged",
        "Twice the steps and a further start break clearly more: the attack was stopped too early.",
        f"{CARLINI}, section 4.7",
        _not_converged,
    ),
)
"""On one attack against another."""
NUMBER_RULES = (
    Rule(
        "invalid-examples",
        "The attack left ball or box; its examples were projected back, and may be weaker than what it found.",
        f"{CARLINI}, section 4.8",
        _invalid_examples,
    ),
    Rule(
        "attacked-as-trained",
        "The attack is the one that the model was trained against: the number shows training, not robustness.",
        f"{CARLINI}, section 3.2",
        _attacked_as_trained,
    ),
    Rule(
        "beaten-by-reference",
        "The audit's own attack, the same for all models, breaks clearly more than all attacks of the suite together.",
        "Croce & Hein 2020: a worst case over weak attacks is none",
        _beaten_by_reference,
    ),
    Rule(
        "few-examples",
        "Fewer than 100 examples: an interval of ten points to either side at best.",
        f"{CARLINI}, section 4.9",
        _few_examples,
    ),
    Rule(
        "no-strong-attack",
        "No unflagged attack with many steps on another loss than cross entropy was run in this ball: the worst case "
        "is one of weak attacks.",
        "Croce & Hein 2020",
        lambda _: iter(()),  # a worst case has it, not an attack: see `judge`
    ),
)
"""On what numbers are worth."""
