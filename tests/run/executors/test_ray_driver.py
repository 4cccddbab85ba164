"""What the main process does with a cluster, on one that is played: retries, refusals, places, what is written."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import robustbench_cmic.run.executors.ray as cluster
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records import provenance
from robustbench_cmic.records.schema import Status
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.executors.connection import check_nodes
from robustbench_cmic.run.executors.node import Heard, Task
from robustbench_cmic.run.executors.ray import RETRIES, RayCluster
from robustbench_cmic.run.options import Options
from robustbench_cmic.run.watch.events import CellEnded, CellPutBack, CellStarted, Event
from robustbench_cmic.suite.messages import UserError
from tests.in_process import settings_for
from tests.run.executors.test_local import cell


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__("a traceback of many lines")
        self.cause = cause


class GoneError(RayError):
    pass


Play = Callable[[str, Task | None], Any]
"""Takes the name of a node and a task (None: nothing new, tell more); returns or raises what the node does."""


class Answer:
    """What a reference stands for: it is found out when it is asked for."""

    def __init__(self, of: Callable[..., Any], *given: Any) -> None:
        self.of, self.given = of, given


class Played:
    """As much of Ray as is used, with one node for each place: n1, n2, …; the last is asked first.

    Attributes:
        equally_fast: all nodes have always something to tell, not the last alone.
        made: how many nodes.
        killed, closed: which.
        order: in which nodes were given cells, closed, waited for until that was done, and killed.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, play: Play) -> None:
        self.play, self.made, self.killed, self.closed = play, 0, list[str](), list[str]()
        self.order, self.equally_fast = list[str](), False

    def remote(self, _: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._actor))

    def _actor(self, *_: Any) -> Any:
        self.made += 1
        name = f"n{self.made}"
        later: dict[str, Callable[..., Any]] = {
            "name": lambda: self.play(name, None) if name in getattr(self.play, "stillborn", ()) else name,
            "hear": lambda _: self.play(name, None),
        }
        methods = {method: SimpleNamespace(remote=partial(Answer, of)) for method, of in later.items()}
        methods["close"] = SimpleNamespace(remote=partial(self._close, name))
        methods["carry_out"] = SimpleNamespace(remote=partial(self._carry_out, name))
        return SimpleNamespace(played=name, **methods)

    def _close(self, name: str) -> None:
        self.closed.append(name)
        self.order.append(f"close {name}")

    def _carry_out(self, name: str, task: Task, _: float) -> Answer:
        self.order.append(f"{task.cell.id} on {name}")
        return Answer(self.play, name, task)

    def wait(self, answers: list[Any], num_returns: int = 1, timeout: float = 0) -> tuple[list[Any], list[Any]]:
        if None in answers:  # nothing is told by nodes that close
            self.order.append("wait")
            return answers, []
        if not answers or self.equally_fast:
            return answers, []
        return answers[-1:], answers[:-1]

    def get(self, answer: Any) -> Any:
        return answer.of(*answer.given)

    def put(self, content: Any) -> Any:
        return content

    def kill(self, actor: Any) -> None:
        self.killed.append(actor.played)
        self.order.append(f"kill {actor.played}")


class Cells:
    """What is heard of cells, and how they ended."""

    def __init__(self, folder: Path, play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ray = Played(play)
        monkeypatch.setattr(cluster, "import_ray", lambda: self.ray)
        self.store = Store(folder, folder)
        self.folder = folder
        self.events: list[Event] = []

    def run(self, *cells: Cell, jobs: int = 1) -> dict[str, Status]:
        return RayCluster(settings_for(self.folder, store=self.store), jobs).run(cells, self.events.append)

    @property
    def nodes(self) -> list[str]:
        return [event.node for event in self.events if isinstance(event, CellStarted)]

    @property
    def told(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, CellPutBack)]


