"""Comparisons of a pair: what a verdict says word for word, p-values against values by hand, intervals, flags."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import pack_replicates, unpack_outcomes, unpack_replicates
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import read_results, summarize
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.statistics import paired_accuracy_interval, paired_replicates_interval
from tests.conftest import ROOT
from tests.report.folders import (
    HEAD,
    attack_record,
    audit_record,
    calibration,
    cell_of,
    fill,
    measures,
    planned,
    read,
    replace,
)

N = 400
PGD = "  - {name: PGD, eps: 0.1, steps: 5}\n"
MARGIN = "  - {name: PGD, id: PGD-margin, eps: 0.1, steps: 10, loss: margin}\n"
PLAIN = f"{HEAD}attacks:\n  - {{name: PGD, eps: 0.1, steps: 10, loss: margin}}\n"
AUDITED = f"{HEAD}attacks:\n{PGD}{MARGIN}"
Survivors = Callable[[Cell], int]


def first(count: int, n: int = N) -> list[bool]:
    return [place < count for place in range(n)]


def lines(
    tmp_path: Path, survivors: Survivors, text: str = PLAIN, pair: tuple[str, str] = ("a", "b")
) -> list[PairTest]:
    """The lines of a pair whose attacks leave the first examples of all correct."""
    folder = fill(tmp_path / "made", planned(tmp_path, text), lambda cell: first(survivors(cell)))
    return read(folder).pairs[pair]


def line(found: list[PairTest], what: str) -> PairTest:
    (one,) = [line for line in found if line.what == what]
    return one


def differing(by: tuple[int, int, int], everywhere: bool = False) -> Survivors:
    """Model b keeps so many more examples than a under attack, seed by seed; without an attack both are alike."""

    def survivors(cell: Cell) -> int:
        if cell.attack == "none" and not everywhere:
            return 380
        return 200 + (by[cell.seed] if cell.model == "b" else 0)

    return survivors


def t_test(differences: list[float]) -> float:
    """Two-sided p of Student's t with two degrees of freedom, in closed form: P(|T| > t) = 1 - t / sqrt(t^2 + 2)."""
    mean = sum(differences) / 3
    sd = math.sqrt(sum((value - mean) ** 2 for value in differences) / 2)
    t = abs(mean) / (sd / math.sqrt(3))
    return 1 - t / math.sqrt(t * t + 2)


def exact(discordant: int) -> float:
    """McNemar's p where only one of two models has examples to itself."""
    return min(1.0, 2 * 0.5**discordant)


# --- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "side", "points"), [((80, 88, 84), "higher", "+21.0"), ((-80, -88, -84), "lower", "-21.0")]
)
def test_a_clear_difference_is_said_with_its_p_its_size_and_its_seeds(
    tmp_path: Path, by: tuple[int, int, int], side: str, points: str
) -> None:
    found = line(lines(tmp_path, differing(by)), "worst case")
    # Two claims have a difference to test: the accuracy, which is the same (p = 1), and the worst case.
    p = 2 * t_test([value / N for value in by])
    assert found.p == pytest.approx(p)
    assert found.verdict == f"CMIC-DL printed {side} (p = {p:.2g}, {points} points, 3 seeds)"
    assert found.threat == ("linf", 0.1)


def test_differences_that_chance_explains_are_not_claimed(tmp_path: Path) -> None:
    found = lines(tmp_path, differing((80, -40, 30)))
    assert [line.what for line in found] == ["accuracy", "NCMI at T", "PGD", "worst case"]
    assert [line.outcome for line in found] == ["equivalent", "undecided", "undecided", "undecided"]
    assert [line.claim for line in found] == [True, True, False, True]


def test_one_seed_allows_no_claim_about_the_method(tmp_path: Path) -> None:
    found = lines(tmp_path, differing((200, 0, 0)), PLAIN.replace("[0, 1, 2]", "[0]"))
    assert {line.verdict for line in found} == {"one seed: no claim about the method"}
    assert line(found, "worst case").p is None
    assert line(found, "worst case").seeds[0].p == pytest.approx(2 * exact(200))


