"""Pictures of the simplex: where points lie, which classes are chosen, what overlaps; on paper and on pages."""

from __future__ import annotations

import json
import math
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustbench_cmic.information import measure_information
from robustbench_cmic.records.packing import pack_logits
from robustbench_cmic.records.schema import KeptOutputs
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary
from robustbench_cmic.report.figures import drawings_of
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.html.information import evaluated_chart, ncmi_chart, training_chart
from robustbench_cmic.report.formats.html.simplex import simplex_charts
from robustbench_cmic.report.kept_outputs import kept_epochs, kept_logits
from robustbench_cmic.report.simplex import (
    SimplexPictures,
    most_confused,
    overlapping,
    simplex_pictures,
    simplex_points,
)
from tests.report.folders import HEAD, attack_record, calibration, cell_of, fill, planned, read, train_record
from tests.report.hostile import BAD

HEIGHT = math.sqrt(3) / 2
SUITE = f"""{HEAD}attacks:
  - {{name: Transfer, eps: 0.1}}
""".replace("[0, 1, 2]", "[0, 1]")
LABELS = np.repeat([0, 1, 2, 3], 2)


def logits_of(true: float, second: dict[int, int]) -> np.ndarray[Any, Any]:
    """(8, 4): two images of each class with a lead of `true` for their own; `second` ties it with another class."""
    logits = np.zeros((8, 4))
    logits[np.arange(8), LABELS] = true
    for image, other in second.items():
        logits[image, other] = true
    return np.asarray(logits - logits.max(1, keepdims=True))


CE = [logits_of(0, {}), logits_of(2, {}), logits_of(20, {1: 3, 2: 3, 7: 0})]
"""In the end classes 0, 1 and 3 are confused; 2 with none."""
CMIC = [logits_of(0, {}), logits_of(9, {}), logits_of(80, {2: 2})]


def outputs(logits: list[np.ndarray[Any, Any]], **changes: Any) -> KeptOutputs:
    fields: dict[str, Any] = {
        "classes": [0, 1, 2, 3], "names": ["cat", BAD, "frog", "<dog>"], "counts": [2, 2, 2, 2],
        "examples_sha256": "e", "epochs": [1, 3, 5], "logits": pack_logits(np.stack(logits).astype(np.float16)),
    }  # fmt: skip
    return KeptOutputs(**fields | changes)


def board(tmp_path: Path, text: str = SUITE, **changes: Any) -> Summary:
    plan = planned(tmp_path, text)
    folder = fill(tmp_path / "made", plan, lambda _: [True] * 20)
    for cell in plan.of("train"):
        kept = outputs(CE if cell.model == "a" else CMIC, **changes)
        write_record(folder, train_record(cell, outputs=kept.model_dump()))
        clean = cell_of(plan, cell.model, cell.seed, "none")
        write_record(folder, attack_record(clean, [True] * 20, calibration=calibration(0.25 + 0.1 * cell.seed)))
    return read(folder)


def pictures(summary: Summary) -> SimplexPictures:
    found = simplex_pictures(summary)
    assert not isinstance(found, str), found
    return found


# --- information ---------------------------------------------------------------------------------------------------


def test_information_of_kept_outputs_is_that_of_the_package() -> None:
    for logits in (CE, CMIC):
        found = kept_epochs(outputs(logits))
        assert [own.epoch for own in found] == [1, 3, 5]
        for own, kept in zip(found, kept_logits(outputs(logits)), strict=True):
            expected = measure_information(torch.from_numpy(kept), torch.from_numpy(LABELS))
            assert (own.cmi, own.separation) == pytest.approx((expected.cmi, expected.separation), abs=1e-12)
            assert own.ncmi == pytest.approx(expected.ncmi, abs=1e-12)
            assert own.accuracy == (kept.argmax(1) == LABELS).mean()


def test_a_masked_class_takes_no_part_and_of_some_classes_nothing_is_measured() -> None:
    kept = np.array([[[0.0, -1.0, -np.inf], [-2.0, 0.0, -np.inf], [-1.0, 0.0, -np.inf]]])
    masked = outputs(list(kept), classes=[0, 1, 2], counts=[1, 2, 0], epochs=[4])
    (own,) = kept_epochs(masked)
    both = measure_information(torch.from_numpy(kept[0, :, :2]), torch.tensor([0, 1, 1]))
    assert (own.cmi, own.separation) == pytest.approx((both.cmi, both.separation), abs=1e-12)
    assert kept_epochs(outputs(CE, classes=[0, 3, 6, 9])) == []


