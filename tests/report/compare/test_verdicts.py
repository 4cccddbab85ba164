"""Verdicts on made-up records: each turns where its rule says."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.packing import pack_outcomes
from robustbench_cmic.records.probed import Outputs
from robustbench_cmic.records.schema import ActiveTest, AnyRecord, Check, Part
from robustbench_cmic.report.compare.certificate import CellVerdict, conclude, counts_of, judge
from robustbench_cmic.report.compare.differences import Difference
from robustbench_cmic.report.compare.matching import CellPair, compare_cells
from robustbench_cmic.run.reproduce import sample
from tests.report.folders import HEAD, TIMING, attack_record, audit_record, cell_of, measures, planned, train_record

N = 200
HALF = [index % 2 == 0 for index in range(N)]
"""Every second example is classified correctly; Wilson's interval is 0.431 … 0.569.

That of 72 of 200, 0.297 … 0.429, lies below it; that of 73 of 200, 0.301 … 0.434, overlaps it.
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    text = HEAD.replace("[0, 1, 2]", "[0]") + "attacks: [{name: PGD, eps: [0.1, 0.2], ascending: true}]\n"
    return planned(tmp_path, text)


def flipped(places: list[int]) -> list[bool]:
    return [value != (index in places) for index, value in enumerate(HALF)]


def verdicts(*pairs: tuple[Cell, AnyRecord, AnyRecord | None]) -> list[CellVerdict]:
    return judge(compare_cells([CellPair(cell, cell, old, new) for cell, old, new in pairs], across_data=True))


def attack_verdict(plan: Plan, places: list[int], others: int = 0) -> CellVerdict:
    """The verdict where these examples flipped, beside further cells in which none did."""
    cell = cell_of(plan, "a", 0, "PGD", 0.1)
    pair = (cell, attack_record(cell, HALF), attack_record(cell, flipped(places)))
    same = (cell, attack_record(cell, HALF), attack_record(cell, HALF))
    return verdicts(*[same] * others, pair)[-1]


def test_equal_records_are_bit_identical_whatever_their_times_and_origins(plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "PGD", 0.1)
    part = Part(name="APGD", attacked=1, broken=1, forwards=1, backwards=1, seconds=1.0)
    old = attack_record(cell, HALF, parts=[part])
    new = old.model_copy(
        update={
            "timing": TIMING.model_copy(update={"seconds": 99.0}),
            "provenance": {"versions": {"torch": "3.0"}},
            "parts": [part.model_copy(update={"seconds": 2.0})],
            "suite": "renamed",
        }
    )
    (found,) = verdicts((cell, old, new))
    assert (found.verdict, found.largest, found.why) == ("bit-identical", None, "")


def test_the_same_outcomes_with_other_numbers_name_the_one_that_differs_most(plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "PGD", 0.1)
    old = attack_record(cell, HALF)
    new = attack_record(cell, HALF, information=measures(0.6), forwards=1401)
    (found,) = verdicts((cell, old, new))
    assert found.verdict == "same predictions"
    assert found.largest is not None
    assert (found.largest.key, found.largest.old, found.largest.new) == ("information.cmi", 0.5, 0.6)


def test_few_flips_are_within_the_interval_and_named(plan: Plan) -> None:
    found = attack_verdict(plan, [3, 8, 199])
    assert (found.verdict, found.why) == ("within interval", "")
    (flips,) = found.flips
    assert (flips.lost, flips.gained, flips.p) == ([8], [3, 199], 1.0)
    assert found.flipped == [3, 8, 199]
    assert found.change_points == pytest.approx(0.5)


def test_flips_all_one_way_drift_by_mcnemar_inside_the_interval(plan: Plan) -> None:
    """2 / 2^6 = 0.031 and 2 / 2^5 = 0.0625: six flips are significant, five are not; 0.47 is inside the interval."""
    assert attack_verdict(plan, [0, 2, 4, 6, 8]).verdict == "within interval"
    found = attack_verdict(plan, [0, 2, 4, 6, 8, 10])
    assert found.verdict == "drifted"
    assert found.why == "more examples flipped than chance explains (McNemar, Holm: p = 0.031)"


def test_holm_counts_every_cell_that_was_judged(plan: Plan) -> None:
    found = attack_verdict(plan, [0, 2, 4, 6, 8, 10], others=1)
    assert found.verdict == "within interval"
    assert found.flips[0].p == pytest.approx(2 * 2 / 2**6)


