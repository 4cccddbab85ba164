"""The executor for many machines: a cluster of Ray, whose nodes need no common disk.

Only this file and `connection` know Ray, which places, starts and watches the `Node`s and carries objects; this process
alone writes results and work folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import robustbench_cmic.run.executors.node as nodes
from robustbench_cmic.data import load_data
from robustbench_cmic.data.packed import pack_data, packed_file
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records import provenance
from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.records.schema import Status
from robustbench_cmic.run.executors import Queue, death
from robustbench_cmic.run.executors.connection import check_nodes, check_same, connect, import_ray, node_name
from robustbench_cmic.run.options import Options, Settings
from robustbench_cmic.run.watch.events import CellEnded, Emit
from robustbench_cmic.suite.custom import declared_code
from robustbench_cmic.suite.data import AnyDataset, dataset_of
from robustbench_cmic.suite.imports import module_files
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.signatures import one_line

RETRIES = 3
"""How often a cell is begun anew whose node has died."""
_PATIENCE = 2.0  # seconds that a node waits for something to tell


class RemoteNode(nodes.Node):
    """A `Node` as an actor of Ray."""

    def __init__(self, settings: Settings, weights: Mapping[str, Any], code: Mapping[str, bytes], every: float) -> None:
        import ray

        # Processes that are started here would import Ray's own main module, as if it were a script of ours.
        vars(sys.modules["__main__"])["__file__"] = None
        own = ray.get_runtime_context().get_node_id()
        name = next(node_name(node) for node in ray.nodes() if node["NodeID"] == own)
        super().__init__(settings, name, "ray", weights, code, every, ray.get)

    def name(self) -> str:
        """Of the machine; answered as soon as this is ready.

        Raises:
            UserError: it computes with something else; it may have come later than the others.
        """
        ours = self.settings.provenance
        check_same(ours["node"], ours, provenance.collect())
        return str(ours["node"])


@dataclass
class _Slot:
    """A place for one cell at a time.

    Attributes:
        actor: a `RemoteNode`.
        answer: refers to what it is to tell next; None while it has nothing to do.
        node: the name of the machine, once it is ready.
    """

    actor: Any
    answer: Any
    node: str = ""
    cell: Cell | None = None


class RayCluster:
    """Runs cells on the nodes of a cluster, in `jobs` places at most."""

    def __init__(self, settings: Settings, jobs: int) -> None:
        self._ray = import_ray()
        self._settings = settings
        self._jobs = jobs
        self._slots: list[_Slot] = []
        self._deaths: Counter[str] = Counter()  # of nodes, by cell
        self._failed_starts = 0
        self._actor = self._ray.remote(RemoteNode)
        self._objects: dict[tuple[Path, int, int], nodes.Parcel] = {}  # by path, time and number of the file
        self._data: dict[Path, tuple[AnyDataset, str, Any]] = {}

    @staticmethod
    def place(options: Options) -> tuple[str, int]:
        """See `Executor`. Connects, and checks that every node has the code and the libraries of this process."""
        ray = connect(options)
        alive = [node for node in ray.nodes() if node["Alive"]]
        check_nodes(ray, [node for node in alive if node["Resources"].keys() & {"CPU", "GPU"}])
        cards = [node["Resources"].get("GPU", 0.0) for node in alive]
        if options.device not in ("auto", "cpu", "cuda", "cuda:0"):
            raise UserError(f"--device {options.device}: which GPU a cell gets Ray decides; say auto, cpu or cuda")
        on_gpu = options.device != "cpu" and (options.device != "auto" or sum(cards) > 0)
        free = [own / options.gpus_per_cell for own in cards]
        places = sum(map(int, free if on_gpu else [node["Resources"].get("CPU", 0.0) for node in alive]))
        if options.jobs is None and places == 0:
            what = "GPU" if on_gpu else "CPU"
            raise UserError(f"the cluster has no {what}; start nodes, or say with --jobs to how many cells it may grow")
        return "cuda:0" if on_gpu else "cpu", options.jobs or places

    def run(self, cells: Sequence[Cell], emit: Emit) -> dict[str, Status]:
        """See `Executor`."""
        queue = Queue(cells, emit, self._settings.store)
        settings = self._settings
        names = sorted({name for cell in cells for name in declared_code(cell.declared)})
        code = {path: source for name in names for path, source in module_files(name, settings.code or ()).items()}
        weights = {sha256: self._ray.put(file.read_bytes()) for sha256, file in settings.weights.items()}
        try:
            while not queue.is_done:
                while len(self._slots) < min(self._jobs, len(queue.unfinished)):
                    self._open(weights, code)
                self._dispatch(queue)
                waiting = {slot.answer: slot for slot in self._slots if slot.answer is not None}
                for answer in self._ray.wait(list(waiting), timeout=1.0)[0]:
                    self._take(waiting[answer], queue, emit)
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave work behind
            self._close()
            signal.signal(signal.SIGINT, before)
        return queue.statuses

    def _open(self, weights: Mapping[str, Any], code: Mapping[str, bytes]) -> None:
        """Ask Ray for one place more; where there is none, it waits until there is."""
        gpus = self._settings.gpus if self._settings.device.startswith("cuda") else 0
        actor = self._actor.options(num_cpus=1, num_gpus=gpus, max_restarts=0)
        handle = actor.remote(self._settings, weights, code, nodes.STATE_EVERY)
        self._slots.append(_Slot(handle, handle.name.remote()))

    def _dispatch(self, queue: Queue) -> None:
        """Give cells to idle places, as long as there are both."""
        for slot in list(self._slots):
            if slot.answer is None and (cell := queue.take(slot.node)) is not None:
                if queue.runs_alone:  # what the workers of idle ones keep of a card's memory is for this cell
                    self._leave([other for other in self._slots if other.answer is None and other is not slot])
                slot.cell = cell
                slot.answer = slot.actor.carry_out.remote(self._task(cell), _PATIENCE)

    def _task(self, cell: Cell) -> nodes.Task:
        settings = self._settings
        declared = cell.network_declared["dataset"]
        dataset = dataset_of(declared).beside(settings.suite_folder).of_seed(cell.seed)
        key = packed_file(Path(), dataset)
        if key not in self._data:
            data = load_data(dataset, settings.data, settings.memory)
            packed = pack_data(data)
            self._data[key] = dataset, data.sha256, None if packed is None else self._ray.put(packed)
        return nodes.Task(cell, [self._parcel(path) for path in settings.store.inputs(cell)], *self._data[key])

    def _parcel(self, path: Path) -> nodes.Parcel | None:
        """A file as an object of the cluster; each is put there once."""
        if not path.is_file():
            return None
        facts = path.stat()
        key = path, facts.st_mtime_ns, facts.st_ino
        if key not in self._objects:
            content = path.read_bytes()
            self._objects[key] = nodes.Parcel(hashlib.sha256(content).hexdigest(), self._ray.put(content))
        return self._objects[key]

    def _take(self, slot: _Slot, queue: Queue, emit: Emit) -> None:
        """Take the answer of a place."""
        try:
            answer = self._ray.get(slot.answer)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(*error.cause.args) from None
            self._drop(slot)
            if slot.cell is None:
                raise
            queue.end(slot.cell, death(slot.cell, one_line(error.cause), self._settings))
        except self._ray.exceptions.RayError as error:
            self._lose(slot, queue, one_line(error))
        else:
            if isinstance(answer, nodes.Heard):
                self._hear(slot, answer, queue, emit)
            else:
                slot.node, slot.answer, self._failed_starts = answer, None, 0

    def _hear(self, slot: _Slot, heard: nodes.Heard, queue: Queue, emit: Emit) -> None:
        """Hand on events and write what came with them."""
        cell, store = slot.cell, self._settings.store
        assert cell is not None
        if heard.state is not None:
            write_atomically(store.resume_state(cell.id), heard.state)
        if heard.log:
            with store.worker_log.open("ab") as log:
                log.write(heard.log)
        if heard.outputs is None:
            slot.answer = slot.actor.hear.remote(_PATIENCE)
            for event in heard.events:
                emit(event)
            return
        store.write_outputs(cell, heard.outputs)
        slot.cell = slot.answer = None
        for event in heard.events:
            queue.end(cell, event) if isinstance(event, CellEnded) else emit(event)
        needed = {path for other in queue.unfinished for path in store.inputs(other)}
        self._objects = {key: parcel for key, parcel in self._objects.items() if key[0] in needed}

    def _lose(self, slot: _Slot, queue: Queue, why: str) -> None:
        """A place is gone: its cell is begun anew elsewhere, a training from the state that it has sent last."""
        idle = [other for other in self._slots if other.answer is None and other.node == slot.node]
        for each in (slot, *idle):  # those have hardly outlived it, and a cell would find out only there
            self._drop(each)
        if (cell := slot.cell) is None:
            self._failed_starts += not slot.node
            if self._failed_starts > RETRIES:
                raise UserError(f"no node of the cluster can begin to work: {why}")
            return
        self._deaths[cell.id] += 1
        if self._deaths[cell.id] > RETRIES:
            queue.end(cell, death(cell, f"its node died {RETRIES + 1} times, last {slot.node}", self._settings))
        else:
            queue.put_back(cell, f"the node {slot.node} is gone: begun anew ({self._deaths[cell.id]} of {RETRIES})")

    def _drop(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        self._ray.kill(slot.actor)

    def _leave(self, slots: Sequence[_Slot]) -> None:
        """Let nodes end their workers and clean up, and then end them, whatever they do."""
        leaving = [slot.actor.close.remote() for slot in slots if slot.node]
        if leaving:
            self._ray.wait(leaving, num_returns=len(leaving), timeout=3 * _PATIENCE)
        for slot in slots:
            self._drop(slot)

    def _close(self) -> None:
        """End all nodes."""
        with contextlib.suppress(self._ray.exceptions.RayError, ConnectionError):  # the cluster itself may be gone
            self._leave(list(self._slots))
