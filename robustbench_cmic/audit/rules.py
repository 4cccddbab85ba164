"""The rules of the audit: each a pure function from a case to the flags that it raises.

Thresholds are chosen so that chance raises no flag: a paired comparison has to differ by `POINTS` of the examples, with
an exact one-sided p (McNemar) of at most `ALPHA`; a defect of the model has to concern a tenth of the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robustbench_cmic.audit.case import Case, Row
from robustbench_cmic.audit.flags import Flag
from robustbench_cmic.record_schema import Check, Gradients
from robustbench_cmic.statistics import discordant, mcnemar, wilson_interval
from robustbench_cmic.suite.numbers import radius

ALPHA = 0.001
POINTS = 0.02
MARGIN_POINTS = 0.15
"""Between cross entropy and margin: with label smoothing honest models differ by up to 12 points, too."""
TENTH = 0.1
ACTIVE = 0.95
"""Zimmermann et al. 2022: the success rate that an attack should reach; flagged where it is clearly below."""
MIN_TESTED = 16
MIN_EXAMPLES = 100
SURVIVORS = 0.05

Rule = Callable[[Case], Iterator[Flag]]


def _beats(strong: int, weak: int, n: int, points: float) -> tuple[bool, str]:
    """Whether outcomes `strong` have clearly fewer survivors than `weak`, both of n examples, and by how much."""
    only_weak, only_strong = discordant(weak, strong)
    p = mcnemar(only_weak, only_strong, "greater")
    clear = (only_weak - only_strong) / n >= points and p <= ALPHA
    shown = f"{100 * strong.bit_count() / n:.1f} % against {100 * weak.bit_count() / n:.1f} % of {n}, p = {p:.1g}"
    return clear, shown


def forward_pass(case: Case) -> Iterator[Flag]:
    """Outputs that depend on chance, on the batch, or on a mode that should be off."""
    if case.probe is None or case.probe.forward_pass is None:
        return
    n, facts = len(case.probe.positions), case.probe.forward_pass
    if facts.repeat:
        yield Flag("random-forward", case.every_cell(), True, f"{facts.repeat} of {n} examples")
    elif facts.companions:
        yield Flag("batch-dependent", case.every_cell(), True, f"{facts.companions} of {n} examples")
    if facts.training:
        yield Flag("training-mode", case.every_cell(), True, f"layers: {', '.join(facts.training[:3])}")


def outputs(case: Case) -> Iterator[Flag]:
    """Outputs that are no logits, are flattened, or lie so far apart that float32 rounds their softmax to 1."""
    if case.probe is None or case.probe.outputs is None:
        return
    n, facts = len(case.probe.positions), case.probe.outputs
    if facts.probabilities:
        yield Flag("probabilities", case.attacked(), True, f"all {n} outputs are at least 0 and add up to 1")
    if facts.at_bound >= max(2, TENTH * n):
        yield Flag("bounded-outputs", case.attacked(), True, f"{facts.at_bound} of {n} examples")
    if facts.saturated >= TENTH * n:
        evidence = f"{facts.saturated} of {n} examples; the median lead is {facts.median_lead:.3g}"
        yield Flag("saturated", case.cross_entropy_rows(), False, evidence)


def gradients(case: Case) -> Iterator[Flag]:
    """Gradients that are 0, NaN, missing, or not those of the model."""
    for facts in case.probe.gradients if case.probe else []:
        whole = facts.loss == "margin"
        cells = case.attacked() if whole else case.cross_entropy_rows()
        lost = facts.zero + facts.bad
        if facts.error:
            yield Flag("zero-gradients", case.attacked(), True, f"of the loss {facts.loss}: {facts.error}")
        elif facts.n and lost >= TENTH * facts.n:
            yield Flag("zero-gradients", cells, whole, f"of the loss {facts.loss}: {_lost(facts)}")
        elif whole and facts.unhelpful >= max(2, TENTH * facts.n):
            yield Flag("misleading-gradients", cells, whole, f"{facts.unhelpful} of {facts.n} examples")


def _lost(facts: Gradients) -> str:
    return f"{facts.zero} zero and {facts.bad} not finite of {facts.n} examples"


def one_step(case: Case) -> Iterator[Flag]:
    """A one-step attack against iterated ones."""
    for rows in case.balls().values():
        for strong in rows:
            for weak in rows:
                if strong.one_step and weak.search:
                    clear, shown = _beats(strong.bits, weak.bits, weak.n, POINTS)
                    if clear:
                        yield _row_flag("one-step-beats-iterated", weak, f"{strong.cell.attack} {shown}")


def black_box(case: Case) -> Iterator[Flag]:
    """Attacks that know nothing of the gradients, against those that follow them."""
    for ball, rows in case.balls().items():
        blind = [row for row in rows if row.black_box]
        seeing = [row for row in rows if row.search]
        for weak in seeing:
            for strong in blind:
                clear, shown = _beats(strong.bits, weak.bits, weak.n, POINTS)
                if clear:
                    yield _row_flag("black-box-beats-white-box", weak, f"{strong.cell.attack} {shown}")
            for check, bits in case.checks("noise"):
                if (check.norm, check.eps) == ball and case.probe is not None:
                    clear, shown = _beats(bits, weak.at(case.probe.positions), len(case.probe.positions), POINTS)
                    if clear:
                        yield _row_flag("black-box-beats-white-box", weak, f"noise {shown}")
        yield from _beyond_all(case, blind, seeing)
        yield from _square(case, rows)


def _beyond_all(case: Case, blind: list[Row], seeing: list[Row]) -> Iterator[Flag]:
    """What survives every attack with gradients together, and still falls to one without."""
    if not seeing:
        return
    survivors = -1
    for row in seeing:
        survivors &= row.bits
    n = seeing[0].n
    for strong in blind:
        more = survivors & ~strong.bits
        if more.bit_count() >= max(3, POINTS * n):
            evidence = f"{strong.cell.attack} breaks {more.bit_count()} of {n} that all attacks with gradients leave"
            yield Flag("black-box-beats-white-box", case.attacked(), True, evidence)


def _square(case: Case, rows: list[Row]) -> Iterator[Flag]:
    """AutoAttack's random search comes last: what it breaks, three attacks with gradients left."""
    for row in rows:
        for part in row.record.parts:
            if part.name == "Square" and part.broken >= max(3, POINTS * row.n):
                evidence = f"Square breaks {part.broken} of {row.n} that APGD and FAB leave"
                yield Flag("black-box-beats-white-box", case.attacked(), True, evidence)


