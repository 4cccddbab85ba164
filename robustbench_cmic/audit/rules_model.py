"""The rules of the audit on what its probes found of the model: a defect has to concern a tenth of the examples."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.audit.case import ATHALYE, CARLINI, AuditedModel, Finding, Rule, ids
from robustbench_cmic.records.probed import Forward, Gradients, Outputs
from robustbench_cmic.records.schema import ActiveTest
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.fields import Threat, format_eps
from robustbench_cmic.suite.schema import attack_of

TENTH = 0.1
ON_RIDGES = 0.25
"""The share of examples on which a step from where an attack has ended may fail to raise the margin.

Attacks end on ridges, where the way up ends. Of 17 networks on MNIST and 34 honest ones on digits, at most 21 of 128
examples were there; at clean images and random points at most 4.
"""
FOUND = 0.8
"""The success rate that an attack should reach in a binarization test; flagged where it is clearly below.

Zimmermann et al. 2022 ask for 0.95, of attacks with many more steps. With 40 steps, on digits, attacks find at least
95 % on 20 of 21 honest networks, and 40 of 46 on the other, trained against PGD at 0.3, in that ball. Without the
gradient of half the pixels they find 2 to 10 of 48 in L-inf balls, and 44 to 46 in an L2 ball.
"""
MIN_TESTED = 16
PLACES = {"clean": "clean images", "random": "random points", "attacked": "attacked images"}


def _many(count: int, n: int, share: float = TENTH) -> bool:
    """That share, and more than one."""
    return count >= max(2, share * n)


def _forward(model: AuditedModel) -> Forward:
    return (model.probe and model.probe.forward_pass) or Forward(repeat=0, companions=0, training=[])


def _outputs(model: AuditedModel) -> Outputs:
    probed = model.probe and model.probe.outputs
    return probed or Outputs(probabilities=False, saturated=0, at_bound=0, median_lead=0.0)


def _random_forward(model: AuditedModel) -> Iterator[Finding]:
    """The same image gives other outputs each time: attacks that do not average over draws (`samples`) aim at noise."""
    if differ := _forward(model).repeat:
        yield ids(model.evaluations), "model", f"{differ} of {len(model.positions)} examples"


def _batch_dependent(model: AuditedModel) -> Iterator[Finding]:
    """An image's output, or its gradient, depends on the other images of its batch or on how many they are: there is no
    classifier of one image to attack.
    """
    facts, n = _forward(model), len(model.positions)
    if facts.repeat:  # what differs by chance differs with other companions, too
        return
    if facts.companions:
        yield ids(model.evaluations), "model", f"{facts.companions} of {n} examples"
    elif _many(facts.companion_gradients, n):  # few may lie on kinks
        yield model.attacked, "model", f"{facts.companion_gradients} of {n} examples, in their gradients"


def _inconsistent_forward(model: AuditedModel) -> Iterator[Finding]:
    """An image's output depends on whether gradients are asked for, or on which copy of the model is: what is attacked
    is not what is judged.
    """
    facts, n = _forward(model), len(model.positions)
    found = {"with gradients": facts.grad_mode, "on a copy": facts.copies}
    if not facts.repeat and any(found.values()):
        evidence = ", ".join(f"{how} {count} of {n} examples" for how, count in found.items() if count)
        yield ids(model.evaluations), "model", evidence


def _training_mode(model: AuditedModel) -> Iterator[Finding]:
    """Layers stay in training mode when the model is told to evaluate: what is attacked is not what is deployed."""
    if layers := _forward(model).training:
        yield ids(model.evaluations), "model", f"layers: {', '.join(layers[:3])}"


def _probabilities(model: AuditedModel) -> Iterator[Finding]:
    """The model returns probabilities, not logits: a loss takes their softmax again, and its gradient fades."""
    if _outputs(model).probabilities:
        yield model.attacked, "model", f"all {len(model.positions)} outputs are at least 0 and add up to 1"


def _bounded_outputs(model: AuditedModel) -> Iterator[Finding]:
    """Many images share one and the same largest output: a squashing function has flattened the outputs, and their
    gradient.
    """
    n, at_bound = len(model.positions), _outputs(model).at_bound
    if _many(at_bound, n):
        yield model.attacked, "model", f"{at_bound} of {n} examples"


def _saturated(model: AuditedModel) -> Iterator[Finding]:
    """The softmax of many images is exactly 1 in float32: cross entropy has lost the part of its gradient that belongs
    to the true class, and attacks on it step in a wrong direction.
    """
    n, facts = len(model.positions), _outputs(model)
    if not n or facts.saturated < TENTH * n:
        return
    evidence = f"{facts.saturated} of {n} examples; the median lead is {facts.median_lead:.3g}"
    # Of two classes the other one's half, where it is not rounded away as well, shows in the same direction.
    for gradient in (one for one in _gradients(model) if one.astray is not None):
        if not _many(gradient.astray or 0, gradient.n):
            return
        evidence += f"; the step is wrong for {gradient.astray} of {gradient.n}"
    yield *model.reached(whole=False), evidence


def _lost(facts: Gradients) -> bool:
    """Gradients that are 0, NaN or missing."""
    return bool(facts.error or (facts.n and facts.zero + facts.bad >= TENTH * facts.n))


def _gradients(model: AuditedModel) -> list[Gradients]:
    return model.probe.gradients if model.probe else []


def _zero_gradients(model: AuditedModel) -> Iterator[Finding]:
    """The loss has no gradient in the image, or is a staircase, flat but for its steps: no attack that follows it can
    move.
    """
    for facts in filter(_lost, _gradients(model)):
        lost = facts.error or f"{facts.zero} zero and {facts.bad} not finite of {facts.n} examples"
        whole = bool(facts.error) or facts.loss == "margin"
        yield *model.reached(whole), f"of the loss {facts.loss}: {lost}"
    stairs = [facts for facts in model.probe.derivatives if _many(facts.stairs, facts.n)] if model.probe else []
    if stairs and not any(_lost(facts) for facts in _gradients(model)):
        found = ", ".join(f"{facts.stairs} of {facts.n} {PLACES[facts.place]}" for facts in stairs)
        yield model.attacked, "model", f"a staircase: {found}"


def _misleading_gradients(model: AuditedModel) -> Iterator[Finding]:
    """The gradient of the margin is not its slope, or a small step along it does not raise the margin: the gradient is
    not that of the model.
    """
    if any(_lost(facts) for facts in _gradients(model) if facts.loss == "margin"):
        return
    found = [
        f"{facts.unhelpful} of {facts.n} examples"
        for facts in _gradients(model)
        if facts.loss == "margin" and _many(facts.unhelpful, facts.n)
    ]
    for facts in model.probe.derivatives if model.probe else []:
        share = ON_RIDGES if facts.place == "attacked" else TENTH
        for what, count, least in (("not the slope", facts.wrong, TENTH), ("no rise", facts.unhelpful, share)):
            if _many(count, facts.n, least):
                found.append(f"{what} for {count} of {facts.n} {PLACES[facts.place]}")
    if found:
        yield model.attacked, "model", "; ".join(found)


def _tests(model: AuditedModel) -> list[ActiveTest]:
    return [test for test in model.probe.active if not test.error] if model.probe else []


def _test_failed(model: AuditedModel) -> Iterator[Finding]:
    """The model was altered so that an adversarial example certainly is in the ball; the attack did not find it."""
    # Where one of the attacks finds what was put there, the others are too weak, not the model.
    tests = [test for test in _tests(model) if test.tested >= MIN_TESTED]
    failed = [test for test in tests if wilson_interval(test.found, test.tested)[1] < FOUND]
    # Nor does it say anything of the model that steps did not go where they cannot reach.
    able = [test for test in tests if _short_of_edge(test) is None]
    for test in failed:
        short = _short_of_edge(test)
        evidence = f"{test.of} at eps {format_eps(test.eps)}: found {test.found} of {test.tested}"
        if short is not None:
            yield _cells_of(model, test.of), "rows", f"{evidence}; its steps go {short:.3g} in all"
        elif all(test in failed for test in able):
            yield model.attacked, "model", evidence
        else:
            yield _cells_of(model, test.of), "rows", evidence


def _short_of_edge(test: ActiveTest) -> float | None:
    """How far the tested attack's steps go, where that is not as far as the edge of the ball."""
    attack = attack_of(test.attack, Threat(test.norm, test.eps))
    return None if attack is None or attack.reaches_edge else attack.reach