def test_training_is_shown_in_eval_mode_too_where_all_classes_are_kept(tmp_path: Path) -> None:
    summary = board(tmp_path)
    drawings = drawings_of(summary, "training")
    assert not isinstance(drawings, str)
    (figure,) = (drawing for drawing in drawings if drawing.name == "training-test")
    chart = evaluated_chart(summary)
    assert chart is not None
    expected = kept_epochs(outputs(CE))
    for panel, name in enumerate(("cmi", "separation", "ncmi")):
        (line,) = (line for line in figure.figure.axes[panel].get_lines() if line.get_label() == "a")
        drawn_at = np.asarray(line.get_ydata(), dtype=float)
        np.testing.assert_allclose(drawn_at, [getattr(own, name) for own in expected])
        axis = f"x{panel + 1 if panel else ''}"
        (trace,) = (each for each in chart.figure["data"] if (each["name"], each["xaxis"]) == ("a", axis))
        np.testing.assert_allclose(trace["y"], drawn_at, rtol=1e-3)
        assert trace["x"] == [1, 3, 5]
    assert "on the test images whose outputs were kept, in eval mode" in figure.text
    some = board(tmp_path, classes=[0, 3, 6, 9])
    assert drawings_of(some, "training") == "no record holds the epochs of a training"
    assert evaluated_chart(some) is None


def with_selected_epochs(tmp_path: Path) -> Summary:
    """Seed 0 of `a` keeps epoch 2 too, seed 1 and all of `b` epoch 4: each the one that was selected for it."""
    summary = board(tmp_path)
    plan, folder = summary.results.plan, summary.results.folder
    for cell in plan.of("train"):
        early = (cell.model, cell.seed) == ("a", 0)
        first, middle, last = CE if cell.model == "a" else CMIC
        chosen = logits_of(1 + cell.seed, {0: 1})
        logits, epochs = (
            ([first, chosen, middle, last], [1, 2, 3, 5]) if early else ([first, middle, chosen, last], [1, 3, 4, 5])
        )
        kept = outputs(logits, epochs=epochs)
        write_record(folder, train_record(cell, outputs=kept.model_dump(), selected_epoch=2 if early else 4))
    return read(folder)


def test_seeds_are_averaged_epoch_by_epoch_where_each_keeps_its_selected_one_too(tmp_path: Path) -> None:
    """All seeds have the epochs 1, 3 and 5, with equal outputs; what one seed alone has is no mean over seeds."""
    summary = with_selected_epochs(tmp_path)
    (figure,) = (drawing for drawing in figures(summary, "training") if drawing.name == "training-test")
    chart = evaluated_chart(summary)
    assert chart is not None
    expected = kept_epochs(outputs(CE))
    for panel, name in enumerate(("cmi", "separation", "ncmi")):
        (line,) = (line for line in figure.figure.axes[panel].get_lines() if line.get_label() == "a")
        assert list(line.get_xdata()) == [1, 3, 5]
        np.testing.assert_allclose(line.get_ydata(), [getattr(own, name) for own in expected])
        axis = f"x{panel + 1 if panel else ''}"
        (trace,) = (each for each in chart.figure["data"] if (each["name"], each["xaxis"]) == ("a", axis))
        assert trace["x"] == [1, 3, 5]
        np.testing.assert_allclose(trace["y"], line.get_ydata(), rtol=1e-3)


# --- points, classes -----------------------------------------------------------------------------------------------


def test_points_lie_where_they_do_by_hand() -> None:
    logits = np.log([[1, 1, 1], [2, 1, 1], [1, 6, 1]]).tolist()
    far = [[0, -2000, -2000], [-2000, 0, -2000], [5, 5, 900], [-1e4, 3, 3]]
    expected: Any = [
        [1 / 2, HEIGHT / 3], [3 / 8, HEIGHT / 4], [13 / 16, HEIGHT / 8],
        [0, 0], [1, 0], [1 / 2, HEIGHT], [3 / 4, HEIGHT / 2],
    ]  # fmt: skip
    np.testing.assert_allclose(simplex_points(np.array([*logits, *far])), expected, atol=1e-12)


def test_the_triple_is_the_one_that_brute_force_finds() -> None:
    confusion = np.array(
        [[90, 1, 4, 0, 5], [1, 99, 0, 0, 0], [9, 0, 90, 1, 0], [0, 0, 2, 97, 1], [3, 0, 1, 0, 96]], float
    )
    assert most_confused(confusion) == (0, 2, 4), "4 + 9, 5 + 3, 0 + 1; those of a class with itself do not count"
    assert most_confused(np.eye(4)) == (0, 1, 2), "nothing is confused"
    generator = np.random.default_rng(0)
    for classes in (3, 4, 9):
        random = generator.random((classes, classes))

        def among(triple: tuple[int, ...], given: np.ndarray[Any, Any] = random) -> float:
            return float(sum(given[i, j] for i in triple for j in triple if i != j))

        assert most_confused(random) == max(combinations(range(classes), 3), key=among)