def test_accuracies_whose_intervals_do_not_overlap_drift_whatever_the_test_says(plan: Plan) -> None:
    places = [*range(0, N, 2), *range(1, 144, 2)]
    found = attack_verdict(plan, places, others=5)
    assert (len(found.flips[0].lost), len(found.flips[0].gained)) == (100, 72)
    assert found.flips[0].p > 0.05
    assert (found.verdict, found.why) == ("drifted", "the 95 % intervals do not overlap: its accuracy")
    assert attack_verdict(plan, [*places, 145], others=5).verdict == "within interval"


@pytest.mark.parametrize("correct", [0, 599])
def test_one_flip_near_0_or_100_percent_is_no_drift(plan: Plan, correct: int) -> None:
    cell = cell_of(plan, "a", 0, "PGD", 0.1)
    all_alike = [bool(correct)] * 599
    one = [not correct, *all_alike[1:]]
    for old, new in ((all_alike, one), (one, all_alike)):
        (found,) = verdicts((cell, attack_record(cell, old), attack_record(cell, new)))
        assert (found.verdict, found.flipped) == ("within interval", [0])


def test_other_examples_are_not_paired(plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "PGD", 0.1)
    new = attack_record(cell, HALF, examples_sha256="0" * 64)
    (found,) = verdicts((cell, attack_record(cell, HALF), new))
    assert (found.verdict, found.flips) == ("drifted", [])
    assert found.why == "not comparable example by example: other examples"


def test_a_failed_or_absent_cell_is_failed(plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "PGD", 0.1)
    old = attack_record(cell, HALF)
    broken = old.model_copy(update={"status": "failed", "reason": "the attack crashed", "n": None})
    assert [(v.verdict, v.why) for v in verdicts((cell, old, broken))] == [("failed", "the attack crashed")]
    assert [v.why for v in verdicts((cell, old, None))] == ["not run: what it needs has no result"]


@pytest.mark.parametrize(
    ("places", "verdict"), [([], "same predictions"), ([1], "within interval"), (list(range(0, 99, 2)), "drifted")]
)
def test_other_weights_are_worth_what_their_clean_evaluation_says(plan: Plan, places: list[int], verdict: str) -> None:
    training, clean = cell_of(plan, "a", 0, "train"), cell_of(plan, "a", 0, "none")
    found = verdicts(
        (training, train_record(training), train_record(training, checkpoint_sha256="d")),
        (clean, attack_record(clean, HALF), attack_record(clean, flipped(places), checkpoint_sha256="d")),
    )
    assert [cell.verdict for cell in found] == [verdict, verdict]
    assert found[0].why == f"its weights differ; its clean evaluation is: {verdict}"
    assert (found[0].checkpoint_recorded, found[0].checkpoint_here) == ("c", "d")


def test_trainings(plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "train")
    old = train_record(cell)
    diverged = train_record(cell, status="diverged", reason="NaN", checkpoint_sha256=None)
    found = verdicts(
        (cell, old, train_record(cell, parameters=7)),  # the weights decide
    )
    assert found[0].verdict == "bit-identical"
    assert verdicts((cell, old, diverged))[0].why == "recorded as ok, here diverged: NaN"
    assert verdicts((cell, diverged, diverged))[0].verdict == "bit-identical"
    later = diverged.model_copy(update={"reason": "NaN at step 7"})
    assert verdicts((cell, diverged, later))[0].why == "diverged both times"
    alone = verdicts((cell, old, train_record(cell, checkpoint_sha256="d")))[0]
    assert (alone.verdict, alone.why) == ("drifted", "its weights differ; its clean evaluation is not recorded")


def check(correct: list[bool] | None) -> Check:
    outcomes = None if correct is None else pack_outcomes(correct)
    return Check(check="longer", of="PGD", norm="linf", eps=0.1, attack={"name": "PGD"}, outcomes=outcomes)


