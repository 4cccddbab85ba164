"""Pages: what they show is what the board says, nothing in them runs, equal boards give equal bytes."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree.ElementTree import Element

import html5lib
import pytest
from plotly.offline import get_plotlyjs

from robustbench_cmic.audit import RULES
from robustbench_cmic.records.pictures import Picture, Pictures, write_pictures
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary, read_results, summarize
from robustbench_cmic.report.counts import claim_counts
from robustbench_cmic.report.formats.html import index_page, suite_page
from robustbench_cmic.report.formats.html.charts import opening_pairs
from robustbench_cmic.report.formats.html.pictures import GALLERY_SIZE, gallery
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.statistics import wilson_interval
from tests.conftest import ROOT
from tests.report.folders import HEAD, bits, cell_of, fill, planned, read, replace, train_record
from tests.report.hostile import BAD, hostile

ATTACKED = f"""{HEAD}attacks:
  - {{name: FGSM, eps: [0.1, 0.2, 8/255]}}
  - {{name: AutoAttack, eps: [0.1, 0.2, 8/255]}}
"""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def parsed(text: str) -> Element:
    """The page as a browser reads it, without the megabytes of plotly.js."""
    return html5lib.parse(text.replace(get_plotlyjs(), ""), namespaceHTMLElements=False)


def said(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def table(page: Element, identity: str) -> list[list[str]]:
    (found,) = [table for table in page.iter("table") if table.get("id") == identity]
    body = found.find("tbody")
    assert body is not None
    return [[said(cell) for cell in row] for row in body]


def data(page: Element, identity: str) -> Any:
    (found,) = [script for script in page.iter("script") if script.get("id") == identity]
    return json.loads(found.text or "")


def board_of(tmp_path: Path, suite: str, **options: Any) -> tuple[Summary, Path]:
    plan = planned(tmp_path, suite)
    kept = {"none": "1111111110", "FGSM": "1111110000", "AutoAttack": "1110000011"}
    folder = fill(tmp_path / "made", plan, lambda cell: bits(kept[cell.attack]) * 12, **options)
    return read(folder), folder


@pytest.fixture(scope="module")
def digits() -> tuple[Summary, Element]:
    folder = ROOT / "results" / "digits"
    board = summarize(read_results(folder))
    return board, parsed(suite_page(board))


# --- numbers -------------------------------------------------------------------------------------------------------


def test_standings_are_those_of_the_leaderboard(digits: tuple[Summary, Element]) -> None:
    text = (ROOT / "results" / "digits" / "leaderboard.md").read_text()
    (markdown,) = re.findall(r"## Accuracy under attack.*?\n\n((?:\|.*\n)+)", text)
    lines = [[cell.strip(" *`") for cell in line.split("|")[1:-1]] for line in markdown.splitlines()[2:]]
    expected = [(f"L-inf {row[0]}", row[1], row[2], row[-1]) for row in lines]
    shown = [(row[0], row[3], row[1], row[2]) for row in table(digits[1], "standings-table")]
    assert shown == expected
    assert len(shown) == len(digits[0].standings) * len(digits[0].clean) > 1


def test_it_opens_with_both_readings_of_a_method() -> None:
    pairs = [("a", "b"), ("c", "d"), ("a", "e"), ("a", "f")]
    assert (opening_pairs(pairs), opening_pairs([])) == ([("a", "b"), ("a", "e")], [])


def test_the_findings_of_both_readings_are_open(digits: tuple[Summary, Element]) -> None:
    (found,) = [section for section in digits[1].iter("section") if section.get("aria-labelledby") == "finding"]
    (other,) = found.iter("details")
    assert other.get("open") is not None
    assert said(other).startswith("cnn-cmic-authors against cnn-ce: ")


def test_the_best_is_bold_and_flagged_rows_are_told_apart(tmp_path: Path) -> None:
    plan = planned(tmp_path, f"{HEAD}attacks:\n  - {{name: AutoAttack, eps: 0.1}}\n")
    kept = {"a": "1111100000", "b": "1111111100"}
    folder = fill(tmp_path / "made", plan, lambda cell: bits(kept[cell.model]) * 20)
    replace(folder, cell_of(plan, "b", 1, "audit"))
    page = parsed(suite_page(read(folder)))
    assert [(row[1], row[3]) for row in table(page, "standings-table")] == [("a", "1"), ("b", "flagged")]
    (standings,) = [found for found in page.iter("table") if found.get("id") == "standings-table"]
    assert [row.get("class") for row in standings.iter("tr")] == [None, None, "flagged"]
    assert [said(bold) for bold in standings.iter("strong")] == ["50.0 ± 0.0"]
    assert [button.get("data-flag") for button in standings.iter("button")] == ["audit-failed"]
    (rule,) = [section for section in page.iter("section") if section.get("id") == "flag-audit-failed"]
    assert RULES["audit-failed"].meaning in said(rule)
    assert RULES["audit-failed"].source in said(rule)
    assert "because" in said(rule), "the evidence"


def test_every_row_of_the_csv_is_there_with_its_record(digits: tuple[Summary, Element]) -> None:
    folder = ROOT / "results" / "digits"
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    shown = table(digits[1], "numbers-table")
    assert len(shown) == len(rows) == len(digits[0].results.plan.of("attack"))
    provenance = data(digits[1], "provenance")
    for row, cells, places in zip(rows, shown, provenance["rows"], strict=True):
        assert cells[:3] == [row["model"], row["seed"], row["attack"]]
        assert cells[4] == row["n"]
        assert cells[5].removesuffix(" †") == f"{100 * float(row['accuracy']):.1f}"
        assert cells[5].endswith("†") == bool(row["flags"])
        assert cells[11].replace(" ", ";") == row["flags"]
        assert cells[12:14] == [row["forwards"], row["backwards"]]
        record = json.loads((folder / f"{row['cell']}.json").read_text())
        facts = dict(provenance["facts"][place] for place in places)
        assert facts["record"] == f"{row['cell']}.json"
        assert facts["to run it again"] == f"python -m robustbench_cmic run digits --only {row['cell']} --results mine"
        assert facts["code"] == record["provenance"]["commit"]
        assert facts["weights, sha256"] == record["checkpoint_sha256"]
        assert facts["examples, sha256"] == record["examples_sha256"]
        assert record["timing"]["started"] in facts["timing"]
        assert f"torch {record['provenance']['versions']['torch']}" in facts["versions"]
    assert len(provenance["facts"]) == len({tuple(fact) for fact in provenance["facts"]})


def test_curves_hold_means_and_wilsons_intervals_with_clean_accuracy_at_0(digits: tuple[Summary, Element]) -> None:
    with (ROOT / "results" / "digits" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    chart = data(digits[1], "figures")["curves-linf"]
    drawn = {trace["name"]: trace for trace in chart["figure"]["data"]}
    models = digits[0].results.models
    assert digits[0].results.plan.pairs == [(models[0], models[1]), (models[0], models[2])]
    opened = product(models, ("worst case", "FGSM", "FGSM-margin"))
    assert {name for name, trace in drawn.items() if trace["visible"]} == {", ".join(curve) for curve in opened}
    for model in models:
        trace = drawn[f"{model}, PGD"]
        assert trace["x"] == [0, 0.05, 0.1, 0.2, 0.3]
        for place, eps in enumerate(trace["x"]):
            attack = "none" if eps == 0 else "PGD"
            found = [row for row in rows if (row["model"], row["attack"], float(row["eps"])) == (model, attack, eps)]
            n = int(found[0]["n"])
            mean = statistics.fmean(float(row["accuracy"]) for row in found)
            assert trace["y"][place] == pytest.approx(100 * mean)
            low, high = (100 * end for end in wilson_interval(mean * n, n))
            assert ends_of(trace, place) == pytest.approx((low, high))
            assert f"<br>95 % over examples: {low:.1f} … {high:.1f}<br>" in trace["hovertext"][place]
    assert "Bars: 95 % Wilson intervals over examples, a bound for means over seeds." in said(digits[1])
    broken = drawn["cnn-ce, AutoAttack"]
    assert (broken["y"][1], broken["error_y"]["array"][1]) == (None, None), "not run there: the line is broken"
    for entry in (entry for entries in digits[0].standings.values() for entry in entries):
        for label, number in entry.attacks.items():
            if not number.values:  # a transfer from a model that is no partner
                assert f"{entry.model}, {label}" not in drawn
                continue
            trace = drawn[f"{entry.model}, {label}"]
            place = trace["x"].index(entry.threat.eps)
            assert trace["marker"]["symbol"][place].endswith("-open") == bool(number.flags)
            told = f"flagged: {', '.join(number.flags)}" if number.flags else "not flagged"
            assert trace["hovertext"][place].endswith(f"<br>{told}")


def ends_of(trace: Any, place: int) -> tuple[float, float]:
    """Where the bar of a curve's point ends."""
    bars = trace["error_y"]
    return trace["y"][place] - bars["arrayminus"][place], trace["y"][place] + bars["array"][place]