def test_points_overlap_that_share_a_spot() -> None:
    assert overlapping(np.array([[0, 0], [0.001, 0.001], [0.5, 0.2], [0.52, 0.2], [0, 0.004]])) == 3
    assert overlapping(np.zeros((0, 2))) == 0


# --- of a suite ----------------------------------------------------------------------------------------------------


def test_classes_are_those_that_cross_entropy_confuses_and_models_share_them(tmp_path: Path) -> None:
    found = pictures(board(tmp_path))
    assert (found.reference, found.seed, found.names) == ("a", 0, ("cat", BAD, "<dog>"))
    assert found.places == [0, 0, 1, 1, 2, 2]
    assert list(found.models) == ["a", "b"]
    ce = found.models["a"]
    assert [look.epoch for look in ce.looks] == [1, 3, 5]
    np.testing.assert_allclose(ce.looks[0].points, [[1 / 2, HEIGHT / 3]] * 6)
    corners = np.array([[0, 0], [1, 0], [1 / 2, HEIGHT]])
    final = [corners[0], (corners[0] + corners[2]) / 2, (corners[1] + corners[2]) / 2, corners[1], corners[2]]
    np.testing.assert_allclose(ce.final.points, [*final, (corners[0] + corners[2]) / 2], atol=1e-3)
    assert (ce.looks[0].overlapping, ce.final.overlapping, ce.final.astray) == (6, 2, 1)
    assert ce.calibrated is not None
    assert ce.calibrated.temperature == pytest.approx(4.0), "of the clean evaluation: 2 and 8"
    np.testing.assert_allclose(ce.calibrated.points[0], simplex_points(np.array([[20.0, 0, 0]]) / 4)[0], atol=1e-3)
    assert "classes cat" in found.rule
    assert "of 4 the three that a of seed 0 confuses most" in found.rule


def test_without_a_temperature_or_with_other_examples_or_classes_less_is_shown(tmp_path: Path) -> None:
    summary = board(tmp_path)
    plan, folder = summary.results.plan, summary.results.folder
    write_record(folder, attack_record(cell_of(plan, "a", 0, "none"), [True] * 20, calibration=None))
    other = outputs(CMIC, examples_sha256="others").model_dump()
    write_record(folder, train_record(cell_of(plan, "b", 0, "train"), outputs=other))
    found = pictures(read(folder))
    assert list(found.models) == ["a"]
    assert found.models["a"].calibrated is None
    (tmp_path / "two").mkdir()
    assert simplex_pictures(board(tmp_path / "two", counts=[4, 4, 0, 0])) == "there are fewer than three classes"


def test_the_kept_epoch_is_the_last_picture(tmp_path: Path) -> None:
    summary = board(tmp_path)
    plan, folder = summary.results.plan, summary.results.folder
    training = cell_of(plan, "a", 0, "train")
    write_record(folder, train_record(training, outputs=outputs(CE).model_dump(), selected_epoch=3))
    (drawing,) = figures(read(folder))
    titles = [axes.get_title().split("\n")[0] for axes in drawing.figure.axes]
    assert titles[:4] == ["epoch 1", "epoch 3 (kept)", "epoch 3 (kept), T = 4", ""]
    assert titles[4:] == ["epoch 1", "epoch 3", "epoch 5", "epoch 5, T = 4"]


def figures(summary: Summary, kind: str = "simplex") -> Any:
    found = drawings_of(summary, kind)
    assert not isinstance(found, str), found
    return found


def test_a_figure_has_the_points_and_says_how_many_overlap(tmp_path: Path) -> None:
    summary = board(tmp_path)
    (drawing,) = figures(summary)
    axes = drawing.figure.axes
    assert [one.get_title() for one in axes[:4]] == [
        "epoch 1\n6 of 6 points overlap", "epoch 3\n6 of 6 points overlap", "epoch 5\n2 of 6 points overlap",
        "epoch 5, T = 4\n2 of 6 points overlap",
    ]  # fmt: skip
    drawn = np.concatenate([points.get_offsets() for points in axes[2].collections])
    np.testing.assert_allclose(drawn, pictures(summary).models["a"].final.points)
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["cat", BAD, "<dog>"]
    assert "epoch 5, 2 of 6 points overlap, 1 nearer another corner" in drawing.text


# --- on the page ---------------------------------------------------------------------------------------------------


