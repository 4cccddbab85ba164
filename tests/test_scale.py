"""`benchmarks/scale.py`: what it predicts, against numbers worked out by hand; the table of the docs on clusters."""

from __future__ import annotations

import runpy
import sys
from typing import Any

import pytest

from robustbench_cmic.report import read_results
from robustbench_cmic.run.cost import Flops
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
        return runpy.run_path(str(ROOT / "benchmarks" / "scale.py"))


def test_a_split_training_takes_its_share_and_a_ring(script: dict[str, Any]) -> None:
    """10 steps of 8e12 operations, 1e9 bytes of gradients: at 1e12 a second 80 s on one card, on four 20 s and a ring.

    There each card sends 2 x 3/4 of the bytes at 450 GB/s, on sixteen 2 x 15/16 at 50 GB/s.
    """
    training = script["Split"](8e12, 1e9, 10)
    assert training.on(1, 1e12) == pytest.approx(80)
    assert training.on(4, 1e12) == pytest.approx(20 + 10 * 1.5 / 450)
    assert training.on(16, 1e12) == pytest.approx(5 + 10 * 1.875 / 50)


def test_operations_of_imagenet(script: dict[str, Any]) -> None:
    """90 epochs of 5,005 batches of 256; class batches are 8,000 images more, forward alone."""
    plain, classes = (script["imagenet"](Flops(1.0, 1.0, 2.0), 5, extra) for extra in (0, 8000))
    assert (plain.flops, plain.gradients, plain.steps) == (768.0, 20.0, 450_450)
    assert classes.flops == 8768.0


def test_rates_are_those_of_the_measured_steps(script: dict[str, Any]) -> None:
    """Of ten operations an example: 640 in 0.271 ms, 1,280 in 3.11 ms."""
    floor, reached = script["rates"](Flops(4.0, 4.0, 6.0))
    assert floor == pytest.approx(640 / 0.271e-3)
    assert reached == pytest.approx(1280 / 3.11e-3)


def test_the_suite_on_cards(script: dict[str, Any]) -> None:
    """The training that was alone is predicted at its recorded time; no schedule beats the longest chain."""
    results = read_results(ROOT / "results" / "cifar100")
    suite = script["predicted"](results.plan, results.records, Flops(1.0, 1.0, 2.0), 100)
    trainings = {cell.model: suite.seconds[cell.id] for cell in results.plan.of("train") if cell.seed == 0}
    alone = next(cell for cell in results.plan.of("train") if cell.model == "resnet18-ce")
    assert trainings["resnet18-ce"] == pytest.approx(results.records[alone.id].timing.seconds)
    assert trainings["resnet18-cmic-printed"] == pytest.approx(trainings["resnet18-ce"] * 3.28 / 3.11)
    assert trainings["resnet18-cmic-printed-class"] == pytest.approx(trainings["resnet18-ce"] * 7.32 / 3.11)
    work = sum(suite.seconds.values())
    assert all(seconds > 0 for seconds in suite.seconds.values())
    assert suite.on(1) == pytest.approx(work)
    for cards in (2, 8, 64):
        assert max(suite.longest, work / cards) <= suite.on(cards) + 1e-6
    assert suite.on(64) < 1.01 * suite.longest


def test_the_table_of_the_docs_is_of_the_committed_results() -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "cluster_scaling.py"))
    lines = (ROOT / "docs" / "cluster.md").read_text().splitlines()
    for suite in script["SUITES"]:
        (line,) = (line for line in lines if line.startswith(f"| `{suite}`"))
        assert [cell.strip() for cell in line.split("|")[2:-1]] == script["simulate"](suite).minutes
