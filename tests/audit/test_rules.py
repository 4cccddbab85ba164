"""Every rule of the audit: a smallest case that raises its flag, and near misses: just below it, or mere chance.

500 examples: two points are 10 of them, and 10 against none is the least that the exact test calls clear (p = 1/1024).
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from robustbench_cmic.audit import RULES, Audit, flag_results
from robustbench_cmic.audit.case import AttackResult
from robustbench_cmic.audit.judge import CHECKED
from robustbench_cmic.audit.rules_attacks import MARGIN_POINTS
from robustbench_cmic.plan.cell import Plan
from robustbench_cmic.records.schema import ActiveTest, AnyRecord, AuditRecord, WithoutNormalization
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.torchattacks import BLACK_BOX, MINIMAL, ONE_STEP, OTHER_LOSS, attack_modules
from tests.audit.worlds import (
    AUTOATTACK,
    FGSM,
    MARGIN,
    NOISE,
    OWN,
    PGD,
    POSITIONS,
    TRAINING,
    TRANSFER,
    N,
    about,
    check,
    forward,
    gradients,
    judged,
    outputs,
    packed,
    probe,
    raised,
    row,
    slopes,
    square,
)

EVERY = [row(FGSM), row(PGD), row(PGD, eps=0.2), row(AUTOATTACK)]
ALL_CELLS = "AutoAttack 0.1, FGSM 0.1, PGD 0.1, PGD 0.2, none 0.1"
ATTACKED = "AutoAttack 0.1, FGSM 0.1, PGD 0.1, PGD 0.2"
ON_CE = "FGSM 0.1, PGD 0.1, PGD 0.2"
ALPHA_2 = MARGIN | {"alpha": 0.02}
ADVERSARY = {"norm": "linf", "eps": 0.1, "alpha": 0.02, "steps": 10, "loss": "ce", "random_start": True}
SCALED = MARGIN | {"loss": "scaled_ce"}
WITHOUT = {"name": "GradientFree", "images": 40, "queries": 200}
SHORT = PGD | {"alpha": 0.0024}
LIBRARY = {"name": "torchattacks.BIM", "alpha": 2 / 255, "steps": 10}
PGDL2 = {"name": "torchattacks.PGDL2", "alpha": 0.2, "steps": 10}
CW = {"name": "torchattacks.CW", "steps": 50}
FEW = probe(positions=list(range(10)))
TEN, NINE = range(10), range(9)
NOISE_FINDS = check("noise", NOISE, TEN)


def enough(n: int) -> int:
    """The least number of n examples by which margin has to beat cross entropy."""
    return math.ceil(MARGIN_POINTS * n)


def places(count: int) -> list[int]:
    """Where the audit's first examples lie among all."""
    return POSITIONS[:count]


def active(
    found: int,
    tested: int = 40,
    of: str = "PGD",
    error: str = "",
    attack: dict[str, Any] = PGD,
    tried: int | None = None,
) -> ActiveTest:
    test = ActiveTest(of=of, norm="linf", eps=0.1, attack=attack, tested=tested, found=found, error=error)
    return test.model_copy(update={"tried": tried})


def blind(broken: int, reference: int = 0, confirmed: int = 0) -> AuditRecord:
    """So many examples fall to attacks without gradients; of them some to the references, some to a longer PGD."""
    made = [check("reference", MARGIN, range(reference)), check("reference", SCALED, [])]
    made += [check("gradient-free", WITHOUT, range(broken))]
    return probe(checks=[*made, check("confirm", MARGIN, range(confirmed)), check("confirm", SCALED, [])])


def given(gained: int, lost: int) -> AttackResult:
    """A clean evaluation of given weights, and how many examples are right without, or only behind, a normalisation."""
    without = WithoutNormalization(accuracy=0.9 + (gained - lost) / 500, gained=gained, lost=lost)
    return row({"name": "none"}, range(50), label="given", accuracy=0.9, without_normalization=without)


def world(
    rows: list[Any] | None = None, found: AuditRecord | None = None, adversary: dict[str, Any] | None = None
) -> Audit:
    return judged(EVERY if rows is None else rows, found or probe(), adversary)


