"""The leaderboard's tables: ranks, flags, costs, parts of attacks, transfers; the flags in the csv."""

from __future__ import annotations

import csv
import io
import random
import re
import statistics
from pathlib import Path

import pytest

from robustbench_cmic.audit import RULES
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.schema import Part, Timing
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary, write_report
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.metrics import ACCURACY, percent
from robustbench_cmic.report.summary import SeedValues, ranks_of
from robustbench_cmic.report.tables import flags_text, rank_of, seeds_text, spread
from robustbench_cmic.suite.fields import Threat
from tests.report.folders import HEAD, attack_record, audit_record, cell_of, fill, planned, read, replace

N = 200
SUITE = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: worse, architecture: mlp, objective: {name: ce}}
  - {id: best, architecture: mlp, objective: {name: cmic}}
  - {id: partial, architecture: mlp, objective: {name: cmic, beta: 0.1}}
  - {id: too, architecture: mlp, objective: {name: cmic, beta: 0.2}}
  - {id: odd, architecture: mlp, objective: {name: cmic, beta: 0.3}}
  - {id: worst, architecture: mlp, objective: {name: cmic, beta: 0.5}}
seeds: [0, 1]
attacks:
  - {name: FGSM, eps: 0.1}
  - {name: AutoAttack, eps: 0.1}