def test_eps_reads_as_a_fraction_of_255_where_it_is_one(tmp_path: Path) -> None:
    board, _ = board_of(tmp_path, ATTACKED)
    chart = data(parsed(suite_page(board)), "figures")["curves-linf"]["figure"]
    assert chart["layout"]["xaxis"]["ticktext"] == ["0", "8/255", "0.1", "0.2"]
    assert "worst case, eps 8/255" in chart["data"][0]["hovertext"][1]


def test_the_forest_shows_differences_with_intervals_and_greys_what_is_withdrawn(
    digits: tuple[Summary, Element],
) -> None:
    board, page = digits
    lines = next(iter(board.pairs.values()))
    figure = data(page, "figures")["pair-0"]["figure"]
    labels = figure["layout"]["yaxis"]["ticktext"]
    drawn = {labels[y]: (x, plus, minus, trace["name"]) for trace in figure["data"] for x, y, plus, minus in zip(
        trace["x"], trace["y"], trace["error_x"]["array"], trace["error_x"]["arrayminus"], strict=True)}  # fmt: skip
    assert len(drawn) == len(labels) == len(lines) - 1, "all but NCMI"
    x, plus, minus, kind = drawn["<b>worst case, L-inf 0.1</b>"]
    (line,) = [line for line in lines if (line.what, line.threat) == ("worst case", ("linf", 0.1))]
    assert line.interval is not None
    assert (x - minus, x + plus) == pytest.approx([100 * end for end in line.interval])
    assert x == pytest.approx(100 * statistics.fmean(seed.difference for seed in line.seeds.values()))
    assert kind == "claims"
    assert sum(kind == "withdrawn: flagged" for *_, kind in drawn.values()) == len(withdrawn_of(lines))
    withdrawn = [line for lines in board.pairs.values() for line in withdrawn_of(lines)]
    grey = [said(row) for row in page.iter("tr") if row.get("class") == "withdrawn"]
    for line, row in zip(withdrawn, grey, strict=True):
        assert row.startswith("clean" if line.what == "accuracy" else line.what)
        assert f"withdrawn: flagged ({', '.join(line.flags)})" in row