# flag, (what it is about, how far it reaches), a case that raises it, cases that do not
CASES: list[tuple[str, tuple[str, str], Audit, list[Audit]]] = [
    ("random-forward", (ALL_CELLS, "model"), world(found=forward(repeat=1, companions=9)), [world(found=forward())]),
    ("batch-dependent", (ALL_CELLS, "model"), world(found=forward(companions=1)), [world(found=forward())]),
    # What random logits do with other companions says nothing of these; few gradients may lie on kinks.
    ("batch-dependent", (ATTACKED, "model"), world(found=forward(companion_gradients=13)),
     [world(found=forward(companion_gradients=12)), world(found=forward(companion_gradients=13, repeat=1))]),
    ("inconsistent-forward", (ALL_CELLS, "model"), world(found=forward(grad_mode=1)),
     [world(found=forward()), world(found=forward(grad_mode=1, repeat=1))]),
    ("inconsistent-forward", (ALL_CELLS, "model"), world(found=forward(copies=1)),
     [world(found=forward(copies=1, repeat=1))]),
    ("training-mode", (ALL_CELLS, "model"), world(found=forward(training=["bn"])), [world(found=forward())]),
    ("probabilities", (ATTACKED, "model"), world(found=outputs(probabilities=True)), [world(found=outputs())]),
    # A tenth of 128 examples is 12.8; of 10 it is 1, and one example always has the largest output.
    ("bounded-outputs", (ATTACKED, "model"), world(found=outputs(at_bound=13)), [world(found=outputs(at_bound=12))]),
    ("bounded-outputs", (ATTACKED, "model"),
     world(found=outputs(at_bound=2).model_copy(update={"positions": POSITIONS[:10]})),
     [world(found=outputs(at_bound=1).model_copy(update={"positions": POSITIONS[:10]}))]),
    ("saturated", (ON_CE, "rows"), world(found=outputs(saturated=13)),
     [world(found=outputs(saturated=12)), world([row(AUTOATTACK)], outputs(saturated=128))]),
    # Where the step of cross entropy is right all the same, as of two classes, nothing is wrong.
    ("saturated", (ON_CE, "rows"),
     world(found=outputs(saturated=13).model_copy(update={"gradients": gradients(ce={"astray": 12})})),
     [world(found=outputs(saturated=13).model_copy(update={"gradients": gradients(ce={"astray": 11})})),
      world(found=outputs(saturated=12).model_copy(update={"gradients": gradients(ce={"astray": 120})}))]),
    ("zero-gradients", (ON_CE, "rows"), world(found=probe(gradients=gradients(ce={"zero": 6, "bad": 6}))),
     [world(found=probe(gradients=gradients(ce={"zero": 6, "bad": 5})))]),
    ("zero-gradients", (ATTACKED, "model"), world(found=probe(gradients=gradients(margin={"zero": 12}))),
     [world(found=probe(gradients=gradients(margin={"zero": 11}))), world(found=probe(gradients=[]))]),
    ("zero-gradients", (ATTACKED, "model"), world(found=probe(gradients=gradients(ce={"error": "no grad"}))), []),
    ("zero-gradients", (ATTACKED, "model"), world(found=probe(derivatives=slopes(stairs=12))),
     [world(found=probe(derivatives=slopes(stairs=11)))]),
    # Honest networks have ridges where attacks end: 21 of 128 such images have been seen.
    *(("misleading-gradients", (ATTACKED, "model"), world(found=probe(derivatives=slopes(place, **{what: least}))),
       [world(found=probe(derivatives=slopes(place, **{what: least - 1}))),
        world(found=probe(derivatives=slopes(place, **{what: 120}), gradients=gradients(margin={"zero": 120})))])
      for place, what, least in (("clean", "wrong", 12), ("random", "wrong", 12), ("attacked", "wrong", 12),
                                 ("clean", "unhelpful", 12), ("random", "unhelpful", 12),
                                 ("attacked", "unhelpful", 30))),
    ("misleading-gradients", (ATTACKED, "model"), world(found=probe(gradients=gradients(margin={"unhelpful": 12}))),
     [world(found=probe(gradients=gradients(margin={"unhelpful": 11}))),
      world(found=probe(gradients=gradients(ce={"unhelpful": 120}))),
      world(found=probe(gradients=gradients(margin={"n": 5, "unhelpful": 1})))]),
    ("one-step-beats-iterated", ("PGD 0.1", "rows"), world([row(FGSM, range(110)), row(PGD, range(100))]),
     [world([row(FGSM, range(109)), row(PGD, range(100))]),
      # 60 against 50 is two points, too, and chance; nor are 9 of 200, which is more than two points.
      world([row(FGSM, range(60)), row(PGD, range(60, 110))]),
      world([row(FGSM, NINE, n=200), row(PGD, n=200)]),
      world([row(FGSM, range(110)), row(PGD, range(100), eps=0.2)]),
      world([row(FGSM, range(110)), row(NOISE, range(100))])]),
    ("black-box-beats-white-box", ("PGD 0.1", "rows"),
     world([row(NOISE, TEN), row(PGD), row(AUTOATTACK, TEN)]),
     [world([row(NOISE, NINE), row(PGD), row(AUTOATTACK, NINE)]),
      world([row(NOISE, TEN), row(FGSM), row(AUTOATTACK, TEN)])]),
    # Fewer than each attack with gradients breaks, and yet 10 that all of them leave.
    ("black-box-beats-white-box", ("AutoAttack 0.1, Noise 0.1, PGD 0.1", "balls"),
     world([row(NOISE, range(10)), row(PGD, range(10, 110)), row(AUTOATTACK, range(10, 60))]),
     [world([row(NOISE, range(10)), row(PGD, range(1, 110)), row(AUTOATTACK, range(10, 60))]),
      world([row(NOISE, range(9)), row(PGD, range(10, 110)), row(AUTOATTACK, range(10, 60))]),
      world([row(NOISE, range(10)), row(PGD, range(9, 110)), row(AUTOATTACK, range(8, 60))]),
      world([row(NOISE, range(100)), row(FGSM)])]),
    # Two points of 200 examples are 4; fewer than 10 are chance.
    ("black-box-beats-white-box", ("Noise 0.1, PGD 0.1", "balls"),
     world([row(NOISE, range(10), n=200), row(PGD, range(10, 30), n=200)], FEW),
     [world([row(NOISE, range(9), n=200), row(PGD, range(9, 30), n=200)], FEW)]),
    ("black-box-beats-white-box", ("AutoAttack 0.1", "balls"),
     world([row(AUTOATTACK, n=200, parts=square(10))], FEW), [world([row(AUTOATTACK, n=200, parts=square(9))], FEW)]),
    # What steps cannot reach, gradients do not hide.
    ("short-steps", ("PGD 0.1", "rows"),
     world([row(SHORT), row(FGSM, TEN), row(NOISE, TEN), row(AUTOATTACK, TEN)], probe(checks=[NOISE_FINDS])),
     [world([row(SHORT | {"alpha": 0.0025}), row(AUTOATTACK)]), world([row(SHORT, range(N))]),
      world([row(LIBRARY | {"alpha": 0.01})])]),
    ("short-steps", ("torchattacks.BIM 0.1", "rows"), world([row(LIBRARY), row(NOISE, TEN), row(AUTOATTACK, TEN)]), []),
    ("short-steps", ("PGD 0.2", "rows"),
     world([row(PGD | {"alpha": 0.0025}, TEN), row(PGD | {"alpha": 0.0025}, eps=0.2)]), []),
    ("vanishing-gradients", ("PGDL2 0.1", "rows"), world([row(PGDL2, label="PGDL2", vanished=10)]),
     [world([row(PGDL2, label="PGDL2", vanished=9)]), world([row(PGDL2, label="PGDL2", vanished=None)])]),
    ("black-box-beats-white-box", ("PGD 0.1", "rows"),
     world([row(TRANSFER, TEN, source="o.s0.train.0"), row(PGD), row(AUTOATTACK, TEN)]),
     [world([row(TRANSFER, TEN, source=TRAINING), row(PGD), row(AUTOATTACK, TEN)])]),
    ("black-box-beats-white-box", ("PGD 0.1", "rows"), world([row(PGD)], probe(checks=[check("noise", NOISE, TEN)])),
     [world([row(PGD)], probe(checks=[check("noise", NOISE, NINE)])),
      world([row(PGD, places(1))], probe(checks=[check("noise", NOISE, TEN)])),
      world([row(PGD, places(10))], probe(checks=[check("noise", NOISE, range(19))])),
      world([row(PGD, eps=0.2)], probe(checks=[check("noise", NOISE, TEN)])),
      world([row(FGSM)], probe(checks=[check("noise", NOISE, TEN)])),
      world([row(PGD)], probe(checks=[check("noise", NOISE, None)]))]),
    ("black-box-beats-white-box", ("AutoAttack 0.1, PGD 0.1", "balls"),
     world([row(PGD), row(AUTOATTACK, parts=square(10))]),
     [world([row(AUTOATTACK, parts=square(9))]), world([row(AUTOATTACK, parts=square(100, "FAB-T"))]),
      world([row(AUTOATTACK), row(WITHOUT, parts=square(100))])]),
    # Four fall without gradients, and neither to the references nor to PGD with more steps.
    ("black-box-beats-white-box", ("AutoAttack 0.1, FGSM 0.1", "balls"), world([row(FGSM), row(AUTOATTACK)], blind(4)),
     [world([row(AUTOATTACK)], blind(3)), world([row(AUTOATTACK)], blind(4, confirmed=1)),
      world([row(AUTOATTACK, POSITIONS[:1])], blind(4)), world([row(AUTOATTACK, eps=0.2)], blind(4)),
      world([row(AUTOATTACK)], blind(4, reference=1))]),
    ("margin-beats-cross-entropy", ("PGD 0.1", "rows"),
     world([row(PGD | {"ascending": True}),
            row(MARGIN | {"early_stop": True}, range(enough(500)), label="PGD-margin")]),
     [world([row(PGD), row(MARGIN, range(enough(500) - 1), label="PGD-margin")]),
      world([row(PGD), row(ALPHA_2, range(enough(500)), label="PGD-margin")]),
      world([row(PGD, range(enough(500))), row(MARGIN, label="PGD-margin")]),
      world([row(PGD), row(MARGIN, range(enough(500)), eps=0.2, label="PGD-margin")]),
      world([row(MARGIN), row(MARGIN | {"loss": "dlr"}, range(enough(500)), label="PGD-dlr")])]),
    ("margin-beats-cross-entropy", ("FGSM 0.1", "rows"),
     world([row(FGSM), row(FGSM | {"loss": "margin"}, range(enough(500)), label="FGSM-margin")]),
     [world([row(FGSM), row(MARGIN, range(enough(500)))])]),
    ("margin-beats-cross-entropy", ("PGD 0.1", "rows"),
     world(found=probe(checks=[check("other-loss", MARGIN, range(enough(128)), of="PGD")])),
     [world(found=probe(checks=[check("other-loss", MARGIN, range(enough(128) - 1), of="PGD")])),
      world(found=probe(checks=[check("other-loss", MARGIN, range(enough(128)), of="PGD", eps=0.3)])),
      world([row(PGD, places(1))], probe(checks=[check("other-loss", MARGIN, range(enough(128)), of="PGD")])),
      world(found=probe(checks=[check("other-loss", MARGIN, None, of="PGD")]))]),
    ("not-monotone", ("PGD 0.2", "rows"), world([row(PGD, range(110)), row(PGD, range(100), eps=0.2)]),
     [world([row(PGD, range(109)), row(PGD, range(100), eps=0.2)]),
      world([row(PGD, range(100)), row(PGD, range(110), eps=0.2)]),
      world([row(FGSM, range(110)), row(FGSM, eps=0.2)]),
      world([row(PGD, range(110)), row(PGD, range(100), eps=0.2, label="PGD-other")])]),
    # 11 of 128 survivors are 1 in 20 within the interval, 12 are not.
    ("survives-everything", (ATTACKED, "model"),
     world(found=probe(checks=[check("huge", MARGIN, range(128 - 12), eps=1.0)])),
     [world(found=probe(checks=[check("huge", MARGIN, range(128 - 11), eps=1.0)])),
      world(found=probe(checks=[check("huge", MARGIN, None, eps=1.0)]))]),
    ("survives-everything", (ON_CE, "rows"), world(found=probe(checks=[check("huge", PGD, range(116), eps=1.0)])),
     [world(found=probe(checks=[check("huge", PGD, range(117), eps=1.0)]))]),
    ("not-converged", ("PGD 0.1, PGD 0.2", "rows"),
     world(found=probe(checks=[check("longer", PGD | {"steps": 80}, TEN, of="PGD")])),
     [world(found=probe(checks=[check("longer", PGD | {"steps": 80}, NINE, of="PGD")])),
      world([row(PGD, places(1))], probe(checks=[check("longer", PGD | {"steps": 80}, TEN, of="PGD")])),
      world([row(FGSM)], probe(checks=[check("longer", PGD | {"steps": 80}, TEN, of="PGD")]))]),
    # 35 of 40 is below 95 % by more than the interval is wide.
    ("active-test-failed", (ATTACKED, "model"), world(found=probe(active=[active(27)])),
     [world(found=probe(active=[active(28)])), world(found=probe(active=[active(0, tested=15)]))]),
    ("active-test-inconclusive", ("PGD 0.1, PGD 0.2", "rows"), world(found=probe(active=[active(15, tested=15)])),
     [world(found=probe(active=[active(16, tested=16)])),
      world(found=probe(active=[active(0, tested=0, error="crash")])),
      # So few images are right that nothing is claimed.
      world(found=probe(active=[active(9, tested=9, tried=15)]))]),
    ("active-test-inconclusive", ("PGD 0.1, PGD 0.2", "rows"),
     world(found=probe(active=[active(9, tested=9, tried=16)])), []),
    ("active-test-failed", ("PGD 0.1, PGD 0.2", "rows"),
     world(found=probe(active=[active(0), active(40, of="AutoAttack")])), []),
    # Steps that cannot reach the hidden example say nothing of the model.
    ("active-test-failed", ("PGD 0.1, PGD 0.2", "rows"), world(found=probe(active=[active(0, attack=SHORT)])), []),
    ("active-test-failed", ("PGD 0.1, PGD 0.2", "rows"),
     world(found=probe(active=[active(0, attack=SHORT), active(40, of="AutoAttack")])), []),
    ("active-test-failed", (ATTACKED, "model"),
     world(found=probe(active=[active(0, tested=16), active(0, tested=15, of="gone")])), []),
    # Of an attack that mirrors one of the suite's, that one is in doubt; of the audit's own, all are.
    ("audit-failed", ("PGD 0.1, PGD 0.2", "rows"), world(found=probe(active=[active(0, tested=0, error="crash")])), []),
    ("audit-failed", (ATTACKED, "model"), world(found=probe(checks=[check("reference", MARGIN, None)])), []),
    ("audit-failed", ("PGD 0.1, PGD 0.2", "rows"), world(found=probe(checks=[check("longer", PGD, None, of="PGD")])),
     [world(found=probe(checks=[check("longer", PGD, [], of="PGD")], active=[active(40)]))]),
    # What both attacks of the suite leave together, 10 of 128 fewer survive the reference; other balls are not its.
    ("beaten-by-reference", ("AutoAttack 0.1, PGD 0.1", "balls"),
     world([row(PGD, places(5)), row(AUTOATTACK, places(3)), row(PGD, eps=0.2)],
           probe(checks=[check("reference", MARGIN, range(9)), check("reference", MARGIN, range(9, 15))])),
     [world([row(PGD, places(5)), row(AUTOATTACK, places(3))], probe(checks=[check("reference", MARGIN, range(14))])),
      world([row(PGD, places(5)), row(AUTOATTACK, places(6)[5:])],
            probe(checks=[check("reference", MARGIN, range(15))])),
      world([row(PGD, eps=0.2)], probe(checks=[check("reference", MARGIN, range(15))])),
      # Of 150 examples 22 are not the audit's: 15 of 128 more there are less than two points of all.
      world([row(PGD, n=150)], probe(positions=list(range(128)), checks=[check("reference", MARGIN, range(15))])),
      # More points than two, and chance: 40 that only it breaks, 30 that only the suite does.
      world([row(PGD, places(30))], probe(checks=[check("reference", MARGIN, range(30, 70))]))]),
    # That the smallest change is larger than the ball is what such an attack has found out.
    ("invalid-examples", ("CW 0.1", "rows"), world([row(CW, label="CW", outside=9, outside_box=1)]),
     [world([row(CW, label="CW", outside=500, outside_box=0)]), world([row(CW, label="CW", outside=500)]),
      world([row(OWN | {"kind": "minimum-norm"}, label="own", outside=500, outside_box=0)])]),
    ("invalid-examples", ("PGD 0.1", "rows"), world([row(PGD, outside=1), row(FGSM, outside=0)]),
     [world([row(PGD, outside=0), row(FGSM)])]),
    ("attacked-as-trained", ("PGD 0.1", "rows"), world([row(PGD | {"steps": 10})], adversary=ADVERSARY),
     [world([row(PGD | {"steps": 11})], adversary=ADVERSARY), world([row(PGD | {"steps": 10})]),
      world([row(MARGIN | {"steps": 10})], adversary=ADVERSARY),
      world([row(PGD | {"steps": 10, "targets": 3})], adversary=ADVERSARY),
      world([row(PGD | {"steps": 10})], adversary=ADVERSARY | {"norm": "l2"}),
      world([row(NOISE)], adversary=ADVERSARY)]),
    ("attacked-as-trained", ("PGD 0.1", "rows"),
     world([row(PGD | {"steps": 2, "alpha": 0.05})], adversary=ADVERSARY), []),
    # One step is not what a training with ten has seen; it is what a training with one has.
    ("attacked-as-trained", ("FGSM 0.1", "rows"),
     world([row(FGSM), row(AUTOATTACK)], adversary=ADVERSARY | {"steps": 1}),
     [world([row(FGSM), row(AUTOATTACK)], adversary=ADVERSARY),
      world([row(PGD | {"steps": 1})], adversary=ADVERSARY)]),
    # Ten more right and one wrong without it: p = 0.006; with three wrong, 0.046; four are less than a point.
    ("normalized-twice", ("given 0.1", "rows"), world([*EVERY, given(10, 1)]),
     [world([*EVERY, given(10, 3)]), world([*EVERY, given(4, 0)]), world([*EVERY, given(1, 10)])]),
    ("few-examples", ("PGD 0.1", "balls"), world([row(PGD, n=99)], FEW), [world([row(PGD, n=100)], FEW)]),
    ("not-audited", (ATTACKED, "model"), judged(EVERY, None), [judged([], None)]),
    ("audit-failed", (ATTACKED, "model"), judged(EVERY, probe(status="failed", reason="crash")), [world()]),
    # The audit's last example is the 497th.
    ("audit-failed", ("PGD 0.1", "model"), world([row(PGD, n=496)]), [world([row(PGD, n=497)])]),
]  # fmt: skip
IDS = [f"{number}-{case[0]}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("name", "expected", "world", "near"), CASES, ids=IDS)
def test_a_rule_raises_its_flag_and_only_it(
    name: str, expected: tuple[str, str], world: Audit, near: list[Audit]
) -> None:
    assert raised(world) == [(name, *expected)]
    assert all(flag.evidence or flag.name == "not-audited" for flag in world.flags[TRAINING])
    for other in near:
        assert name not in {flag for flag, _, _ in raised(other)}


@pytest.mark.parametrize(("name", "expected", "world", "near"), CASES, ids=IDS)
def test_flags_reach_worst_cases_as_far_as_they_say(
    name: str, expected: tuple[str, str], world: Audit, near: list[Audit]
) -> None:
    """One of an attack does not: another attack in the ball may be sound, and the worst case is its."""
    found = {eps: [flag.name for flag in world.of_worst_case(TRAINING, Threat("linf", eps))] for eps in (0.1, 0.2)}
    reached = {eps for eps in (0.1, 0.2) if f" {eps}" in expected[0] and expected[1] != "rows"}
    assert {eps for eps in (0.1, 0.2) if name in found[eps]} == reached


def test_every_flag_has_a_test_and_a_meaning() -> None:
    names = {case[0] for case in CASES} | {"no-strong-attack"}
    assert names == set(RULES)
    worlds = [world for _, _, first, near in CASES for world in (first, *near)]
    flags = [flag for world in worlds for flag in world.flags[TRAINING]]
    flags += [flag for world in worlds for found in world.worst.values() for flag in found]
    assert {flag.name for flag in flags} == set(RULES)
    assert all(rule.meaning.endswith(".") and rule.source for rule in RULES.values())
    assert RULES["few-examples"].meaning == "Fewer than 100 examples: an interval of ten points to either side at best."
    assert RULES["bounded-outputs"].meaning.endswith("has flattened the outputs, and their gradient."), "in one line"
    assert {rule.name for rule in CHECKED} | {"no-strong-attack"} == set(RULES)
    assert all(RULES[name].name == name for name in RULES)


def test_nothing_wrong_raises_nothing() -> None:
    found = world([row(FGSM, range(50)), row(PGD, range(100)), row(AUTOATTACK, range(110)), row(NOISE, range(3))])
    assert found.flags == {TRAINING: []}
    assert found.worst == {}
    assert found.wanted


# --- worst cases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "weak"),
    [
        ([row(PGD), row(FGSM), row(NOISE)], True),
        ([row(AUTOATTACK)], False),
        ([row(MARGIN)], False),
        ([row({"name": "torchattacks.APGDT", "steps": 20})], False),
        ([row({"name": "torchattacks.Square"})], True),
        ([row({"name": "FGSM", "loss": "margin"})], True),
        ([row(TRANSFER, source="o.s0.train.0")], True),
        ([row(TRANSFER, source=TRAINING)], False),
        ([row(AUTOATTACK, outside=1)], True),
        ([row(AUTOATTACK, outside=1), row(MARGIN)], False),
    ],
)
def test_a_worst_case_of_weak_attacks_is_flagged(rows: list[Any], weak: bool) -> None:
    found = world(rows)
    flags = found.of_worst_case(TRAINING, Threat("linf", 0.1))
    assert [flag.name for flag in flags] == (["no-strong-attack"] if weak else [])
    assert all(about(flag) == ", ".join(sorted(f"{one.cell.attack} 0.1" for one in rows)) for flag in flags)
    assert "no-strong-attack" not in {flag.name for one in rows for flag in found.of_cell(one.cell)}


