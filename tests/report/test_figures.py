"""Figures: drawn is what the summary holds, models stay apart without colour, equal records give equal bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import linregress, spearmanr

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.probed import Forward
from robustbench_cmic.records.schema import Epoch
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary
from robustbench_cmic.report.figures import KINDS_OF_FIGURES, drawings_of, write_figures
from robustbench_cmic.report.figures.drawing import FILE_TYPES, Drawing, rendered
from robustbench_cmic.report.figures.ncmi_error import FEWEST, fit_line
from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.strokes import COLORS, ink, stroke
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.fields import CLEAN, Threat
from tests.browser.twelve import MODELS, twelve
from tests.conftest import Cli
from tests.report.folders import (
    HEAD,
    attack_record,
    audit_record,
    calibration,
    cell_of,
    fill,
    planned,
    read,
    replace,
    train_record,
)

N = 40
SUITE = f"""{HEAD}attacks:
  - {{name: FGSM, eps: [0.1, 8/255]}}
  - {{name: FGSM, id: FGSM-margin, loss: margin, eps: [0.1, 8/255]}}
  - {{name: PGD, id: P, norm: l2, eps: 0.5}}
  - {{name: Transfer, eps: 0.1}}
"""


def kept(cell: Cell) -> int:
    return (
        38 - cell.seed - 3 * (cell.model == "b") if cell.attack == "none" else 30 - 5 * cell.seed - round(90 * cell.eps)
    )


def curve(model: str, seed: int, epochs: int) -> list[Epoch]:
    return [
        Epoch(
            epoch=number, lr=0.1, loss={"total": 1.0}, accuracy=1 - 0.5 / number - 0.01 * seed, cmi=1 / (number + seed),
            separation=float(number) + (model == "b"), ncmi=None if number == 1 else 0.5 / number,
        )
        for number in range(1, epochs + 1)
    ]  # fmt: skip


def board(tmp_path: Path, text: str = SUITE, diverged: Sequence[tuple[str, int]] = ()) -> Summary:
    """Each number another; trainings have curves; some may have diverged."""
    plan = planned(tmp_path, text)
    folder = fill(tmp_path / "made", plan, lambda cell: [place < kept(cell) for place in range(N)])
    for cell in plan.of("train"):
        write_record(folder, train_record(cell, curve=curve(cell.model, cell.seed, 4)))
    for cell in plan.of("attack"):
        if cell.attack == "none":
            right, value = [place < kept(cell) for place in range(N)], 0.01 * (N - kept(cell)) + 0.003 * cell.seed**2
            write_record(folder, attack_record(cell, right, calibration=calibration(value)))
    for model, seed in diverged:
        replace(folder, cell_of(plan, model, seed, "train"), status="diverged", curve=curve(model, seed, 2))
        for file in folder.glob(f"{model}.s{seed}.*"):
            if ".train." not in file.name:
                file.unlink()
    return read(folder)


def drawn(summary: Summary, kind: str) -> list[Drawing]:
    found = drawings_of(summary, kind)
    assert not isinstance(found, str), found
    return found


def lines(axes: Axes) -> dict[str, Line2D]:
    """By label the lines of models, without marks and fits."""
    return {str(line.get_label()): line for line in axes.get_lines() if not str(line.get_label()).startswith("_")}


def values(line: Line2D) -> tuple[list[float], list[float]]:
    return list(np.asarray(line.get_xdata(), float)), list(np.asarray(line.get_ydata(), float))


def hatches(axes: Axes) -> list[str]:
    return [str(patch.get_hatch()) for patch in axes.patches if patch.get_hatch()]


# --- curves --------------------------------------------------------------------------------------------------------


def test_curves_are_means_of_the_summary_with_wilsons_intervals(tmp_path: Path) -> None:
    summary = board(tmp_path)
    l2, linf = drawn(summary, "curves")
    assert (l2.name, linf.name) == ("curves-l2", "curves-linf")
    panels = linf.figure.axes
    assert [axes.get_title() for axes in panels] == ["FGSM", "FGSM-margin", WORST]
    assert [axes.get_title() for axes in l2.figure.axes] == [WORST]
    threats = [CLEAN, Threat("linf", 8 / 255), Threat("linf", 0.1)]
    for axes in panels:
        assert list(lines(axes)) == ["a", "b"]
        bars = [np.asarray(bar.get_segments()[0]) for bar in axes.collections]  # type: ignore[attr-defined]
        for place, (model, line) in enumerate(lines(axes).items()):
            x, y = values(line)
            means = [
                summary.values(model, "none" if threat == CLEAN else axes.get_title(), threat).mean
                for threat in threats
            ]
            assert x == [threat.eps for threat in threats]
            assert y == [100 * (mean or 0.0) for mean in means]
            for bar, mean, eps in zip(bars[3 * place : 3 * place + 3], means, x, strict=True):
                low, high = wilson_interval((mean or 0.0) * N, N)
                np.testing.assert_allclose(bar, [[eps, 100 * low], [eps, 100 * high]])
    assert "mean over 3 seeds; a panel each for FGSM, FGSM-margin, worst case; a line each for a, b." in linf.text
    assert "a under FGSM: 92.5 at 0, 55.0 at 8/255" in linf.text


def test_flagged_numbers_are_open_and_said_in_the_key(tmp_path: Path) -> None:
    summary = board(tmp_path)
    plan, folder = summary.results.plan, summary.results.folder
    probed = audit_record(cell_of(plan, "b", 0, "audit"))
    write_record(folder, probed.model_copy(update={"forward_pass": Forward(repeat=5, companions=0, training=[])}))
    summary = read(folder)
    figure = drawn(summary, "curves")[1].figure
    axes = figure.axes[0]
    marks = {line.get_color(): line for line in axes.get_lines() if line.get_label() == "_flagged"}
    assert all(mark.get_markerfacecolor() == "white" for mark in marks.values())
    for model, line in lines(axes).items():
        doubtful = [
            threat.eps
            for threat in (CLEAN, Threat("linf", 8 / 255), Threat("linf", 0.1))
            if summary.values(model, "none" if threat == CLEAN else "FGSM", threat).flags
        ]
        assert (values(marks[line.get_color()])[0] if line.get_color() in marks else []) == doubtful
        assert len(doubtful) == 3 or model == "a"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "flagged (open)"]


def test_what_has_no_number_is_a_gap(tmp_path: Path) -> None:
    summary = board(tmp_path)
    for seed in (0, 1, 2):
        replace(summary.results.folder, cell_of(summary.results.plan, "a", seed, "FGSM", 8 / 255))
    first = drawn(read(summary.results.folder), "curves")[1].figure.axes[0]
    assert [math.isnan(value) for value in values(lines(first)["a"])[1]] == [False, True, False]


def test_a_seed_without_a_number_has_no_part_in_the_interval(tmp_path: Path) -> None:
    summary = board(tmp_path)
    replace(summary.results.folder, cell_of(summary.results.plan, "a", 1, "FGSM", 8 / 255))
    axes = drawn(read(summary.results.folder), "curves")[1].figure.axes[0]
    mean = values(lines(axes)["a"])[1][1] / 100
    bar = np.asarray(axes.collections[1].get_segments()[0])  # type: ignore[attr-defined]
    np.testing.assert_allclose(bar[:, 1], 100 * np.array(wilson_interval(mean * N, N)))


def test_twelve_models_without_a_pair_stay_apart_without_colour(tmp_path: Path) -> None:
    (found,) = drawn(twelve(tmp_path), "curves")
    for axes in found.figure.axes:
        models = lines(axes)
        assert list(models) == MODELS
        looks = [(line.get_marker(), line._unscaled_dash_pattern) for line in models.values()]  # type: ignore[attr-defined]
        assert all(one != other for one, other in combinations(looks, 2))
        assert [line.get_color() for line in models.values()] == [stroke(place).color for place in range(12)]
    texts = [text.get_text() for text in found.figure.legends[0].get_texts()]
    assert texts == [*MODELS, "flagged (open)"]


def test_eighty_four_lines_share_no_pair_of_marker_and_dashes() -> None:
    assert len({(stroke(place).marker, ink(place)) for place in range(84)}) == 84
    assert len({(stroke(place).color, stroke(place).marker) for place in range(56)}) == 56
    assert len(COLORS) == 8


def test_one_seed_has_the_interval_of_its_examples(tmp_path: Path) -> None:
    summary = board(tmp_path, SUITE.replace("seeds: [0, 1, 2]", "seeds: [0]"))
    axes = drawn(summary, "curves")[1].figure.axes[0]
    record = summary.results.attack(cell_of(summary.results.plan, "a", 0, "FGSM", 0.1).id)
    assert record is not None
    assert record.ci_low is not None
    assert record.ci_high is not None
    bar = np.asarray(axes.collections[2].get_segments()[0])  # type: ignore[attr-defined]
    np.testing.assert_allclose(bar[:, 1], [100 * record.ci_low, 100 * record.ci_high])
    assert "seeds" not in drawn(summary, "curves")[1].text


# --- NCMI and error ------------------------------------------------------------------------------------------------


def test_every_network_is_a_point_and_the_line_is_that_of_scipy(tmp_path: Path) -> None:
    summary = board(tmp_path)
    (found,) = drawn(summary, "ncmi-error")
    (axes,) = found.figure.axes
    points = [values(line) for line in lines(axes).values()]
    x, y = (np.array([each for own in points for each in own[i]]) for i in (0, 1))
    for model, own in zip(("a", "b"), points, strict=True):
        measures = summary.clean[model].measures
        assert own[0] == list(measures["ncmi_calibrated"].values.values())
        assert own[1] == pytest.approx([100 * (1 - value) for value in measures["accuracy"].values.values()])
    expected = linregress(x, y)
    (line,) = [line for line in axes.get_lines() if line.get_label() == "_fit"]
    along, fitted = values(line)
    np.testing.assert_allclose(fitted, expected.intercept + expected.slope * np.array(along))
    assert f"Pearson {expected.rvalue:.2f}, Spearman {spearmanr(x, y).statistic:.2f} over 6 networks" in found.text


def test_the_interval_of_a_line_is_that_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    generator = np.random.default_rng(0)
    x = generator.random(9)
    y = 3 + 2 * x + generator.normal(0, 0.3, 9)
    fit = fit_line(x, y)
    assert fit is not None
    along = np.linspace(-1, 2, 7)
    ends = api.OLS(y, api.add_constant(x)).fit().get_prediction(api.add_constant(along)).conf_int()
    np.testing.assert_allclose(np.transpose(fit.interval(along)), ends)
    assert fit_line(x[: FEWEST - 1], y[: FEWEST - 1]) is None
    assert fit_line(np.ones(9), y) is None


def test_too_few_networks_have_no_line(tmp_path: Path) -> None:
    (found,) = drawn(board(tmp_path, SUITE.replace("seeds: [0, 1, 2]", "seeds: [0]")), "ncmi-error")
    assert [line.get_label() for line in found.figure.axes[0].get_lines()] == ["a", "b"]
    assert "2 networks; no line is fitted" in found.text


# --- training ------------------------------------------------------------------------------------------------------


def test_training_shows_means_and_a_divergence_as_a_line_that_ends(tmp_path: Path) -> None:
    (found,) = drawn(board(tmp_path, diverged=[("b", 1)]), "training")
    heads = ["CMI (nats)", "separation (nats)", "NCMI", "error %"]
    assert [axes.get_ylabel() for axes in found.figure.axes] == heads
    for axes, name in zip(found.figure.axes, ("cmi", "separation", "ncmi", "accuracy"), strict=True):
        assert sorted(lines(axes)) == ["a", "b", "b, diverged"]
        for label, seeds, epochs in (("a", (0, 1, 2), 4), ("b", (0, 2), 4), ("b, diverged", (1,), 2)):
            x, y = values(lines(axes)[label])
            assert x == list(range(1, epochs + 1))
            curves = [curve(label[0], seed, epochs) for seed in seeds]
            rows = [[getattr(own[place], name) for own in curves] for place in range(epochs)]
            read = [[math.nan if each is None else each for each in row] for row in rows]
            means = [fmean(100 * (1 - each) if name == "accuracy" else each for each in row) for row in read]
            np.testing.assert_allclose(y, means)
    assert "b ends at CMI (nats)" in found.text
    assert "diverged in 1 of 3 seeds" in found.text


# --- maps and transfers --------------------------------------------------------------------------------------------

GRID = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - id: a
    architecture: mlp
    objective: {name: cmic}
    matrix: {objective.lambda: [0, 0.5, 1], objective.beta: [0.1, 0.2]}
seeds: [0, 1]
attacks:
  - {name: PGD, eps: 0.1}
"""