def _test_inconclusive(model: AuditedModel) -> Iterator[Finding]:
    """Around too few images an adversarial example could be hidden that chance does not find: nobody knows whether the
    attack finds what is there.
    """
    for test in _tests(model):
        # Of a model that classifies so few images correctly nothing is claimed that could be too high.
        if test.tested < MIN_TESTED and (test.tried is None or test.tried >= MIN_TESTED):
            left = f"{test.tested} images, and {test.by_chance} left to chance"
            yield _cells_of(model, test.of), "rows", f"{test.of} at eps {format_eps(test.eps)}: {left}"


def _cells_of(model: AuditedModel, attack: str) -> frozenset[str]:
    return ids(row for row in model.rows if row.cell.attack == attack)


def _crashed(model: AuditedModel) -> Iterator[Finding]:
    """The audit of the model, or of one attack on it, crashed: a crash proves nothing."""
    if model.probe is not None:
        crashed = [(check.of, f"{check.check} {check.of}".strip(), check.error) for check in model.probe.checks]
        crashed += [(test.of, f"binarization test of {test.of}", test.error) for test in model.probe.active]
        lost: dict[str, dict[str, str]] = {}
        for of, what, error in crashed:
            if error:
                lost.setdefault(of, {}).setdefault(what, error)
        for of, errors in lost.items():
            evidence = f"{', '.join(errors)}: {next(iter(errors.values()))}"
            # What tries an attack of the suite in other ways tells of that attack alone: it may be an impossible one.
            yield (_cells_of(model, of), "rows", evidence) if of else (model.attacked, "model", evidence)