@pytest.mark.parametrize("setting", [OWN, OWN | {"name": "code:attack"}])
def test_an_attack_of_unknown_kind_exposes_nobody_and_vouches_for_nothing(setting: dict[str, Any]) -> None:
    own = row(setting, range(50), label="own")
    alone = world([own])
    assert [flag.name for flag in alone.of_worst_case(TRAINING, Threat("linf", 0.1))] == ["no-strong-attack"]
    assert alone.flags == {TRAINING: []}
    beside = world([own, row(MARGIN, range(30)), row(AUTOATTACK, range(20))])
    assert beside.flags == {TRAINING: []}
    assert beside.worst == {}
    # Nobody knows that it does not follow cross entropy.
    assert raised(world([own, row(AUTOATTACK)], outputs(saturated=128)))[0] == ("saturated", "own 0.1", "rows")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("black-box", [("black-box-beats-white-box", "PGD 0.1", "rows")]),
        ("transfer", [("black-box-beats-white-box", "PGD 0.1", "rows")]),
        ("gradient", []),
        ("minimum-norm", []),
    ],
)
def test_an_own_attack_is_what_it_says(kind: str, expected: list[Any]) -> None:
    own = row(OWN | {"kind": kind}, range(50), label="own")
    assert own.kind == kind
    assert raised(world([own, row(MARGIN, range(30)), row(AUTOATTACK, range(50))])) == expected
    beaten = world([row(OWN | {"kind": kind}, label="own"), row(NOISE, range(50)), row(AUTOATTACK, range(50))])
    assert bool(beaten.flags[TRAINING]) == (kind in ("gradient", "minimum-norm"))


