"""What counts as done: sound records that fit data, declaration and checkpoint; nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robustbench_cmic.data import load_data
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.files import file_sha256, read_json, write_json
from robustbench_cmic.records.schema import Epoch, KeptOutputs
from robustbench_cmic.records.state import (
    ALTERED,
    WITHOUT_OUTPUTS,
    CellState,
    blocked_cells,
    cell_states,
    pending_cells,
)
from robustbench_cmic.records.store import Store, write_record
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.data import Digits
from tests.report.folders import HEAD, attack_record, cell_of, fill, planned, replace, train_record


def judged(folder: Path, dataset: str | None = None) -> dict[str, CellState]:
    plan = make_plan(load_suite(folder / "tiny.yaml").suite)
    return cell_states(plan.cells, folder / "results" / "tiny", dataset)


def states(folder: Path, dataset: str | None = None) -> dict[str, str]:
    return {cell.rsplit(".", 1)[0]: standing.state for cell, standing in judged(folder, dataset).items()}


def edit(folder: Path, pattern: str, **changes: object) -> None:
    (file,) = (folder / "results" / "tiny").glob(pattern)
    write_json(file, read_json(file) | changes)


def test_all_done_with_the_right_data(finished: Path) -> None:
    assert set(states(finished, load_data(Digits(name="digits"), finished).sha256).values()) == {"done"}


def test_other_data_makes_everything_unusable(finished: Path) -> None:
    assert set(states(finished, "0" * 64).values()) == {"unusable"}


def test_failed_is_to_be_redone_and_diverged_is_not(copied: Path) -> None:
    edit(copied, "ce.s0.FGSM*", status="failed", reason="the attack crashed")
    edit(copied, "cmic.s0.train*", status="diverged")
    found = states(copied)
    assert found["ce.s0.FGSM.linf.eps0.1"] == "failed"
    assert found["cmic.s0.train"] == "diverged"


def test_attacks_on_another_checkpoint_are_unusable(copied: Path) -> None:
    edit(copied, "ce.s0.train*", checkpoint_sha256="1" * 64)
    found = judged(copied)
    stale = {cell.split(".")[2] for cell, standing in found.items() if standing.state == "unusable"}
    assert stale == {"none", "FGSM", "PGD"}
    assert any("another checkpoint" in standing.why for standing in found.values())


def test_a_failed_retraining_leaves_the_attacks_on_the_old_weights_alone(copied: Path) -> None:
    edit(copied, "ce.s0.train*", status="failed", checkpoint_sha256=None, dataset_sha256=None)
    found = states(copied)
    assert found["ce.s0.train"] == "failed"
    assert found["ce.s0.FGSM.linf.eps0.1"] == "done"


def test_an_attack_is_no_training(copied: Path) -> None:
    folder = copied / "results" / "tiny"
    (training,), (attack,) = folder.glob("ce.s0.train*"), folder.glob("ce.s0.none*")
    payload = json.loads(attack.read_text()) | {"cell": json.loads(training.read_text())["cell"]}
    write_json(training, payload)
    assert states(copied)["ce.s0.train"] == "unusable"


def test_a_record_of_another_experiment_is_unusable(copied: Path) -> None:
    (file,) = (copied / "results" / "tiny").glob("ce.s0.FGSM*")
    payload = json.loads(file.read_text())
    payload["cell"]["declared"]["eps"] = 0.2
    write_json(file, payload)
    assert states(copied)["ce.s0.FGSM.linf.eps0.1"] == "unusable"


@pytest.mark.parametrize("text", ["", "{", "null"])
def test_a_corrupt_record_is_unusable(copied: Path, text: str) -> None:
    (file,) = (copied / "results" / "tiny").glob("ce.s0.FGSM*")
    file.write_text(text)
    assert states(copied)["ce.s0.FGSM.linf.eps0.1"] == "unusable"


def test_setting_aside_never_overwrites(tmp_path: Path) -> None:
    work = tmp_path / "work"
    store = Store(tmp_path, work)
    for content in ("first", "second"):
        file = tmp_path / "a.json"
        file.write_text(content)
        store.quarantine(file)
        assert not file.exists()
    kept = sorted((work / "set-aside").iterdir())
    assert [file.read_text() for file in kept] == ["first", "second"]


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "b") is None


# --- products that others need: weights, and the adversarial examples of smaller balls ------------------------------

CHAIN = f"""{HEAD}attacks:
  - {{name: PGD, eps: [0.2, 0.05, 0.1], steps: 5, ascending: true}}
  - {{name: Transfer, eps: 0.1, steps: 5}}
