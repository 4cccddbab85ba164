"""The engine of comparisons: what is matched, what is paired, and which tests make up one family."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Plan
from robustbench_cmic.records.packing import pack_outcomes
from robustbench_cmic.records.schema import AuditRecord, Check
from robustbench_cmic.report.compare.matching import CellPair, compare_cells, identity, match_cells
from tests.report.folders import HEAD, attack_record, audit_record, cell_of, planned, train_record

RIGHT = [True] * 40
SIX_LOST = [False] * 6 + [True] * 34
P = 2 / 2**6
"""McNemar's of six flips one way."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path, HEAD + "attacks: [{name: FGSM, eps: [0.1, 0.2]}]\n")


def audited(plan: Plan, *checks: list[bool] | None) -> AuditRecord:
    """An audit of 40 examples with these outcomes of its checks; None: the check crashed."""
    made = [
        Check(
            check="longer", of="FGSM", norm="linf", eps=place / 10, attack={"name": "FGSM"},
            outcomes=None if correct is None else pack_outcomes(correct),
        )
        for place, correct in enumerate(checks, 1)
    ]  # fmt: skip
    return audit_record(cell_of(plan, "a", 0, "audit"), 40, checks=made, positions=list(range(100, 140)))


def attacks(plan: Plan, eps: float = 0.1, **changes: object) -> CellPair:
    cell = cell_of(plan, "a", 0, "FGSM", eps)
    return CellPair(cell, cell, attack_record(cell, RIGHT), attack_record(cell, SIX_LOST, **changes))


def audits(old: AuditRecord, new: AuditRecord) -> CellPair:
    return CellPair(old.cell, old.cell, old, new)


def test_cells_are_matched_whatever_their_parameters_in_the_order_of_the_first(tmp_path: Path, plan: Plan) -> None:
    text = HEAD.replace("[0, 1, 2]", "[3, 0]") + "attacks: [{name: FGSM, eps: [0.2, 0.3], loss: margin}]\n"
    other = planned(tmp_path, text)
    matches = match_cells(plan.cells, other.cells)
    assert [old for old, _ in matches if old is not None] == plan.cells
    assert [new for old, new in matches if old is None] == [c for c in other.cells if c.seed == 3 or c.eps == 0.3]
    common = [(old, new) for old, new in matches if old is not None and new is not None]
    assert all(identity(old) == identity(new) for old, new in common)
    assert {old.eps for old, _ in common} == {0.0, 0.2}
    assert any(old.id != new.id for old, new in common), "a changed setting is still the same cell"


def test_all_sets_of_examples_are_one_family_and_checks_of_audits_belong_to_it(plan: Plan) -> None:
    (alone,) = compare_cells([attacks(plan)])
    assert alone.p == pytest.approx([P])
    checks = audits(audited(plan, RIGHT, RIGHT), audited(plan, RIGHT, SIX_LOST))
    attack, audit = compare_cells([attacks(plan), checks])
    assert attack.p == pytest.approx([3 * P]), "an attack and two checks"
    assert audit.p == pytest.approx([1.0, 3 * P])
    assert audit.outcomes is not None
    assert [paired.check for paired in audit.outcomes] == ["longer FGSM linf 0.1", "longer FGSM linf 0.2"]
    assert [paired.lost for paired in audit.outcomes] == [[], list(range(100, 106))], "among the evaluated examples"


def test_what_has_no_result_on_both_sides_is_not_tested(plan: Plan, tmp_path: Path) -> None:
    cell = cell_of(plan, "a", 0, "FGSM", 0.2)
    training = cell_of(plan, "a", 0, "train")
    compared = compare_cells(
        [
            attacks(plan),
            CellPair(cell, None, attack_record(cell, RIGHT), None),
            CellPair(None, cell, None, attack_record(cell, RIGHT)),
            CellPair(cell, cell, attack_record(cell, RIGHT), attack_record(cell, RIGHT, status="failed", n=None)),
            CellPair(training, training, train_record(training), train_record(training, status="diverged")),
        ]
    )
    assert [len(pair.p) for pair in compared] == [1, 0, 0, 0, 0]
    assert compared[0].p == pytest.approx([P])
    assert [pair.outcomes for pair in compared[1:]] == [None] * 4
    assert [pair.identical for pair in compared] == [False] * 5
    assert [pair.cell for pair in compared[1:3]] == [cell, cell]


def test_other_data_are_two_proportions_unless_examples_are_compared_across_data(plan: Plan) -> None:
    other = attacks(plan, dataset_sha256="1" * 64)
    (compared,) = compare_cells([other])
    assert compared.outcomes is None
    # Fisher's exact test of 40 of 40 against 34 of 40: one tail of the hypergeometric, and as much on the other side.
    assert compared.p == pytest.approx([2 * math.comb(40, 34) / math.comb(80, 74)])
    (across,) = compare_cells([other], across_data=True)
    assert across.outcomes is not None
    assert across.outcomes[0].lost == list(range(6))
    assert across.p == pytest.approx([P])


def test_other_examples_are_two_proportions_or_nothing(plan: Plan) -> None:
    other = attacks(plan, examples_sha256="1" * 64)
    (compared,) = compare_cells([other])
    assert compared.outcomes is None
    assert len(compared.p) == 1
    alone, unpaired = compare_cells([attacks(plan, 0.2), other], across_data=True)
    assert (unpaired.outcomes, unpaired.p) == (None, [])
    assert alone.p == pytest.approx([P]), "what is not tested makes the family no larger"


def test_audits_are_paired_check_by_check_or_not_at_all(plan: Plan) -> None:
    old = audited(plan, RIGHT, None)
    (both,) = compare_cells([audits(old, audited(plan, SIX_LOST, None))])
    assert both.outcomes is not None
    assert len(both.outcomes) == 1, "a check that crashed on both sides has no outcomes"
    for new in (audited(plan, RIGHT, RIGHT), audited(plan, RIGHT), old.model_copy(update={"positions": [0]})):
        (pair,) = compare_cells([audits(old, new)])
        assert (pair.outcomes, pair.p) == (None, [])


def test_findings_are_counts_and_facts(plan: Plan) -> None:
    old = audited(plan)
    assert old.outputs is not None
    assert not audits(old, old).findings.any
    for changes, counts, beyond_chance, facts in (
        ({"saturated": 1}, ["saturated"], [], False),
        ({"saturated": 40}, ["saturated"], ["saturated"], False),
        ({"probabilities": True}, [], [], True),
        ({"median_lead": 1.0}, [], [], False),
    ):
        new = old.model_copy(update={"outputs": old.outputs.model_copy(update=changes)})
        findings = audits(old, new).findings
        assert (findings.counts, findings.beyond_chance, findings.facts) == (counts, beyond_chance, facts)
        assert findings.any is bool(counts or facts)
