"""Calibration in every format: numbers that follow from records, dashes and empty cells where there is none."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.schema import Calibration
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import read_results, write_report
from robustbench_cmic.report.compare.changes import compare_folders
from robustbench_cmic.report.compare.text import comparison_text
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.latex import latex
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.frame import load_results
from robustbench_cmic.report.metrics import CALIBRATION, COLUMNS, METRICS
from robustbench_cmic.report.tables import calibration_table, ncmi_sentences
from tests.report.folders import HEAD, attack_record, calibration, cell_of, fill, planned, read

TITLE = "Calibration and concentration"
GOOD = [True] * 30 + [False] * 10


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path, HEAD + "attacks: [{name: FGSM, eps: 0.1}]\naudit: off\n")


@pytest.fixture
def folder(tmp_path: Path, plan: Plan) -> Path:
    """Clean evaluations with calibration: seed s of `a` has NCMI 0.1 (s + 1) at T; `b`, seed 2, has no temperature."""
    folder = fill(tmp_path / "made", plan, lambda _: GOOD)
    for model in ("a", "b"):
        for seed in (0, 1, 2):
            undefined = (model, seed) == ("b", 2)
            held = uncalibrated() if undefined else calibration(0.1 * (seed + 1))
            put(folder, cell_of(plan, model, seed, "none"), held)
    return folder


def put(folder: Path, cell: Cell, held: Calibration | None) -> None:
    write_record(folder, attack_record(cell, GOOD, calibration=held))


def uncalibrated() -> Calibration:
    return Calibration(
        nll=0.75, ece=0.125, brier=0.375, temperatures=(2.0, None), undefined="no error in the second half"
    )


def models(folder: Path) -> list[dict[str, str]]:
    write_report(folder)
    return list(csv.DictReader(io.StringIO((folder / "models.csv").read_text())))


def test_columns_of_models_follow_ncmi_and_results_csv_has_none_of_them(folder: Path) -> None:
    rows = models(folder)
    names = list(rows[0])
    place = names.index("ncmi") + 1
    own = [metric.name for metric in CALIBRATION]
    assert names[place : place + len(own)] == own
    assert names[place + len(own)] == "worst_linf_0.1"
    first = rows[1]
    assert float(first["temperature"]) == pytest.approx(4), "the geometric mean of 2 and 8"
    assert float(first["ncmi_calibrated"]) == pytest.approx(0.2)
    assert float(first["cmi_calibrated"]) == pytest.approx(0.8)
    held = {"separation_calibrated": 4.0, "nll": 0.75, "ece": 0.125, "brier": 0.375}
    held |= {"nll_calibrated": 0.5, "ece_calibrated": 0.01, "brier_calibrated": 0.25}
    assert {name: float(first[name]) for name in held} == held
    assert (folder / "results.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert not set(own) & {*COLUMNS, *(metric.name for metric in METRICS)}


def test_what_has_no_temperature_is_empty_where_it_hangs_on_one(folder: Path) -> None:
    last = models(folder)[-1]
    empty = {metric.name for metric in CALIBRATION if last[metric.name] == ""}
    assert empty == {metric.name for metric in CALIBRATION} - {"nll", "ece", "brier"}


def test_frames_have_them_of_clean_evaluations(folder: Path) -> None:
    frame = load_results(folder)
    clean = frame[frame["attack"] == "none"]
    assert clean["nll"].tolist() == [0.75] * 6
    assert clean["ncmi_calibrated"].isna().tolist() == [False] * 5 + [True]
    assert frame.loc[frame["attack"] != "none", [metric.name for metric in CALIBRATION]].isna().all(axis=None)
    assert (frame[[metric.name for metric in CALIBRATION]].dtypes == "float64").all()


def test_table_has_means_over_seeds_and_says_what_is_missing(folder: Path) -> None:
    headers, rows = calibration_table(read(folder))
    assert list(headers) == ["model", "NCMI", "T", "NCMI at T", "NLL (nats)", "ECE %", "Brier score", "NLL at T (nats)"]
    spread = [" ± 0", " ± 0.0"]
    assert rows[0] == ["a", "0.25" + spread[0], "4" + spread[0], "0.2 ± 0.1", "0.75" + spread[0], "12.5" + spread[1],
                       "0.375" + spread[0], "0.5" + spread[0]]  # fmt: skip
    assert rows[1][3] == f"0.15 ± {0.1 / math.sqrt(2):.3g} (2 of 3 seeds)"


def test_every_format_for_people_has_the_table_and_the_pair_a_sentence(folder: Path) -> None:
    summary = read(folder)
    board, page, paper = leaderboard(summary), suite_page(summary), latex(summary)
    assert f"## {TITLE}\n" in board
    assert "| `a`     | 0.25 ± 0 | 4 ± 0 " in board
    native = "NCMI on clean examples as it comes: `a` 0.25 ± 0, `b` 0.25 ± 0."
    scaled = "NCMI on clean examples at the temperature that minimises NLL: `a` 0.2 ± 0.1, "
    scaled += "`b` 0.15 ± 0.0707 (2 of 3 seeds)."
    verdict = "Verdict on NCMI at T: 2 of 3 seeds: no claim about the method."
    assert ncmi_sentences(summary, "a", "b") == [native, scaled, verdict]
    assert all(sentence in board for sentence in (native, scaled, verdict))
    assert f"<h3>{TITLE}</h3>" in page
    assert '<th scope="col">NCMI at T</th>' in page
    assert "<code>a</code> 0.2 ± 0.1" in page
    assert "calibration and concentration on clean test examples (40 test examples" in paper
    assert r"0.2 $\pm$ 0.1" in paper
    write_report(folder, ["json"])
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert found["clean"][0]["ncmi_calibrated"]["by_seed"]["0"] == pytest.approx(0.1)
    assert found["clean"][1]["ncmi_calibrated"]["by_seed"].keys() == {"0", "1"}


def test_records_from_before_change_nothing_but_empty_columns(tmp_path: Path, plan: Plan) -> None:
    folder = fill(tmp_path / "before", plan, lambda _: GOOD, calibration=None)
    summary = read(folder)
    assert calibration_table(summary).rows == []
    assert ncmi_sentences(summary, "a", "b") == ["NCMI on clean examples as it comes: `a` 0.25 ± 0, `b` 0.25 ± 0."]
    for text in (leaderboard(summary), suite_page(summary), latex(summary)):
        assert TITLE.lower() not in text.lower()
        assert "minimises" not in text
    assert {row[metric.name] for row in models(folder) for metric in CALIBRATION} == {""}


def test_one_calibrated_model_beside_one_from_before(folder: Path, plan: Plan) -> None:
    for seed in (0, 1, 2):
        put(folder, cell_of(plan, "b", seed, "none"), None)
    summary = read(folder)
    assert calibration_table(summary).rows[1] == ["b", "0.25 ± 0", *["–"] * 6]
    assert len(ncmi_sentences(summary, "a", "b")) == 1, "as it comes, and no verdict"
    assert "at the temperature that minimises" not in leaderboard(summary)


def test_a_comparison_tells_calibrated_ncmi_and_takes_no_offence_at_records_from_before(
    tmp_path: Path, plan: Plan, folder: Path
) -> None:
    before = fill(tmp_path / "before", plan, lambda _: GOOD, calibration=None)
    assert compare_folders(read_results(before), read_results(folder)).identical
    put(before, cell_of(plan, "a", 0, "none"), calibration(0.5))
    compared = compare_folders(read_results(before), read_results(folder))
    (differing,) = [cell for cell in compared.cells if not cell.identical]
    assert (differing.old_ncmi, differing.new_ncmi) == (0.25, 0.25)
    assert (differing.old_ncmi_calibrated, differing.new_ncmi_calibrated) == pytest.approx((0.5, 0.1))
    flipped = attack_record(cell_of(plan, "a", 0, "none"), [False, *GOOD[1:]], calibration=calibration(0.5))
    write_record(before, flipped)
    assert "0.25 -> 0.25 (at T 0.5 -> 0.1)" in comparison_text(
        compare_folders(read_results(before), read_results(folder))
    )
