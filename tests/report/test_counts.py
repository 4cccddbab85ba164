"""The verdicts of a pair, counted: each word and number against lines that are made up."""

from __future__ import annotations

import pytest

from robustbench_cmic.report.counts import claim_counts
from robustbench_cmic.report.pairs import Outcome, PairTest, SeedTest
from robustbench_cmic.suite.fields import CLEAN, Threat


def clean(outcome: Outcome, difference: float = 0.0) -> PairTest:
    seeds = {seed: SeedTest(0.9, 0.9 + difference, None) for seed in (0, 1)}
    return PairTest("accuracy", CLEAN, True, True, seeds, (), outcome=outcome)


def attacked(*outcomes: Outcome, what: str = "worst case") -> list[PairTest]:
    threats = [Threat("linf", 0.1 * place) for place in range(1, len(outcomes) + 1)]
    return [
        PairTest(what, threat, what == "worst case", True, {}, (), outcome=outcome)
        for threat, outcome in zip(threats, outcomes, strict=True)
    ]


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        (["higher", "lower", "higher", "undecided"],
         "4 radii: 3 shown to differ (2 higher, 1 lower), 0 shown to be equivalent, 1 undecided"),
        (["undecided"] * 5 + ["withdrawn"] * 2,
         "7 radii: 0 shown to differ, 0 shown to be equivalent, 5 undecided; 2 withdrawn"),
        (["not compared", "equivalent", "no claim", ""],
         "4 radii: 0 shown to differ, 1 shown to be equivalent, 0 undecided; "
         "1 not compared, 1 no claim, 1 not measured"),
        (["lower"], "1 radius: 1 shown to differ (1 lower), 0 shown to be equivalent, 0 undecided"),
        (["", ""], "not measured"),
        ([], "not measured"),
    ],
)  # fmt: skip
def test_radii_are_counted_by_verdict(outcomes: list[Outcome], text: str) -> None:
    others = attacked("higher", "higher", what="PGD")
    assert claim_counts([clean("undecided"), *others, *attacked(*outcomes)]).worst == text


def test_clean_accuracy_is_said_in_a_word_and_by_how_much_where_it_differs() -> None:
    information = PairTest("NCMI at T", CLEAN, True, False, {}, (), outcome="higher")
    for outcome in ("equivalent", "undecided", "withdrawn", "no claim"):
        assert claim_counts([information, clean(outcome)]).clean == outcome
    assert claim_counts([clean("lower", -0.031)]).clean == "lower (-3.1 points)"
    assert claim_counts([clean("")]).clean == claim_counts([]).clean == "not measured"
    assert str(claim_counts([clean("lower", -0.031), *attacked("undecided")])) == (
        "clean: lower (-3.1 points); worst case: 1 radius: 0 shown to differ, 0 shown to be equivalent, 1 undecided"
    )