def test_maps_hold_the_cells_of_the_grid_and_hatch_what_diverged(tmp_path: Path) -> None:
    from robustbench_cmic.report.grid import find_grid, grid_measures

    plan = planned(tmp_path, GRID)
    model = plan.of("train")[0].model
    summary = board(tmp_path, GRID, diverged=[(model, 1)])
    grid = find_grid(summary.results)
    assert grid is not None
    found = drawn(summary, "map")
    assert [drawing.name for drawing in found] == [
        "map-clean-accuracy",
        "map-ncmi-at-t-clean",
        "map-worst-case-l-inf-0.1",
    ]
    for drawing, measure in zip(found, grid_measures(summary, grid), strict=True):
        axes, cells = drawing.figure.axes[0], measure.maps[0].cells
        shares = np.asarray(axes.images[0].get_array(), float)
        expected = np.array([[np.nan if cell.share is None else cell.share for cell in row] for row in cells])
        np.testing.assert_array_equal(shares, expected)
        assert [text.get_text().split() for text in axes.texts] == [cell.text.split() for row in cells for cell in row]
        assert hatches(axes) == ["////"]
        assert "diverged (1 of 2 seeds)." in drawing.text


def test_a_key_of_forty_long_names_leaves_room_for_the_points(tmp_path: Path) -> None:
    text = GRID.replace("id: a", "id: a-name-of-thirty-letters-and-more").replace("seeds: [0, 1]", "seeds: [0]")
    text = text.replace("[0, 0.5, 1]", "[0, 0.25, 0.5, 0.75, 1]").replace(
        "[0.1, 0.2]", f"{[0.1 * i for i in range(1, 9)]}"
    )
    (found,) = drawn(board(tmp_path, text), "ncmi-error")
    assert rendered(found, "png").startswith(b"\x89PNG")  # which warns, an error here, where the key takes all
    assert len(found.figure.legends[0].get_texts()) == 40
    axes = found.figure.axes[0].get_window_extent().height / found.figure.dpi
    assert axes > 2.5, "inches"