def digits(name: str, needs: str | None = None) -> Cell:
    return cell(name, needs, dataset={"name": "digits"}, train={"dataset": {"name": "digits"}})


def done(of: Cell, *outputs: bytes | None) -> Heard:
    """A cell that ended well: its state, its product, its pictures, its record."""
    left = list(outputs or (None, b"weights", None, b"record"))
    return Heard([CellEnded(cell=of.id, status="ok", seconds=1.0)], None, b"printed\n", left)


def test_what_comes_back_is_written_and_goes_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = {}

    def play(name: str, task: Task | None) -> Heard:
        assert task is not None
        brought[task.cell.id] = [None if each is None else each.content for each in task.inputs]
        return done(task.cell, *([None, None, b"picture", b"attacked"] if task.cell.needs else ()))

    cells = Cells(tmp_path, play, monkeypatch)
    assert cells.run(digits("t"), digits("a", "t"), digits("b", "t"), jobs=2) == dict.fromkeys("tab", "ok")
    assert brought == {"t": [None], "a": [b"record", b"weights", None], "b": [b"record", b"weights", None]}
    store = cells.store
    assert [store.record(each).read_bytes() for each in "tab"] == [b"record", b"attacked", b"attacked"]
    assert store.pictures("a").read_bytes() == b"picture"
    assert store.worker_log.read_bytes() == b"printed\n" * 3
    assert cells.nodes == ["n2", "n2", "n2"], "the other was never ready"
    assert (cells.ray.closed, cells.ray.killed) == (["n2"], ["n1", "n2"])


@pytest.mark.parametrize("moment", range(4))
def test_what_is_killed_while_it_writes_a_training_keeps_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """A write syncs the file, which then gets its name, and the folder: two writes, so four moments."""
    left, sync = iter([True] * moment), os.fsync

    def sync_or_die(handle: int) -> None:
        if not next(left, False):
            raise KeyboardInterrupt
        sync(handle)

    def play(name: str, task: Task | None) -> Heard:
        assert task is not None
        return done(task.cell)

    cells = Cells(tmp_path, play, monkeypatch)
    cells.store.resume_state("t").write_bytes(b"all epochs")
    monkeypatch.setattr(os, "fsync", sync_or_die)
    with pytest.raises(KeyboardInterrupt):
        cells.run(digits("t"))
    assert cells.store.resume_state("t").read_bytes() == b"all epochs"
    assert (cells.store.weights("t").exists(), cells.store.record("t").exists()) == (moment >= 1, moment >= 3)


def test_what_a_cell_has_left_earlier_and_not_again_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(name: str, task: Task | None) -> Heard:
        assert task is not None
        return done(task.cell, *([None, None, None, b"failed"] if task.cell.needs else ()))

    cells = Cells(tmp_path, play, monkeypatch)
    old = [cells.store.images("a"), cells.store.pictures("a"), cells.store.record("a")]
    for file in old:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"old")
    cells.run(digits("t"), digits("a", "t"))
    assert [file.read_bytes() if file.exists() else None for file in old] == [None, None, b"failed"]


def test_a_training_goes_on_elsewhere_from_the_state_that_it_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def play(name: str, task: Task | None) -> Heard:
        if task is None:
            raise GoneError("the actor died")
        seen.append([None if each is None else each.content for each in task.inputs])
        if len(seen) <= RETRIES:
            return Heard([], b"state %d" % len(seen))
        return done(task.cell)

    cells = Cells(tmp_path, play, monkeypatch)
    assert cells.run(digits("t")) == {"t": "ok"}
    assert seen == [[None], [b"state 1"], [b"state 2"], [b"state 3"]]
    assert cells.nodes == ["n1", "n2", "n3", "n4"]
    assert cells.told == [f"the node n{n} is gone: begun anew ({n} of 3)" for n in (1, 2, 3)]
    assert not cells.store.resume_state("t").exists(), "the training is done"