def withdrawn_of(lines: list[PairTest]) -> list[PairTest]:
    """Those of a chart, which has no place for NCMI."""
    return [line for line in lines if line.in_points and line.flags]


# --- what may be missing -------------------------------------------------------------------------------------------


def test_nothing_run_yet(tmp_path: Path) -> None:
    plan = planned(tmp_path, ATTACKED)
    folder = fill(tmp_path / "made", plan, lambda cell: None)
    for file in folder.glob("?.s*.json"):
        file.unlink()
    board = read(folder)
    page = parsed(suite_page(board))
    assert f"Of {len(plan.cells)} cells {len(plan.cells)} not run." in said(page)
    assert "Nothing is measured yet." in said(page)
    assert list(page.iter("table")) == []
    assert "plotly" not in suite_page(board).lower()
    assert "nothing measured yet" in said(parsed(index_page([("made", board)])))
    assert "There are no results yet." in said(parsed(index_page([])))


def test_one_seed_no_pair_no_audit(tmp_path: Path) -> None:
    suite = ATTACKED.replace("seeds: [0, 1, 2]", "seeds: [7]").replace("pairs: [[a, b]]\n", "") + "audit: off\n"
    board, _ = board_of(tmp_path, suite)
    page = parsed(suite_page(board))
    assert "one seed, which shows nothing about the method" in said(page)
    assert "The suite has no pair of models to compare." in said(page)
    assert "This suite is not audited" in said(page)
    assert RULES["not-audited"].meaning in said(page)
    assert "Incomplete" not in said(page)
    curves = {trace["name"]: trace for trace in data(page, "figures")["curves-linf"]["figure"]["data"]}
    record = board.results.attack(cell_of(board.results.plan, "a", 7, "FGSM", 0.1).id)
    assert record is not None
    assert record.ci_low is not None
    assert record.ci_high is not None
    curve = curves["a, FGSM"]
    ends = ends_of(curve, curve["x"].index(0.1))
    assert ends == pytest.approx((100 * record.ci_low, 100 * record.ci_high)), "that of its examples"
    assert "Bars: 95 % Wilson intervals over examples. They say nothing about other seeds." in said(page)
    index = said(parsed(index_page([("made", board)])))
    assert "not audited" in index
    assert "no pair of models" in index