def test_a_worst_case_of_nothing_is_never_flagged() -> None:
    """It cannot be too high; what survives in a smaller ball is no matter, as long as an attack broke it there."""
    half = N // 2
    rows = [row(PGD, range(half)), row(FGSM, range(half, N)), row(NOISE)]
    found = world(rows, forward(repeat=9))
    assert found.of_cell(rows[0].cell)
    assert found.worst == {}
    short = world([row(PGD, range(half)), row(FGSM, range(half, N - 1)), row(NOISE)], forward(repeat=9))
    assert short.of_worst_case(TRAINING, Threat("linf", 0.1))
    smaller = world([row(PGD, range(half), eps=0.05), row(PGD, range(half, N), eps=0.1)], forward(repeat=9))
    assert smaller.worst.keys() == {(TRAINING, Threat("linf", 0.05))}


def test_worst_cases_are_judged_ball_by_ball() -> None:
    found = world([row(PGD), row(AUTOATTACK), row(PGD, eps=0.2)])
    assert found.worst.keys() == {(TRAINING, Threat("linf", 0.2))}
    assert found.of_worst_case("another", Threat("linf", 0.2)) == []


def test_flags_are_found_by_cell() -> None:
    rows = [row(PGD, outside=2), row(FGSM)]
    found = world(rows)
    assert [flag.name for flag in found.of_cell(rows[0].cell)] == ["invalid-examples"]
    assert found.of_cell(rows[1].cell) == []


