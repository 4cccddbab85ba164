"""Maps of suites whose models are a grid: what each combination shows, on the page and in the leaderboard."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import numpy as np
import pytest

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.packing import pack_replicates
from robustbench_cmic.records.probed import Forward
from robustbench_cmic.records.schema import CalibratedMeasures, Calibration
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.grid import Axis, Grid, find_grid, scale_ends
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.strokes import COLORS, CROWDED
from tests.report.folders import attack_record, audit_record, cell_of, fill, planned, read, replace

SUITE = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - id: m
    architecture: mlp
    objective: {name: cmic}
    matrix: MATRIX
seeds: [0, 1, 2]
attacks: [{name: AutoAttack, eps: 0.1}]
"""
MATRIX = "{objective.separation_gradient: [first, both], objective.lambda: [11.2, 0, 2.8], objective.beta: [0.4, 0.1]}"
LAMBDAS, BETAS, GRADIENTS = (0.0, 2.8, 11.2), (0.1, 0.4), ("first", "both")
DIVERGED, FLAGGED, PARTIAL = ("first", 11.2, 0.1), ("both", 2.8, 0.4), ("both", 0.0, 0.1)
N = 200
TITLES = ["clean accuracy %", "NCMI at T, clean", "worst case %, L-inf 0.1"]


def name(gradient: str, row: float, column: float) -> str:
    return f"m-separation_gradient-{gradient}-lambda{row:g}-beta{column:g}"


def grid_of(tmp_path: Path, matrix: str, extra: str = "") -> Grid | None:
    plan = planned(tmp_path, SUITE.replace("MATRIX", matrix).replace("seeds:", f"{extra}seeds:"))
    return find_grid(Results(tmp_path, plan, {}, [], []))


def kept(cell: Cell) -> int:
    """How many examples a model gets right: another number for every combination, seed and threat."""
    declared = cell.declared["train"]["objective"]
    place = LAMBDAS.index(declared["lambda"]) * 2 + BETAS.index(declared["beta"])
    place += 6 * GRADIENTS.index(declared["separation_gradient"])
    return (150 if cell.attack == "none" else 50) + 3 * place + cell.seed


def ncmi(cell: Cell) -> float:
    return kept(cell) / 1000


def calibration(value: float) -> Calibration:
    calibrated = CalibratedMeasures(
        cmi=value, separation=1.0, ncmi=value, nll=0.5, ece=0.01, brier=0.25, ncmi_replicates=pack_replicates([value])
    )
    return Calibration(nll=0.7, ece=0.1, brier=0.3, temperatures=(2.0, 8.0), undefined="", calibrated=calibrated)


def right(count: int) -> list[bool]:
    return [place < count for place in range(N)]


@pytest.fixture
def board(tmp_path: Path) -> Summary:
    """Two facets of three by two: one combination diverged in seed 2, one flagged, one without an attack in seed 1."""
    plan = planned(tmp_path, SUITE.replace("MATRIX", MATRIX))
    folder = fill(tmp_path / "made", plan, lambda cell: right(kept(cell)))
    for cell in plan.of("attack"):
        if cell.attack == "none":
            write_record(folder, attack_record(cell, right(kept(cell)), calibration=calibration(ncmi(cell))))
    replace(folder, cell_of(plan, name(*DIVERGED), 2, "train"), status="diverged")
    for file in folder.glob(f"{name(*DIVERGED)}.s2.*"):
        if ".train." not in file.name:
            file.unlink()
    probed = audit_record(cell_of(plan, name(*FLAGGED), 0, "audit"))
    forward_pass = Forward(repeat=5, companions=0, training=[])
    write_record(folder, probed.model_copy(update={"forward_pass": forward_pass}))
    replace(folder, cell_of(plan, name(*PARTIAL), 1, "AutoAttack"))
    return read(folder)


