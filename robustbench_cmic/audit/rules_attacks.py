"""The rules of the audit on attacks: each a pure function from a case to the flags that it raises.

Thresholds are chosen so that chance raises no flag: a paired comparison has to differ by `POINTS` of the examples, with
an exact one-sided p (McNemar) of at most `ALPHA`. On the 128 examples of a standard audit that takes at least 10
examples, 8 points: what differs by less passes unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from robustbench_cmic.audit.case import AttackResult, AuditedModel
from robustbench_cmic.audit.flags import Flag
from robustbench_cmic.audit.rules_model import active, crashed, forward_pass, gradients, outputs, scope_of
from robustbench_cmic.records.schema import Check
from robustbench_cmic.statistics import discordant, mcnemar, wilson_interval
from robustbench_cmic.suite.fields import format_eps

ALPHA = 0.001
POINTS = 0.02
MARGIN_POINTS = 0.15
"""Between cross entropy and margin: with label smoothing honest models differ by up to 12 points, too."""
MIN_EXAMPLES = 100
SURVIVORS = 0.05

Rule = Callable[[AuditedModel], Iterator[Flag]]


def _ids(rows: Iterable[AttackResult]) -> frozenset[str]:
    return frozenset(row.cell.id for row in rows)


def _beats(strong: int, weak: int, n: int, points: float) -> tuple[bool, str]:
    """Whether outcomes `strong` have clearly fewer survivors than `weak`, both of n examples, and by how much."""
    only_weak, only_strong = discordant(weak, strong)
    p = mcnemar(only_weak, only_strong, "greater")
    clear = (only_weak - only_strong) / n >= points and p <= ALPHA
    shown = f"{100 * strong.bit_count() / n:.1f} % against {100 * weak.bit_count() / n:.1f} % of {n}, p = {p:.1g}"
    return clear, shown


def one_step(case: AuditedModel) -> Iterator[Flag]:
    """A one-step attack against iterated ones."""
    for rows in case.balls().values():
        for strong in rows:
            for weak in rows:
                if strong.one_step and weak.search:
                    clear, shown = _beats(strong.bits, weak.bits, weak.n, POINTS)
                    if clear:
                        yield _row_flag("one-step-beats-iterated", weak, f"{strong.cell.attack} {shown}")


def black_box(case: AuditedModel) -> Iterator[Flag]:
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
        yield from _beyond_all(blind, seeing)
        yield from _square(rows)


def _beyond_all(blind: list[AttackResult], seeing: list[AttackResult]) -> Iterator[Flag]:
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
            yield Flag("black-box-beats-white-box", _ids([*blind, *seeing]), "balls", evidence)


def _square(rows: list[AttackResult]) -> Iterator[Flag]:
    """AutoAttack's random search comes last: what it breaks, three attacks with gradients left."""
    for row in rows:
        for part in row.record.parts:
            if part.name == "Square" and part.broken >= max(3, POINTS * row.n):
                evidence = f"Square breaks {part.broken} of {row.n} that APGD and FAB leave"
                yield Flag("black-box-beats-white-box", _ids(rows), "balls", evidence)


def margin_loss(case: AuditedModel) -> Iterator[Flag]:
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


def _differ_in_loss(first: AttackResult, second: AttackResult) -> bool:
    ours, theirs = first.setting, second.setting
    if ours["name"] != theirs["name"] or "loss" not in ours:
        return False
    ignored = ("loss", "early_stop", "ascending")
    same = all(value == theirs.get(key) for key, value in ours.items() if key not in ignored)
    return same and theirs["loss"] != "ce"


def _stronger_checks(case: AuditedModel, name: str, points: float) -> Iterator[tuple[Check, AttackResult, str]]:
    """The audit's attacks of one kind that break clearly more than the attack of the suite that they mirror."""
    for check, bits in case.checks(name):
        weak = case.mirrored(check)
        if weak is not None and case.probe is not None:
            positions = case.probe.positions
            clear, shown = _beats(bits, weak.at(positions), len(positions), points)
            if clear:
                yield check, weak, shown


def monotone(case: AuditedModel) -> Iterator[Flag]:
    """An iterated attack in balls of growing size."""
    rows = [row for row in case.rows if row.search]
    for large in rows:
        same = [row for row in rows if (row.cell.attack, row.cell.norm) == (large.cell.attack, large.cell.norm)]
        smaller = [row for row in same if row.cell.eps < large.cell.eps]
        # One flag a number, by the smaller ball that tells most.
        for small in sorted(smaller, key=lambda row: row.bits.bit_count()):
            clear, shown = _beats(small.bits, large.bits, large.n, POINTS)
            if clear:
                yield _row_flag("not-monotone", large, f"at eps {format_eps(small.cell.eps)} {shown}")
                break


def huge_ball(case: AuditedModel) -> Iterator[Flag]:
    """Survivors where there should be none; 1 in 20 is forgiven."""
    for check, bits in case.checks("huge"):
        n = len(case.probe.positions) if case.probe else 0
        low, _ = wilson_interval(bits.bit_count(), n)
        if low > SURVIVORS:
            whole = check.attack["loss"] != "ce"
            cells = case.attacked() if whole else case.cross_entropy_rows()
            evidence = f"{bits.bit_count()} of {n} examples survive PGD on {check.attack['loss']} at eps {check.eps:g}"
            yield Flag("survives-everything", cells, scope_of(whole), evidence)


def converged(case: AuditedModel) -> Iterator[Flag]:
    """An attack with twice the steps and a further start; where it breaks more, the attack is flagged at every eps."""
    for check, weak, shown in _stronger_checks(case, "longer", POINTS):
        same = [row for row in case.rows if (row.cell.attack, row.cell.norm) == (weak.cell.attack, weak.cell.norm)]
        evidence = (
            f"{check.attack['steps']} steps, {check.attack['restarts']} starts at eps {format_eps(check.eps)}: {shown}"
        )
        yield Flag("not-converged", _ids(same), "rows", evidence)


def reference(case: AuditedModel) -> Iterator[Flag]:
    """All attacks of the suite in a ball together, against the audit's own attack there."""
    if case.probe is None:
        return
    positions = case.probe.positions
    for check, bits in case.checks("reference"):
        rows = case.balls().get((check.norm, check.eps), [])
        if rows:
            together = -1
            for row in rows:
                together &= row.at(positions)
            clear, shown = _beats(bits, together, len(positions), POINTS)
            if clear:
                yield Flag("beaten-by-reference", _ids(rows), "balls", f"{_steps(check)} on the margin: {shown}")


def _steps(check: Check) -> str:
    return f"{check.attack['steps']} steps, {check.attack['restarts']} starts"


def invalid(case: AuditedModel) -> Iterator[Flag]:
    """Examples outside ball or box."""
    for row in case.rows:
        if row.record.outside:
            yield _row_flag("invalid-examples", row, f"{row.record.outside} of {row.n} examples")


def as_trained(case: AuditedModel) -> Iterator[Flag]:
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


def enough_examples(case: AuditedModel) -> Iterator[Flag]:
    """Numbers that are too small to claim anything."""
    few = [row for row in case.rows if row.n < MIN_EXAMPLES]
    if few:
        yield Flag("few-examples", _ids(few), "balls", f"{few[0].n} examples")


def _row_flag(name: str, row: AttackResult, evidence: str) -> Flag:
    return Flag(name, frozenset({row.cell.id}), "rows", evidence)


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
    reference,
    crashed,
    active,
    invalid,
    as_trained,
    enough_examples,
)