"""
KEPT = {"worse": 100, "best": 120, "partial": 190, "too": 120, "odd": 199, "worst": 20}


def first(count: int, n: int = N) -> list[bool]:
    return [place < count for place in range(n)]


def ranked(tmp_path: Path) -> Path:
    plan = planned(tmp_path, SUITE)
    folder = fill(tmp_path / "made", plan, lambda cell: first(KEPT[cell.model] if cell.attack == "AutoAttack" else 199))
    replace(folder, cell_of(plan, "partial", 1, "FGSM"))
    odd = cell_of(plan, "odd", 1, "AutoAttack")
    write_record(folder, attack_record(odd, first(199), outside=2))
    return folder


def ranking(board: Summary) -> list[tuple[str, str, str]]:
    """Rank, model and worst case in percent, as the leaderboard shows them."""
    entries = board.standings[Threat("linf", 0.1)]
    return [(rank_of(entry), entry.model, seeds_text(entry.worst, board)) for entry in entries]


def section(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    (table,) = re.findall(rf"^## {re.escape(heading)}\n(?:(?!\|).*\n)*?((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


# --- ranks and flags -----------------------------------------------------------------------------------------------


def test_the_best_comes_first_and_ties_share_a_rank(tmp_path: Path) -> None:
    board = read(ranked(tmp_path))
    assert ranking(board) == [
        ("1", "best", "60.0 ± 0.0"),
        ("1", "too", "60.0 ± 0.0"),
        ("3", "worse", "50.0 ± 0.0"),
        ("4", "worst", "10.0 ± 0.0"),
        ("–", "partial", "95.0 (1 of 2 seeds)"),
        ("flagged", "odd", "99.5 ± 0.0 †"),
    ]
    table = section(leaderboard(board), "Accuracy under attack, L-inf")
    assert [row[:3] for row in table] == [
        ["0.1", "1", "`best`"], ["0.1", "1", "`too`"], ["0.1", "3", "`worse`"], ["0.1", "4", "`worst`"],
        ["0.1", "–", "`partial`"], ["0.1", "flagged", "`odd`"],
    ]  # fmt: skip
    assert [row[-1] for row in table] == [
        "**60.0 ± 0.0**", "**60.0 ± 0.0**", "50.0 ± 0.0", "10.0 ± 0.0", "95.0 (1 of 2 seeds)", "99.5 ± 0.0 †",
    ]  # fmt: skip
    marked = {row[2]: [cell.endswith("†") for cell in row[3:]] for row in table}
    assert marked["`odd`"] == [False, True, True], "the flagged attack and the worst case that hangs on it"
    assert not any(any(marks) for model, marks in marked.items() if model != "`odd`")


def test_equal_counts_over_seeds_share_a_rank() -> None:
    """Of these counts of 400 the means of the fractions differ in the last bit."""
    counts = (220, 281, 330), (228, 273, 330)
    numbers = [SeedValues(dict(enumerate(right / 400 for right in each))) for each in counts]
    assert len({statistics.fmean(number.values.values()) for number in numbers}) == 2
    assert ranks_of({str(k): number.mean or 0.0 for k, number in enumerate(numbers)}) == {"0": 1, "1": 1}


def test_an_accuracy_reads_the_same_in_every_table() -> None:
    for right in range(10_001):
        value = right / 10_000
        assert spread([value], 1) == ACCURACY.text(value) == f"{percent(value):.1f}"


def test_where_the_best_keeps_nothing_nobody_is_ranked(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE)
    folder = fill(tmp_path / "made", plan, lambda cell: first(0 if cell.attack == "AutoAttack" else 199))
    replace(folder, cell_of(plan, "best", 1, "FGSM"))
    board = read(folder)
    whole = [model for model in KEPT if model != "best"]
    assert ranking(board) == [*(("–", model, "0.0 ± 0.0") for model in whole), ("–", "best", "0.0 (1 of 2 seeds)")]
    assert [entry.why for entry in board.standings[Threat("linf", 0.1)]] == ["nothing left"] * 5 + ["incomplete"]
    assert "**0.0" not in leaderboard(board)


def test_a_model_without_any_result_has_no_rank(tmp_path: Path) -> None:
    folder = ranked(tmp_path)
    for file in folder.glob("best.*"):
        file.unlink()
    board = read(folder)
    assert ("–", "best", "–") in ranking(board)
    assert ranking(board)[0][:2] == ("1", "too")


def test_every_flag_is_listed_with_its_evidence_and_its_meaning(tmp_path: Path) -> None:
    folder = ranked(tmp_path)
    text = leaderboard(read(folder))
    assert section(text, "Flags") == [
        ["`odd`", "1", "invalid-examples", "AutoAttack at L-inf 0.1", "2 of 200 examples"],
        [
            "`odd`",
            "1",
            "no-strong-attack",
            "worst case, L-inf 0.1",
            "2 attacks in this ball; AutoAttack is flagged invalid-examples",
        ],
    ]
    for name in ("invalid-examples", "no-strong-attack"):
        assert f"- **{name}**: {RULES[name].meaning} ({RULES[name].source})" in text
    assert "**saturated**" not in text
    terminal = flags_text(read(folder))
    assert terminal.startswith("made: 2 flags\n")
    assert re.search(r"^odd +1 +invalid-examples +AutoAttack at L-inf 0\.1 +2 of 200 examples$", terminal, re.MULTILINE)


def test_no_flag_and_no_audit_are_told_apart(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE)
    board = read(fill(tmp_path / "made", plan, lambda cell: first(100)))
    text = leaderboard(board)
    assert "## Flags\n\nNo flag was raised." in text
    assert "**This suite is not audited**" not in text
    assert flags_text(board) == "made: no flag raised"
    plan = planned(tmp_path, f"{SUITE}audit: off\n")
    board = read(fill(tmp_path / "off", plan, lambda cell: first(100)))
    text = leaderboard(board)
    assert "**This suite is not audited** (`audit: off`)" in text
    assert {tuple(row[2:4]) for row in section(text, "Flags")} == {("not-audited", "everything")}
    assert {rank for rank, _, _ in ranking(board)} == {"flagged"}, "and so nothing is ranked"
    assert flags_text(board).startswith("made: 12 flags\n")


def test_flags_of_a_row_are_joined_in_the_csv(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE)
    folder = fill(tmp_path / "made", plan, lambda cell: first(50, 99), outside=0)
    attacked = cell_of(plan, "best", 0, "FGSM")
    write_record(folder, attack_record(attacked, first(50, 99), outside=1))
    audit = cell_of(plan, "best", 0, "audit")
    forward = {"forward_pass": {"repeat": 5, "companions": 0, "training": ["bn"]}}
    write_record(folder, type(audit_record(audit)).model_validate(audit_record(audit).model_dump() | forward))
    write_report(folder)
    found = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    flags = {(row["model"], row["seed"], row["attack"]): row["flags"] for row in found}
    assert flags["best", "0", "none"] == "random-forward;training-mode"
    assert flags["best", "0", "FGSM"] == "random-forward;training-mode;invalid-examples;few-examples"
    assert flags["best", "0", "AutoAttack"] == "random-forward;training-mode;few-examples"
    assert flags["best", "1", "none"] == ""
    assert flags["worse", "1", "FGSM"] == "few-examples"


# --- costs, parts, transfers ---------------------------------------------------------------------------------------

COSTLY = f"""{HEAD}attacks:
  - {{name: AutoAttack, eps: 0.2}}
  - {{name: FGSM, eps: [0.1, 0.2]}}
  - {{name: PGD, eps: 0.2, steps: 5}}
  - {{name: Transfer, eps: [0.1, 0.2], steps: 5}}