def means(plan: Plan, title: str, combination: tuple[str, float, float]) -> list[float]:
    """What a map shows of a combination, by seed, in its units."""
    attack = "AutoAttack" if title.startswith("worst") else "none"
    cells = [cell_of(plan, name(*combination), seed, attack) for seed in (0, 1, 2)]
    return [ncmi(cell) if title.startswith("NCMI") else 100 * kept(cell) / N for cell in cells]


def expected(plan: Plan, title: str, combination: tuple[str, float, float]) -> str:
    if combination == DIVERGED:
        return "diverged (1 of 3 seeds)"
    if combination == PARTIAL and title.startswith("worst"):
        return "–"
    form = "{:.3g}" if title.startswith("NCMI") else "{:.1f}"
    values = means(plan, title, combination)
    text = f"{form.format(statistics.fmean(values))} ± {form.format(statistics.stdev(values))}"
    return f"{text} †" if combination == FLAGGED else text


def said(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def maps(text: str) -> list[Element]:
    page = html5lib.parse(text, namespaceHTMLElements=False)
    return [table for table in page.iter("table") if table.get("class") == "heat"]


# --- what is a grid ------------------------------------------------------------------------------------------------


def test_axes_ascend_and_words_make_facets(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, MATRIX)
    assert grid is not None
    assert (grid.rows, grid.columns) == (Axis("lambda", LAMBDAS), Axis("beta", BETAS))
    assert list(grid.facets) == ["separation_gradient: first", "separation_gradient: both"], "as in the suite"
    for gradient in GRADIENTS:
        own = grid.facets[f"separation_gradient: {gradient}"]
        assert own == {(row, column): name(gradient, row, column) for row in LAMBDAS for column in BETAS}


@pytest.mark.parametrize(
    ("matrix", "axes", "facets"),
    [
        ("{objective.lambda: [0, 1], objective.beta: [0, 1]}", ("lambda", "beta"), [""]),
        (
            "{objective.floor: [1e-8, 1e-6], objective.lambda: [0, 1, 2], objective.beta: [0, 1, 2]}",
            ("lambda", "beta"),
            ["floor: 1e-08", "floor: 1e-06"],
        ),
        (
            "{architecture: [mlp, small_cnn], objective.beta: [0, 1], objective.label_smoothing: [0, 0.1]}",
            ("beta", "label_smoothing"),
            ["architecture: mlp", "architecture: small_cnn"],
        ),
        # Each way of making centroids has a momentum of its own: it goes with the facet.
        (
            "{objective.centroids: [batch, class_batches], objective.lambda: [0, 1, 2], objective.beta: [0, 1, 2]}",
            ("lambda", "beta"),
            ["centroids: batch, momentum: 0.99", "centroids: class_batches, momentum: 0.9999"],
        ),
    ],
)
def test_any_two_numbers_can_be_axes(tmp_path: Path, matrix: str, axes: tuple[str, str], facets: list[str]) -> None:
    grid = grid_of(tmp_path, matrix)
    assert grid is not None
    assert (grid.rows.name, grid.columns.name) == axes
    assert list(grid.facets) == facets


@pytest.mark.parametrize(
    ("matrix", "extra"),
    [
        ("{objective.lambda: [0, 1, 2]}", ""),  # one number
        ("{objective.lambda: [0, 1], objective.separation_gradient: [both, first]}", ""),
        # A combination is missing in one facet, or has two models.
        (
            "{objective.lambda: [0, 1], objective.beta: [0, 1]}",
            "  - {id: other, architecture: mlp, objective: {name: cmic, lambda: 2, beta: 0}}\n",
        ),
        (
            "{objective.lambda: [0, 1], objective.beta: [0, 1]}",
            "  - {id: other, architecture: mlp, objective: {name: cmic, lambda: 0, beta: 0}}\n",
        ),
        # Another objective has neither number.
        (
            "{objective.lambda: [0, 1], objective.beta: [0, 1]}",
            "  - {id: other, architecture: mlp, objective: {name: ce}}\n",
        ),
        # Too many values for facets.
        ("{objective.lambda: [0, 1, 2, 3, 4], objective.beta: [0, 1, 2, 3, 4], objective.floor: FLOORS}", ""),
    ],
)
def test_what_is_no_grid(tmp_path: Path, matrix: str, extra: str) -> None:
    assert grid_of(tmp_path, matrix.replace("FLOORS", "[1e-8, 1e-7, 1e-6, 1e-5, 1e-4]"), extra) is None


def test_a_suite_that_is_no_grid_has_no_map(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace("MATRIX", "{objective.lambda: [0, 1, 2]}"))
    board = read(fill(tmp_path / "made", plan, lambda cell: right(100 + cell.seed)))
    assert "Grid" not in leaderboard(board)
    page = suite_page(board)
    assert maps(page) == []
    assert 'id="grid"' not in page
    assert 'id="curves-linf"' in page


# --- what maps show ------------------------------------------------------------------------------------------------


def test_the_page_has_a_map_for_each_measure_and_facet(board: Summary) -> None:
    text = suite_page(board)
    drawn = iter(maps(text))
    for title in TITLES:
        for gradient in GRADIENTS:
            table = next(drawn)
            rows = [[said(cell) for cell in row] for row in table.iter("tr")]
            assert said(next(table.iter("caption"))) == f"separation_gradient: {gradient}"
            assert rows[:2] == [["lambda", "beta"], ["0.1", "0.4"]]
            assert rows[2:] == [
                [f"{row:g}", *(expected(board.results.plan, title, (gradient, row, column)) for column in BETAS)]
                for row in LAMBDAS
            ]
    assert list(drawn) == []
    assert re.findall(r"<h3>(.*)</h3>\n<p class=\"minor scale\">", text) == TITLES


def test_colours_are_of_the_place_between_the_ends_over_all_facets(board: Summary) -> None:
    text = suite_page(board)
    combinations = [(gradient, row, column) for gradient in GRADIENTS for row in LAMBDAS for column in BETAS]
    cells = [cell for table in maps(text) for cell in table.iter("td")]
    scales = re.findall(r'<p class="minor scale">(\S+) .* (\S+)</p>', text)
    for place, title in enumerate(TITLES):
        own = dict(zip(combinations, cells[12 * place : 12 * place + 12], strict=True))
        numbers = {
            combination: statistics.fmean(means(board.results.plan, title, combination))
            for combination in combinations
            if combination != DIVERGED and not (combination == PARTIAL and title.startswith("worst"))
        }
        low, high = min(numbers.values()), max(numbers.values())
        for combination, cell in own.items():
            if combination not in numbers:
                kind = "diverged" if combination == DIVERGED else "incomplete"
                assert (cell.get("class"), cell.get("style")) == (kind, None), "no place on the scale"
            else:
                share = (numbers[combination] - low) / (high - low)
                assert (cell.get("class"), cell.get("style")) == ("number", f"--share: {share:.3f}")
        form = "{:.3g}" if title.startswith("NCMI") else "{:.1f}"
        assert scales[place] == (form.format(low), form.format(high))


def test_the_leaderboard_has_the_same_as_tables(board: Summary) -> None:
    (section,) = re.findall(r"^## Grid of lambda and beta\n(.*?)^## ", leaderboard(board), re.MULTILINE | re.DOTALL)
    captions = re.findall(r"^(.*); (separation\\?_gradient: .*):$", section, re.MULTILINE)
    assert captions == [(title, f"separation_gradient: {gradient}") for title in TITLES for gradient in GRADIENTS]
    tables = re.findall(r"((?:^\|.*\n)+)", section, re.MULTILINE)
    for (title, facet), table in zip(captions, tables, strict=True):
        head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        assert head == ["lambda", "beta 0.1", "beta 0.4"]
        gradient = facet.partition(": ")[2]
        assert lines == [
            [f"{row:g}", *(expected(board.results.plan, title, (gradient, row, column)) for column in BETAS)]
            for row in LAMBDAS
        ]


def test_many_models_fold_and_still_more_have_no_curves(board: Summary, tmp_path: Path) -> None:
    page = suite_page(board)
    assert len(COLORS) < len(board.results.models) <= CROWDED
    assert page.count("<details") == page.count("</details>")
    folds = ["All models, the best first", "All models"]
    for summary in (*folds, "The numbers of this chart"):
        assert f"<summary>{summary}</summary>" in page
    assert 'id="curves-linf"' in page
    lambdas, betas = [2.8 * place for place in range(5)], [0.1, 0.2, 0.3, 0.4]
    plan = planned(tmp_path, SUITE.replace("MATRIX", f"{{objective.lambda: {lambdas}, objective.beta: {betas}}}"))
    folder = tmp_path / "more"
    page = suite_page(read(fill(folder, plan, lambda cell: right(100))))
    assert len(plan.of("train")) > 3 * CROWDED
    assert 'id="curves-linf"' not in page
    assert 'id="ncmi-error"' in page, "a point a network stays readable"
    for summary in (*folds, "All models under every attack"):
        assert f"<summary>{summary}</summary>" in page


def test_one_model_that_is_far_off_does_not_take_the_scale() -> None:
    values = [0.95, 0.955, 0.96, 0.965, 0.97, 0.98, 0.3, 0.1]
    quartiles = np.quantile(values, [0.25, 0.75])
    assert scale_ends(values) == (0.95, 0.98)
    assert quartiles[0] - 1.5 * (quartiles[1] - quartiles[0]) > 0.3, "as NumPy has the quartiles"
    assert scale_ends([0.2, 0.2, 0.2, 0.2, 0.9]) == (0.2, 0.9), "all but one are equal"
    assert scale_ends([0.2]) == (0.2, 0.2)


def test_what_is_far_off_is_at_the_end_of_the_scale_which_says_so(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace("MATRIX", MATRIX))
    board = read(fill(tmp_path / "made", plan, lambda cell: right(20 if cell.model == name(*FLAGGED) else kept(cell))))
    text = suite_page(board)
    # Clean accuracies of the others, with 1 added for the seeds, are 151 to 184 of 200 examples.
    assert re.findall(r'<p class="minor scale">(.*) <span.*</span> (.*)</p>', text)[0] == ("≤ 75.5", "92.0")
    styles = {said(cell): cell.get("style") for cell in list(maps(text)[1].iter("td"))}
    assert styles["10.0 ± 0.0"] == "--share: 0.000"


def test_one_value_everywhere_has_a_scale_all_the_same(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace("MATRIX", MATRIX))
    board = read(fill(tmp_path / "made", plan, lambda cell: right(100), calibration=None))
    cells = [cell for table in maps(suite_page(board)) for cell in table.iter("td")]
    assert len(cells) == 24, "nothing of NCMI, which no record has"
    assert {(said(cell), cell.get("style")) for cell in cells} == {("50.0 ± 0.0", "--share: 0.000")}


# --- can it be read ------------------------------------------------------------------------------------------------


def luminance(color: tuple[float, ...]) -> float:
    """Relative luminance of sRGB, components in [0, 1] (WCAG 2.2)."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def rgb(text: str) -> tuple[float, ...]:
    return tuple(int(text[place : place + 2], 16) / 255 for place in (1, 3, 5))


@pytest.mark.parametrize("theme", [0, 1])
def test_text_on_the_strongest_colour_has_enough_contrast(theme: int) -> None:
    style = render("index.html", ["page.js"], summaries=[], objectives="")
    page, ink = (rgb(re.findall(rf"--{name}: light-dark\((.*), (.*)\)", style)[0][theme]) for name in ("page", "ink"))
    ((least, span),) = re.findall(r"var\(--heat\) calc\((\d+)% \+ (\d+)% \* var\(--share\)\)", style)
    for share in (int(least) / 100, (int(least) + int(span)) / 100):
        mixed = tuple(share * a + (1 - share) * b for a, b in zip(rgb(COLORS[0]), page, strict=True))
        low, high = sorted((luminance(mixed), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) > 4.5
