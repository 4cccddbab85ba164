"""What `plan --cost` says: operations worked out by hand, time from records and rates."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robustbench_cmic.cli.cost import given_rates
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, Timing, TrainRecord
from robustbench_cmic.records.store import read_record, write_record
from robustbench_cmic.run.cost import Flops, Rates, cell_costs
from robustbench_cmic.run.measure import example_flops, measured_rates
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.attack_base import Passes
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.training import Training
from tests.in_process import carried_out, command_here


def test_operations_of_linear_layers() -> None:
    """Two a product: D = 12 to H = 5 to C = 3; back to the image through both, to the weights not through the first."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    every, last = 2 * (12 * 5 + 5 * 3), 2 * 5 * 3
    assert example_flops(model, (3, 2, 2)) == Flops(every, every, every + last)
    assert all(weight.grad is None for weight in model.parameters())


def test_operations_of_a_convolution() -> None:
    """3 to 4 channels, 3x3, 8x8 places."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2))
    convolution, linear = 2 * 3 * 4 * 9 * 64, 2 * 256 * 2
    assert example_flops(model, (3, 8, 8)) == Flops(
        convolution + linear, convolution + linear, convolution + 2 * linear
    )


def test_a_measured_step_has_a_rate() -> None:
    training = Training.model_validate({"epochs": 3, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.1}})
    threads = torch.get_num_threads()
    rates = measured_rates(Model(id="m", architecture="mlp"), training, (1, 8, 8), 10, "cpu")
    assert rates.train is not None
    assert rates.attack is not None
    assert min(rates.train, rates.attack) > 1e4
    assert measured_rates(Model(id="m", architecture="mlp"), None, (1, 8, 8), 10, "cpu").train is None
    assert torch.get_num_threads() == threads


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    """Two models, two seeds; 100 examples. On the digits: 1,198 to train on."""
    file = tmp_path_factory.mktemp("cost") / "x.yaml"
    file.write_text(
        "suite: x\ndataset: {name: digits}\nseeds: [0, 1]\naudit: off\nevaluation: {limit: 100}\n"
        "training: {epochs: 2, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}\n"
        "models:\n  - {id: a, architecture: mlp, objective: {name: ce}}\n"
        "  - {id: b, architecture: mlp, objective: {name: focal}}\n"
        "attacks:\n  - {name: PGD, eps: [0.1, 0.2], steps: 4, early_stop: true, loss: margin}\n"
    )
    return make_plan(load_suite(file).suite).cells


FLOPS = Flops(10.0, 20.0, 30.0)


def recorded(cell: Cell, seconds: float, forwards: int, backwards: int) -> AnyRecord:
    return AttackRecord.model_construct(
        suite="x", cell=cell, status="ok", provenance={}, timing=Timing(started="2026-11-27", seconds=seconds),
        n=100, forwards=forwards, backwards=backwards,
    )  # fmt: skip


def no_rates(_: Cell) -> Rates:
    raise AssertionError("nobody should ask")


def test_without_records_time_is_operations_over_the_rate(cells: list[Cell]) -> None:
    costs = cell_costs(cells[:4], {}, lambda _: FLOPS, 10, lambda _: Rates(1000.0, 500.0))
    training, clean, small, _ = costs
    assert (training.flops, training.most) == (2396 * 40.0, 2396 * 40.0)
    assert (training.seconds, training.basis) == (2396 * 40.0 / 1000, "rate")
    assert (clean.flops, clean.seconds) == (1000.0, 2.0)
    assert small.flops == 100 * (3 * 10 + 1 * 20), "a quarter of four steps, and two looks of the judge"
    assert small.most == 100 * (6 * 10 + 4 * 20)
    nothing = cell_costs(cells[:2], {}, lambda _: FLOPS, 10, lambda _: Rates(1000.0, None))
    assert [cost.seconds for cost in nothing] == [training.seconds, None]


def test_records_tell_passes_and_times_of_cells_like_theirs(cells: list[Cell]) -> None:
    """PGD at 0.1 of model a is done in both seeds, of model b in none; at 0.2 nowhere."""
    small = [cell for cell in cells if cell.attack == "PGD" and cell.eps == 0.1]
    records = {
        small[0].id: recorded(small[0], 3.0, 300, 200),
        small[1].id: recorded(small[1], 5.0, 100, 0),
    }
    attacks = [cell for cell in cells if cell.attack == "PGD"]
    costs = {cost.cell.id: cost for cost in cell_costs(attacks, records, lambda _: FLOPS, 10, no_rates)}
    first, other = costs[small[0].id], costs[small[2].id]
    assert [cell.model for cell in small] == ["a", "a", "b", "b"]
    assert (first.passes.expected, first.seconds, first.basis) == (Passes(500, 200), 3.0, "recorded")
    assert first.most == costs[small[2].id].most == 100 * (6 * 10 + 4 * 20)
    assert (other.passes.expected, other.seconds, other.basis) == (Passes(400, 100), 4.0, "records")
    large = next(cost for cost in costs.values() if cost.cell.eps == 0.2)
    assert (large.passes.expected, large.seconds) == (Passes(300, 100), 4.0)


def trained(cell: Cell, seconds: float, resumed: int | None = None, **others: Any) -> AnyRecord:
    timing = Timing(started="2026-11-27", seconds=seconds, resumed_after_epoch=resumed)
    values: dict[str, Any] = {"suite": "x", "cell": cell, "status": "ok", "provenance": {}, "timing": timing}
    return TrainRecord.model_construct(**values | others)


@pytest.mark.parametrize("cut", [{"status": "diverged"}, {"stopped": "catastrophic overfitting"}])
def test_a_training_that_was_cut_short_tells_nothing_of_others(cells: list[Cell], cut: dict[str, Any]) -> None:
    """Its own time is what it took. The next seed takes what one of the other model did: 2396 images, 40 operations."""
    first, second, *_, last = (cell for cell in cells if cell.kind == "train")
    records = {first.id: trained(first, 2.0, **cut)}
    costs = cell_costs([first, second], records, lambda _: FLOPS, 10, lambda _: Rates(40.0, None))
    assert [(cost.seconds, cost.basis) for cost in costs] == [(2.0, "recorded"), (2396.0, "rate")]
    records[last.id] = trained(last, 60.0)
    costs = cell_costs([first, second, last], records, lambda _: FLOPS, 10, no_rates)
    assert [(cost.seconds, cost.basis) for cost in costs] == [(2.0, "recorded"), (60.0, "records"), (60.0, "recorded")]


def test_the_time_of_a_resumed_training_is_estimated(cells: list[Cell]) -> None:
    """Its record times its last part, 3 s of 50."""
    first, second, *_ = trainings = [cell for cell in cells if cell.kind == "train"]
    records = {first.id: trained(first, 3.0, resumed=1)}
    (alone,) = cell_costs([first], records, lambda _: FLOPS, 10, lambda _: Rates(40.0, None))
    assert (alone.seconds, alone.basis) == (2396.0, "rate")
    records[second.id] = trained(second, 50.0)
    costs = cell_costs(trainings, records, lambda _: FLOPS, 10, no_rates, again={first.id})
    assert [cost.seconds for cost in costs] == [50.0] * len(trainings)
    assert [cost.basis for cost in costs[:2]] == ["records", "recorded"]


def test_the_command_tells_of_resumed_trainings(tmp_path: Path, tiny: Path) -> None:
    results = tmp_path / "results" / "tiny"
    carried_out(tiny, results, tmp_path / "results.work" / "tiny")
    asked, note = ("plan", tiny, "--cost", "--rate", "1e9"), "of a training that was killed and resumed"
    whole = command_here(*asked, cwd=tmp_path).stdout
    (file,) = results.glob("ce.s0.train.*.json")
    record = read_record(file)
    timing = record.timing.model_copy(update={"seconds": 1e6, "resumed_after_epoch": 1})
    write_record(results, record.model_copy(update={"timing": timing}))
    resumed = command_here(*asked, cwd=tmp_path).stdout
    assert (note in whole, note in resumed) == (False, True)
    assert not cost_rows(whole)[0]["ce seed 0: train"][1].startswith("?")
    state, time = cost_rows(resumed)[0]["ce seed 0: train"]
    assert (state, time[0]) == ("done", "?")


def test_given_rates_go_before_records_of_other_cells_and_not_before_own_ones(cells: list[Cell]) -> None:
    small = [cell for cell in cells if cell.attack == "PGD" and cell.eps == 0.1][:2]
    records = {small[0].id: recorded(small[0], 3.0, 300, 200)}
    costs = cell_costs(small, records, lambda _: FLOPS, 10, lambda _: Rates(None, 100.0), prefer_rates=True)
    assert [(cost.seconds, cost.basis) for cost in costs] == [(3.0, "recorded"), (500 * 0.1 + 200 * 0.2, "rate")]


def test_rates_of_the_command_line() -> None:
    assert given_rates([]) is None
    assert given_rates(["1e14"]) == Rates(1e14, 1e14)
    assert given_rates(["train=2e14", "attack=1e14"]) == Rates(2e14, 1e14)
    assert given_rates(["attack=1e14"]) == Rates(None, 1e14)
    for wrong in ("x", "0", "audit=1", "=1"):
        with pytest.raises(UserError, match="--rate: should be operations a second such as 1e14"):
            given_rates([wrong])


def test_no_rate_is_given_twice() -> None:
    """Whatever the order: a rate of all cells is one of each kind, too."""
    for first, second, kind in (("1", "2", "train"), ("train=1", "2", "train"), ("attack=1", "2", "attack")):
        for texts in ([first, second], [second, first]):
            with pytest.raises(UserError, match=f"--rate: '{texts[1]}' gives the rate of '{kind}' again"):
                given_rates(texts)
    with pytest.raises(UserError, match="--rate: 'attack=2' gives the rate of 'attack' again"):
        given_rates(["train=1", "attack=1", "attack=2"])


def test_a_rate_of_attacks_leaves_trainings_their_records(cells: list[Cell]) -> None:
    first, second, *_ = trainings = [cell for cell in cells if cell.kind == "train"]
    attacks = [cell for cell in cells if cell.attack == "PGD" and cell.eps == 0.1]
    records = {first.id: trained(first, 60.0), attacks[0].id: recorded(attacks[0], 3.0, 300, 200)}
    given = Rates(None, 100.0)
    costs = cell_costs([*trainings, *attacks], records, lambda _: FLOPS, 10, lambda _: given, prefer_rates=True)
    of = {cost.cell.id: (cost.seconds, cost.basis) for cost in costs}
    assert (of[first.id], of[second.id]) == ((60.0, "recorded"), (60.0, "records"))
    assert of[attacks[1].id] == (500 * 0.1 + 200 * 0.2, "rate")


def test_what_measures_goes_with_cost_and_names_a_device(tmp_path: Path, tiny: Path) -> None:
    for words, told in (
        (["--device", "cpu"], "--device: goes with --cost"),
        (["--device", "nonsense"], "--device: goes with --cost"),
        (["--cost", "--rate", "1e9", "--device", "nonsense"], "--device nonsense: there is no such device here"),
    ):
        done = command_here("plan", tiny, *words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(told)
    assert command_here("plan", tiny, "--cost", "--rate", "1e9", "--device", "cpu", cwd=tmp_path).returncode == 0


def test_the_command_says_what_a_suite_takes(tmp_path: Path, tiny: Path) -> None:
    done = command_here("plan", tiny, "--cost", "--rate", "1e9", "--results", tmp_path / "results", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["cell", "state", "forward", "backward", "TFLOP", "at", "most", "time"]
    starts = [line.split()[0] for line in lines if line]
    assert {"train", "attack", "all", "to"} <= set(starts)
    assert "? TFLOP over the rate that was given" in lines
    assert any(line.startswith("to run, by cells at a time that do not slow each other down: 1: ") for line in lines)
    assert not (tmp_path / "results").exists()
    refused = command_here("plan", tiny, "--rate", "1e9", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.strip()) == (2, "--rate: goes with --cost")


TRAININGS_DONE = {"ce seed 0: train": "done", "cmic seed 0: train": "done"}


def cost_rows(printed: str) -> tuple[dict[str, tuple[str, str]], dict[str, list[str]]]:
    """What `plan --cost` printed: state and time of each cell by its title, and each sum's columns by its name."""
    cells, sums, *_ = printed.split("\n\n")
    rows = [re.split(r" {2,}", line.strip()) for line in cells.splitlines()[2:]]
    lines = [re.split(r" {2,}", line.strip()) for line in sums.splitlines()[2:]]
    return {row[0]: (row[1], row[-1]) for row in rows}, {name: words for name, *words in lines}


