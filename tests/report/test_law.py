"""The NCMI law of made-up networks: over what it is taken, which numbers it gives, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.packing import pack_replicates
from robustbench_cmic.records.schema import Calibration
from robustbench_cmic.records.store import write_record
from robustbench_cmic.report import Summary, write_report
from robustbench_cmic.report.formats.html import suite_page
from robustbench_cmic.report.formats.markdown import leaderboard
from robustbench_cmic.report.formats.terminal import board_text
from robustbench_cmic.report.law import PREDICTORS, LawLine, LawScope, family_of
from robustbench_cmic.report.law_text import law_finding
from robustbench_cmic.seeding import resample_weights
from tests.report.folders import attack_record, calibration, fill, measures, planned, read

SUITE = """\
suite: made
dataset: {name: digits}
training: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: mlp, architecture: mlp, objective: {name: ce}, matrix: {width: [1, 2, 3, 4, 5]}}
  - {id: cnn, architecture: small_cnn, objective: {name: ce}, matrix: {width: [1, 2, 3, 4]}}
  - {id: focal, architecture: mlp, width: 5, objective: {name: focal}}
  - {id: opl, architecture: mlp, width: 5, objective: {name: opl}}
  - {id: smooth, architecture: mlp, width: 5, objective: {name: label_smoothing}}
seeds: [0, 1]
"""
N, RESAMPLES = 200, 60
Networks = dict[str, dict[str, NDArray[np.float64]]]
"""By cell what was measured, and its replicates."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(tmp_path, SUITE)


def made(plan: Plan, folder: Path, rivals: bool = True, **changes: Any) -> Networks:
    """Networks whose NCMI at T is near their error, NLL at T nearer still, and NCMI as it comes anything."""
    generator = np.random.default_rng(0)
    fill(folder, plan, lambda _: [True] * N)
    networks: Networks = {}
    for place, cell in enumerate(cell for cell in plan.of("attack") if cell.attack == "none"):
        right = generator.random(N) > 0.1 + 0.02 * place
        error = 1 - right.mean()
        values = {
            "NCMI": generator.random(), "NCMI at T": error * (1 + 0.5 * generator.random()),
            "NLL": 2 * generator.random(), "NLL at T": error * (1 + 0.02 * generator.random()),
            "1 − confidence": generator.random(), "1 − confidence at T": error - 0.3 * generator.random(),
        }  # fmt: skip
        moved = np.array([1 - weights @ right / N - error for weights in resample_weights(N, RESAMPLES)])
        drawn = {name: value + moved + 0.001 * generator.normal(size=RESAMPLES) for name, value in values.items()}
        networks[cell.id] = {name: np.array([values[name], *drawn[name]]) for name in values}
        networks[cell.id]["right"] = right.astype(float)
        record = attack_record(cell, right.tolist(), calibration=held(networks[cell.id], rivals), **changes)
        information = measures(2 * values["NCMI"])
        replicates = pack_replicates(drawn["NCMI"].tolist())
        write_record(folder, record.model_copy(update={"information": information, "ncmi_replicates": replicates}))
    return networks


def held(network: dict[str, NDArray[np.float64]], rivals: bool) -> Calibration:
    def packed(name: str, sign: int = 1) -> str:
        return pack_replicates(((sign < 0) + sign * network[name][1:]).tolist())

    def of(suffix: str) -> dict[str, Any]:
        scores = {"nll": float(network[f"NLL{suffix}"][0])}
        if not rivals:
            return scores
        doubt = f"1 − confidence{suffix}"
        scores |= {"confidence": 1 - float(network[doubt][0])}
        return scores | {"nll_replicates": packed(f"NLL{suffix}"), "confidence_replicates": packed(doubt, -1)}

    whole = calibration(float(network["NCMI at T"][0]), network["NCMI at T"][1:].tolist())
    assert whole.calibrated is not None
    return whole.model_copy(update=of("") | {"calibrated": whole.calibrated.model_copy(update=of(" at T"))})


def scopes(summary: Summary) -> dict[str, LawScope]:
    return {f"{scope.kind} {scope.name}".strip(): scope for scope in summary.law}