def margin_loss(case: Case) -> Iterator[Flag]:
    """The same attack on cross entropy and on the margin: of the suite, or with the audit's own on its examples."""
    for rows in case.balls().values():
        for weak in rows:
            for strong in rows:
                if weak.on_cross_entropy and _differ_in_loss(weak, strong):
                    clear, shown = _beats(strong.bits, weak.bits, weak.n, MARGIN_POINTS)
                    if clear:
                        yield _row_flag("margin-beats-cross-entropy", weak, f"{strong.cell.attack} {shown}")
    for check, weak, shown in _stronger_checks(case, "other-loss", MARGIN_POINTS):
        yield _row_flag("margin-beats-cross-entropy", weak, f"on the {check.attack['loss']} {shown}")


def _differ_in_loss(first: Row, second: Row) -> bool:
    ours, theirs = first.setting, second.setting
    if ours["name"] != theirs["name"] or "loss" not in ours:
        return False
    ignored = ("loss", "early_stop", "ascending")
    same = all(value == theirs.get(key) for key, value in ours.items() if key not in ignored)
    return same and theirs["loss"] != "ce"


def _stronger_checks(case: Case, name: str, points: float) -> Iterator[tuple[Check, Row, str]]:
    """The audit's attacks of one kind that break clearly more than the attack of the suite that they mirror."""
    for check, bits in case.checks(name):
        weak = case.mirrored(check)
        if weak is not None and case.probe is not None:
            positions = case.probe.positions
            clear, shown = _beats(bits, weak.at(positions), len(positions), points)
            if clear:
                yield check, weak, shown


