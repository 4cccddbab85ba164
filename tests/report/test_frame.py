"""Results as a table: `load_results`, `worst_case`, models.csv; and who does without pandas."""

from __future__ import annotations

import csv
import io
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import robustbench_cmic
from robustbench_cmic import load_results, worst_case
from robustbench_cmic.audit import flag_results
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.packing import pack_outcomes
from robustbench_cmic.records.schema import Check
from robustbench_cmic.records.store import PLAN_FILE, write_record
from robustbench_cmic.report import ReportError, read_results, summarize, write_report
from robustbench_cmic.report.about import objectives_text
from robustbench_cmic.report.formats.html import index_page, suite_page
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.metrics import CALIBRATION, COLUMNS, METRICS, NCMI, OF_MODELS
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.objectives import objective_of
from tests.conftest import ROOT
from tests.report.folders import HEAD, attack_record, audit_record, bits, cell_of, fill, planned, read, replace

DIGITS = ROOT / "results" / "digits"
SUITE = f"""{HEAD}attacks:
  - {{name: PGD, eps: [0.1, 0.2], steps: 5}}
  - {{name: FGSM, eps: 0.2}}
"""
MADE = {"none": "1110", "PGD": "1100", "FGSM": "0110"}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path, SUITE)


@pytest.fixture
def folder(tmp_path: Path, plan: Plan) -> Path:
    def outcome(cell: Cell) -> list[bool]:
        return bits(MADE[cell.attack]) if cell.eps != 0.1 else bits("1110")

    return fill(tmp_path / "results" / "made", plan, outcome)