def test_only_seeds_of_both_models_count(tmp_path: Path) -> None:
    folder = fill(tmp_path / "made", plan := planned(tmp_path, PLAIN), lambda cell: first(200))
    replace(folder, cell_of(plan, "a", 0, "PGD"))
    (folder / f"{cell_of(plan, 'b', 1, 'PGD').id}.json").unlink()
    replace(folder, cell_of(plan, "a", 1, "none"))
    found = read(folder).pairs["a", "b"]
    seeds = {line.what: list(line.seeds) for line in found}
    assert seeds == {"accuracy": [0, 2], "NCMI at T": [0, 2], "PGD": [2], "worst case": [2]}
    assert line(found, "accuracy").verdict == "2 of 3 seeds: no claim about the method"
    assert line(found, "worst case").verdict == "1 of 3 seeds: no claim about the method"
    replace(folder, cell_of(plan, "a", 2, "PGD"))
    none = line(read(folder).pairs["a", "b"], "worst case")
    assert (none.seeds, none.p, none.verdict) == ({}, None, "")


def test_counts_that_differ_are_not_compared(tmp_path: Path) -> None:
    folder = fill(tmp_path / "made", plan := planned(tmp_path, PLAIN), lambda cell: first(200))
    write_record(folder, attack_record(cell_of(plan, "b", 1, "PGD"), first(100, 200)))
    assert list(line(read(folder).pairs["a", "b"], "PGD").seeds) == [0, 2]


def test_models_are_called_by_their_objectives_where_those_differ(tmp_path: Path) -> None:
    same = PLAIN.replace("{name: cmic}", "{name: ce, label_smoothing: 0.1}")
    verdict = line(lines(tmp_path, differing((80, 88, 84)), same), "worst case").verdict
    assert verdict.startswith("b higher (p = ")
    turned = PLAIN.replace("[[a, b]]", "[[b, a]]")
    assert turned != PLAIN
    reverse = line(lines(tmp_path, differing((80, 88, 84)), turned, ("b", "a")), "worst case").verdict
    assert reverse.startswith("CE lower (p = ")
    assert "-21.0 points" in reverse
    readings = PLAIN.replace("{name: cmic}", "{name: cmic, preset: authors}").replace("{name: ce}", "{name: cmic}")
    verdict = line(lines(tmp_path, differing((80, 88, 84)), readings), "worst case").verdict
    assert verdict.startswith("CMIC-DL authors higher (p = "), "two readings of one objective"


def test_models_of_unknown_training_are_called_by_their_ids(tmp_path: Path) -> None:
    for model in "ab":
        for seed in range(3):
            (tmp_path / f"{model}-{seed}.safetensors").write_bytes(model.encode())
    text = PLAIN.replace("objective: {name: ce}", "weights: 'a-{seed}.safetensors'")
    assert line(lines(tmp_path, differing((80, 88, 84)), text), "worst case").verdict.startswith(
        "CMIC-DL printed higher"
    )
    text = text.replace("objective: {name: cmic}", "weights: 'b-{seed}.safetensors'")
    assert line(lines(tmp_path, differing((80, 88, 84)), text), "worst case").verdict.startswith("b higher")


def test_a_difference_that_the_images_explain_is_not_claimed(tmp_path: Path) -> None:
    """Every seed agrees, on the same 400 images: 14 that only b has against 10 that only a has are no method's."""

    def survivors(cell: Cell) -> list[bool]:
        if cell.attack == "none" or cell.model == "a":
            return first(380 if cell.attack == "none" else 200)
        return [10 <= place < 214 for place in range(N)]

    folder = fill(tmp_path / "made", planned(tmp_path, PLAIN), survivors)
    found = line(read(folder).pairs["a", "b"], "worst case")
    assert found.p is not None
    assert found.p < 0.01
    assert found.interval is not None
    assert found.interval[0] < 0 < found.interval[1]
    assert found.verdict == f"undecided: shown over seeds (p = {found.p:.2g}), not over examples"
    assert (found.detectable, found.seeds_needed) == (None, None), "more examples are needed, not more seeds"


def test_transfers_are_no_comparison_of_a_pair(tmp_path: Path) -> None:
    found = lines(tmp_path, differing((80, 88, 84)), f"{PLAIN}  - {{name: Transfer, eps: 0.1, steps: 5}}\n")
    assert [line.what for line in found] == ["accuracy", "NCMI at T", "PGD", "worst case"]


# --- families ------------------------------------------------------------------------------------------------------


