"""Each verdict through a small results folder: higher, lower, equivalent, undecided, and what is not compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scipy.stats import nct, t, ttest_1samp

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.files import read_json, write_json
from robustbench_cmic.records.store import PLAN_FILE, write_record
from robustbench_cmic.report import write_report
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.statistics import holm
from tests.report.folders import HEAD, attack_record, calibration, cell_of, fill, planned, read

N = 1000
TWO_RADII = f"{HEAD}attacks:\n  - {{name: PGD, eps: [0.1, 0.2], steps: 10, loss: margin}}\n"
Counts = dict[tuple[str, float], tuple[int, int, int]]
"""Correct examples of a model at an eps, seed by seed, where they are not `USUAL`; the first of all."""
USUAL = {0.0: 900, 0.1: 600, 0.2: 400}


def lines(tmp_path: Path, counts: Counts, text: str = TWO_RADII) -> dict[str, PairTest]:
    """The claims about the pair by their names."""

    def outcome(cell: Cell) -> list[bool]:
        kept = counts.get((cell.model, cell.eps), (USUAL[cell.eps],) * 3)[cell.seed]
        return [place < kept for place in range(N)]

    folder = fill(tmp_path / "made", planned(tmp_path, text), outcome)
    return {line.name if line.in_points else line.what: line for line in read(folder).pairs["a", "b"] if line.claim}


AT_1, AT_2 = "worst case, L-inf 0.1", "worst case, L-inf 0.2"


# --- equivalent ----------------------------------------------------------------------------------------------------


def test_equivalence_is_adjusted_over_the_accuracies_that_are_claimed(tmp_path: Path) -> None:
    found = lines(tmp_path, {("b", 0.0): (902, 905, 899), ("b", 0.1): (604, 596, 602), ("b", 0.2): (450, 390, 360)})
    raw = []
    for by in ((2, 5, -1), (4, -4, 2), (50, -10, -40)):
        values = [100 * value / N for value in by]
        raw.append(
            max(
                ttest_1samp(values, -2, alternative="greater").pvalue, ttest_1samp(values, 2, alternative="less").pvalue
            )
        )
    expected = holm(raw)
    for name, p in zip(("clean", AT_1, AT_2), expected, strict=True):
        assert found[name].p_equivalent == pytest.approx(p, rel=1e-9), name
    assert found["clean"].verdict == f"equivalent within ±2 points (p = {expected[0]:.2g}, 3 seeds)"
    assert found[AT_1].verdict == f"equivalent within ±2 points (p = {expected[1]:.2g}, 3 seeds)"
    assert found[AT_2].outcome == "undecided"
    assert found["NCMI at T"].p_equivalent is None


@pytest.mark.parametrize(("margin", "outcome"), [("2", "equivalent"), ("0.25", "undecided"), ("0.75", "equivalent")])
def test_the_margin_is_the_suite_s(tmp_path: Path, margin: str, outcome: str) -> None:
    text = f"{TWO_RADII}claims: {{margin: {margin}}}\n"
    found = lines(tmp_path, {("b", 0.1): (602, 601, 603)}, text)
    assert found["clean"].outcome == "equivalent", "no example differs"
    assert found[AT_1].outcome == outcome
    if outcome == "equivalent":
        assert f"within ±{margin} points" in found[AT_1].verdict


def test_seeds_alone_show_no_equivalence(tmp_path: Path) -> None:
    """In every seed 100 examples are right for a only, and 100 others for b only: other images may tell otherwise."""

    def outcome(cell: Cell) -> list[bool]:
        moved = 100 if cell.model == "b" and cell.eps == 0.1 else 0
        return [moved <= place < moved + (600 if cell.eps else 900) for place in range(N)]

    folder = fill(tmp_path / "made", planned(tmp_path, TWO_RADII), outcome)
    (found,) = (line for line in read(folder).pairs["a", "b"] if line.name == AT_1)
    assert found.p_equivalent is not None
    assert found.p_equivalent < 0.05
    assert found.interval is not None
    assert found.interval[1] > 0.02
    assert found.verdict == "undecided: within ±2 points over seeds, not over examples"


# --- higher and lower ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sign", "side"), [(1, "higher"), (-1, "lower")])
def test_a_small_difference_that_is_shown_is_a_difference_all_the_same(tmp_path: Path, sign: int, side: str) -> None:
    found = lines(tmp_path, {("b", 0.1): (600 + 10 * sign, 600 + 11 * sign, 600 + 10 * sign)})[AT_1]
    assert (found.p or 1) < 0.05 > (found.p_equivalent or 1)
    size = f"{sign * 31 / 30:+.1f} points"
    assert found.verdict == f"CMIC-DL printed {side} (p = {found.p:.2g}, {size}, within ±2, 3 seeds)"
    assert found.outcome == side


# --- undecided -----------------------------------------------------------------------------------------------------


def test_undecided_says_what_the_seeds_could_have_shown_and_how_many_would_show_the_margin(tmp_path: Path) -> None:
    by = (30, -20, 26)
    found = lines(tmp_path, {("b", 0.1): (630, 580, 626), ("b", 0.2): (340, 344, 339)})
    # Claims with a p-value: the accuracy, and two worst cases, of which one is rejected. NCMI is the same everywhere.
    assert found[AT_2].outcome == "lower"
    level = 0.05 / 2
    sd = (sum((100 * value / N - 1.2) ** 2 for value in by) / 2) ** 0.5
    line = found[AT_1]
    size = 100 * (line.detectable or 0)
    assert nct.sf(t.isf(level / 2, 2), 2, size * 3**0.5 / sd) == pytest.approx(0.8, abs=1e-4)
    needed = next(n for n in range(2, 999) if nct.sf(t.isf(level / 2, n - 1), n - 1, 2 * n**0.5 / sd) >= 0.8)
    assert line.seeds_needed == needed
    assert (
        line.verdict
        == f"undecided: 3 seeds can detect {size:.1f} points or more; 2 points would need about {needed} seeds"
    )


def test_seeds_that_could_show_the_margin_are_not_asked_for_more(tmp_path: Path) -> None:
    text = f"{TWO_RADII}claims: {{margin: 5.8}}\n"
    found = lines(tmp_path, {("b", 0.1): (632, 642, 652)}, text)[AT_1]
    assert found.detectable is not None
    assert 0.05 < found.detectable < 0.058
    assert found.verdict == f"undecided: 3 seeds can detect {100 * found.detectable:.1f} points or more"
    assert found.seeds_needed is None


def test_words_where_the_spread_is_hopeless(tmp_path: Path) -> None:
    found = lines(tmp_path, {("b", 0.1): (900, 300, 600)})[AT_1]
    assert found.verdict == (
        "undecided: 3 seeds can detect no difference, however large; 2 points would need more than 1000 seeds"
    )
    assert found.detectable is not None
    assert found.detectable > 1
    assert found.seeds_needed is None


def test_ncmi_is_undecided_without_a_margin(tmp_path: Path) -> None:
    folder = fill(tmp_path / "made", plan := planned(tmp_path, TWO_RADII), lambda cell: [True] * N)
    assert ncmi(folder).verdict == "undecided: the same in every seed, no spread to test with"
    for seed, cmi in enumerate((0.4, 0.7, 0.5)):
        cell = cell_of(plan, "b", seed, "none")
        write_record(folder, attack_record(cell, [True] * N, calibration=calibration(cmi / 2)))
    found = ncmi(folder)
    assert found.verdict == f"undecided: 3 seeds can detect {found.detectable:.2g} or more"
    assert (found.seeds_needed, found.p_equivalent) == (None, None)


def ncmi(folder: Path) -> PairTest:
    return next(line for line in read(folder).pairs["a", "b"] if not line.in_points)


# --- not compared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eps", "a", "b", "verdict"),
    [
        (0.2, (19, 18, 22), (0, 3, 0), "not compared: both under 2 %"),
        (0.2, (20, 21, 20), (0, 3, 0), ""),
        (0.1, (890, 890, 890), (895, 899, 891), "not compared: both within 1 point of clean"),
        (0.1, (889, 890, 890), (895, 899, 891), ""),
    ],
)
def test_where_nothing_is_left_to_find_no_family_counts(
    tmp_path: Path, eps: float, a: tuple[int, int, int], b: tuple[int, int, int], verdict: str
) -> None:
    other = {0.1: 0.2, 0.2: 0.1}[eps]
    usual = USUAL[other]
    counts = {("b", 0.0): (900, 904, 899), ("b", other): (usual + 12, usual - 20, usual + 20)}
    found = lines(tmp_path, counts | {("a", eps): a, ("b", eps): b})
    line, others = found[f"worst case, L-inf {eps}"], found[f"worst case, L-inf {other}"]
    closed = bool(verdict)
    assert (line.outcome == "not compared") == closed
    assert not closed or line.verdict == verdict
    assert (line.p is None) == (line.p_equivalent is None) == closed
    assert all((seed.p is None) == closed for seed in line.seeds.values())
    assert line.differences == pytest.approx([(y - x) / N for x, y in zip(a, b, strict=True)]), (
        "it is shown all the same"
    )
    # The others are adjusted for as many tests as are left.
    raw = [ttest_1samp(by, 0).pvalue for by in ((0, 4, -1), (12, -20, 20))]
    raw += [] if closed else [ttest_1samp([y - x for x, y in zip(a, b, strict=True)], 0).pvalue]
    assert [found["clean"].p, others.p] == pytest.approx(holm(raw)[:2])
    assert others.level == pytest.approx(0.05 / sum(p > 0.05 for p in holm(raw)))


def test_single_attacks_are_closed_by_their_own_numbers(tmp_path: Path) -> None:
    text = TWO_RADII.replace("  - {name: PGD", "  - {name: FGSM, eps: 0.1}\n  - {name: PGD")
    plan = planned(tmp_path, text)

    def outcome(cell: Cell) -> list[bool]:
        kept = {"none": 900, "FGSM": 500 + cell.seed, "PGD": 0}[cell.attack]
        return [place < kept for place in range(N)]

    found = {
        (line.what, line.threat.eps): line.outcome
        for line in read(fill(tmp_path / "made", plan, outcome)).pairs["a", "b"]
    }
    assert found["FGSM", 0.1] == "equivalent"
    assert {found[key] for key in (("PGD", 0.1), ("PGD", 0.2), ("worst case", 0.1), ("worst case", 0.2))} == {
        "not compared"
    }


@pytest.mark.parametrize(("margin", "kept", "words"), [(0.5, 9, "1"), (0.5, 10, ""), (3, 29, "3"), (3, 30, "")])
def test_what_is_lost_is_one_percent_or_the_margin(tmp_path: Path, margin: float, kept: int, words: str) -> None:
    plan = planned(tmp_path, f"claims: {{margin: {margin}}}\n" + TWO_RADII)
    folder = fill(tmp_path / "made", plan, lambda cell: [place < (kept if cell.eps else 900) for place in range(N)])
    found = {line.name: line for line in read(folder).pairs["a", "b"]}
    assert found[AT_1].settled == (words and f"both under {words} %")


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_single_attack_that_shows_more_than_the_worst_case_says_so(tmp_path: Path, confirmed: bool) -> None:
    text = TWO_RADII.replace("  - {name: PGD", "  - {name: FGSM, eps: 0.1}\n  - {name: PGD")
    plan = planned(tmp_path, text)

    def outcome(cell: Cell) -> list[bool]:
        kept = {"none": 900, "FGSM": 500 + cell.seed, "PGD": 400 + 10 * cell.seed}[cell.attack]
        better = cell.model == "b" and (cell.attack == "FGSM" or (cell.attack == "PGD" and confirmed))
        return [place < kept + (80 + 2 * cell.seed if better else 0) for place in range(N)]

    found = {line.name: line.verdict for line in read(fill(tmp_path / "made", plan, outcome)).pairs["a", "b"]}
    by_itself = r"CMIC-DL printed higher \(p = [^)]*, 3 seeds\)"
    assert bool(re.fullmatch(by_itself, found[AT_1])) == confirmed
    alone = "" if confirmed else r" under this attack alone: worst case 41\.0 % against 41\.0 %"
    assert re.fullmatch(by_itself + alone, found["FGSM, L-inf 0.1"])


def test_while_a_seed_is_missing_nothing_is_settled(tmp_path: Path) -> None:
    folder = fill(tmp_path / "made", plan := planned(tmp_path, TWO_RADII), lambda cell: [cell.eps == 0] * N)
    (folder / f"{cell_of(plan, 'b', 1, 'PGD', 0.1).id}.json").unlink()
    found = {line.name: line for line in read(folder).pairs["a", "b"]}
    assert found[AT_1].verdict == "2 of 3 seeds: no claim about the method"
    assert (found[AT_1].settled, found[AT_1].p) == ("", 1.0)
    assert found["PGD, L-inf 0.2"].verdict == "not compared: both under 2 %"


# --- where the margin is written -----------------------------------------------------------------------------------


def test_a_plan_of_before_has_the_default_margin(tmp_path: Path) -> None:
    folder = fill(
        tmp_path / "made", planned(tmp_path, f"{TWO_RADII}claims: {{margin: 7/2}}\n"), lambda cell: [True] * N
    )
    content = read_json(folder / PLAN_FILE)
    assert content["claims"] == {"margin": 3.5}
    assert read(folder).results.plan.claims.margin == 3.5
    del content["claims"]
    write_json(folder / PLAN_FILE, content)
    assert read(folder).results.plan.claims.margin == 2
    assert Plan.model_validate(content).claims.margin == 2


def test_every_format_says_the_margin_and_the_verdicts(tmp_path: Path) -> None:
    counts: Counts = {("b", 0.1): (630, 580, 626), ("a", 0.2): (0, 0, 0), ("b", 0.2): (5, 0, 0)}
    text = f"{TWO_RADII}claims: {{margin: 1.5}}\n"
    found = lines(tmp_path, counts, text)
    assert [found[name].outcome for name in ("clean", AT_1, AT_2)] == ["equivalent", "undecided", "not compared"]
    folder = tmp_path / "made"
    write_report(folder, ["md", "html", "latex", "json"])
    for name in ("leaderboard.md", "index.html", "leaderboard.tex"):
        said = (folder / name).read_text().replace("$\\pm$", "±").replace("\\%", "%")
        assert all(found[line].verdict in said for line in ("clean", AT_1, AT_2)), name
        assert "no difference shown" not in said
    assert "show it to be less than 1.5 points" in (folder / "leaderboard.md").read_text()
    content = json.loads((folder / "report.json").read_text())
    assert content["margin"] == 0.015
