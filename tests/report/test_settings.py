"""Settings tried on held-out training examples: the rule that chooses, and that the shipped suites hold to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.store import PLAN_FILE
from robustbench_cmic.report import Summary
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.json import document
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.lead import lead
from robustbench_cmic.report.settings import CHOSEN, chosen_settings, settings_table
from robustbench_cmic.suite import load_suite, shipped_suites
from tests.conftest import ROOT
from tests.report.folders import cell_of, fill, planned, read, replace

SUITE = """\
suite: made
dataset: {name: digits, holdout: 0.2}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - id: ce
    architecture: mlp
    objective: {name: ce}
    matrix: {training.optimizer.lr: [0.1, 0.2], training.optimizer.weight_decay: [0, 0.1]}
  - {id: focal, architecture: mlp, objective: {name: focal}, matrix: {objective.gamma: [1, 2]}}
seeds: [0, 1]
attacks: [{name: FGSM, eps: [0.1, 0.2]}]
audit: off
"""
CE = ["ce-lr0.1-weight_decay0", "ce-lr0.1-weight_decay0.1", "ce-lr0.2-weight_decay0", "ce-lr0.2-weight_decay0.1"]
RIGHT = dict(zip([*CE, "focal-gamma1", "focal-gamma2"], [(7, 5), (8, 4), (8, 5), (8, 5), (6, 6), (9, 1)], strict=True))
"""Examples of ten that a model gets right, clean and at the smaller eps; at the larger one all seeds differ."""


def right(cell: Cell) -> list[bool]:
    clean, attacked = RIGHT[cell.model]
    counts = {0.0: clean, 0.1: attacked, 0.2: 1 + cell.seed}
    # Seeds differ around the mean: one more and one less.
    count = counts[cell.eps] + (1 if cell.seed else -1) * (cell.eps == 0)
    return [place < count for place in range(10)]


@pytest.fixture
def board(tmp_path: Path) -> Summary:
    return read(fill(tmp_path / "made", planned(tmp_path, SUITE), right))


def test_the_most_accurate_is_chosen_then_the_more_robust_then_the_first(board: Summary) -> None:
    assert chosen_settings(board) == {"ce": "ce-lr0.2-weight_decay0", "focal": "focal-gamma2"}
    table = settings_table(board)
    assert list(table.headers) == ["rival", "setting", "clean accuracy %", "worst case %, L-inf 0.1", ""]
    assert [(row[1], row[4]) for row in table.rows if row[4]] == [
        ("ce-lr0.2-weight_decay0", CHOSEN),
        ("focal-gamma2", CHOSEN),
    ]
    assert [row[0] for row in table.rows] == ["ce"] * 4 + ["focal"] * 2
    assert json.loads(document(board))["tuning"] == {
        "ce": {"settings": CE, "chosen": "ce-lr0.2-weight_decay0"},
        "focal": {"settings": ["focal-gamma1", "focal-gamma2"], "chosen": "focal-gamma2"},
    }
    assert table.rows[0][2].startswith("70.0 ± 14.1")


def test_a_setting_without_a_result_of_some_seed_is_not_chosen(tmp_path: Path, board: Summary) -> None:
    plan = planned(tmp_path, SUITE)
    replace(board.results.folder, cell_of(plan, "focal-gamma2", 1, "train"), status="diverged")
    assert chosen_settings(read(board.results.folder))["focal"] == "focal-gamma1"
    replace(board.results.folder, cell_of(plan, "focal-gamma1", 0, "train"), status="diverged")
    (said,) = lead(read(board.results.folder))
    assert said.endswith(": `ce-lr0.2-weight_decay0`; none yet of focal.")


def test_boards_say_what_they_are_judged_on_and_what_each_model_has_of_its_own(board: Summary) -> None:
    text = leaderboard(board)
    (said,) = lead(board)
    assert said == (
        "Settings: of 6 settings of 2 rivals, by clean accuracy on 10 held-out training examples, 2 seeds: "
        "`ce-lr0.2-weight_decay0`, `focal-gamma2`."
    )
    assert f"- {said}\n" in text
    assert board.law == [], "settings are tried, and no law is read from them"
    assert "percentages of the 10 held-out training examples" in text
    assert "## Settings" in text
    assert "## Clean held-out training examples" in text
    assert "- judged on: 0.2 of the training examples, of each class its share, which nothing learned from" in text
    assert "objective focal (gamma 2), lr 0.1, weight\\_decay 0.0005" in text.replace("weight_decay", "weight\\_decay")
    assert text.count("- training: ") == 1, "what models have of their own is not in it"
    page = suite_page(board)
    assert '<h2 id="settings">Settings</h2>' in page
    assert page.index('<h2 id="finding">') < page.index("by clean accuracy on 10") < page.index('<h2 id="settings">')
    assert "<strong>chosen</strong>" in page


def test_without_a_holdout_nothing_is_chosen(tmp_path: Path) -> None:
    plan = planned(tmp_path, SUITE.replace(", holdout: 0.2", ""))
    assert "settings" not in plan.model_dump(mode="json")
    assert settings_table(read(fill(tmp_path / "made", plan, right))).rows == []


def tuned(plan: Plan, model: str) -> dict[str, Any]:
    """What a setting decides: all that a training declares but data, seeds, and what it begins with."""
    declared = next(cell.declared for cell in plan.of("train") if cell.model == model)
    return {key: declared[key] for key in ("model", "objective", "training")}


PAIRS = [("objectives-settings", "objectives"), ("objectives-settings-mnist", "objectives-mnist")]


@pytest.mark.parametrize(("tried", "final"), PAIRS)
def test_every_rival_has_as_many_settings_and_its_own_is_one_of_them(tried: str, final: str) -> None:
    settings, suite = (make_plan(load_suite(shipped_suites()[name]).suite) for name in (tried, final))
    models = list(dict.fromkeys(cell.model for cell in suite.of("train")))
    assert list(settings.settings) == models
    assert {len(own) for own in settings.settings.values()} == {4}
    for model in models:
        assert tuned(suite, model) in [tuned(settings, own) for own in settings.settings[model]], model
    assert suite.pairs == [("ce", model) for model in models[1:]]
    seeds = [{cell.seed for cell in plan.cells} for plan in (settings, suite)]
    assert not seeds[0] & seeds[1]


@pytest.mark.parametrize(("tried", "final"), PAIRS)
def test_shipped_suites_have_the_settings_that_the_rule_chooses(tried: str, final: str) -> None:
    folder = ROOT / "results" / tried
    if not (folder / PLAN_FILE).exists():
        pytest.skip(f"there are no results of {tried}")
    board = read(folder)
    suite = make_plan(load_suite(shipped_suites()[final]).suite)
    chosen = chosen_settings(board)
    assert list(chosen) == list(board.results.plan.settings)
    for rival, setting in chosen.items():
        assert tuned(suite, rival) == tuned(board.results.plan, setting), f"{rival} should be {setting}"