def test_claims_and_single_attacks_are_adjusted_apart(tmp_path: Path) -> None:
    """Three claims and two attacks, each against values by hand (Holm 1979)."""
    changes = {
        "none": (4, 6, 11), "PGD": (80, 88, 84), "FGSM": (-20, -31, -22),
    }  # fmt: skip
    text = PLAIN.replace("  - {name: PGD", "  - {name: FGSM, eps: 0.1}\n  - {name: PGD")

    def survivors(cell: Cell) -> int:
        base = {"none": 380, "PGD": 200, "FGSM": 330}[cell.attack]
        return base + (changes[cell.attack][cell.seed] if cell.model == "b" else 0)

    found = lines(tmp_path, survivors, text)
    raw = {name: t_test([value / N for value in by]) for name, by in changes.items()}
    # What PGD leaves, FGSM leaves, too: the worst case is PGD's. NCMI does not differ at all, which is no test.
    assert raw["PGD"] < raw["FGSM"] < raw["none"] < 0.5
    assert line(found, "worst case").p == pytest.approx(2 * raw["PGD"])
    assert line(found, "accuracy").p == pytest.approx(max(raw["none"], 2 * raw["PGD"]))
    assert line(found, "NCMI at T").p is None
    assert line(found, "PGD").p == pytest.approx(2 * raw["PGD"])
    assert line(found, "FGSM").p == pytest.approx(max(raw["FGSM"], 2 * raw["PGD"]))
    # Over examples: six p-values in each family (NCMI has none), the smallest times six, and so on down.
    for names, own in ((("accuracy", "worst case"), ("none", "PGD")), (("FGSM", "PGD"), ("FGSM", "PGD"))):
        values = sorted(
            (exact(abs(changes[key][seed])), name, seed)
            for name, key in zip(names, own, strict=True)
            for seed in range(3)
        )
        least = 0.0
        for rank, (p, name, seed) in enumerate(values):
            least = max(least, min(1.0, (6 - rank) * p))
            assert line(found, name).seeds[seed].p == pytest.approx(least), (name, seed)


def test_a_family_holds_the_lines_of_all_pairs(tmp_path: Path) -> None:
    third = "  - {id: c, architecture: mlp, objective: {name: cmic, beta: 0.1}}\n"
    text = PLAIN.replace("pairs: [[a, b]]", f"{third}pairs: [[a, b], [a, c]]")
    raw = t_test([value / N for value in (80, 88, 84)])
    for pair in (("a", "b"), ("a", "c")):
        # Of four claims, two accuracies and two worst cases, only that of b differs.
        found = line(lines(tmp_path, differing((80, 88, 84)), text, pair), "worst case")
        assert found.p == pytest.approx(4 * raw if pair[1] == "b" else 1.0)


def test_equal_seeds_are_equal_to_the_resolution_of_the_accuracy_only(tmp_path: Path) -> None:
    """Three equal differences have no variance; the rounding of accuracies to 1/400 hides some."""
    found = line(lines(tmp_path, differing((4, 4, 4))), "PGD")
    t = 0.01 / (math.sqrt(2 / 12) / N / math.sqrt(3))
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 2))


# --- intervals -----------------------------------------------------------------------------------------------------


def test_intervals_hold_the_difference_and_are_of_pairs(tmp_path: Path) -> None:
    found = lines(tmp_path, differing((80, -12, 0), everywhere=True))
    for one in found:
        for seed in one.seeds.values():
            if one.claim and one.what != "NCMI at T":
                assert seed.interval is not None
                assert seed.interval[0] <= seed.difference <= seed.interval[1]
    assert [seed.interval for seed in line(found, "PGD").seeds.values()] == [None] * 3, "they are of claims"
    seeds = line(found, "worst case").seeds
    assert [seed.difference for seed in seeds.values()] == pytest.approx([80 / N, -12 / N, 0])
    low, high = seeds[0].interval or (0, 0)
    # 80 discordant examples of 400, all one way: a binomial, whose 95 % are 1.96 standard deviations to each side.
    sd = math.sqrt(0.2 * 0.8 / N)
    assert (low, high) == pytest.approx((0.2 - 1.96 * sd, 0.2 + 1.96 * sd), abs=0.006)
    assert seeds[2].interval == (0.0, 0.0)
    # The mean over seeds: 68 of 1200 pairs, on the images where they lie.
    mean = line(found, "PGD").interval or (0, 0)
    sums = [(place in range(200, 280)) - (place in range(188, 200)) for place in range(N)]
    variance = sum((value / 3) ** 2 for value in sums) / N - (sum(sums) / 3 / N) ** 2
    half = 1.96 * math.sqrt(variance / N)
    assert mean == pytest.approx((sum(sums) / 3 / N - half, sum(sums) / 3 / N + half), abs=0.003)