def test_a_shard_costs_what_its_cells_do(tmp_path: Path, tiny: Path) -> None:
    whole, *parts = (
        cost_rows(command_here("plan", tiny, "--cost", "--rate", "1e9", *shard, cwd=tmp_path).stdout)
        for shard in ((), ("--shard", "1/2"), ("--shard", "2/2"))
    )
    assert [len(cells) for cells, _ in (whole, *parts)] == [8, 4, 4]
    assert parts[0][0] | parts[1][0] == whole[0]
    assert [sums["all"][0] for _, sums in (whole, *parts)] == ["8", "4", "4"]


def test_what_is_to_run_again_is_not_done(tmp_path: Path, tiny: Path) -> None:
    """Records that came without weights; the attacks, on fewer examples, are new. `plan` counts alike."""
    results, work = tmp_path / "results" / "tiny", tmp_path / "results.work" / "tiny"
    records = carried_out(tiny, results, work)
    asked = ("plan", tiny, "--limit", 50)
    cells, sums = cost_rows(command_here(*asked, "--cost", "--rate", "1e9", cwd=tmp_path).stdout)
    assert {title: state for title, (state, _) in cells.items() if "train" in title} == TRAININGS_DONE
    assert sums["to run"][0] == "6"
    shutil.rmtree(work)
    assert command_here(*asked, cwd=tmp_path).stdout.endswith("8 cells: 2 to run again, 6 to run\n")
    cells, sums = cost_rows(command_here(*asked, "--cost", "--rate", "1e9", cwd=tmp_path).stdout)
    assert Counter(state for state, _ in cells.values()) == {"to run again": 2, "to run": 6}
    assert (sums["all"], sums["train"][-1][0]) == (sums["to run"], "?"), "a rate was given for what is to run"
    # By records alone: what the trainings took before, though never counted as done.
    trainings = make_plan(load_suite(tiny).suite, 50).of("train")
    done = {record.cell.id: record for record in records}
    costs = cell_costs(trainings, done, lambda _: FLOPS, 10, no_rates, again={cell.id for cell in trainings})
    took = [(done[cell.id].timing.seconds, "records") for cell in trainings]
    assert [(cost.seconds, cost.basis) for cost in costs] == took