audit: off
"""
PASSES = {"FGSM": (1, 1), "PGD": (5, 5), "AutoAttack": (900, 100), "Transfer:a": (20, 20), "Transfer:b": (30, 10)}


def outcome(cell: Cell) -> list[bool]:
    generator = random.Random(f"{cell.model} {cell.seed} {cell.attack} {cell.norm} {cell.eps}")
    return [generator.random() < 0.8 for _ in range(40)]


def parts(cell: Cell) -> list[Part]:
    """FAB-T had nothing left to attack in seed 2."""
    if cell.attack != "AutoAttack":
        return []
    names = ("APGD-CE", "FAB-T") if cell.seed < 2 else ("APGD-CE",)
    return [
        Part(name=name, attacked=30 + cell.seed, broken=3 * cell.seed, forwards=100, backwards=10, seconds=0.5)
        for name in names
    ]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path, COSTLY)


@pytest.fixture
def folder(tmp_path: Path, plan: Plan) -> Path:
    folder = fill(tmp_path / "made", plan, outcome)
    for cell in plan.of("attack"):
        if cell.norm:
            forwards, backwards = PASSES[cell.attack]
            timing = Timing(started="2026-01-01T00:00:00+00:00", seconds=2.0 + cell.seed)
            changes = {"forwards": 40 * forwards, "backwards": 40 * backwards, "timing": timing, "parts": parts(cell)}
            write_record(folder, attack_record(cell, outcome(cell), **changes))
    return folder


def alive(plan: Plan, model: str, seed: int, names: list[str]) -> list[bool]:
    lists = [outcome(cell_of(plan, model, seed, name, 0.2)) for name in names]
    return [all(row) for row in zip(*lists, strict=True)]


def mean_percent(values: list[float]) -> str:
    return f"{100 * statistics.fmean(values):.1f}"


def test_costs_and_what_attacks_add_against_brute_force(folder: Path, plan: Plan) -> None:
    table = section(leaderboard(read(folder)), "What attacks cost and add")
    large = [row for row in table if row[0] == "L-inf 0.2"]
    cheapest_first = ["FGSM", "PGD", "Transfer:a", "Transfer:b", "AutoAttack"]
    assert [row[1] for row in large] == cheapest_first
    assert [row[0] for row in table] == ["L-inf 0.1"] * 3 + ["L-inf 0.2"] * 5
    for place, (row, name) in enumerate(zip(large, cheapest_first, strict=True)):
        forwards, backwards = PASSES[name]
        assert row[2:6] == [f"{forwards + backwards}", f"{forwards}", f"{backwards}", "3"]
        for model, columns in (("a", row[6:8]), ("b", row[8:10])):
            so_far = [sum(alive(plan, model, seed, cheapest_first[: place + 1])) / 40 for seed in range(3)]
            others = [other for other in cheapest_first if other != name]
            alone = [
                sum(rest and not own for own, rest in zip(
                    outcome(cell_of(plan, model, seed, name, 0.2)), alive(plan, model, seed, others), strict=True
                )) / 40 for seed in range(3)
            ]  # fmt: skip
            assert columns == [mean_percent(so_far), mean_percent(alone)]


def test_costs_leave_out_seeds_where_an_attack_is_missing(folder: Path, plan: Plan) -> None:
    """Survivors of fewer attacks would look like survivors of all."""
    replace(folder, cell_of(plan, "a", 1, "PGD"))
    table = section(leaderboard(read(folder)), "What attacks cost and add")
    columns = {row[1]: row[6:8] for row in table if row[0] == "L-inf 0.2"}
    assert columns["FGSM"][0] == mean_percent([sum(alive(plan, "a", seed, ["FGSM"])) / 40 for seed in range(3)])
    names = ["FGSM", "PGD", "Transfer:a"]
    assert columns["Transfer:a"][0] == mean_percent([sum(alive(plan, "a", seed, names)) / 40 for seed in (0, 2)])


def test_parts_of_an_attack_are_means_over_seeds(folder: Path) -> None:
    table = section(leaderboard(read(folder)), "Parts of attacks")
    assert table == [
        ["L-inf 0.2", "AutoAttack", f"`{model}`", *own]
        for model in "ab"
        for own in (["APGD-CE", "31", "3", "100", "10", "0.5"], ["FAB-T", "20.33", "1", "66.67", "6.667", "0.3333"])
    ]


def test_transfers_have_a_matrix_for_each_ball(folder: Path, plan: Plan) -> None:
    replace(folder, cell_of(plan, "a", 1, "Transfer:b", 0.1))
    text = leaderboard(read(folder))
    (part,) = re.findall(r"^## Transfer between models\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^Transfer, (.*):$", part, re.MULTILINE) == ["L-inf 0.1", "L-inf 0.2"]
    tables = re.findall(r"((?:^\|.*\n)+)", part, re.MULTILINE)
    assert len(tables) == 2
    for eps, table in zip((0.1, 0.2), tables, strict=True):
        head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        assert head == ["examples of", "on a", "on b"]
        assert [line[0] for line in lines] == ["`a`", "`b`"]
        for source, line in zip("ab", lines, strict=True):
            for target, shown in zip("ab", line[1:], strict=True):
                values = [
                    100 * sum(outcome(cell_of(plan, target, seed, f"Transfer:{source}", eps))) / 40
                    for seed in range(3)
                    if (eps, target, source, seed) != (0.1, "a", "b", 1)
                ]
                text = f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f}"
                assert shown == (text if len(values) == 3 else f"{text} (2 of 3 seeds)")
    robust = leaderboard(read(folder)).split("## Accuracy under attack")[1].split("##")[0]
    assert "FGSM" in robust
    assert "Transfer" not in robust


def test_equal_records_give_equal_bytes(folder: Path) -> None:
    for made in (folder, ranked(folder.parent)):
        write_report(made)
        before = {file.name: file.read_bytes() for file in made.iterdir()}
        write_report(made)
        assert {file.name: file.read_bytes() for file in made.iterdir()} == before


def test_transfers_between_partners_leave_others_out(tmp_path: Path) -> None:
    """Of three models in two pairs: no table asks for a transfer that was not planned, and every one is there."""
    third = "  - {id: c, architecture: mlp, objective: {name: cmic, beta: 0.1}}\npairs: [[a, b], [a, c]]"
    head = HEAD.replace("pairs: [[a, b]]", third)
    attacks = "attacks:\n  - {name: FGSM, eps: 0.1}\n  - {name: Transfer, eps: 0.1, steps: 5, sources: pairs}\n"
    plan = planned(tmp_path, f"{head}{attacks}audit: off\n")
    folder = fill(tmp_path / "made", plan, outcome)
    transfers = {(cell.model, cell.attack) for cell in plan.of("attack") if cell.source}
    assert ("b", "Transfer:c") not in transfers
    table = section(leaderboard(read(folder)), "Transfer between models")
    assert [row[0] for row in table] == ["`a`", "`b`", "`c`"]
    for row, source in zip(table, "abc", strict=True):
        assert [text != "–" for text in row[1:]] == [(target, f"Transfer:{source}") in transfers for target in "abc"]
    costs = section(leaderboard(read(folder)), "What attacks cost and add")
    assert {row[1] for row in costs} == {"FGSM", "Transfer:a", "Transfer:b", "Transfer:c"}
    assert suite_page(read(folder))