def test_ncmi_has_an_interval_only_over_the_same_examples(tmp_path: Path) -> None:
    folder = fill(tmp_path / "made", plan := planned(tmp_path, PLAIN), lambda cell: first(200))
    noise = [0.001 * (place % 10) for place in range(100)]
    for model, ncmi in (("a", 0.25), ("b", 0.375)):
        for seed in range(3):
            own: dict[str, Any] = {
                "examples_sha256": "other" if (model, seed) == ("b", 1) else "same",
                "calibration": calibration(ncmi, [ncmi + value for value in noise]),
                # Of NCMI as it comes there is neither a claim nor an interval.
                "information": measures(0.2),
                "ncmi_replicates": pack_replicates([10 * value for value in noise]) if model == "a" else None,
            }
            write_record(folder, attack_record(cell_of(plan, model, seed, "none"), first(380), **own))
    found = line(read(folder).pairs["a", "b"], "NCMI at T")
    assert [seed.interval is None for seed in found.seeds.values()] == [False, True, False]
    assert found.interval is None, "the seeds were not all judged on the same examples"
    assert found.seeds[0].interval == pytest.approx((0.125, 0.125), abs=1e-6), "what the samples share cancels"
    assert {(seed.first, seed.second, seed.p) for seed in found.seeds.values()} == {(0.25, 0.375, None)}


@pytest.mark.parametrize("spread", [0.01, 0.4, None])
def test_a_difference_of_ncmi_has_to_show_over_examples_too(tmp_path: Path, spread: float | None) -> None:
    folder = fill(tmp_path / "made", plan := planned(tmp_path, PLAIN), lambda cell: first(200))
    values = {"a": [0.5, 0.5, 0.5], "b": [0.1, 0.13, 0.11]}
    for model, side in values.items():
        for seed, cmi in enumerate(side):
            # Replicates lie below what is measured; their spread is what counts, not their place.
            wide = [] if spread is None else [spread * (place % 10 - 4.5) / 9 for place in range(100)]
            drawn = [cmi / 2 - 0.1 + (value if model == "b" else 0) for value in wide]
            changes = {"calibration": calibration(cmi / 2, drawn)}
            write_record(folder, attack_record(cell_of(plan, model, seed, "none"), first(200), **changes))
    found = line(read(folder).pairs["a", "b"], "NCMI at T")
    differences = [value / 2 - 0.25 for value in values["b"]]
    mean, p = sum(differences) / 3, t_test(differences)
    # The accuracy is the other test of the family: attacks take nothing here, and leave nothing to compare.
    assert found.p == pytest.approx(2 * p)
    if spread is None:
        assert found.interval is None
    else:
        assert found.interval == pytest.approx((mean - spread / 2, mean + spread / 2), abs=1e-6)
    clear = f"CMIC-DL printed lower (p = {2 * p:.2g}, {mean:+.2g}, 3 seeds)"
    assert found.verdict == (
        clear if spread == 0.01 else f"undecided: shown over seeds (p = {2 * p:.2g}), not over examples"
    )


def test_an_ncmi_that_is_not_defined_has_no_seed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "made", plan := planned(tmp_path, PLAIN), lambda cell: first(200))
    write_record(folder, attack_record(cell_of(plan, "a", 1, "none"), first(200), information=measures(0.1, 0.0)))
    assert list(line(read(folder).pairs["a", "b"], "NCMI at T").seeds) == [0, 1, 2], "as it comes it is no claim"
    # No separation, no temperature, and a record from before either was measured.
    held = calibration(0.25)
    unscaled = held.model_copy(update={"temperatures": (2.0, None), "undefined": "no error", "calibrated": None})
    for one in (calibration(None), unscaled, None):
        write_record(folder, attack_record(cell_of(plan, "a", 1, "none"), first(200), calibration=one))
        found = line(read(folder).pairs["a", "b"], "NCMI at T")
        assert (list(found.seeds), found.verdict) == ([0, 2], "2 of 3 seeds: no claim about the method")


