"""The rules of the audit on what its probes found of the model: a defect has to concern a tenth of the examples."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.audit.case import AuditedModel
from robustbench_cmic.audit.flags import ATHALYE, CARLINI, Finding, Rule, Scope
from robustbench_cmic.records.schema import ActiveTest, Forward, Outputs
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.fields import format_eps

TENTH = 0.1
FOUND = 0.8
"""The success rate that an attack should reach in a binarization test; flagged where it is clearly below.

Zimmermann et al. 2022 ask for 0.95, of attacks with many more steps. With 40 steps, on digits, attacks on honest models
find 45 to 48 of 48, and on defences that mask gradients 0 to 20.
"""
MIN_TESTED = 16


def scope_of(whole: bool) -> Scope:
    """What a flag reaches that is about the model, or only about attacks on cross entropy."""
    return "model" if whole else "rows"


def _forward(model: AuditedModel) -> Forward:
    probed = None if model.probe is None else model.probe.forward_pass
    return probed or Forward(repeat=0, companions=0, training=[])


def _outputs(model: AuditedModel) -> Outputs:
    probed = None if model.probe is None else model.probe.outputs
    return probed or Outputs(probabilities=False, saturated=0, at_bound=0, median_lead=0.0)


def _probed(model: AuditedModel) -> int:
    return 0 if model.probe is None else len(model.probe.positions)


def _random_forward(model: AuditedModel) -> Iterator[Finding]:
    differ = _forward(model).repeat
    if differ:
        yield Finding(model.every_cell(), "model", f"{differ} of {_probed(model)} examples")


def _batch_dependent(model: AuditedModel) -> Iterator[Finding]:
    facts = _forward(model)
    if facts.companions and not facts.repeat:  # what differs by chance differs with other companions, too
        yield Finding(model.every_cell(), "model", f"{facts.companions} of {_probed(model)} examples")


def _training_mode(model: AuditedModel) -> Iterator[Finding]:
    layers = _forward(model).training
    if layers:
        yield Finding(model.every_cell(), "model", f"layers: {', '.join(layers[:3])}")


def _probabilities(model: AuditedModel) -> Iterator[Finding]:
    if _outputs(model).probabilities:
        yield Finding(model.attacked(), "model", f"all {_probed(model)} outputs are at least 0 and add up to 1")


def _bounded_outputs(model: AuditedModel) -> Iterator[Finding]:
    n, facts = _probed(model), _outputs(model)
    if facts.at_bound >= max(2, TENTH * n):
        yield Finding(model.attacked(), "model", f"{facts.at_bound} of {n} examples")


def _saturated(model: AuditedModel) -> Iterator[Finding]:
    n, facts = _probed(model), _outputs(model)
    if n and facts.saturated >= TENTH * n:
        evidence = f"{facts.saturated} of {n} examples; the median lead is {facts.median_lead:.3g}"
        yield Finding(model.cross_entropy_rows(), "rows", evidence)


def _zero_gradients(model: AuditedModel) -> Iterator[Finding]:
    """Gradients that are 0, NaN or missing."""
    for facts in model.probe.gradients if model.probe else []:
        whole = facts.loss == "margin"
        if facts.error:
            yield Finding(model.attacked(), "model", f"of the loss {facts.loss}: {facts.error}")
        elif facts.n and facts.zero + facts.bad >= TENTH * facts.n:
            lost = f"{facts.zero} zero and {facts.bad} not finite of {facts.n} examples"
            cells = model.attacked() if whole else model.cross_entropy_rows()
            yield Finding(cells, scope_of(whole), f"of the loss {facts.loss}: {lost}")


def _misleading_gradients(model: AuditedModel) -> Iterator[Finding]:
    """Gradients of the margin that are there, and are not those of the model."""
    for facts in model.probe.gradients if model.probe else []:
        lost = facts.error or (facts.n and facts.zero + facts.bad >= TENTH * facts.n)
        if facts.loss == "margin" and not lost and facts.unhelpful >= max(2, TENTH * facts.n):
            yield Finding(model.attacked(), "model", f"{facts.unhelpful} of {facts.n} examples")


def _tests(model: AuditedModel) -> list[ActiveTest]:
    return [test for test in model.probe.active if not test.error] if model.probe else []


def _test_failed(model: AuditedModel) -> Iterator[Finding]:
    """Attacks that do not find what was put there; where one of them does, the others are too weak, not the model."""
    tests = [test for test in _tests(model) if test.tested >= MIN_TESTED]
    failed = [test for test in tests if wilson_interval(test.found, test.tested)[1] < FOUND]
    for test in failed:
        whole = len(failed) == len(tests)
        cells = model.attacked() if whole else _cells_of(model, test.of)
        evidence = f"{test.of} at eps {format_eps(test.eps)}: found {test.found} of {test.tested}"
        yield Finding(cells, scope_of(whole), evidence)


def _test_inconclusive(model: AuditedModel) -> Iterator[Finding]:
    for test in _tests(model):
        if test.tested < MIN_TESTED:
            left = f"{test.tested} images, and {test.by_chance} left to chance"
            yield Finding(_cells_of(model, test.of), "rows", f"{test.of} at eps {format_eps(test.eps)}: {left}")


def _cells_of(model: AuditedModel, attack: str) -> frozenset[str]:
    return frozenset(row.cell.id for row in model.rows if row.cell.attack == attack)


def _crashed(model: AuditedModel) -> Iterator[Finding]:
    """Checks and tests that gave nothing."""
    if model.probe is not None:
        lost = {f"{check.check} {check.of}".strip(): check.error for check in model.probe.checks if check.error}
        lost |= {f"active test of {test.of}": test.error for test in model.probe.active if test.error}
        if lost:
            yield Finding(model.attacked(), "model", f"{', '.join(lost)}: {next(iter(lost.values()))}")


def gave_nothing(model: AuditedModel) -> Iterator[Finding]:
    """Without a probe nothing may pass for audited: `audit-failed`, too."""
    if model.probe is None and model.audit is not None:
        yield Finding(model.attacked(), "model", model.audit.reason or "it was made on other examples")


def _not_audited(model: AuditedModel) -> Iterator[Finding]:
    if model.audit is None:
        yield Finding(model.attacked(), "model", "")


PROBE_RULES = (
    Rule(
        "random-forward",
        "The same image gives other outputs each time: attacks that do not average over the randomness aim at noise.",
        f"{ATHALYE} (stochastic gradients)",
        _random_forward,
    ),
    Rule(
        "batch-dependent",
        "An image's output depends on the other images of its batch: there is no classifier of one image to attack.",
        f"{CARLINI}, section 5",
        _batch_dependent,
    ),
    Rule(
        "training-mode",
        "Layers stay in training mode when the model is told to evaluate: what is attacked is not what is deployed.",
        f"{CARLINI}, section 5",
        _training_mode,
    ),
    Rule(
        "probabilities",
        "The model returns probabilities, not logits: a loss takes their softmax again, and its gradient fades.",
        "Carlini & Wagner 2017, section VIII-A",
        _probabilities,
    ),
    Rule(
        "bounded-outputs",
        "Many images share one and the same largest output: a squashing function has flattened the outputs, and their "
        "gradient.",
        f"{ATHALYE} (vanishing gradients)",
        _bounded_outputs,
    ),
    Rule(
        "saturated",
        "The softmax of many images is exactly 1 in float32: cross entropy has lost the part of its gradient that "
        "belongs to the true class, and attacks on it step in a wrong direction.",
        "Carlini & Wagner 2016, Defensive Distillation is Not Robust; Yu & Xu 2023",
        _saturated,
    ),
    Rule(
        "zero-gradients",
        "The loss has no gradient in the image: no attack that follows it can move.",
        f"{ATHALYE} (shattered and vanishing gradients)",
        _zero_gradients,
    ),
    Rule(
        "misleading-gradients",
        "A small step along the gradient of the margin does not raise the margin: the gradient is not that of the "
        "model.",
        f"{ATHALYE} (shattered gradients); {CARLINI}, section 4.4",
        _misleading_gradients,
    ),
)
"""On the forward pass, the outputs and the gradients."""
TEST_RULES = (
    Rule(
        "active-test-failed",
        "The model was altered so that an adversarial example certainly is in the ball; the attack did not find it.",
        "Zimmermann et al. 2022",
        _test_failed,
    ),
    Rule(
        "active-test-inconclusive",
        "Around too few images an adversarial example could be hidden that chance does not find: nobody knows whether "
        "the attack finds what is there.",
        "Zimmermann et al. 2022, on the success rate of random points",
        _test_inconclusive,
    ),
)
"""On binarization tests."""
AUDIT_RULES = (
    Rule(
        "audit-failed",
        "The audit of the model, or a part of it, crashed: a crash proves nothing.",
        "this project",
        _crashed,
    ),
    Rule("not-audited", "The audit of the model has not been run.", "this project", _not_audited),
)
"""On the audit itself."""