def test_a_cell_whose_nodes_always_die_fails_and_the_rest_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(name: str, task: Task | None) -> Heard:
        assert task is not None
        if task.cell.id == "bad":
            raise GoneError("the actor died")
        return done(task.cell)

    cells = Cells(tmp_path, play, monkeypatch)
    statuses = cells.run(digits("bad"), digits("a", "bad"), digits("good"))
    assert statuses == {"bad": "failed", "a": "skipped", "good": "ok"}
    record = read_record(cells.store.record("bad"))
    assert (record.status, record.reason) == ("failed", "its node died 4 times, last n4")


def test_idle_places_of_a_dead_node_are_given_up_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All four are on one machine; the training's death says it of all."""
    dead = {"n1", "n2", "n3", "n4"}

    def play(name: str, task: Task | None) -> Heard:
        assert task is not None
        if name in dead:
            raise GoneError("the actor died")
        return done(task.cell)

    cells = Cells(tmp_path, play, monkeypatch)
    make = cells.ray._actor

    def on_one_machine(*given: Any) -> Any:
        actor = make(*given)
        if actor.played in dead:
            actor.name.remote = lambda: Answer(lambda: "machine")
        return actor

    monkeypatch.setattr(cells.ray, "_actor", on_one_machine)
    waiting = [digits(name, "t") for name in "abc"]
    assert cells.run(digits("t"), *waiting, jobs=4) == dict.fromkeys("tabc", "ok")
    assert len(cells.told) == 1
    assert dead <= set(cells.ray.killed)


