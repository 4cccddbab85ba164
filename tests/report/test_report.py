"""Reports are pure functions of records: rows, worst cases, incomplete and limited runs, bytes."""

from __future__ import annotations

import csv
import io
import random
import re
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.files import write_json
from robustbench_cmic.records.packing import pack_outcomes
from robustbench_cmic.records.schema import AttackRecord, Measures
from robustbench_cmic.records.store import PLAN_FILE, write_record
from robustbench_cmic.report import ReportError, read_results, summarize, write_report
from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import COLUMNS
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.fields import Threat
from tests.conftest import TINY_SUITE
from tests.report.folders import PROVENANCE, TIMING, train_record

SUITE = TINY_SUITE.replace("pairs:", "seeds: [0, 1]\npairs:")
N = 40


def plan_of(tmp_path: Path, **options: Any) -> Plan:
    file = tmp_path / "x.yaml"
    file.write_text(SUITE)
    return make_plan(load_suite(file).suite, **options)


def attack_record(cell: Cell, correct: list[bool]) -> AttackRecord:
    undefined = cell.model == "cmic" and cell.seed == 1
    information = Measures(
        cmi=0.5, separation=0.0 if undefined else 2.0, ncmi=None if undefined else 0.25, class_cmi=[0.5],
        class_separation=[2.0],
    )  # fmt: skip
    low, high = wilson_interval(sum(correct), len(correct))
    return AttackRecord(
        suite="tiny", cell=cell, status="ok", provenance=PROVENANCE, timing=TIMING, n=len(correct),
        accuracy=sum(correct) / len(correct), ci_low=low, ci_high=high, outcomes=pack_outcomes(correct),
        information=information, outside=0, forwards=7, backwards=6, checkpoint_sha256="c",
    )  # fmt: skip


def outcomes(cell: Cell, n: int = N) -> list[bool]:
    generator = random.Random(f"{cell.model} {cell.seed} {cell.attack}")
    return [generator.random() < 0.7 for _ in range(n)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with all records of the suite."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    plan = plan_of(tmp_path)
    write_json(folder / PLAN_FILE, plan.model_dump(mode="json"))
    for cell in plan.cells:
        write_record(folder, train_record(cell) if cell.kind == "train" else attack_record(cell, outcomes(cell)))
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    write_report(folder)
    return list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))


def record_file(folder: Path, pattern: str) -> Path:
    (file,) = folder.glob(pattern)
    return file


def test_rows_and_columns_are_those_of_the_contract(folder: Path) -> None:
    found = rows(folder)
    header = (folder / "results.csv").read_text().splitlines()[0]
    assert header == (
        "suite,dataset,model,architecture,objective,seed,attack,norm,eps,n,accuracy,ci_low,ci_high,cmi,separation,"
        "ncmi,status,flags,forwards,backwards,seconds,cell"
    )
    assert header == ",".join(COLUMNS)
    keys = [(row["model"], row["seed"], row["attack"], row["eps"]) for row in found]
    expected = [
        (model, seed, attack, eps)
        for model in ("ce", "cmic")
        for seed in ("0", "1")
        for attack, eps in (("none", "0.0"), ("FGSM", "0.1"), ("PGD", "0.1"))
    ]
    assert keys == expected
    first = found[1]
    assert (first["norm"], first["n"], first["status"], first["flags"]) == (
        "linf", "40", "ok", "few-examples;not-audited",
    )  # fmt: skip
    assert found[0]["flags"] == "", "an audit is of attacks"
    assert float(first["accuracy"]) == sum(outcomes(read_results(folder).plan.cells[2])) / N
    assert (folder / f"{first['cell']}.json").is_file()
    assert found[-1]["ncmi"] == "", "an undefined NCMI is empty"


def test_worst_case_is_the_mean_of_the_minimum(folder: Path) -> None:
    summary = summarize(read_results(folder))
    results = summary.results
    for model in ("ce", "cmic"):
        worst = summary.values(model, WORST, Threat("linf", 0.1)).values
        assert list(worst) == [0, 1]
        for seed, accuracy in worst.items():
            cells = [c for c in results.plan.of("attack") if (c.model, c.seed) == (model, seed) and c.norm]
            survive = [all(alive) for alive in zip(*(outcomes(cell) for cell in cells), strict=True)]
            assert accuracy == sum(survive) / N
            assert accuracy < min(sum(outcomes(cell)) / N for cell in cells)


