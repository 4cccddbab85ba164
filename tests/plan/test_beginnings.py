"""Trainings that begin with the weights of another model: their place in the plan, their ids, and what they read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustbench_cmic.models.weights import load_weights
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Plan
from robustbench_cmic.plan.select import select
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.records.state import blocked_cells, cell_states, pending_cells
from robustbench_cmic.records.store import Store, write_record
from robustbench_cmic.report import read_results
from robustbench_cmic.suite import SuiteError, load_suite
from tests.in_process import carried_out
from tests.report.folders import replace

SUITE = """\
suite: x
dataset: {name: digits}
training: {epochs: 1, batch_size: 64, limit: 128, optimizer: {name: sgd, lr: 0.05}}
models:
  - {id: base, architecture: mlp, objective: {name: ce}}
  - id: next
    architecture: mlp
    objective: {name: ce}
    initial_weights: {model: base}
    training: {optimizer: {lr: 1e-9}}
  - {id: last, architecture: mlp, objective: {name: ce}, initial_weights: {model: next}}
seeds: [0, 1]
evaluation: {limit: 20}
audit: off
"""


def plan_of(folder: Path, text: str = SUITE) -> Plan:
    (folder / "x.yaml").write_text(text)
    return make_plan(load_suite(folder / "x.yaml").suite)


def test_a_training_depends_on_the_one_of_its_seed_that_it_begins_with(tmp_path: Path) -> None:
    audited = SUITE.replace("audit: off", "attacks: [{name: FGSM, eps: 0.1}]")
    plan = plan_of(tmp_path, audited)
    trainings = {(cell.model, cell.seed): cell for cell in plan.of("train")}
    for seed in (0, 1):
        base, following = trainings["base", seed], trainings["next", seed]
        assert following.dependencies == (base.id,)
        assert following.declared["initial_weights"] == {"training": base.id}
        assert trainings["last", seed].dependencies == (following.id,)
    for cell in [*plan.of("attack"), *plan.of("audit")]:
        assert cell.dependencies == (trainings[cell.model, cell.seed].id,), "its own training alone"
    places = {cell.id: place for place, cell in enumerate(plan.cells)}
    assert all(places[other] < places[cell.id] for cell in plan.cells for other in cell.dependencies)
    chosen = select(plan, [0], ["last"])
    assert [cell.model for cell in chosen.cells if cell.kind == "train"] == ["base", "next", "last"]
    assert trainings["last", 0].id in chosen.asked


def test_the_id_follows_what_it_begins_with(tmp_path: Path) -> None:
    before = {(cell.model, cell.seed): cell.id for cell in plan_of(tmp_path).of("train")}
    changed = SUITE.replace("objective: {name: ce}}\n", "objective: {name: focal}}\n", 1)
    after = {(cell.model, cell.seed): cell.id for cell in plan_of(tmp_path, changed).of("train")}
    assert not set(before.values()) & set(after.values())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{model: base}", "{model: bass}", "no model has the id 'bass'; did you mean 'base'?"),
        ("{model: base}", "{model: next}", "'next' cannot begin with its own weights: name another model"),
        ("{model: base}", "{model: last}", "'last' is listed below this model: list it above, so that it is "
         "trained first"),
        ("mlp, objective: {name: ce}}", "mlp, objective: {name: lgm}}", "'base' has the last layer of lgm, which this "
         "model has not: name another model"),
        ("base, architecture: mlp", "base, architecture: lenet", "'base' is another network (architecture lenet, not "
         "mlp): name one that is the same"),
        ("objective: {name: ce}}", "objective: {name: focal}, matrix: {objective.gamma: [1, 2]}}", "'base' stands for "
         "2 models: name one of them, 'base-gamma1' say"),
    ],
)  # fmt: skip
def test_what_no_training_can_begin_with(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(SuiteError) as error:
        plan_of(tmp_path, SUITE.replace(old, new, 1))
    assert [(problem.location, problem.message) for problem in error.value.problems] == [
        (("models", 1, "initial_weights", "model"), words)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("begun")
    plan_of(folder, SUITE.replace("seeds: [0, 1]", "seeds: [0]"))
    records = carried_out(folder / "x.yaml", folder / "x")
    assert [record.reason for record in records if record.status != "ok"] == []
    return folder


def test_it_begins_with_their_weights_and_is_done_anew_when_they_change(finished: Path) -> None:
    plan = make_plan(load_suite(finished / "x.yaml").suite)
    store = Store(finished / "x", finished / "x")
    base, following, _ = plan.of("train")
    states = cell_states(plan.cells, store.results)
    records = [states[cell.id].record for cell in (base, following)]
    assert all(isinstance(record, TrainRecord) for record in records)
    one, two = (load_weights(store.weights(r.cell.id), r.checkpoint_sha256 or "") for r in records if r is not None)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=0, atol=1e-6)  # its learning rate is next to nothing
    assert records[1] is not None
    assert records[0] is not None
    assert records[1].inputs == {base.id: records[0].checkpoint_sha256}

    write_record(store.results, records[0].model_copy(update={"checkpoint_sha256": "0" * 64}))
    states = cell_states(plan.cells, store.results)
    assert states[following.id].why == (f"it was made from another result of {base.id} than the one recorded now")
    write_record(store.results, records[0])


def test_what_begins_with_a_training_that_diverged_is_skipped_and_so_is_what_follows(finished: Path) -> None:
    plan = make_plan(load_suite(finished / "x.yaml").suite)
    store = Store(finished / "x", finished / "x")
    replace(store.results, plan.of("train")[0], status="diverged")
    for cell in plan.cells[1:]:
        store.record(cell.id).unlink()
    states = cell_states(plan.cells, store.results)
    assert blocked_cells(plan.cells, states) == {cell.id for cell in plan.cells[1:]}
    assert pending_cells(plan.cells, states, store) == {}
    results = read_results(store.results)
    assert {results.status(cell)[0] for cell in plan.cells[1:]} == {"skipped"}
