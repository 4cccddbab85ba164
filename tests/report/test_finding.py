"""The finding of a pair: three sentences that say what the verdicts say, whatever these are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary
from robustbench_cmic.report.finding import finding
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.pairs import PairTest
from tests.report.folders import HEAD, attack_record, audit_record, cell_of, fill, planned, read, replace
from tests.report.hostile import hostile

N = 1000
SUITE = f"""{HEAD}attacks:
  - {{name: FGSM, eps: [0.1, 0.2]}}
  - {{name: PGD, eps: [0.1, 0.2], steps: 10, loss: margin}}
"""
B, A = "`b` (CMIC-DL printed)", "`a` (CE)"
Counts = dict[tuple[str, float], tuple[int, ...]]
USUAL = {0.0: 900, 0.1: 600, 0.2: 400}
UNDECIDED = {0.0: (910, 890, 905), 0.1: (630, 580, 626), 0.2: (430, 380, 426)}
"""Correct examples of the second model, seed by seed, with which everything is undecided."""


def made(tmp_path: Path, counts: Counts | None = None, text: str = SUITE, **changes: int) -> Summary:
    """A summary of these numbers of correct examples; `changes` are of all records of attacks."""

    def outcome(cell: Cell) -> list[bool]:
        usual = UNDECIDED[cell.eps] if cell.model == "b" else (USUAL[cell.eps],) * 3
        kept = (counts or {}).get((cell.model, cell.eps), usual)[cell.seed]
        return [place < kept for place in range(N)]

    return read(fill(tmp_path / "made", planned(tmp_path, text), outcome, **changes))


def line(summary: Summary, what: str, eps: float = 0.0) -> PairTest:
    (found,) = (own for own in summary.pairs["a", "b"] if (own.what, own.threat.eps) == (what, eps))
    return found


def interval(measured: PairTest) -> str:
    assert measured.interval is not None
    low, high = measured.interval
    return f"95 % over examples {100 * low:+.1f} … {100 * high:+.1f}"


@pytest.mark.parametrize(("sign", "side"), [(1, "higher"), (-1, "lower")])
def test_a_difference_is_said_with_both_means_its_interval_its_p_value_and_its_seeds(
    tmp_path: Path, sign: int, side: str
) -> None:
    by = tuple(900 + sign * d for d in (50, 51, 50))
    summary = made(tmp_path, {("b", 0.0): by, ("b", 0.2): tuple(400 + sign * d for d in (90, 91, 90))})
    clean, worst = line(summary, "accuracy"), line(summary, "worst case", 0.2)
    assert (clean.outcome, worst.outcome) == (side, side)
    first, second, _ = finding(summary, "a", "b")
    assert first == (
        f"Clean accuracy: {B} is {side} than {A}: {sum(by) / 30:.1f} % against 90.0 %, {sign * 5.03:+.1f} points "
        f"(3 seeds, {interval(clean)}, p = {clean.p:.2g})."
    )
    assert second == (
        f"Worst case over all attacks, {B} against {A} at 2 radii: {side} at 1 (L-inf 0.2), undecided at 1 (L-inf 0.1);"
        f" of those {side}, most apart at L-inf 0.2: {40 + sign * 9.03:.1f} % against 40.0 %, {sign * 9.03:+.1f} points"
        f" (3 seeds, {interval(worst)}, p = {worst.p:.2g})."
    )


def test_equivalent_is_said_with_the_margin_and_the_p_value_of_equivalence(tmp_path: Path) -> None:
    summary = made(tmp_path, {("b", 0.0): (902, 905, 899)}, f"{SUITE}claims: {{margin: 3}}\n")
    clean = line(summary, "accuracy")
    assert clean.outcome == "equivalent"
    assert finding(summary, "a", "b")[0] == (
        f"Clean accuracy: {B} and {A} are equivalent within ±3 points: 90.2 % against 90.0 %, +0.2 points "
        f"(3 seeds, {interval(clean)}, p = {clean.p_equivalent:.2g})."
    )


def test_undecided_says_what_the_seeds_could_have_shown(tmp_path: Path) -> None:
    summary = made(tmp_path)
    clean, worst = line(summary, "accuracy"), line(summary, "worst case", 0.1)
    first, second, third = finding(summary, "a", "b")
    could = clean.verdict.removeprefix("undecided: ")
    assert could.startswith("3 seeds can detect ")
    assert first == (
        f"Clean accuracy: it is undecided which of {B} and {A} is higher: 90.2 % against 90.0 %, +0.2 points "
        f"(3 seeds, {interval(clean)}; {could})."
    )
    assert f"{B} against {A} at 2 radii: undecided at 2 (L-inf 0.1, 0.2); most apart at L-inf 0.1: " in second
    assert interval(worst) in second
    assert third == (
        f"Flags took away none of the 7 comparisons of {B} with {A}, which is no proof that the attacks were strong "
        "enough."
    )


def test_one_seed_is_no_claim(tmp_path: Path) -> None:
    summary = made(tmp_path, text=SUITE.replace("[0, 1, 2]", "[0]"))
    first, second, _ = finding(summary, "a", "b")
    assert first.startswith(f"Clean accuracy: no claim is made about {B} and {A}: 91.0 % against 90.0 %, +1.0 points (")
    assert "points (one seed, 95 % over examples " in first
    assert "at 2 radii: no claim at 2 (L-inf 0.1, 0.2); most apart at L-inf 0.1: 63.0 % against" in second
    assert "higher" not in first + second


def test_a_seed_that_is_missing_is_no_claim(tmp_path: Path) -> None:
    summary = made(tmp_path)
    replace(tmp_path / "made", cell_of(summary.results.plan, "b", 1, "train"), status="diverged")
    first, second, _ = finding(read(tmp_path / "made"), "a", "b")
    assert f"no claim is made about {B} and {A}" in first
    assert "(2 of 3 seeds, " in first
    assert "(2 of 3 seeds, " in second


def test_what_is_missing_is_called_missing(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE)
    summary = read(fill(tmp_path / "made", plan, lambda cell: None))
    assert finding(summary, "a", "b") == [
        f"Clean accuracy: no seed has a result of both {B} and {A}.",
        f"Worst case over all attacks, {B} against {A} at 2 radii: missing at 2 (L-inf 0.1, 0.2).",
        f"Flags: there is no comparison of {B} and {A} that any could take away.",
    ]


def test_what_tells_nothing_apart_is_not_compared(tmp_path: Path) -> None:
    summary = made(tmp_path, {("a", 0.1): (9, 8, 9), ("b", 0.1): (0, 0, 0), ("a", 0.2): (0,) * 3, ("b", 0.2): (0,) * 3})
    second = finding(summary, "a", "b")[1]
    assert "at 2 radii: not compared at 2 (L-inf 0.1, 0.2); most apart at L-inf 0.1: 0.0 % against 0.9 %" in second
    assert second.endswith(", both under 2 %).")


def test_flags_say_what_they_took_away_of_whom_and_the_largest_of_it(tmp_path: Path) -> None:
    summary = made(tmp_path)
    for seed in range(3):
        for eps, kept in ((0.1, 700), (0.2, 880 + seed)):
            cell = cell_of(summary.results.plan, "b", seed, "FGSM", eps)
            write_record(tmp_path / "made", attack_record(cell, [place < kept for place in range(N)], outside=3))
    summary = read(tmp_path / "made")
    took = line(summary, "FGSM", 0.2)
    assert took.verdict == "withdrawn: flagged (invalid-examples)"
    assert finding(summary, "a", "b")[2] == (
        f"Flags took away 2 of 7 comparisons of {B} with {A} (`b`: invalid-examples); the largest, FGSM at L-inf 0.2:"
        f" 88.1 % against 40.0 %, +48.1 points (3 seeds, {interval(took)}); "
        "the worst case there is 41.2 % against 40.0 %."
    )


def test_without_an_audit_every_worst_case_is_withdrawn_and_said_to_be(tmp_path: Path) -> None:
    summary = made(tmp_path)
    (tmp_path / "made" / f"{cell_of(summary.results.plan, 'a', 2, 'audit').id}.json").unlink()
    first, second, third = finding(read(tmp_path / "made"), "a", "b")
    assert "undecided" in first, "the audit is of attacks"
    assert f"{B} against {A} at 2 radii: withdrawn at 2 (L-inf 0.1, 0.2)" in second
    assert third.startswith(f"Flags took away 6 of 7 comparisons of {B} with {A} (`a`: not-audited); the largest, ")
    assert third.endswith("; the worst case there is withdrawn, too.")


def test_a_flag_about_a_whole_model_withdraws_its_clean_accuracy(tmp_path: Path) -> None:
    summary = made(tmp_path, {("b", 0.0): (600, 601, 602)})
    record = audit_record(cell_of(summary.results.plan, "b", 2, "audit"))
    forward = {"forward_pass": {"repeat": 5, "companions": 0, "training": []}}
    write_record(tmp_path / "made", type(record).model_validate(record.model_dump() | forward))
    first, _, third = finding(read(tmp_path / "made"), "a", "b")
    assert first.startswith(
        f"Clean accuracy: nothing is said of {B} and {A}, for a number is flagged (random-forward): "
    )
    assert third.startswith(
        f"Flags took away 7 of 7 comparisons of {B} with {A} (`b`: random-forward); the largest, on "
    )
    assert "the largest, on clean examples: 60.1 % against 90.0 %, -29.9 points (3 seeds, " in third
    assert "worst case" not in third, "it is that of an attack, which this is not"


def test_no_audit_is_not_called_no_flag(tmp_path: Path) -> None:
    third = finding(made(tmp_path, text=f"{SUITE}audit: off\n"), "a", "b")[2]
    assert third.startswith(
        f"This suite is not audited (`audit: off`): flags took away 6 of 7 comparisons of {B} with {A} "
        "(`b`: not-audited; `a`: not-audited); the largest, FGSM at L-inf 0.1: "
    )


def test_models_that_the_suite_does_not_compare(tmp_path: Path) -> None:
    alone = made(tmp_path, text=SUITE.replace("pairs: [[a, b]]\n", ""))
    assert finding(alone, "a", "b") == [
        "`a` and `b` are no pair of this suite, so that nothing is said of their difference."
    ]


def test_the_leaderboard_puts_the_finding_first_in_every_pair(tmp_path: Path) -> None:
    summary = made(tmp_path)
    text = leaderboard(summary)
    said = "\n".join(f"- {sentence}" for sentence in finding(summary, "a", "b"))
    assert f"## `a` against `b`\n\n{said}\n\nThe difference is `b` minus `a`" in text


def test_an_objective_of_strange_name_stays_text(tmp_path: Path) -> None:
    summary = hostile(tmp_path)
    ((first, second),) = summary.pairs
    said = finding(summary, first, second)
    assert len(said) == 3
    outside = [re.sub("`[^`]*`", "", sentence.replace("\\`", "")) for sentence in said]
    assert all(re.search(r"\n|(?<!\\)[`*<\[]", sentence) is None for sentence in outside)