def test_worst_case_over_missing_attacks_is_no_worst_case(folder: Path) -> None:
    record_file(folder, "cmic.s1.PGD*").unlink()
    found = summarize(read_results(folder)).values("cmic", WORST, Threat("linf", 0.1))
    assert list(found.values) == [0]


def test_tables_show_means_spreads_and_differences(folder: Path) -> None:
    write_report(folder)
    text = (folder / "leaderboard.md").read_text()
    results = read_results(folder)

    def mean(model: str, attack: str) -> list[float]:
        return [100 * sum(outcomes(c)) / N for c in results.plan.cells if (c.model, c.attack) == (model, attack)]

    a, b = mean("ce", "FGSM")
    spread = abs(a - b) / 2**0.5
    assert f"{(a + b) / 2:.1f} ± {spread:.1f}" in text
    differences = [y - x for x, y in zip((a, b), mean("cmic", "FGSM"), strict=True)]
    assert f"{sum(differences) / 2:+.1f} ({min(differences):+.1f} … {max(differences):+.1f})" in text
    assert "## `ce` against `cmic`" in text
    assert "| **worst case** | L-inf 0.1 |" in text
    preset = "separation_gradient both, separation_mean all_pairs, floor 1e-08"
    assert f"objective cmic (lambda 0.7, beta 0.4, {preset}, centroids batch, momentum 0.99" in text
    assert "PGD (alpha 0.08333, steps 3, random_start yes, restarts 1, targets 0, schedule constant, loss ce" in text
    assert "over 2 seeds" in text
    assert "aaaaaaaaaaaa with uncommitted changes" in text
    assert "Incomplete" not in text