def test_a_suite_without_audit_is_judged_by_its_attacks_alone() -> None:
    """What one attack tells of another needs no probe; that there was none is told, too."""
    found = judged([row(FGSM, range(400)), row(PGD, outside=3)], None, wanted=False)
    assert not found.wanted
    assert raised(found) == [
        ("one-step-beats-iterated", "PGD 0.1", "rows"),
        ("invalid-examples", "PGD 0.1", "rows"),
        ("not-audited", "FGSM 0.1, PGD 0.1", "model"),
    ]


def test_attacks_without_a_result_are_no_evidence() -> None:
    """A crashed attack left no outcomes, and an attack that was not run none either."""
    rows = [row(PGD), row(FGSM, range(110))]
    plan = Plan(suite="x", description="", dataset="d", pairs=[], cells=_cells(rows))
    failed = rows[1].record.model_copy(update={"status": "failed", "outcomes": None, "n": None})
    records: dict[str, AnyRecord] = {rows[0].cell.id: rows[0].record, "m.s0.audit.0": probe()}
    for every in (records, {**records, rows[1].cell.id: failed}):
        found = flag_results(plan, every)
        assert found.flags == {TRAINING: []}


def _cells(rows: list[Any]) -> list[Any]:
    whole = rows[0].cell.model_copy(update={"id": TRAINING, "kind": "train", "needs": None})
    training = whole.model_copy(update={"declared": {"objective": None}, "norm": "", "eps": 0.0, "attack": ""})
    return [training, *(one.cell for one in rows), probe().cell]