def test_the_page_has_the_frames_and_the_charts(tmp_path: Path) -> None:
    summary = board(tmp_path)
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', suite_page(summary), re.S)
    assert found is not None
    charts = json.loads(found[1])
    assert {"simplex-0", "transfer-0", "ncmi-error"} <= set(charts)
    frames, traces = charts["simplex-0"]["frames"], charts["simplex-0"]["figure"]["data"]
    assert [step["label"] for step in frames["steps"]] == ["1", "3", "5"]
    own = pictures(summary).models
    for place, step in enumerate(frames["steps"]):
        moved = np.concatenate([np.transpose([x, y]) for x, y in zip(step["x"], step["y"], strict=True)])
        expected = np.concatenate([model.looks[place].points for model in own.values()])
        np.testing.assert_allclose(moved, expected, atol=6e-4)
        assert f"{own['a'].looks[place].overlapping} of 6 points overlap" in step["texts"][0]
    assert [traces[place]["x"] for place in frames["traces"]] == frames["steps"][-1]["x"]
    (heat,) = charts["transfer-0"]["figure"]["data"]
    assert heat["z"] == [[100, 100], [100, 100]]
    assert "<dog>" not in found[1]


def test_an_animation_goes_through_the_epochs_that_all_models_have(tmp_path: Path) -> None:
    summary = with_selected_epochs(tmp_path)
    own = pictures(summary)
    (chart,) = simplex_charts(own)
    assert chart.frames is not None
    steps, traces = chart.frames.steps, chart.figure["data"]
    assert [step["label"] for step in steps] == ["1", "3", "5"]
    for step in steps:
        moved = np.concatenate([np.transpose([x, y]) for x, y in zip(step["x"], step["y"], strict=True)])
        looks = [look for model in own.models.values() for look in model.looks if str(look.epoch) == step["label"]]
        np.testing.assert_allclose(moved, np.concatenate([look.points for look in looks]), atol=6e-4)
        assert all(f"<br>epoch {step['label']}<br>" in text for text in step["texts"])
    assert [traces[place]["x"] for place in chart.frames.traces] == steps[-1]["x"]


def test_a_model_that_ended_earlier_ends_the_animation_and_the_picture_is_that_of_its_last_step(tmp_path: Path) -> None:
    summary = board(tmp_path)
    short = outputs(CMIC[:2], epochs=[1, 3]).model_dump()
    write_record(summary.results.folder, train_record(cell_of(summary.results.plan, "b", 0, "train"), outputs=short))
    (chart,) = simplex_charts(pictures(read(summary.results.folder)))
    assert chart.frames is not None
    assert [step["label"] for step in chart.frames.steps] == ["1", "3"]
    assert [chart.figure["data"][place]["x"] for place in chart.frames.traces] == chart.frames.steps[-1]["x"]
    titles = [note["text"] for note in chart.figure["layout"]["annotations"][:2]]
    assert titles == chart.frames.steps[-1]["texts"]


def test_models_without_a_common_epoch_stand_still(tmp_path: Path) -> None:
    summary = board(tmp_path)
    other = outputs(CMIC, epochs=[2, 4, 6]).model_dump()
    write_record(summary.results.folder, train_record(cell_of(summary.results.plan, "b", 0, "train"), outputs=other))
    (chart,) = simplex_charts(pictures(read(summary.results.folder)))
    assert chart.frames is None
    titles = [note["text"] for note in chart.figure["layout"]["annotations"][:2]]
    assert ["epoch 5" in titles[0], "epoch 6" in titles[1]] == [True, True]


def test_charts_of_measures_have_the_numbers_of_the_figures(tmp_path: Path) -> None:
    from tests.report.test_figures import board as measured
    from tests.report.test_figures import drawn, lines, values

    summary = measured(tmp_path, diverged=[("b", 1)])
    error, training = ncmi_chart(summary), training_chart(summary)
    assert error is not None
    assert training is not None
    (figure,) = drawn(summary, "ncmi-error")
    points = {trace["name"]: trace for trace in error.figure["data"]}
    for model, line in lines(figure.figure.axes[0]).items():
        assert (list(points[model]["x"]), list(points[model]["y"])) == values(line)
    assert {"line by least squares", "95 % of the line"} <= set(points)
    (figure,) = drawn(summary, "training")
    for panel, axes in enumerate(figure.figure.axes):
        own = [trace for trace in training.figure["data"] if trace["xaxis"] == f"x{panel + 1 if panel else ''}"]
        by_name = {trace["name"]: trace for trace in own}
        assert {"a, all seeds", "b, diverged"} < set(by_name)
        for model, line in lines(axes).items():
            shown = [math.nan if value is None else value for value in by_name[model]["y"]]
            np.testing.assert_allclose(shown, values(line)[1], rtol=1e-3)
    assert len(training.curves) == len(training.figure["data"])
