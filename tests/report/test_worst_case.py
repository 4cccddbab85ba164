"""Worst cases example by example: over attacks, over smaller balls, with attacks missing; what each attack adds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.report import Summary
from robustbench_cmic.report.frame import WORST, marginal_shares, plain_rows
from robustbench_cmic.suite.fields import Threat
from tests.report.folders import HEAD, bits, cell_of, fill, planned, read, replace

N = 40
SMALL, LARGE, OTHER = Threat("linf", 0.1), Threat("linf", 0.2), Threat("l2", 0.1)
SUITE = f"""{HEAD}attacks:
  - {{name: PGD, eps: [0.2, 0.1], steps: 5}}
  - {{name: FGSM, eps: [0.1, 0.2]}}
  - {{name: Noise, eps: 0.2}}
  - {{name: PGD, id: PGD-l2, norm: l2, eps: 0.1, steps: 5}}
  - {{name: Transfer, eps: 0.2, steps: 5}}
audit: off
"""


def outcome(cell: Cell) -> list[bool]:
    generator = random.Random(f"{cell.model} {cell.seed} {cell.attack} {cell.norm} {cell.eps}")
    return [generator.random() < 0.8 for _ in range(N)]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path, SUITE)


@pytest.fixture
def folder(tmp_path: Path, plan: Plan) -> Path:
    return fill(tmp_path / "made", plan, outcome)


def survivors(plan: Plan, model: str, seed: int, threat: Threat, without: str = "-") -> float:
    """By brute force."""
    lists = [
        outcome(cell)
        for cell in plan.of("attack")
        if (cell.model, cell.seed, cell.norm) == (model, seed, threat.norm) and cell.eps <= threat.eps
        and cell.attack != without
    ]  # fmt: skip
    return sum(all(alive) for alive in zip(*lists, strict=True)) / N


def worst(summary: Summary, model: str, threat: Threat) -> dict[int, float]:
    """The fraction that survives everything, for each seed whose attacks all have a result."""
    return dict(summary.values(model, WORST, threat).values)


def shares_of(summary: Summary, model: str, threat: Threat) -> dict[str, list[float]]:
    """What each attack alone breaks, one number a seed."""
    frame = marginal_shares(summary.frame)
    frame = frame[(frame["model"] == model) & (frame["norm"] == threat.norm) & (frame["eps"] == threat.eps)]
    return {str(attack): list(shares) for attack, shares in frame.groupby("attack")["share"]}


@pytest.mark.parametrize("threat", [SMALL, LARGE, OTHER])
def test_what_a_smaller_ball_breaks_is_broken_in_a_larger_one(folder: Path, plan: Plan, threat: Threat) -> None:
    summary = read(folder)
    for model in "ab":
        assert worst(summary, model, threat) == {seed: survivors(plan, model, seed, threat) for seed in range(3)}


def test_a_larger_ball_is_never_survived_by_more(tmp_path: Path, plan: Plan) -> None:
    """Even where the attack in it does nothing at all."""
    folder = fill(tmp_path / "made", plan, lambda cell: outcome(cell) if cell.eps == 0.1 else [True] * N)
    summary = read(folder)
    large, small = (summary.groups["a", WORST, threat] for threat in (LARGE, SMALL))
    assert all((large[seed].outcomes == small[seed].outcomes).all() for seed in range(3))
    assert all(accuracy < 1 for accuracy in worst(summary, "a", LARGE).values())


def test_a_worst_case_needs_all_attacks_of_smaller_balls_too(folder: Path, plan: Plan) -> None:
    replace(folder, cell_of(plan, "a", 1, "PGD", 0.1))
    replace(folder, cell_of(plan, "a", 2, "FGSM", 0.2))
    summary = read(folder)
    assert list(worst(summary, "a", SMALL)) == [0, 2]
    assert list(worst(summary, "a", LARGE)) == [0]
    assert list(worst(summary, "b", LARGE)) == [0, 1, 2]
    assert list(worst(summary, "a", OTHER)) == [0, 1, 2]


def lose(folder: Path, plan: Plan, status: str) -> Cell:
    """Model b's training of seed 1 goes wrong: there are no attacks on it, and no transfers from it."""
    training = cell_of(plan, "b", 1, "train")
    replace(folder, training, status=status)
    for cell in plan.of("attack"):
        if training.id in (cell.needs, cell.source):
            (folder / f"{cell.id}.json").unlink()
    return training


def test_transfers_from_a_model_that_diverged_are_left_out(folder: Path, plan: Plan) -> None:
    training = lose(folder, plan, "diverged")
    summary = read(folder)
    found = worst(summary, "a", LARGE)
    assert found[0] == survivors(plan, "a", 0, LARGE)
    assert found[1] == survivors(plan, "a", 1, LARGE, without="Transfer:b")
    assert list(worst(summary, "b", LARGE)) == [0, 2]
    table = {(row["model"], row["seed"], row["attack"], row["eps"]): row for row in plain_rows(summary.frame)}
    row = table["a", 1, "Transfer:b", 0.2]
    assert (row["status"], row["cell"], "accuracy" in row) == ("skipped", training.id, False)
    assert table["a", 1, "Transfer:a", 0.2]["status"] == "ok"
    assert table["a", 0, "Transfer:b", 0.2]["status"] == "ok"
    assert [table["b", 1, name, eps]["status"] for name, eps in (("none", 0.0), ("Noise", 0.2))] == [
        "diverged", "skipped",
    ]  # fmt: skip


def test_transfers_from_a_model_that_may_still_be_trained_are_missing(folder: Path, plan: Plan) -> None:
    lose(folder, plan, "failed")
    summary = read(folder)
    assert list(worst(summary, "a", LARGE)) == [0, 2]
    assert list(worst(summary, "a", SMALL)) == [0, 1, 2]


def test_shares_are_of_what_an_attack_alone_breaks(folder: Path, plan: Plan) -> None:
    replace(folder, cell_of(plan, "a", 2, "Noise"))
    summary = read(folder)
    shares = shares_of(summary, "a", LARGE)
    names = ("PGD", "FGSM", "Noise", "Transfer:a", "Transfer:b")
    assert set(shares) == set(names)
    for name in names:
        expected = []
        for seed in (0, 1):
            own = outcome(cell_of(plan, "a", seed, name, 0.2))
            others = [outcome(cell_of(plan, "a", seed, other, 0.2)) for other in names if other != name]
            alone = [not mine and all(rest) for mine, *rest in zip(own, *others, strict=True)]
            expected.append(sum(alone) / N)
        assert shares[name] == expected
        assert any(expected)


def test_shares_by_hand(tmp_path: Path) -> None:
    plan = planned(
        tmp_path, f"{HEAD}attacks:\n  - {{name: FGSM, eps: 0.1}}\n  - {{name: Noise, eps: 0.1}}\naudit: off\n"
    )
    made = {"none": "11110", "FGSM": "11000", "Noise": "10110"}
    summary = read(fill(tmp_path / "made", plan, lambda cell: bits(made[cell.attack])))
    # The last example is wrong without any attack: it is nobody's.
    assert shares_of(summary, "a", SMALL) == {"FGSM": [0.4] * 3, "Noise": [0.2] * 3}


def test_a_single_attack_has_no_share(tmp_path: Path) -> None:
    plan = planned(tmp_path, f"{HEAD}attacks:\n  - {{name: FGSM, eps: 0.1}}\naudit: off\n")
    summary = read(fill(tmp_path / "made", plan, outcome))
    assert shares_of(summary, "a", SMALL) == {}