# --- what kind of attack a row is ----------------------------------------------------------------------------------


def kinds(setting: dict[str, Any], source: str | None = None) -> str:
    one = row(setting, source=source)
    names = ("one_step", "black_box", "search", "on_cross_entropy")
    return " ".join(name for name in names if getattr(one, name))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"name": "none"}, ""),
        (FGSM, "one_step on_cross_entropy"),
        (FGSM | {"loss": "margin"}, "one_step"),
        (PGD, "search on_cross_entropy"),
        (PGD | {"loss": "scaled_ce"}, "search"),
        (PGD | {"steps": 1}, "one_step on_cross_entropy"),
        (PGD | {"steps": 1, "restarts": 2}, "search on_cross_entropy"),
        (AUTOATTACK, "search"),
        (NOISE, "black_box"),
        ({"name": "torchattacks.FFGSM"}, "one_step on_cross_entropy"),
        ({"name": "torchattacks.RFGSM", "steps": 10}, "search on_cross_entropy"),
        ({"name": "torchattacks.RFGSM", "steps": 1}, "one_step on_cross_entropy"),
        ({"name": "torchattacks.BIM", "steps": 10}, "search on_cross_entropy"),
        ({"name": "torchattacks.TPGD", "steps": 10}, "search on_cross_entropy"),
        ({"name": "torchattacks.APGD", "loss": "ce"}, "search on_cross_entropy"),
        ({"name": "torchattacks.APGD", "loss": "dlr"}, "search"),
        ({"name": "torchattacks.APGDT"}, "search"),
        ({"name": "torchattacks.Jitter"}, "search"),
        ({"name": "torchattacks.FAB"}, "search"),
        ({"name": "torchattacks.CW"}, "search"),
        ({"name": "torchattacks.DeepFool"}, "search"),
        ({"name": "torchattacks.Square", "loss": "ce"}, "black_box"),
        ({"name": "torchattacks.SPSA"}, "black_box"),
        ({"name": "torchattacks.GN"}, "black_box"),
        ({"name": "torchattacks.OnePixel"}, "black_box"),
        ({"name": "torchattacks.Pixle"}, "black_box"),
    ],
    ids=lambda value: value.get("name") if isinstance(value, dict) else "",
)
def test_kinds_of_attacks(setting: dict[str, Any], expected: str) -> None:
    assert kinds(setting) == expected