@pytest.fixture(autouse=True)
def results(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def models(folder: Path) -> list[dict[str, str]]:
    write_report(folder, ["csv"])
    return list(csv.DictReader(io.StringIO((folder / "models.csv").read_text())))


# --- load_results --------------------------------------------------------------------------------------------------


def test_the_columns_of_the_csv_are_those_of_the_file() -> None:
    frame = load_results(DIGITS)
    assert tuple(frame.columns[: len(COLUMNS)]) == COLUMNS
    text = frame.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n")
    assert text == (DIGITS / "results.csv").read_text()
    assert [str(frame[name].dtype) for name in ("seed", "n", "forwards", "accuracy", "limited")] == [
        "int64", "Int64", "Int64", "float64", "bool",
    ]  # fmt: skip


def test_outcomes_are_truth_values_whose_mean_is_the_accuracy() -> None:
    frame = load_results(str(DIGITS))
    for outcomes, n, accuracy in zip(frame["outcomes"], frame["n"], frame["accuracy"], strict=True):
        assert (outcomes.dtype, outcomes.shape) == (np.dtype(bool), (n,))
        assert outcomes.mean() == accuracy


def test_what_the_suite_declares_is_a_column(folder: Path) -> None:
    frame = load_results(folder)
    pgd = frame[(frame["attack"] == "PGD") & (frame["eps"] == 0.2)]
    assert set(pgd["attack.steps"]) == {5}
    assert set(frame.loc[frame["attack"] == "none", "attack.steps"].isna()) == {True}
    by_model = frame.groupby("model")["objective.lambda"].first()
    assert by_model["b"] == 0.7
    assert frame.loc[frame["model"] == "a", "objective.lambda"].isna().all()
    assert set(frame["training.optimizer.lr"]) == {0.1}
    assert set(frame["model.architecture"]) == {"mlp"}
    assert not [name for name in frame if "sha256" in str(name)]


def test_a_folder_of_suites_is_one_table(folder: Path, results: Path) -> None:
    shutil.copytree(ROOT / "results" / "mnist-lite", results / "mnist-lite")
    frame = load_results(results)
    assert list(dict.fromkeys(frame["suite"])) == ["made", "mnist-lite"]
    alone = load_results(results / "mnist-lite")
    assert len(frame) == len(load_results(folder)) + len(alone)
    whole = worst_case(frame)
    assert list(whole.loc[whole["suite"] == "mnist-lite", "accuracy"]) == list(worst_case(alone)["accuracy"])


def test_a_cell_that_was_not_run_is_there_and_counts(folder: Path, plan: Plan) -> None:
    (folder / f"{cell_of(plan, 'a', 1, 'FGSM').id}.json").unlink()
    frame = load_results(folder)
    assert len(frame) == len(plan.of("attack"))
    (row,) = frame[frame["status"] == "not run"].to_dict("records")
    assert (row["model"], row["seed"], row["attack"], row["outcomes"]) == ("a", 1, "FGSM", None)
    missing = worst_case(frame)
    missing = missing[missing["accuracy"].isna()]
    assert missing[["model", "seed", "eps"]].to_numpy().tolist() == [["a", 1, 0.2]]
    assert missing["outcomes"].tolist() == [None]


def test_limited_evaluations_are_marked_and_in_no_worst_case(tmp_path: Path, folder: Path) -> None:
    before = worst_case(load_results(folder))
    for cell in planned(tmp_path, SUITE, limit=2).of("attack"):
        write_record(folder, attack_record(cell, [False, False]))
    frame = load_results(folder)
    assert set(frame.loc[frame["limited"], "flags"]) == {"limited"}
    assert not frame.loc[frame["limited"], "counted"].any()
    assert worst_case(frame)["accuracy"].tolist() == before["accuracy"].tolist()


def test_a_record_that_is_left_out_is_warned_of(folder: Path, plan: Plan) -> None:
    cell = cell_of(plan, "a", 0, "FGSM")
    (folder / f"{cell.id}.json").write_text("{")
    with pytest.warns(UserWarning, match=rf"{cell.id}.json: left out: its record is corrupt"):
        frame = load_results(folder)
    assert frame.loc[frame["status"] == "not run", "attack"].tolist() == ["FGSM"]


def test_what_cannot_be_read_is_said_in_one_sentence(folder: Path, results: Path) -> None:
    with pytest.raises(UserError, match=r"^the name of the folder is empty; it should be a results folder such as"):
        load_results("")
    with pytest.raises(UserError, match=r"nowhere holds no results: there is no plan\.json in it or in its folders"):
        load_results(results / "nowhere")
    (folder / PLAN_FILE).write_text("{")
    with pytest.raises(ReportError, match=r"plan\.json is damaged; `run` the suite again to renew it$"):
        load_results(folder)
    with pytest.raises(ReportError, match="damaged"):
        load_results(results)


# --- worst_case ----------------------------------------------------------------------------------------------------


def test_the_worst_case_of_digits_is_that_of_its_leaderboard() -> None:
    worst = worst_case(load_results(DIGITS))
    summary = summarize(read_results(DIGITS))
    for threat, entries in summary.standings.items():
        for entry in entries:
            rows = worst[
                (worst["norm"] == threat.norm) & (worst["eps"] == threat.eps) & (worst["model"] == entry.model)
            ]
            assert dict(zip(rows["seed"], rows["accuracy"], strict=True)) == entry.worst.values
            assert {name for flags in rows["flags"] for name in flags.split(";") if name} == set(entry.worst.flags)
    assert len(worst) == len(summary.standings) * len(summary.results.models) * summary.results.seeds


def test_the_worst_case_by_hand(folder: Path) -> None:
    worst = worst_case(load_results(folder))
    assert set(worst.loc[worst["eps"] == 0.1, "accuracy"]) == {0.75}
    assert set(worst.loc[worst["eps"] == 0.2, "accuracy"]) == {0.25}
    assert {tuple(outcomes) for outcomes in worst.loc[worst["eps"] == 0.2, "outcomes"]} == {(False, True, False, False)}
    assert set(worst["n"]) == {4}
    assert all("few-examples" in flags for flags in worst["flags"])


def test_what_the_audit_breaks_counts_in_the_worst_case_of_its_ball_and_of_larger_ones(
    folder: Path, plan: Plan
) -> None:
    """Of four examples it took the first, the second and the third, and broke in the smaller ball the second."""
    pgd = {"name": "PGD", "alpha": 0.02, "steps": 5, "loss": "margin"}
    made = Check(check="reference", of="", norm="linf", eps=0.1, attack=pgd, outcomes=pack_outcomes(bits("101")))
    cell = cell_of(plan, "a", 1, "audit")
    write_record(folder, audit_record(cell, examples=3, checks=[made]))
    frame = load_results(folder)
    found = worst_case(frame)
    keys = zip(found["model"], found["seed"], found["eps"], strict=True)
    alive = {key: list(own) for key, own in zip(keys, found["outcomes"], strict=True)}
    assert alive["a", 1, 0.1] == bits("1010")
    assert alive["a", 1, 0.2] == bits("0000")
    assert alive["a", 0, 0.1] == alive["b", 1, 0.1] == bits("1110")
    shown = {entry.model: entry.worst.values for entry in read(folder).standings[Threat("linf", 0.1)]}
    assert shown == {"a": {0: 0.75, 1: 0.5, 2: 0.75}, "b": {0: 0.75, 1: 0.75, 2: 0.75}}
    attacked = frame[(frame["model"] == "a") & (frame["seed"] == 1) & (frame["eps"] == 0.1)]
    assert [own.tolist() for own in attacked["audit_outcomes"]] == [bits("1011")]
    assert frame.loc[frame["eps"] == 0.2, "audit_outcomes"].isna().all()


def test_the_worst_case_of_some_models_is_theirs_alone(folder: Path) -> None:
    frame = load_results(folder)
    own = worst_case(frame[(frame["model"] == "b") & (frame["seed"] > 0)])
    assert own[["model", "seed"]].drop_duplicates().to_numpy().tolist() == [["b", 1], ["b", 2]]


def test_a_frame_without_outcomes_has_no_worst_case(folder: Path) -> None:
    with pytest.raises(ReportError, match="the frame lacks outcomes: a worst case is made of rows of load_results"):
        worst_case(load_results(folder).drop(columns="outcomes"))


# --- models.csv ----------------------------------------------------------------------------------------------------


def test_models_have_a_row_a_seed_with_parameters_numbers_and_flags(folder: Path, plan: Plan) -> None:
    rows = models(folder)
    assert [(row["model"], row["seed"]) for row in rows] == [(cell.model, str(cell.seed)) for cell in plan.of("train")]
    a, b = rows[0], rows[3]
    assert (a["objective.name"], a["objective.lambda"], b["objective.lambda"]) == ("ce", "", "0.7")
    assert (a["training.epochs"], a["status"], a["n"], a["accuracy"]) == ("1", "ok", "4", "0.75")
    assert (a["cmi"], a["separation"], a["ncmi"]) == ("0.5", "2.0", "0.25")
    assert (a["worst_linf_0.1"], a["worst_linf_0.2"]) == ("0.75", "0.25")
    results = read_results(folder)
    audit = flag_results(results.plan, results.records)
    for row, cell in zip(rows, plan.of("train"), strict=True):
        names = {flag.name for flag in audit.flags[cell.id]}
        names |= {flag.name for threat in results.threats for flag in audit.of_worst_case(cell.id, threat)}
        assert set(row["flags"].split(";")) == names
        assert {"few-examples", "no-strong-attack"} <= names


def test_what_is_missing_of_a_model_is_empty(folder: Path, plan: Plan) -> None:
    training = cell_of(plan, "b", 1, "train")
    for file in folder.glob("b.s1.*"):
        file.unlink()
    replace(folder, training, status="diverged")
    replace(folder, cell_of(plan, "a", 2, "FGSM"))
    by_cell: dict[tuple[str, str], dict[str, str]] = {(row["model"], row["seed"]): row for row in models(folder)}
    lost = by_cell["b", "1"]
    assert (lost["status"], lost["accuracy"], lost["worst_linf_0.1"], lost["objective.beta"]) == (
        "diverged",
        "",
        "",
        "0.4",
    )
    assert (by_cell["a", "2"]["worst_linf_0.1"], by_cell["a", "2"]["worst_linf_0.2"]) == ("0.75", "")


def test_the_models_of_digits_are_those_of_its_rows() -> None:
    with (DIGITS / "models.csv").open() as file:
        rows = list(csv.DictReader(file))
    frame = load_results(DIGITS)
    worst = worst_case(frame)
    for row in rows:
        (clean,) = frame[
            (frame["model"] == row["model"]) & (frame["seed"] == int(row["seed"])) & (frame["attack"] == "none")
        ].to_dict("records")
        assert [float(row[metric.name]) for metric in OF_MODELS] == [clean[metric.name] for metric in OF_MODELS]
        own = worst[(worst["model"] == row["model"]) & (worst["seed"] == int(row["seed"]))]
        expected = {
            f"worst_{norm}_{eps}": x for norm, eps, x in zip(own["norm"], own["eps"], own["accuracy"], strict=True)
        }
        assert {name: float(text) for name, text in row.items() if name.startswith("worst_")} == expected


# --- columns, titles -----------------------------------------------------------------------------------------------


def test_a_column_is_declared_once_for_every_table(folder: Path) -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    summary = read(folder)
    clean, fit = [line for line in leaderboard(summary).splitlines() if line.startswith("| model") and "NCMI" in line]
    assert [cell.strip() for cell in clean.split("|")[3:-1]] == [metric.head for metric in OF_MODELS]
    titled = [NCMI, *(metric for metric in CALIBRATION if metric.title)]
    assert [cell.strip() for cell in fit.split("|")[2:-1]] == [metric.head for metric in titled]
    page = suite_page(summary)
    for metric in METRICS:
        assert f'<th scope="col">{metric.short_head}</th>' in page or not metric.title


def test_numbers_over_seeds_are_those_of_the_table() -> None:
    summary = summarize(read_results(DIGITS))
    found = summary.values("cnn-ce", "PGD", Threat("linf", 0.1))
    frame = load_results(DIGITS)
    rows = frame[(frame["model"] == "cnn-ce") & (frame["attack"] == "PGD") & (frame["eps"] == 0.1)]
    assert found.values == dict(zip(rows["seed"], rows["accuracy"], strict=True))
    assert found.mean == round(statistics.fmean(rows["accuracy"]), 12)
    assert summary.values("cnn-ce", "no such attack", Threat("linf", 0.1)).values == {}


CE = objective_of({"name": "ce"}).declared()
PRINTED, AUTHORS = (objective_of({"name": "cmic", "preset": preset}).declared() for preset in ("printed", "authors"))
OTHER = PRINTED | {"separation_gradient": "first"}
OWN = {"name": "my.module:Objective", "code_sha256": "0", "parameters": {"strength": 2}}


@pytest.mark.parametrize(
    ("objectives", "title"),
    [
        ([CE, PRINTED], "CE against CMIC-DL printed"),
        ([CE, PRINTED, AUTHORS], "CE against CMIC-DL printed, CMIC-DL authors"),
        ([OTHER, OWN, CE], "CMIC-DL (first, all_pairs) against my.module:Objective, CE"),
        ([CE, None, CE | {"label_smoothing": 0.1}], "CE"),
        ([None], ""),
    ],
)
def test_pages_are_called_by_the_objectives_that_suites_have(
    folder: Path, objectives: list[dict[str, Any] | None], title: str
) -> None:
    summary = read(folder)
    trainings = []
    for place, cell in enumerate(summary.results.plan.of("train")):
        declared = objectives[place % len(objectives)]
        name = "given" if declared is None else declared["name"]
        changes = {"objective": name, "declared": cell.declared | {"objective": declared}}
        trainings.append(cell.model_copy(update=changes))
    others = [cell for cell in summary.results.plan.cells if cell.kind != "train"]
    object.__setattr__(summary.results, "plan", summary.results.plan.model_copy(update={"cells": trainings + others}))
    assert objectives_text([summary.results]) == title
    assert f"<title>made{': ' if title else ''}{title}</title>" in suite_page(summary)
    assert f"<title>Results{': ' if title else ''}{title}</title>" in index_page([("made", summary)])


# --- imports -------------------------------------------------------------------------------------------------------


def loaded(code: str, *names: str) -> set[str]:
    """Which of some modules a program loads."""
    program = f"{code}\nimport sys; print(*({set(names)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_commands_that_make_no_table_start_without_pandas_and_torch() -> None:
    starts = "cli, cli.plan, cli.run, cli.status, cli.report, run.runner, run.watch.status, report, report.tables"
    code = "import " + ", ".join(f"robustbench_cmic.{name}" for name in starts.split(", "))
    assert loaded(code, "pandas", "torch", "jinja2", "plotly") == set()
    assert loaded("import robustbench_cmic.report as r; r.FORMATS; import pandas", "pandas") == {"pandas"}


def test_status_reads_results_without_pandas() -> None:
    code = "from pathlib import Path; from robustbench_cmic.report import read_results; read_results(Path({!r}))"
    assert loaded(code.format(str(DIGITS)), "pandas", "torch") == set()


def test_the_package_gives_its_functions_when_asked() -> None:
    assert loaded("import robustbench_cmic", "pandas", "torch", "pydantic") == set()
    assert loaded("from robustbench_cmic import load_results, worst_case", "torch") == set()
    with pytest.raises(AttributeError, match="has no attribute 'load_result'"):
        getattr(robustbench_cmic, "load_result")  # noqa: B009 - mypy knows that it is not there
