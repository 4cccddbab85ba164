"""A report as JSON and as LaTeX, and the command that writes reports."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.report import FORMATS, read_results, summarize, write_report
from robustbench_cmic.report.formats.latex import latex, tex_escaped
from robustbench_cmic.suite.fields import Threat
from tests.conftest import ROOT, Cli
from tests.report.folders import HEAD, fill, planned

SUITE = f"""{HEAD}attacks:
  - {{name: FGSM, id: F_G.S+M, eps: 0.1}}
  - {{name: AutoAttack, eps: 8/255}}
"""


def kept(count: int) -> list[bool]:
    return [place < count for place in range(200)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plan = planned(tmp_path, SUITE)
    counts = {"none": 190, "AutoAttack": 40}
    (tmp_path / "results").mkdir()
    return fill(
        tmp_path / "results" / "made",
        plan,
        lambda cell: kept(counts.get(cell.attack, 80) + 10 * (cell.model == "b") + cell.seed),
    )


def written(folder: Path) -> dict[str, Any]:
    write_report(folder, ["json"])
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def test_json_says_what_the_board_says(folder: Path) -> None:
    found = written(folder)
    board = summarize(read_results(folder))
    assert found["schema"] == "robustbench_cmic/report/1"
    assert (found["suite"], found["seeds"], found["examples"], found["audited"]) == ("made", 3, [200], True)
    assert found["missing"] is None
    places = [(entry["eps"], entry["model"], entry["rank"], entry["why_not_ranked"]) for entry in found["standings"]]
    assert places == [
        (8 / 255, "b", 1, ""), (8 / 255, "a", 2, ""), (0.1, "a", None, "flagged"), (0.1, "b", None, "flagged"),
    ]  # fmt: skip
    assert found["standings"][2]["worst_case"]["flags"] == ["no-strong-attack"]
    at_8 = next(entry for entry in found["standings"] if entry["model"] == "a" and entry["eps"] == 8 / 255)
    assert at_8["worst_case"]["by_seed"] == {"0": 40 / 200, "1": 41 / 200, "2": 42 / 200}
    assert at_8["worst_case"]["mean"] == pytest.approx(41 / 200)
    (pair,) = found["pairs"]
    accuracy = pair["lines"][0]
    assert (accuracy["what"], accuracy["claim"]) == ("accuracy", True)
    assert accuracy["by_seed"]["0"]["second"] - accuracy["by_seed"]["0"]["first"] == pytest.approx(10 / 200)
    line = board.pairs["a", "b"][0]
    assert found["margin"] == 0.02
    assert (accuracy["verdict"], accuracy["outcome"]) == (line.verdict, line.outcome)
    told = {key: accuracy[key] for key in ("p", "p_equivalent", "detectable", "seeds_needed")}
    assert told == {key: getattr(line, key) for key in told}


def test_rows_of_the_json_are_those_of_the_csv(folder: Path) -> None:
    write_report(folder)
    with (folder / "results.csv").open() as file:
        expected = list(csv.DictReader(file))
    assert [{key: str(value) for key, value in row.items()} for row in written(folder)["rows"]] == expected


def test_latex_prints_a_suites_own_words_as_they_are(folder: Path) -> None:
    assert tex_escaped("100% _$&{}\n~^\\#<x> ±") == (
        r"100\% \_\$\&\{\} \textasciitilde{}\textasciicircum{}\textbackslash{}\#\textless{}x\textgreater{} $\pm$"
    )
    text = latex(summarize(read_results(folder)))
    assert r"F\_G.S+M \%" in text
    bare = re.sub(r"\\(?:[a-z]+|[^a-z])", "", text.split("\n", 1)[1])  # without commands and escaped characters
    assert not set("#%_~\\") & set(bare)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0


def test_latex_tables_have_as_many_columns_in_every_row(folder: Path) -> None:
    text = latex(summarize(read_results(folder)))
    tables = re.findall(r"\\begin\{tabular\}\{(l+)\}\n\\toprule\n(.*?)\\bottomrule\n\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) == 4, "clean, calibration, under attack, and a pair"
    for columns, body in tables:
        head, rows = body.split("\\midrule\n")
        for line in [*head.splitlines(), *rows.splitlines()]:
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
            assert line.endswith(r"\\")


def test_the_best_is_bold_in_latex_as_in_markdown(folder: Path) -> None:
    board = summarize(read_results(folder))
    (best,) = [entry for entry in board.standings[Threat("linf", 8 / 255)] if entry.rank == 1]
    assert re.search(rf"\\texttt{{{best.model}}} .*\\textbf{{25.5 \$\\pm\$ 0.5}} +\\\\", latex(board))
    assert r"\textbf{100.0 $\pm$ 0.0}" in latex(board)
    assert r"\textbf{95.5 $\pm$ 0.5}" not in latex(board)


def test_every_format_of_every_suite_by_one_command(folder: Path, cli: Cli) -> None:
    shutil.copytree(ROOT / "results" / "digits", folder.parent / "digits")
    chosen = [option for form in FORMATS for option in ("--format", form)]
    done = cli("report", *chosen)
    assert (done.returncode, done.stderr) == (0, "")
    names = [name for files in FORMATS.values() for name in files]
    said = [f"results/{suite}/{name}" for suite in ("digits", "made") for name in names]
    assert set(said) <= set(done.stdout.splitlines())
    before = {name: (folder / name).read_bytes() for name in names}
    assert cli("report", "made", *chosen).returncode == 0
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_without_any_results_report_says_so(tmp_path: Path, cli: Cli) -> None:
    done = cli("report")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "results holds no results of any suite; `run` one first\n"
    wrong = cli("report", "digits", "--format", "pdf")
    assert wrong.returncode == 2
    assert "'pdf' is not one of" in wrong.stderr