def monotone(case: Case) -> Iterator[Flag]:
    """An iterated attack in balls of growing size."""
    rows = [row for row in case.rows if row.search]
    for small in rows:
        for large in rows:
            same = (small.cell.attack, small.cell.norm) == (large.cell.attack, large.cell.norm)
            if same and small.cell.eps < large.cell.eps:
                clear, shown = _beats(small.bits, large.bits, large.n, POINTS)
                if clear:
                    yield _row_flag("not-monotone", large, f"at eps {radius(small.cell.eps)} {shown}")


def huge_ball(case: Case) -> Iterator[Flag]:
    """Survivors where there should be none; 1 in 20 is forgiven."""
    for check, bits in case.checks("huge"):
        n = len(case.probe.positions) if case.probe else 0
        low, _ = wilson_interval(bits.bit_count(), n)
        if low > SURVIVORS:
            whole = check.attack["loss"] != "ce"
            cells = case.attacked() if whole else case.cross_entropy_rows()
            evidence = f"{bits.bit_count()} of {n} examples survive PGD on {check.attack['loss']} at eps {check.eps:g}"
            yield Flag("survives-everything", cells, whole, evidence)


def converged(case: Case) -> Iterator[Flag]:
    """An attack with twice the steps and a further start; where it breaks more, the attack is flagged at every eps."""
    for check, weak, shown in _stronger_checks(case, "longer", POINTS):
        same = [row for row in case.rows if (row.cell.attack, row.cell.norm) == (weak.cell.attack, weak.cell.norm)]
        evidence = (
            f"{check.attack['steps']} steps, {check.attack['restarts']} starts at eps {radius(check.eps)}: {shown}"
        )
        yield Flag("not-converged", frozenset(row.cell.id for row in same), False, evidence)


def active(case: Case) -> Iterator[Flag]:
    """Attacks that do not find what was put there; where one of them does, the others are too weak, not the model."""
    tests = [test for test in case.probe.active if test.error or test.tested >= MIN_TESTED] if case.probe else []
    failed = [test for test in tests if test.error or wilson_interval(test.found, test.tested)[1] < ACTIVE]
    for test in failed:
        whole = len(failed) == len(tests)
        rows = frozenset(row.cell.id for row in case.rows if row.cell.attack == test.of)
        evidence = f"{test.of} at eps {radius(test.eps)}: {test.error or f'found {test.found} of {test.tested}'}"
        yield Flag("active-test-failed", case.attacked() if whole else rows, whole, evidence)


def invalid(case: Case) -> Iterator[Flag]:
    """Examples outside ball or box."""
    for row in case.rows:
        if row.record.outside:
            yield _row_flag("invalid-examples", row, f"{row.record.outside} of {row.n} examples")


def as_trained(case: Case) -> Iterator[Flag]:
    """The attack of an adversarial training, again."""
    objective = case.training.declared["objective"] or {}
    adversary = objective.get("adversary")
    if adversary is None:
        return
    for row in case.rows:
        own = row.setting
        steps = 1 if own["name"] == "FGSM" else own.get("steps", 0)
        native = own["name"] in ("FGSM", "PGD") and own["loss"] == adversary["loss"] and not own.get("targets")
        # One step against a training with many is weaker, but not the attack that it was trained on.
        as_long = steps == adversary["steps"] or 1 < steps < adversary["steps"]
        if native and row.cell.norm == adversary["norm"] and as_long:
            evidence = f"trained with {adversary['steps']} steps on {adversary['loss']}, attacked with {steps}"
            yield _row_flag("attacked-as-trained", row, evidence)


def enough_examples(case: Case) -> Iterator[Flag]:
    """Numbers that are too small to claim anything."""
    few = [row for row in case.rows if row.n < MIN_EXAMPLES]
    if few:
        yield Flag("few-examples", frozenset(row.cell.id for row in few), True, f"{few[0].n} examples")


def _row_flag(name: str, row: Row, evidence: str) -> Flag:
    return Flag(name, frozenset({row.cell.id}), False, evidence)


ALL: tuple[Rule, ...] = (
    forward_pass,
    outputs,
    gradients,
    one_step,
    black_box,
    margin_loss,
    monotone,
    huge_ball,
    converged,
    active,
    invalid,
    as_trained,
    enough_examples,
)
