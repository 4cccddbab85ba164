"""The rules of the audit on what its probes found of the model itself: a defect has to concern a tenth of the examples.

Each is a pure function from a case to the flags that it raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from robustbench_cmic.audit.case import AuditedModel
from robustbench_cmic.audit.flags import Flag
from robustbench_cmic.records.schema import Gradients
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.fields import format_eps

TENTH = 0.1
ACTIVE = 0.8
"""The success rate that an attack should reach; flagged where it is clearly below.

Zimmermann et al. 2022 ask for 0.95, of attacks with many more steps. With 40 steps, on digits, attacks on honest models
find 45 to 48 of 48, and on defences that mask gradients 0 to 20.
"""
MIN_TESTED = 16


def scope_of(whole: bool) -> Literal["rows", "model"]:
    """What a flag reaches that is about the model, or only about attacks on cross entropy."""
    return "model" if whole else "rows"


def forward_pass(case: AuditedModel) -> Iterator[Flag]:
    """Outputs that depend on chance, on the batch, or on a mode that should be off."""
    if case.probe is None or case.probe.forward_pass is None:
        return
    n, facts = len(case.probe.positions), case.probe.forward_pass
    if facts.repeat:
        yield Flag("random-forward", case.every_cell(), "model", f"{facts.repeat} of {n} examples")
    elif facts.companions:
        yield Flag("batch-dependent", case.every_cell(), "model", f"{facts.companions} of {n} examples")
    if facts.training:
        yield Flag("training-mode", case.every_cell(), "model", f"layers: {', '.join(facts.training[:3])}")


def outputs(case: AuditedModel) -> Iterator[Flag]:
    """Outputs that are no logits, are flattened, or lie so far apart that float32 rounds their softmax to 1."""
    if case.probe is None or case.probe.outputs is None:
        return
    n, facts = len(case.probe.positions), case.probe.outputs
    if facts.probabilities:
        yield Flag("probabilities", case.attacked(), "model", f"all {n} outputs are at least 0 and add up to 1")
    if facts.at_bound >= max(2, TENTH * n):
        yield Flag("bounded-outputs", case.attacked(), "model", f"{facts.at_bound} of {n} examples")
    if facts.saturated >= TENTH * n:
        evidence = f"{facts.saturated} of {n} examples; the median lead is {facts.median_lead:.3g}"
        yield Flag("saturated", case.cross_entropy_rows(), "rows", evidence)


def gradients(case: AuditedModel) -> Iterator[Flag]:
    """Gradients that are 0, NaN, missing, or not those of the model."""
    for facts in case.probe.gradients if case.probe else []:
        whole = facts.loss == "margin"
        cells = case.attacked() if whole else case.cross_entropy_rows()
        lost = facts.zero + facts.bad
        if facts.error:
            yield Flag("zero-gradients", case.attacked(), "model", f"of the loss {facts.loss}: {facts.error}")
        elif facts.n and lost >= TENTH * facts.n:
            yield Flag("zero-gradients", cells, scope_of(whole), f"of the loss {facts.loss}: {_lost(facts)}")
        elif whole and facts.unhelpful >= max(2, TENTH * facts.n):
            yield Flag("misleading-gradients", cells, scope_of(whole), f"{facts.unhelpful} of {facts.n} examples")


def _lost(facts: Gradients) -> str:
    return f"{facts.zero} zero and {facts.bad} not finite of {facts.n} examples"


def active(case: AuditedModel) -> Iterator[Flag]:
    """Attacks that do not find what was put there; where one of them does, the others are too weak, not the model."""
    whole_tests = [test for test in case.probe.active if not test.error] if case.probe else []
    tests = [test for test in whole_tests if test.tested >= MIN_TESTED]
    for test in whole_tests:
        if test.tested < MIN_TESTED:
            evidence = (
                f"{test.of} at eps {format_eps(test.eps)}: {test.tested} images, and {test.by_chance} left to chance"
            )
            yield Flag("active-test-inconclusive", _of(case, test.of), "rows", evidence)
    failed = [test for test in tests if wilson_interval(test.found, test.tested)[1] < ACTIVE]
    for test in failed:
        whole = len(failed) == len(tests)
        evidence = f"{test.of} at eps {format_eps(test.eps)}: found {test.found} of {test.tested}"
        reached = case.attacked() if whole else _of(case, test.of)
        yield Flag("active-test-failed", reached, scope_of(whole), evidence)


def _of(case: AuditedModel, attack: str) -> frozenset[str]:
    return frozenset(row.cell.id for row in case.rows if row.cell.attack == attack)


def crashed(case: AuditedModel) -> Iterator[Flag]:
    """Checks and tests that gave nothing."""
    if case.probe is None:
        return
    lost = {f"{check.check} {check.of}".strip(): check.error for check in case.probe.checks if check.error}
    lost |= {f"active test of {test.of}": test.error for test in case.probe.active if test.error}
    if lost:
        yield Flag("audit-failed", case.attacked(), "model", f"{', '.join(lost)}: {next(iter(lost.values()))}")
