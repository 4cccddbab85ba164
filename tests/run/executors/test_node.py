"""What a machine without a common disk does with cells, without a cluster: files in, events and files out."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Data, Split
from robustbench_cmic.data.packed import pack_data, packed_file, read_packed
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records import provenance
from robustbench_cmic.run.executors.node import Heard, Node, Parcel, Task
from robustbench_cmic.run.options import Settings
from robustbench_cmic.run.watch.events import CellEnded, CellProgress
from robustbench_cmic.suite.data import Arrays, Digits, ScikitTable
from robustbench_cmic.suite.imports import module_files
from robustbench_cmic.suite.messages import UserError
from tests.in_process import settings_for
from tests.run.executors.test_local import cell

DIGITS = Digits(name="digits")
SHA256 = load_data(DIGITS, Path()).sha256


def leave(connection: Connection, settings: Settings) -> None:
    """A worker that writes what a cell's declaration tells it, and says what it has found."""
    while True:
        try:
            task: Cell = connection.recv()
        except EOFError:
            return
        store = settings.store
        for _ in range(task.declared.get("states", 0)):
            store.resume_state(task.id).write_bytes(b"state")
            connection.send(CellProgress(cell=task.id, done=1, total=2, text="steps"))
            time.sleep(0.3)
        store.resume_state(task.id).unlink(missing_ok=True)
        found = sorted(path.name for path in (*store.results.iterdir(), *store.work.iterdir()) if path.is_file())
        if task.kind == "train":
            store.weights(task.id).write_bytes(b"weights")
        store.record(task.id).write_bytes(b"record")
        with store.worker_log.open("ab") as log:
            log.write(task.id.encode())
        connection.send(CellEnded(cell=task.id, status="ok", seconds=0.1, reason=" ".join(found)))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    (tmp_path / "nodes").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nodes"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    main = "tests.run.executors.test_node:leave"
    made = Node(settings_for(tmp_path), "n1", "test", {"a": b"given"}, {"own.py": b"x = 1"}, every=0.5, main=main)
    yield made
    made.close()
    assert list((tmp_path / "nodes").iterdir()) == []


def task(of: Cell, *inputs: Parcel | None, **others: Any) -> Task:
    facts: dict[str, Any] = {"dataset": DIGITS, "dataset_sha256": SHA256, "data": None}
    return Task(of, [*inputs, None], **facts | others)


def heard_of(node: Node, given: Task) -> list[Heard]:
    """All that is heard of a cell."""
    heard = [node.carry_out(given, 30)]
    while heard[-1].outputs is None:
        heard.append(node.hear(30))
    return heard


def test_files_come_and_go_and_what_stays_is_not_brought_again(node: Node) -> None:
    (*_, end) = heard_of(node, task(cell("t")))
    assert (end.outputs, end.log) == ([None, b"weights", None, b"record"], b"t")
    here = [Parcel(content, content.encode()) for content in ("record", "weights")]
    fetched: list[bytes] = []

    def fetch(content: bytes) -> bytes:
        fetched.append(content)
        return content

    node._fetch = fetch
    attack = cell("a", "t")
    (*_, end) = heard_of(node, task(attack, *here))
    assert fetched == [b"record", b"weights"], "their hashes are others than those of what the training has left"
    assert end.outputs == [None, None, None, b"record"]
    assert isinstance(ended := end.events[-1], CellEnded)
    assert ended.reason == "t.json t.safetensors workers.log"
    assert end.log == b"a"
    (*_, end) = heard_of(node, task(cell("b", "t"), *here))
    assert len(fetched) == 2
    assert isinstance(ended := end.events[-1], CellEnded)
    assert ended.reason == "t.json t.safetensors workers.log", "nothing of the attack before"
    (*_, end) = heard_of(node, task(cell("u")))
    assert isinstance(ended := end.events[-1], CellEnded)
    assert ended.reason == "workers.log", "nothing that it does not read"


def test_states_are_sent_now_and_then(node: Node) -> None:
    heard = heard_of(node, task(cell("t", states=6)))
    states = [each.state for each in heard if each.state is not None]
    assert 1 <= len(states) <= 3, "every 0.5 s, of 6 that are written in 1.8 s"
    assert set(states) == {b"state"}


def test_settings_are_those_of_this_machine(node: Node) -> None:
    own, facts = node.settings, node.settings.provenance
    assert (facts["node"], facts["executor"]) == ("n1", "test")
    assert facts["processor"] == provenance.collect()["processor"]
    assert own.weights["a"].read_bytes() == b"given"
    assert (own.code or ())[0].joinpath("own.py").read_bytes() == b"x = 1"


def small(seed: int) -> Data:
    generator = np.random.default_rng(seed)
    train, test = (Split(generator.random((4, 1, 2, 2), np.float32), np.arange(4) % 2) for _ in range(2))
    return Data(train, test, classes=2)


def test_data_is_brought_where_it_is_not(node: Node, tmp_path: Path) -> None:
    dataset = Arrays(name="arrays", path="x.npz")
    data, other = small(0), small(1)
    given = {"dataset": dataset, "dataset_sha256": data.sha256}
    with pytest.raises(UserError, match=r"the images of arrays:x.npz .* not on the node n1: put them there"):
        node.carry_out(task(cell("t"), **given), 1)
    splits = {
        f"{k}_{name}": getattr(getattr(other, name), long)
        for name in ("train", "test")
        for k, long in (("x", "images"), ("y", "labels"))
    }
    np.savez(tmp_path / "x.npz", **splits)
    packed = packed_file(node.folder / "data", dataset)
    heard_of(node, task(cell("t"), **given, data=pack_data(data)))
    assert read_packed(packed).sha256 == data.sha256, "what lies there is another"
    assert np.array_equal(read_packed(packed).train.images[:], data.train.images[:])
    assert read_packed(packed).moments == data.moments


def test_data_is_read_where_it_lies_if_it_is_the_same(node: Node) -> None:
    heard_of(node, task(cell("t")))
    assert list((node.folder / "data").iterdir()) == []


def test_each_fold_is_packed_by_itself() -> None:
    wine = ScikitTable(name="wine", folds=3)
    assert len({packed_file(Path(), wine.of_seed(seed)) for seed in range(6)}) == 3


def test_modules_travel_as_files_of_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, source in {"own.py": "import pack.deep", "pack/__init__.py": "print()", "pack/deep.py": ""}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    expected = {"own.py": b"import pack.deep", "pack/__init__.py": b"print()", "pack/deep.py": b""}
    assert module_files("own:build", [tmp_path]) == expected


def test_machines_that_compute_with_something_else_are_told_apart() -> None:
    ours = {"code_sha256": "1", "versions": {"python": "3.11.7", "torch": "2.8.0"}}
    assert provenance.mismatch(ours, ours) is None
    assert provenance.mismatch(ours, ours | {"code_sha256": "2"}) == "its code of this package is not the one here"
    other = ours | {"versions": {"python": "3.11.7", "torch": "2.9.0"}}
    assert provenance.mismatch(ours, other) == "torch 2.9.0 there, 2.8.0 here"
    assert provenance.mismatch(ours, ours | {"versions": {}}) == "python is missing there, 3.11.7 here"