def test_a_cell_that_found_no_memory_has_no_other_process_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle nodes have ended their workers, which keep memory, before it begins; also after its own node has died."""
    tries: list[str] = []

    def play(name: str, task: Task | None) -> Heard:
        assert task is not None
        cell = task.cell.id
        tries.append(cell)
        if tries.count(cell) == 1 and cell != "v":
            short = CellEnded(cell=cell, status="failed", reason="out of memory", seconds=1.0, out_of_memory=True)
            return Heard([short], None, b"", [None, None, None, b"record"])
        if tries == ["t", "u", "v", "t"]:
            raise GoneError("the actor died")
        return done(task.cell)

    cells = Cells(tmp_path, play, monkeypatch)
    cells.ray.equally_fast = True
    assert cells.run(digits("t"), digits("u"), digits("v"), jobs=3) == dict.fromkeys("tuv", "ok")
    assert cells.ray.order == [
        *("t on n1", "u on n2", "v on n3"),
        *("close n2", "close n3", "wait", "kill n2", "kill n3", "t on n1", "kill n1"),
        *("close n5", "wait", "kill n5", "t on n4", "u on n4"),
        *("close n4", "wait", "kill n4"),
    ]


def test_what_a_node_refuses_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(name: str, task: Task | None) -> Heard:
        raise RayTaskError(UserError("the images are too many"))

    with pytest.raises(UserError, match=r"^the images are too many$"):
        Cells(tmp_path, play, monkeypatch).run(digits("t"))


def test_a_defect_on_a_node_fails_its_cell_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(name: str, task: Task | None) -> Heard:
        assert task is not None
        if task.cell.id == "t":
            raise RayTaskError(OSError(28, "No space left on device"))
        return done(task.cell)

    cells = Cells(tmp_path, play, monkeypatch)
    assert cells.run(digits("t"), digits("u")) == {"t": "failed", "u": "ok"}
    assert "No space left on device" in read_record(cells.store.record("t")).reason


def test_nodes_that_cannot_begin_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(name: str, task: Task | None) -> Heard:
        raise GoneError("it has no module of this name")

    play.stillborn = [f"n{n}" for n in range(9)]  # type: ignore[attr-defined]
    cells = Cells(tmp_path, play, monkeypatch)
    with pytest.raises(UserError, match=r"no node of the cluster can begin to work: .*no module of this name"):
        cells.run(digits("t"))
    assert cells.ray.made == RETRIES + 1


def test_an_interrupt_ends_all_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def play(name: str, task: Task | None) -> Heard:
        raise KeyboardInterrupt

    cells, before = Cells(tmp_path, play, monkeypatch), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        cells.run(digits("t"), digits("u"), jobs=2)
    assert cells.ray.killed == ["n1", "n2"]
    assert signal.getsignal(signal.SIGINT) is before


def node(name: str, **resources: float) -> dict[str, Any]:
    named = {"NodeID": name, "NodeName": name, "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "host"}
    return {**named, "Alive": True, "Resources": resources}


FOUR = [node("head"), node("a", CPU=8.0, GPU=4.0), node("b", CPU=8.0, GPU=1.0), node("c", CPU=2.0)]


@pytest.mark.parametrize(
    ("alive", "options", "place"),
    [
        (FOUR, {}, ("cuda:0", 5)),
        (FOUR, {"gpus_per_cell": 0.5}, ("cuda:0", 10)),
        (FOUR, {"gpus_per_cell": 2}, ("cuda:0", 2)),
        (FOUR, {"device": "cpu"}, ("cpu", 18)),
        (FOUR, {"device": "cuda", "jobs": 3}, ("cuda:0", 3)),
        (FOUR[3:], {}, ("cpu", 2)),
        (FOUR[:1], {"jobs": 4}, ("cpu", 4)),
        (FOUR[:1], {"jobs": 4, "device": "cuda"}, ("cuda:0", 4)),
        (FOUR[:1], {}, "the cluster has no CPU; start nodes, or say with --jobs to how many cells it may grow"),
        (FOUR[3:], {"device": "cuda"}, "the cluster has no GPU; start nodes"),
        (FOUR, {"device": "cuda:2"}, "--device cuda:2: which GPU a cell gets Ray decides; say auto, cpu or cuda"),
    ],
)
def test_places_are_those_of_the_nodes(
    monkeypatch: pytest.MonkeyPatch, alive: list[Any], options: dict[str, Any], place: Any
) -> None:
    played = SimpleNamespace(nodes=lambda: [*alive, node("dead", CPU=64.0) | {"Alive": False}])
    checked: list[str] = []
    monkeypatch.setattr(cluster, "connect", lambda _: played)
    monkeypatch.setattr(cluster, "check_nodes", lambda _, nodes: checked.extend(each["NodeName"] for each in nodes))
    if isinstance(place, str):
        with pytest.raises(UserError, match=f"^{place}"):
            RayCluster.place(Options(**options))
    else:
        assert RayCluster.place(Options(**options)) == place
    assert checked == [each["NodeName"] for each in alive if each["Resources"]]


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({}, None),
        ({"code_sha256": "0"}, "the node b computes with something else: its code of this package is not the one here"),
        ({"versions": {"python": "2.7"}}, "the node b computes with something else: python 2.7 there, "),
        (RayError("it has no module of this name"), "the node b cannot run this package: .*no module of this name"),
    ],
)
def test_nodes_are_compared_with_this_process(theirs: Any, message: str | None) -> None:
    ours = provenance.collect()
    facts: dict[str, Any] = {"a": ours, "b": theirs if isinstance(theirs, RayError) else ours | theirs}

    def get(name: str, timeout: float) -> Any:
        found = facts[name]
        if isinstance(found, RayError):
            raise found
        return found

    ask = SimpleNamespace(options=lambda scheduling_strategy, **_: SimpleNamespace(remote=lambda: scheduling_strategy))
    pinned = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
    util = SimpleNamespace(scheduling_strategies=pinned)
    played = SimpleNamespace(remote=lambda _: ask, get=get, util=util, exceptions=Played.exceptions)
    nodes = [node(name, CPU=1.0) for name in facts]
    if message is None:
        check_nodes(played, nodes)
    else:
        with pytest.raises(UserError, match=message):
            check_nodes(played, nodes)