def test_of_many_networks_of_several_kinds_the_key_names_the_kinds(tmp_path: Path) -> None:
    text = GRID.replace("[0, 0.5, 1]", "[0, 0.25, 0.5, 0.75, 1]").replace(
        "seeds:", "  - {id: b, architecture: small_cnn, objective: {name: ce}}\nseeds:"
    )
    few, many = text, text.replace("[0.1, 0.2]", "[0.1, 0.2, 0.3, 0.4]")
    expected = {few: [*(f"a-lambda{i}-beta{j}" for i in (0, 0.25, 0.5, 0.75, 1) for j in (0.1, 0.2)), "b"]}
    expected[many] = ["mlp, CMIC-DL printed", "small_cnn, CE"]
    for suite, names in expected.items():
        (found,) = drawn(board(tmp_path, suite), "ncmi-error")
        points = lines(found.figure.axes[0])
        assert list(points) == names
        assert len({(line.get_color(), line.get_marker()) for line in points.values()}) == len(names)
        assert f"({', '.join(names)})" in found.text


def test_a_transfer_matrix_is_that_of_the_summary(tmp_path: Path) -> None:
    summary = board(tmp_path)
    (found,) = drawn(summary, "transfer")
    assert found.name == "transfer-Transfer-linf-0.1"
    expected = [
        [100 * (summary.values(target, f"Transfer:{source}", Threat("linf", 0.1)).mean or 0) for target in ("a", "b")]
        for source in ("a", "b")
    ]
    axes = found.figure.axes[0]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array(), float), expected)
    texts = [text.get_text().removesuffix(" †") for text in axes.texts]
    assert texts == [f"{value:.1f}" for row in expected for value in row]
    assert hatches(axes) == []