def test_what_is_missing_is_said_first(tmp_path: Path) -> None:
    board, folder = board_of(tmp_path, ATTACKED)
    plan = board.results.plan
    replace(folder, cell_of(plan, "b", 2, "FGSM", 0.2))
    for file in folder.glob("a.s1.*.json"):
        file.unlink()
    replace(folder, cell_of(plan, "a", 1, "train"), status="diverged", reason="NaN at step 3")
    (folder / f"{cell_of(plan, 'b', 0, 'AutoAttack', 0.1).id}.json").write_text("{")
    board = read(folder)
    page = parsed(suite_page(board))
    (notice,) = [section for section in page.iter("section") if section.get("class") == "notice"]
    assert "1 diverged, 1 failed, 1 not run" in said(notice)
    assert "NaN at step 3" in said(notice)
    assert "because" in said(notice)
    assert "left out: 1." in said(notice)
    ranks = [row[3] for row in table(page, "standings-table")]
    assert sorted(ranks) == ["1", "flagged", "incomplete", "incomplete", "incomplete", "incomplete"]
    statuses = [row[10] for row in table(page, "numbers-table")]
    assert (statuses.count("failed"), statuses.count("diverged"), statuses.count("skipped")) == (1, 1, 6)
    assert "1 diverged" in said(parsed(index_page([("made", board)])))


def test_the_index_leads_to_suites_with_verdicts_and_flags(digits: tuple[Summary, Element], tmp_path: Path) -> None:
    page = parsed(index_page([("digits", digits[0]), ("a b", board_of(tmp_path, ATTACKED)[0])]))
    assert [link.get("href") for link in page.iter("a")][1:] == ["./digits/index.html", "./a%20b/index.html"]
    raised = sorted(flag.name for flag in digits[0].flags)
    assert ", ".join(f"{raised.count(name)} × {name}" for name in dict.fromkeys(raised)) in said(page)
    bodies: list[Any] = [body for found in page.iter("table") if (body := found.find("tbody")) is not None]
    rows = [[said(cell) for cell in row] for row in bodies[0]]
    assert rows == [[f"{b} against {a}", *claim_counts(lines)] for (a, b), lines in digits[0].pairs.items()]


# --- pictures ------------------------------------------------------------------------------------------------------


def pictured(tmp_path: Path) -> tuple[Summary, Path]:
    """Records that say on which data they were made, as pictures do."""
    board, folder = board_of(tmp_path, ATTACKED, dataset_sha256="d")
    for cell in board.results.plan.of("train"):
        write_record(folder, train_record(cell, dataset_sha256="d"))
    return read(folder), folder


def write(folder: Path, cell: Any, count: int, **changes: Any) -> None:
    example = Picture(
        index=0, label=1, before=1, after=0, confidence_before=0.998, confidence_after=0.87, clean=PNG, adversarial=PNG,
        perturbation=PNG,
    )  # fmt: skip
    examples = [example.model_copy(update={"index": index}) for index in range(count)]
    fields: dict[str, Any] = {"class_names": ["zero", "one"], "examples": examples} | changes
    write_pictures(folder, Pictures.model_validate({
        "suite": "made", "cell": cell.id, "model": cell.model, "seed": cell.seed, "attack": cell.attack,
        "norm": cell.norm, "eps": cell.eps, "dataset_sha256": "d", "checkpoint_sha256": "c", **fields,
    }))  # fmt: skip


def test_examples_are_of_the_strongest_attack_in_the_middle_ball(tmp_path: Path) -> None:
    board, folder = pictured(tmp_path)
    plan = board.results.plan
    assert gallery(board) == []
    assert "pictures are kept only where a run was made" in suite_page(board)
    write(folder, cell_of(plan, "a", 0, "FGSM", 0.2), 1)
    assert [(shown.pictures.model, shown.size) for shown in gallery(board)] == [("a", "L-inf 0.2")]
    write(folder, cell_of(plan, "a", 0, "AutoAttack", 0.1), 0)
    write(folder, cell_of(plan, "a", 0, "FGSM", 0.1), 6)
    assert [shown.pictures.attack for shown in gallery(board)] == ["FGSM"], "an attack without pictures is passed over"
    write(folder, cell_of(plan, "a", 0, "AutoAttack", 0.1), 7)
    write(folder, cell_of(plan, "b", 1, "FGSM", 0.1), 7)  # not the smallest seed
    (shown,) = gallery(board)
    assert (shown.pictures.attack, shown.size, len(shown.pictures.examples)) == (
        "AutoAttack",
        "L-inf 0.1",
        GALLERY_SIZE,
    )
    page = parsed(suite_page(board))
    images = list(page.iter("img"))
    assert len(images) == 3 * GALLERY_SIZE
    assert {image.get("src") for image in images} == {f"data:image/png;base64,{PNG}"}
    assert images[0].get("alt") == "clean image 0, of class one"
    assert images[2].get("alt") == "adversarial image 0, taken for zero"
    assert "one (99.8 %) → zero (87.0 %)" in said(page)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("suite", "another"),
        ("model", "b"),
        ("seed", 1),
        ("attack", "AutoAttack"),
        ("norm", "l2"),
        ("eps", 0.2),
        ("dataset_sha256", "other"),
        ("checkpoint_sha256", "other"),
    ],
)
def test_pictures_of_anything_but_the_record_are_not_shown(tmp_path: Path, field: str, other: object) -> None:
    board, folder = pictured(tmp_path)
    cell = cell_of(board.results.plan, "a", 0, "FGSM", 0.1)
    write(folder, cell, 2)
    assert len(gallery(board)) == 1
    write(folder, cell, 2, **{field: other})
    assert gallery(board) == []