def gave_nothing(model: AuditedModel) -> Iterator[Finding]:
    """Without a probe nothing may pass for audited: `audit-failed`, too."""
    if model.probe is None and model.audit is not None:
        yield model.attacked, "model", model.audit.reason or "it was made on other examples"


def _not_audited(model: AuditedModel) -> Iterator[Finding]:
    """The audit of the model has not been run."""
    if model.audit is None:
        yield model.attacked, "model", ""


PROBE_RULES = (
    Rule("random-forward", _random_forward, f"{ATHALYE} (stochastic gradients)"),
    Rule("batch-dependent", _batch_dependent, f"{CARLINI}, section 5"),
    Rule("inconsistent-forward", _inconsistent_forward, f"{CARLINI}, section 5"),
    Rule("training-mode", _training_mode, f"{CARLINI}, section 5"),
    Rule("probabilities", _probabilities, "Carlini & Wagner 2017, section VIII-A"),
    Rule("bounded-outputs", _bounded_outputs, f"{ATHALYE} (vanishing gradients)"),
    Rule("saturated", _saturated, "Carlini & Wagner 2016, Defensive Distillation is Not Robust; Yu & Xu 2023"),
    Rule("zero-gradients", _zero_gradients, f"{ATHALYE} (shattered and vanishing gradients)"),
    Rule("misleading-gradients", _misleading_gradients, f"{ATHALYE} (shattered gradients); {CARLINI}, section 4.4"),
)
"""On the forward pass, the outputs and the gradients."""
TEST_RULES = (
    Rule("active-test-failed", _test_failed, "Zimmermann et al. 2022"),
    Rule(
        "active-test-inconclusive", _test_inconclusive, "Zimmermann et al. 2022, on the success rate of random points"
    ),
)
"""On binarization tests."""
AUDIT_RULES = (
    Rule("audit-failed", _crashed, "this project"),
    Rule("not-audited", _not_audited, "this project"),
)
"""On the audit itself."""