def test_a_pair_that_is_not_asked_is_hatched(tmp_path: Path) -> None:
    third = "  - {id: c, architecture: mlp, objective: {name: ce}}\npairs"
    summary = board(
        tmp_path, SUITE.replace("pairs", third).replace("name: Transfer,", "name: Transfer, sources: pairs,")
    )
    axes = drawn(summary, "transfer")[0].figure.axes[0]
    assert hatches(axes) == ["...."] * 4


# --- files ---------------------------------------------------------------------------------------------------------


def test_files_have_stable_names_and_equal_bytes_and_say_what_they_show(tmp_path: Path) -> None:
    summary = board(tmp_path)
    files, absent = write_figures(summary, tmp_path / "one")
    stems = ["curves-l2", "curves-linf", "ncmi-error", "training", "transfer-Transfer-linf-0.1"]
    assert [file.name for file in files] == [f"made-{stem}.{suffix}" for stem in stems for suffix in FILE_TYPES]
    assert absent == [
        "made: no figure simplex: no training kept outputs, which `outputs` of `training` asks for",
        "made: no figure map: the models are no grid of two numbers",
        "made: no figure class-batches: the suite does not vary |B_c|",
    ]
    again, _ = write_figures(read(summary.results.folder), tmp_path / "two")
    for one, two in zip(files, again, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    for file in files:
        start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[file.suffix[1:]]
        assert file.read_bytes().startswith(start)
    root = ElementTree.fromstring((tmp_path / "one/made-curves-linf.svg").read_text())
    title, desc = list(root)[:2]
    assert (root.get("role"), root.get("aria-labelledby")) == ("img", f"{title.get('id')} {desc.get('id')}")
    assert title.text == "made: accuracy over eps, L-inf"
    assert re.search(r"a under worst case: 92\.5 at 0", desc.text or "")


def test_a_suite_with_nothing_has_no_figure_and_says_why(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE)
    folder = fill(tmp_path / "made", plan, lambda _: None)
    files, absent = write_figures(read(folder), tmp_path / "none")
    assert [file.name for file in files] == [f"made-transfer-Transfer-linf-0.1.{suffix}" for suffix in FILE_TYPES]
    assert [line.partition(": no figure ")[2] for line in absent] == [
        "curves: nothing is measured in full yet",
        "ncmi-error: no clean evaluation holds an NCMI at a temperature",
        "training: no record holds the epochs of a training",
        "simplex: no training kept outputs, which `outputs` of `training` asks for",
        "map: the models are no grid of two numbers",
        "class-batches: the suite does not vary |B_c|",
    ]


def test_the_command_writes_them_and_a_users_style_changes_nothing(tmp_path: Path, cli: Cli) -> None:
    board(tmp_path)
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: black\n")
    done = cli("report", "made", "--results", tmp_path, "--figures", "out/deep")
    assert done.returncode == 0, done.stderr
    assert "made: no figure map: the models are no grid of two numbers" in done.stderr
    assert "out/deep/made-training.pdf" in done.stdout
    write_figures(read(tmp_path / "made"), tmp_path / "here")
    for file in (tmp_path / "here").glob("*.svg"):
        assert (tmp_path / "out/deep" / file.name).read_bytes() == file.read_bytes()
    (tmp_path / "file").write_text("")
    said = cli("report", "made", "--results", tmp_path, "--figures", "file")
    assert said.returncode == 2
    assert "cannot write" in said.stderr
    assert "Traceback" not in said.stderr


def test_every_kind_is_tried_here() -> None:
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    assert all(f'"{kind}"' in text for kind in KINDS_OF_FIGURES)