# --- nothing in it runs --------------------------------------------------------------------------------------------


def check_harmless(text: str) -> Element:
    """Scripts are those of the policy, and no attribute or address could run or fetch anything."""
    page = parsed(text)
    (policy,) = [meta.get("content", "") for meta in page.iter("meta") if meta.get("http-equiv")]
    assert re.fullmatch(
        r"default-src 'none'; script-src( 'sha256-[A-Za-z0-9+/=]{44}')+; style-src 'unsafe-inline'; img-src data:; "
        r"base-uri 'none'; form-action 'none'",
        policy,
    )
    scripts = [script.text or "" for script in page.iter("script") if script.get("type") is None]
    scripts = [script or get_plotlyjs() for script in scripts]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert re.findall(r"sha256-([^']+)", policy) == hashes
    for element in page.iter():
        assert element.tag not in ("iframe", "object", "embed", "link", "base", "form", "svg", "b"), element.tag
        assert not [name for name in element.attrib if name.startswith("on")], element.attrib
        for name in ("href", "src", "action"):
            assert re.match(r"\./|#|data:image/png;base64,", element.get(name, "#")), element.attrib
    return page


def flat(texts: list[Any]) -> list[str]:
    """Of a heat map they come row by row."""
    return [text for each in texts for text in (each if isinstance(each, list) else [each])]


def test_no_string_of_a_suite_becomes_markup(tmp_path: Path) -> None:
    board = hostile(tmp_path)
    text = suite_page(board)
    page = check_harmless(text)
    assert "{{7*7}}" in said(page)
    plain = " ".join(BAD.split())
    assert plain in said(next(page.iter("h1")))
    assert said(page).count(plain) > 400, "in every table"
    links = {unquote(element.get("href", "")) for element in page.iter("a")}
    assert f"./{cell_of(board.results.plan, f'a{BAD}', 0, f'PGD-2{BAD}').id}.json" in links
    for chart in data(page, "figures").values():
        layout = chart["figure"]["layout"]
        texts = [text for trace in chart["figure"]["data"] for text in [trace["name"], *flat(trace["hovertext"])]]
        texts += [text for axis in ("xaxis", "yaxis") for text in layout.get(axis, {}).get("ticktext", [])]
        texts.append(layout["xaxis"]["title"]["text"])
        for found in texts:
            assert set(re.findall(r"<[^>]*>?", found)) <= {"<b>", "</b>", "<br>"}, found
    check_harmless(index_page([(BAD, board)]))


def test_class_names_do_not_become_markup(tmp_path: Path) -> None:
    board, folder = pictured(tmp_path)
    write(folder, cell_of(board.results.plan, "a", 0, "FGSM", 0.1), 2, class_names=[BAD, BAD])
    page = check_harmless(suite_page(board))
    assert next(page.iter("img")).get("alt") == f"clean image 0, of class {BAD}"


# --- bytes, imports ------------------------------------------------------------------------------------------------


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "cifar100-lite"
    shutil.copytree(ROOT / "results" / "cifar100-lite", folder)
    code = (
        "import sys; from pathlib import Path; from robustbench_cmic.report import summarize, read_results;"
        "from robustbench_cmic.report.formats.html import index_page, suite_page;"
        "board = summarize(read_results(Path('cifar100-lite')));"
        "Path(sys.argv[1]).write_text(suite_page(board) + index_page([('x', board)]))"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", code, name], cwd=tmp_path, check=True, env={"PYTHONPATH": str(ROOT)})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_only_a_page_that_is_made_pays_for_plotly() -> None:
    code = "import sys, robustbench_cmic.report.formats.html; sys.exit(bool({'plotly', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