audit: off
""".replace("[0, 1, 2]", "[0]")
GONE = "its adversarial examples are not here, and an attack needs them"


@pytest.fixture
def chain(tmp_path: Path) -> Plan:
    return planned(tmp_path, CHAIN)


@pytest.fixture
def done(tmp_path: Path, chain: Plan) -> Path:
    """Folders `made`, with a record of every cell, and `work`, with what cells leave for others."""
    (tmp_path / "work").mkdir()
    folder = fill(tmp_path / "made", chain, lambda cell: [True] * 8)
    for cell in chain.cells:
        redo(tmp_path, chain, cell, cell.id)
    return folder.parent


def store_of(place: Path) -> Store:
    return Store(place / "made", place / "work")


def redo(place: Path, chain: Plan, cell: Cell, content: str) -> None:
    """Write a cell's product and its record, which names the products that it was made from as they are now."""
    training = cell_of(chain, cell.model, cell.seed, "train")
    ascending = cell.declared.get("attack", {}).get("ascending")
    if cell.kind == "train" or ascending:
        store_of(place).product(cell).write_text(content)
    if cell.kind == "train":
        write_record(place / "made", train_record(cell, checkpoint_sha256=own(place, cell)))
        return
    others = [other for other in chain.cells if other.id in (cell.source, cell.after)]
    inputs = {other.id: own(place, other) or "" for other in others}
    images = own(place, cell) if ascending else None
    changes = {"checkpoint_sha256": own(place, training), "inputs": inputs, "images_sha256": images}
    write_record(place / "made", attack_record(cell, [True] * 8, **changes))


def own(place: Path, cell: Cell) -> str | None:
    return file_sha256(store_of(place).product(cell))


def pending(place: Path, chain: Plan) -> dict[str, str]:
    found = cell_states(chain.cells, place / "made")
    ids = {cell.id: f"{cell.model} {cell.attack or cell.kind} {cell.eps:g}" for cell in chain.cells}
    return {ids[cell]: why for cell, why in pending_cells(chain.cells, found, store_of(place)).items()}


def forget(place: Path, cell: Cell) -> None:
    store_of(place).record(cell.id).unlink()


def test_a_chain_that_is_done_needs_none_of_its_images(done: Path, chain: Plan) -> None:
    assert pending(done, chain) == {}
    for file in (done / "work").iterdir():
        file.unlink()
    assert pending(done, chain) == {}


def test_images_that_are_gone_are_made_again_where_a_pending_attack_needs_them(done: Path, chain: Plan) -> None:
    small, middle, large = (cell_of(chain, "a", 0, "PGD", eps) for eps in (0.05, 0.1, 0.2))
    store_of(done).product(small).unlink()
    forget(done, large)
    assert pending(done, chain) == {"a PGD 0.2": ""}, "the middle one's are here"
    store_of(done).product(middle).unlink()
    assert pending(done, chain) == {"a PGD 0.05": GONE, "a PGD 0.1": GONE, "a PGD 0.2": ""}
    store_of(done).product(cell_of(chain, "a", 0, "train")).unlink()
    weights = "its weights are not here, and an attack needs them"
    assert pending(done, chain) == {"a train 0": weights, "a PGD 0.05": GONE, "a PGD 0.1": GONE, "a PGD 0.2": ""}