def test_audits_are_compared_check_by_check_and_count_by_count(plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "audit")
    old = audit_record(cell, N, checks=[check(HALF)], positions=list(range(0, 3 * N, 3)))

    def verdict_on(**changes: object) -> CellVerdict:
        return verdicts((cell, old, old.model_copy(update=changes)))[0]

    assert verdict_on().verdict == "bit-identical"
    one = verdict_on(checks=[check(flipped([5]))])
    assert (one.verdict, one.flips[0].check, one.flipped) == ("within interval", "longer PGD linf 0.1", [15])
    assert verdict_on(checks=[check(flipped(list(range(0, 60, 2))))]).verdict == "drifted"
    crashed = verdict_on(checks=[check(None)])
    assert crashed.why == "not comparable example by example: its checks are others, or one crashed"
    median = Outputs(probabilities=False, saturated=0, at_bound=1, median_lead=5.1)
    assert verdict_on(outputs=median).verdict == "same predictions"
    few = verdict_on(outputs=median.model_copy(update={"saturated": 2}))
    assert (few.verdict, few.why) == ("within interval", "other counts: saturated")
    many = verdict_on(outputs=median.model_copy(update={"saturated": 150}))
    assert (many.verdict, many.why) == ("drifted", "the 95 % intervals do not overlap: saturated")
    kind = verdict_on(outputs=median.model_copy(update={"probabilities": True}))
    assert kind.why == "the audit says something else of the model"


def test_an_active_test_that_finds_less_drifts(plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "audit")
    test = ActiveTest(of="PGD", norm="linf", eps=0.1, attack={"name": "PGD"}, tested=48, found=48)
    old = audit_record(cell, active=[test])
    new = audit_record(cell, active=[test.model_copy(update={"found": 10})])
    (found,) = verdicts((cell, old, new))
    assert found.why == "the 95 % intervals do not overlap: active test of PGD linf 0.1"


# --- the whole -----------------------------------------------------------------------------------------------------


def cells(*names: str) -> list[CellVerdict]:
    return [
        CellVerdict.model_validate({"cell": name, "title": f"c{place}", "kind": "attack", "verdict": name, "why": "so"})
        for place, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("names", "verdict", "code", "said"),
    [
        (["bit-identical"] * 2, "bit-identical", 0, "s: 2 of 2 cells bit-identical"),
        (
            ["bit-identical", "same predictions"], "same predictions", 0,
            "s: reproduced: of 2 cells 1 bit-identical, 1 same predictions",
        ),
        (
            ["same predictions", "within interval"], "within interval", 0,
            "s: reproduced: of 2 cells 1 same predictions, 1 within interval",
        ),
        (["drifted", "bit-identical", "failed"], "drifted", 3, "s: DRIFTED: 1 of 3 cells (first: c0, so)"),
        (["bit-identical", "failed"], "incomplete", 1, "s: INCOMPLETE: 1 failed of 2 cells (first: c1, so)"),
        (["missing", "bit-identical"], "incomplete", 1, "s: INCOMPLETE: 1 missing of 2 cells (first: c0, so)"),
        ([], "incomplete", 1, "s: INCOMPLETE: nothing is recorded"),
    ],
)  # fmt: skip
def test_the_worst_cell_decides(names: list[str], verdict: str, code: int, said: str) -> None:
    found = cells(*names)
    *conclusion, sentence = conclude("s", found, [])
    assert conclusion == [verdict, code]
    assert sentence == said
    assert sum(counts_of(found).values()) == len(names)


def test_another_experiment_is_no_reproduction_however_equal_the_numbers() -> None:
    inputs = [Difference(key="training.epochs", old=20, new=30), Difference(key="seeds removed", old="0", new=None)]
    found = cells("bit-identical")
    *conclusion, sentence = conclude("s", found, inputs, "a sample")
    assert conclusion == ["different inputs", 3]
    assert sentence == (
        "s: NOT A REPRODUCTION: not the recorded experiment: training.epochs: 20 -> 30, and 1 more (a sample)"
    )


def test_the_sample_is_the_same_every_time_and_holds_what_it_needs(plan: Plan) -> None:
    old = {cell.id: cell for cell in plan.cells}
    assert sample(plan, old, 1) == plan.cells
    sizes = []
    for fraction in (0.01, 0.3, 0.7):
        chosen = sample(plan, old, fraction)
        assert chosen == sample(plan, old, fraction)
        ids = {cell.id for cell in chosen}
        assert all(set(cell.dependencies) <= ids for cell in chosen)
        for training in (cell for cell in chosen if cell.kind == "train"):
            assert cell_of(plan, training.model, 0, "none").id in ids
        sizes.append(len(chosen))
    assert sizes == sorted(sizes)
    assert 2 <= sizes[0] < sizes[-1] < len(plan.cells) + 1
    larger = cell_of(plan, "a", 0, "PGD", 0.2)
    assert cell_of(plan, "a", 0, "PGD", 0.1).id in larger.dependencies, "an ascending attack needs the smaller ball"