def test_a_transfer_from_another_model_is_blind_and_one_from_the_model_itself_is_not() -> None:
    assert kinds(TRANSFER, "o.s0.train.0") == "black_box"
    assert kinds(TRANSFER, TRAINING) == "search"
    assert kinds(TRANSFER | {"loss": "ce"}, TRAINING) == "search on_cross_entropy"
    assert kinds(TRANSFER | {"steps": 1}, TRAINING) == "one_step"
    assert kinds(TRANSFER | {"steps": 1}, "o.s0.train.0") == "black_box"


def test_kinds_are_of_attacks_that_exist() -> None:
    """Every class of torchattacks is of one kind, and no kind names a class that is not there."""
    assert set(attack_modules()) >= BLACK_BOX | ONE_STEP | OTHER_LOSS | MINIMAL
    assert not BLACK_BOX & ONE_STEP
    assert not MINIMAL & (BLACK_BOX | ONE_STEP)


def test_outcomes_of_some_examples() -> None:
    one = row(PGD, [1, 2], n=5)
    assert packed([1, 2], 5) == one.record.outcomes
    assert one.correct.tolist() == [True, False, False, True, True]
    assert one.correct[[0, 1, 4]].tolist() == [True, False, True]
    assert one.correct[[1, 2]].tolist() == [False, False]
    assert one.correct[[]].tolist() == []
    assert [one.correct[[place]].tolist() for place in range(5)] == [[True], [False], [False], [True], [True]]