def line(scope: LawScope, title: str) -> LawLine:
    found = scope.line(title)
    assert found is not None
    return found


def test_predictors_are_read_from_where_records_hold_them(tmp_path: Path, plan: Plan) -> None:
    networks = made(plan, tmp_path / "made")
    scope = scopes(read(tmp_path / "made"))["all"]
    errors = [1 - network["right"].mean() for network in networks.values()]
    for predictor in PREDICTORS:
        values = [network[predictor.title][0] for network in networks.values()]
        found = line(scope, predictor.title)
        assert (found.models, found.networks) == (12, 24)
        assert found.pearson == pytest.approx(pearsonr(values, errors).statistic, abs=1e-6)
        assert found.spearman == pytest.approx(spearmanr(values, errors).statistic, abs=1e-6)


def test_scopes_are_one_objective_its_families_one_network_and_all(tmp_path: Path, plan: Plan) -> None:
    made(plan, tmp_path / "made")
    found = scopes(read(tmp_path / "made"))
    assert list(found) == ["networks CE", "family mlp", "family small_cnn", "objectives mlp", "all"]
    models = {name: list(dict.fromkeys(own.cell.model for own in scope.networks)) for name, scope in found.items()}
    ce = [*(f"mlp-width{width}" for width in range(1, 6)), *(f"cnn-width{width}" for width in range(1, 5))]
    assert models["networks CE"] == ce
    assert models["family small_cnn"] == ce[5:]
    assert models["objectives mlp"] == ["mlp-width5", "focal", "opl", "smooth"]
    assert models["all"] == [*ce, "focal", "opl", "smooth"]


def test_images_are_resampled_for_error_and_predictor_at_once(tmp_path: Path, plan: Plan) -> None:
    """The interval over images alone, written out: each replicate's error is that of the same sample of images."""
    networks = made(plan, tmp_path / "made")
    found = line(scopes(read(tmp_path / "made"))["all"], "NCMI at T")
    right = np.stack([network["right"] for network in networks.values()])
    values = np.stack([network["NCMI at T"].astype(np.float32) for network in networks.values()]).astype(float)
    replicates = []
    for k, weights in enumerate(resample_weights(N, RESAMPLES), start=1):
        error = 1 - right @ weights / N
        replicates.append((values[:, k], error))
    means = [np.mean([pair[side] for pair in replicates], 0) for side in (0, 1)]
    measured = np.stack([network["NCMI at T"][0] for network in networks.values()]), 1 - right.mean(1)
    moved = [[pair[side] - means[side] + measured[side] for side in (0, 1)] for pair in replicates]
    expected = np.quantile([pearsonr(*pair).statistic for pair in moved], [0.025, 0.975])
    assert found.of_images == pytest.approx(expected.tolist(), abs=1e-6)
    assert found.of_networks is not None
    assert found.both is not None


def test_small_parts_have_a_number_and_no_interval_over_networks(tmp_path: Path, plan: Plan) -> None:
    made(plan, tmp_path / "made")
    found = line(scopes(read(tmp_path / "made"))["family small_cnn"], "NCMI at T")
    assert found.pearson is not None
    assert (found.both, found.of_networks, found.spearman_both) == (None, None, None)
    assert found.of_images is not None


def test_finding_has_three_sentences_with_intervals(tmp_path: Path, plan: Plan) -> None:
    made(plan, tmp_path / "made")
    summary = read(tmp_path / "made")
    networks, objectives, rivals = law_finding(summary)
    at_t = line(scopes(summary)["networks CE"], "NCMI at T")
    assert at_t.both is not None
    assert networks.startswith(
        "Networks: over 18 networks trained with CE (9 models), error rises with NCMI at T: NCMI "
    )
    ends = f"{at_t.both[0]:.3f} … {at_t.both[1]:.3f}"
    assert f"NCMI at T has Pearson {at_t.pearson:.3f} (95 % over networks and images {ends}) and Spearman" in networks
    assert "; within families, at T: mlp 0." in networks
    alone = "Objectives: over 8 networks that differ in their objective alone (4 objectives, mlp), there is no "
    assert objectives.startswith(alone)
    assert "NLL at T goes with error more closely than NCMI at T" in rivals
    difference = scopes(summary)["networks CE"].difference("NCMI at T", "NLL at T")
    assert difference is not None
    assert difference[1] is not None
    assert difference[0] == pytest.approx(
        (at_t.pearson or 0) - (line(scopes(summary)["networks CE"], "NLL at T").pearson or 0)
    )
    assert difference[1][0] < difference[0] < difference[1][1] < 0