def test_equal_records_give_equal_bytes(folder: Path) -> None:
    write_report(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    write_report(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_bad_training_is_told_and_its_attacks_skipped(folder: Path, status: str) -> None:
    results = read_results(folder)
    cell = next(c for c in results.plan.cells if c.kind == "train" and c.model == "cmic" and c.seed == 0)
    write_record(folder, train_record(cell, status=status, reason="the *loss* is not finite", checkpoint_sha256=None))
    for attack in [c for c in results.plan.cells if c.needs == cell.id]:
        (folder / f"{attack.id}.json").unlink()
    found = [row for row in rows(folder) if (row["model"], row["seed"]) == ("cmic", "0")]
    assert [row["status"] for row in found] == [status, "skipped", "skipped"]
    assert {row["cell"] for row in found} == {cell.id}
    assert {row["accuracy"] for row in found} == {""}
    text = (folder / "leaderboard.md").read_text()
    assert f"**Incomplete:** of 16 cells 1 {status}, 12 ok, 3 skipped." in text
    assert f"- {status}: `{cell.id}`: the \\*loss\\* is not finite" in text


def test_fewer_seeds_than_planned_are_told_and_pairs_hold_common_seeds_only(folder: Path) -> None:
    """A mean over the seeds that went well must not stand beside a mean over all as if they were alike."""
    record_file(folder, "cmic.s0.PGD*").unlink()
    write_report(folder)
    text = (folder / "leaderboard.md").read_text()
    results = read_results(folder)
    (ce,) = [c for c in results.plan.cells if (c.model, c.seed, c.attack) == ("ce", 1, "PGD")]
    (cmic,) = [c for c in results.plan.cells if (c.model, c.seed, c.attack) == ("cmic", 1, "PGD")]
    left, right = (100 * sum(outcomes(cell)) / N for cell in (ce, cmic))
    (row,) = re.findall(r"^\| PGD .*$", text.split("## `ce` against `cmic`")[1], re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")[3:-1]]
    assert cells[:3] == [f"{left:.1f} (1 of 2 seeds)", f"{right:.1f} (1 of 2 seeds)", f"{right - left:+.1f} (one seed)"]
    assert cells[5] == "withdrawn: flagged (few-examples, not-audited)"


@pytest.mark.parametrize("change", ["checkpoint", "dataset", "declared"])
def test_records_that_a_run_would_set_aside_are_not_shown(folder: Path, change: str) -> None:
    results = read_results(folder)
    cell = next(c for c in results.plan.cells if c.model == "ce" and c.seed == 0 and c.attack == "PGD")
    record = attack_record(cell, outcomes(cell))
    every: dict[str, dict[str, Any]] = {
        "checkpoint": {"checkpoint_sha256": "other"},
        "dataset": {"dataset_sha256": "other"},
        "declared": {"cell": cell.model_copy(update={"declared": cell.declared | {"eps": 0.3}})},
    }
    write_record(folder, record.model_copy(update=every[change]))
    found = write_report(folder).results
    assert len(found.problems) == 1
    assert f"{cell.id}.json: left out: " in found.problems[0]
    assert "1 not run" in (folder / "leaderboard.md").read_text()


def test_unknown_code_is_told(folder: Path) -> None:
    cell = next(c for c in read_results(folder).plan.cells if c.attack == "PGD")
    write_record(folder, attack_record(cell, outcomes(cell)).model_copy(update={"provenance": {"commit": None}}))
    write_report(folder)
    text = (folder / "leaderboard.md").read_text()
    assert "- code: aaaaaaaaaaaa with uncommitted changes; unknown (not run from a checkout)" in text


def test_a_failed_attack_has_a_row_and_no_number(folder: Path) -> None:
    cell = next(c for c in read_results(folder).plan.cells if c.attack == "PGD")
    write_record(
        folder,
        AttackRecord(suite="tiny", cell=cell, status="failed", reason="crash", provenance={}, timing=TIMING),
    )
    (row,) = [row for row in rows(folder) if row["status"] == "failed"]
    assert (row["attack"], row["accuracy"], row["n"]) == ("PGD", "", "")


def test_cells_not_run_have_no_row_and_are_counted(folder: Path) -> None:
    for file in folder.glob("cmic.s1.*"):
        file.unlink()
    assert len(rows(folder)) == 9
    assert "**Incomplete:** of 16 cells 4 not run, 12 ok." in (folder / "leaderboard.md").read_text()


def test_limited_evaluations_are_marked_and_never_ranked(folder: Path, tmp_path: Path) -> None:
    write_report(folder)
    ranked = (folder / "leaderboard.md").read_text().split("## What was run")[0]
    for cell in plan_of(tmp_path, limit=10).of("attack"):
        write_record(folder, attack_record(cell, outcomes(cell, 10)))
    found = rows(folder)
    assert [row["flags"] for row in found].count("limited") == 12
    assert {row["n"] for row in found if row["flags"] == "limited"} == {"10"}
    text = (folder / "leaderboard.md").read_text()
    assert text.startswith(ranked)
    assert "## Limited evaluations: not ranked" in text


def test_records_of_an_earlier_suite_are_left_out(folder: Path) -> None:
    before = rows(folder)
    cell = read_results(folder).plan.cells[-1]
    write_record(folder, attack_record(cell.model_copy(update={"id": "old.s0.PGD.77"}), [True] * N))
    assert rows(folder) == before


def test_damaged_records_are_named_and_left_out(folder: Path) -> None:
    file = record_file(folder, "ce.s0.PGD*")
    file.write_text("{")
    results = write_report(folder).results
    assert results.problems == [f"{file}: left out: its record is corrupt: not whole JSON"]
    assert "1 not run" in (folder / "leaderboard.md").read_text()


def test_without_a_plan_there_is_no_report(folder: Path, tmp_path: Path) -> None:
    (folder / PLAN_FILE).write_text("{}")
    with pytest.raises(ReportError, match="damaged"):
        write_report(folder)
    write_json(folder / PLAN_FILE, {"schema": "robustbench_cmic/plan/1"})
    with pytest.raises(ReportError, match=r"of schema robustbench_cmic/plan/1, and this version reads .*/plan/2"):
        write_report(folder)
    (folder / PLAN_FILE).unlink()
    with pytest.raises(ReportError, match="holds no results"):
        write_report(folder)
    assert not (tmp_path / "results.csv").exists()


def test_words_of_a_suite_cannot_break_the_page(folder: Path) -> None:
    payload = read_results(folder).plan.model_copy(update={"description": "<script>x</script> | # *a*\n## b"})
    write_json(folder / PLAN_FILE, payload.model_dump(mode="json"))
    write_report(folder)
    text = (folder / "leaderboard.md").read_text()
    assert "<script>" not in text.replace("\\<script", "")
    assert "\\<script\\>x\\</script\\> \\| \\# \\*a\\* \\#\\# b" in text