# --- flags ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["a", "b"])
def test_a_flag_on_either_side_withdraws_what_it_is_about_and_no_more(tmp_path: Path, model: str) -> None:
    folder = fill(
        tmp_path / "made", plan := planned(tmp_path, AUDITED), lambda cell: first(differing((80, 88, 84))(cell))
    )
    cell = cell_of(plan, model, 1, "PGD")
    write_record(folder, attack_record(cell, first(differing((80, 88, 84))(cell)), outside=3))
    found = read(folder).pairs["a", "b"]
    assert line(found, "PGD").verdict == "withdrawn: flagged (invalid-examples)"
    for name in ("PGD-margin", "worst case"):
        assert line(found, name).flags == ()
        assert line(found, name).verdict.startswith("CMIC-DL printed higher (p = ")
    assert line(found, "accuracy").outcome == "equivalent"


@pytest.mark.parametrize("model", ["a", "b"])
def test_flags_of_a_whole_model_withdraw_everything_that_they_are_about(tmp_path: Path, model: str) -> None:
    folder = fill(
        tmp_path / "made", plan := planned(tmp_path, AUDITED), lambda cell: first(differing((80, 88, 84))(cell))
    )
    (folder / f"{cell_of(plan, model, 2, 'audit').id}.json").unlink()
    found = read(folder).pairs["a", "b"]
    assert line(found, "PGD").verdict == "withdrawn: flagged (not-audited)"
    assert line(found, "worst case").verdict == "withdrawn: flagged (not-audited)"
    assert line(found, "accuracy").outcome == "equivalent", "the audit is of attacks"
    cell = cell_of(plan, model, 2, "audit")
    forward = {"forward_pass": {"repeat": 5, "companions": 0, "training": []}}
    write_record(folder, type(audit_record(cell)).model_validate(audit_record(cell).model_dump() | forward))
    found = read(folder).pairs["a", "b"]
    assert line(found, "accuracy").verdict == "withdrawn: flagged (random-forward)"
    assert line(found, "NCMI at T").verdict == "withdrawn: flagged (random-forward)"


def test_a_flag_withdraws_one_seed_s_verdict_too(tmp_path: Path) -> None:
    text = f"{HEAD}attacks:\n{PGD}".replace("[0, 1, 2]", "[0]")
    found = lines(tmp_path, differing((80, 0, 0)), text)
    assert line(found, "worst case").verdict == "withdrawn: flagged (no-strong-attack)"
    assert line(found, "PGD").verdict == "one seed: no claim about the method"


def test_folds_are_other_examples_each() -> None:
    """Their interval is that of one evaluation of all rows; the same places in every fold are no pairs."""
    summary = summarize(read_results(ROOT / "results" / "tabular-digits"))
    pair, lines = next(iter(summary.pairs.items()))
    accuracy = next(line for line in lines if line.what == "accuracy")
    ncmi = next(line for line in lines if not line.in_points)
    outcomes: dict[tuple[str, int], npt.NDArray[np.int64]] = {}
    replicates: dict[tuple[str, int], npt.NDArray[np.float64]] = {}
    for record in summary.results.records.values():
        if isinstance(record, AttackRecord) and record.cell.attack == "none":
            key = record.cell.model, record.cell.seed
            outcomes[key] = unpack_outcomes(record.outcomes or "", record.n or 0).astype(int)
            assert record.calibration is not None
            assert record.calibration.calibrated is not None
            replicates[key] = np.array(unpack_replicates(record.calibration.calibrated.ncmi_replicates))
    rows = np.concatenate([outcomes[pair[1], fold] - outcomes[pair[0], fold] for fold in range(5)])
    assert accuracy.mean == pytest.approx(rows.mean())
    assert accuracy.interval == paired_accuracy_interval(rows)
    drawn = np.random.default_rng(0).choice(rows, (4000, len(rows))).mean(1)
    assert accuracy.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.001)
    gaps = [replicates[pair[1], fold] - replicates[pair[0], fold] for fold in range(5)]
    mean = np.mean([np.roll(gap, -200 * fold) for fold, gap in enumerate(gaps)], axis=0).tolist()
    assert ncmi.interval == pytest.approx(paired_replicates_interval([0.0] * 1000, mean, ncmi.mean))