def test_records_from_before_have_nll_over_networks_alone_and_no_confidence(tmp_path: Path, plan: Plan) -> None:
    made(plan, tmp_path / "made", rivals=False)
    summary = read(tmp_path / "made")
    scope = scopes(summary)["networks CE"]
    assert [found.predictor for found in scope.lines] == ["NCMI", "NCMI at T", "NLL", "NLL at T"]
    found = line(scope, "NLL at T")
    assert (found.both, found.of_images) == (None, None)
    assert found.of_networks is not None
    assert "(95 % over networks " in law_finding(summary)[2]


def test_networks_on_other_images_each_have_no_interval_over_images(tmp_path: Path, plan: Plan) -> None:
    networks = made(plan, tmp_path / "made", examples_sha256="one")
    cell = next(cell for cell in plan.of("attack") if cell.attack == "none")
    right = [value == 1 for value in networks[cell.id]["right"]]
    changed = attack_record(cell, right, calibration=held(networks[cell.id], True), examples_sha256="another")
    write_record(tmp_path / "made", changed)
    found = line(scopes(read(tmp_path / "made"))["networks CE"], "NCMI at T")
    assert (found.both, found.of_images) == (None, None)
    assert found.of_networks is not None


def test_every_format_tells_it_and_few_models_have_none(tmp_path: Path, plan: Plan) -> None:
    made(plan, tmp_path / "made")
    summary = read(tmp_path / "made")
    board, page = leaderboard(summary), suite_page(summary)
    assert "\n## NCMI and error\n" in board
    assert all(f"- {sentence}\n" in board for sentence in law_finding(summary))
    assert "\nNetworks trained with CE:\n" in board
    assert '<h2 id="law">NCMI and error</h2>' in page
    assert page.index("Networks: over 18 networks") < page.index('id="law"'), "the finding opens the page"
    assert "Networks: over 18 networks trained with CE" in board_text(summary, 500)
    write_report(tmp_path / "made", ["json"])
    law = json.loads((tmp_path / "made" / "report.json").read_text())["law"]
    assert [scope["kind"] for scope in law] == ["networks", "family", "family", "objectives", "all"]
    assert law[0]["lines"][1]["pearson"] == line(summary.law[0], "NCMI at T").pearson

    few = planned(tmp_path, SUITE.replace("[1, 2, 3, 4]", "[1]").replace("[1, 2, 3, 4, 5]", "[1, 2, 5]"))
    made(few, tmp_path / "few")
    summary = read(tmp_path / "few")
    assert (summary.law, law_finding(summary)) == ([], [])
    assert "NCMI and error" not in leaderboard(summary)
    assert 'id="law"' not in suite_page(summary)


def test_families_are_what_names_begin_with() -> None:
    names = ["resnet18", "resnet50.tv_in1k", "vit_tiny_patch16_224", "small_cnn", "small_resnet", "my_code.nets:wide"]
    assert [family_of(name) for name in names] == [
        "resnet", "resnet", "vit", "small_cnn", "small_resnet", "my_code.nets:wide",
    ]  # fmt: skip


def test_a_cell_of_a_failed_network_is_in_no_scope(tmp_path: Path, plan: Plan) -> None:
    made(plan, tmp_path / "made")
    cells: list[Cell] = [cell for cell in plan.of("attack") if cell.attack == "none"]
    (tmp_path / "made" / f"{cells[0].id}.json").unlink()
    assert len(scopes(read(tmp_path / "made"))["networks CE"].networks) == 17