def test_weights_of_a_source_are_made_again_where_a_transfer_needs_them(done: Path, chain: Plan) -> None:
    store_of(done).product(cell_of(chain, "b", 0, "train")).unlink()
    assert pending(done, chain) == {}
    forget(done, cell_of(chain, "a", 0, "Transfer:b"))
    weights = "its weights are not here, and an attack needs them"
    assert pending(done, chain) == {"b train 0": weights, "a Transfer:b 0.1": ""}


def test_altered_images_are_redone_and_so_is_what_was_made_from_others(done: Path, chain: Plan) -> None:
    small, middle, large = (cell_of(chain, "a", 0, "PGD", eps) for eps in (0.05, 0.1, 0.2))
    store_of(done).product(small).write_text("altered")
    assert pending(done, chain) == {"a PGD 0.05": ALTERED["attack"]}
    redo(done, chain, small, small.id)
    assert pending(done, chain) == {}, "the same examples as before: nothing else is to be done"
    redo(done, chain, small, "other examples")
    why = f"it was made from another result of {small.id} than the one recorded now"
    assert cell_states(chain.cells, done / "made")[middle.id].why == why
    assert pending(done, chain) == {"a PGD 0.1": why}
    redo(done, chain, middle, "others, too")
    assert pending(done, chain) == {"a PGD 0.2": why.replace(small.id, middle.id)}
    redo(done, chain, large, "and others")
    assert pending(done, chain) == {}


def test_a_source_trained_anew_makes_its_transfers_unusable(done: Path, chain: Plan) -> None:
    redo(done, chain, cell_of(chain, "b", 0, "train"), "other weights")
    found = cell_states(chain.cells, done / "made")
    unusable = {(cell.model, cell.attack) for cell in chain.cells if found[cell.id].state == "unusable"}
    assert unusable == {("a", "Transfer:b")} | {("b", name) for name in ("none", "PGD", "Transfer:a", "Transfer:b")}
    assert "from another result of b.s0.train" in found[cell_of(chain, "a", 0, "Transfer:b").id].why


def test_trainings_without_outputs_are_done_again_where_the_suite_asks_for_them(done: Path, chain: Plan) -> None:
    kept = KeptOutputs(classes=[0, 1, 2], counts=[1, 1, 1], examples_sha256="e", epochs=[], logits="")
    curve = [Epoch(epoch=1, lr=0.1, loss={}, accuracy=1.0, cmi=0.0, separation=1.0, ncmi=0.0)]
    one, two = (cell_of(chain, model, 0, "train") for model in ("a", "b"))
    for cell, outputs in ((one, None), (two, kept)):
        record = train_record(cell, checkpoint_sha256=own(done, cell), curve=curve, outputs=outputs)
        write_record(done / "made", record)
    found = cell_states(chain.cells, done / "made")
    assert pending_cells(chain.cells, found, store_of(done)) == {}
    assert pending_cells(chain.cells, found, store_of(done), outputs=True) == {one.id: WITHOUT_OUTPUTS}


def test_a_source_that_diverged_blocks_its_transfers(done: Path, chain: Plan) -> None:
    replace(done / "made", cell_of(chain, "b", 0, "train"), status="diverged")
    for cell in chain.of("attack"):
        forget(done, cell)
    found = cell_states(chain.cells, done / "made")
    blocked = blocked_cells(chain.cells, found)
    free = {(cell.model, cell.attack) for cell in chain.cells if cell.id not in blocked}
    assert free == {("a", ""), ("a", "none"), ("a", "PGD"), ("a", "Transfer:a"), ("b", "")}
    assert set(pending(done, chain)) == {
        "a none 0", "a PGD 0.05", "a PGD 0.1", "a PGD 0.2", "a Transfer:a 0.1",
    }  # fmt: skip


def test_a_failed_smaller_ball_is_tried_again_before_the_larger_one(done: Path, chain: Plan) -> None:
    replace(done / "made", cell_of(chain, "a", 0, "PGD", 0.05))
    forget(done, cell_of(chain, "a", 0, "PGD", 0.1))
    assert pending(done, chain) == {"a PGD 0.05": "because", "a PGD 0.1": ""}
