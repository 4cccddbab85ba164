"""The executor for Ray, on clusters of three nodes that share no disk: equal records, and what dies meanwhile."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.watch.event_log import read_latest_run
from robustbench_cmic.run.watch.events import CellProgress, CellPutBack, CellStarted, EpochDone, Event
from tests.conftest import ROOT, command, contents
from tests.in_process import command_here
from tests.run.executors.cluster import Cluster

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: it has no wheel for every Python")

NETWORK = """\
import math
import time

from torch import nn

import helper


class Slow(nn.Flatten):
    def forward(self, images):
        time.sleep(helper.SECONDS)
        return super().forward(images)


def build(shape, classes):
    return nn.Sequential(Slow(), nn.Linear(math.prod(shape), classes))
"""
HELPER = "import os\nSECONDS = float(os.environ.get('SLOW', 0))\n"
SUITE = """\
suite: faults
dataset: {name: digits}
training: {epochs: 15, batch_size: 128, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: first, architecture: 'own:build', objective: {name: ce}}
  - id: then
    architecture: 'own:build'
    objective: {name: cmic}
    initial_weights: {model: first}
    training: {epochs: 1, batch_size: 128, optimizer: {name: sgd, lr: 0.1}}
evaluation: {limit: 100}
attacks: [{name: PGD, eps: [0.01, 0.02], steps: 20, ascending: true}]
audit: off
"""
OFTEN = (
    "import sys; import robustbench_cmic.run.executors.node as node; node.STATE_EVERY = 0.5; "
    "from robustbench_cmic.__main__ import main; main()"
)
"""The command line, with nodes that send the state of a training twice a second."""

FILE = "suite/faults.yaml"


def write_suite(folder: Path) -> Path:
    """The suite and its code, in a folder that is on nobody's path; returns the folder above."""
    (folder / "suite").mkdir()
    for name, text in (("faults.yaml", SUITE), ("own.py", NETWORK), ("helper.py", HELPER)):
        (folder / "suite" / name).write_text(text)
    return folder


def outcomes(folder: Path) -> dict[str, Any]:
    """All records, but for what differs between equal runs and where they were made."""
    records = contents(folder)
    for record in records.values():
        record.pop("provenance", None)
    return records


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster("one", "two", SLOW="0.02") as started:
        yield started


def is_attacking(event: Event) -> bool:
    """A part of the examples is attacked."""
    return isinstance(event, CellProgress) and ".PGD." in event.cell and 0 < event.done < event.total


class Driver:
    """A run on a cluster, in a process of its own."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.store = Store(folder / "results" / "faults")
        words = ["run", FILE, "--executor", "ray", "--address", cluster.address, "--batch-size", "25"]
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
        self.told = folder / "out"
        with self.told.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", OFTEN, *words], cwd=folder, env=environment, stdout=out, stderr=out
            )

    def node_of(self, cell: str) -> str:
        """Where it has begun last."""
        told = read_latest_run(self.store.events)
        return [event.node for event in told if isinstance(event, CellStarted) and event.cell == cell][-1]

    def wait_for(self, what: Callable[[Event], bool], seconds: float = 300) -> Any:
        """The first event of a kind, once it is heard."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for event in read_latest_run(self.store.events):
                if what(event):
                    return event
            assert self.process.poll() is None, self.told.read_text()
            time.sleep(0.1)
        raise AssertionError(f"nothing of the kind in {seconds} s: {self.told.read_text()}")

    def ends(self, code: int) -> None:
        """Until it has ended, with this exit code."""
        assert self.process.wait(600) == code, self.told.read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_suite(tmp_path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run on this machine gives."""
    own = write_suite(tmp_path_factory.mktemp("local"))
    done = subprocess.run(command("run", FILE, "--jobs", 1), cwd=own, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return outcomes(own / "results" / "faults")


@needs_ray
def test_records_of_a_cluster_are_those_of_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    on_cluster = ["--jobs", "2", "--executor", "ray", "--address", cluster.address]
    for results, words in (("here", ["--jobs", "1"]), ("there", on_cluster)):
        done = subprocess.run(
            command("run", ROOT / "suites" / "smoke.yaml", "--results", results, *words),
            cwd=tmp_path, env=os.environ | {"RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    here, there = (Store(tmp_path / name / "smoke") for name in ("here", "there"))
    assert outcomes(there.results) == outcomes(here.results)
    for pattern in ("*.safetensors", "pictures/*.json"):
        files = {file.name: file.read_bytes() for file in _all(there, pattern)}
        assert files == {file.name: file.read_bytes() for file in _all(here, pattern)}
        assert files
    origins = [read_record(file).provenance for file in there.results.glob("*.s0.*.json")]
    assert {origin["node"] for origin in origins} == {"one", "two"}
    assert {origin["executor"] for origin in origins} == {"ray"}
    plain = read_record(next(here.results.glob("*.s0.*.json"))).provenance
    keys = plain.keys() - {"node", "executor"}
    assert all({key: origin[key] for key in keys} == plain for origin in origins)
    assert "cnn-ce seed 0: train (one): done in" in done.stdout or "cnn-ce seed 0: train (two): done in" in done.stdout


def _all(store: Store, pattern: str) -> list[Path]:
    return [*store.results.glob(pattern), *store.work.glob(pattern)]


@needs_ray
def test_nodes_that_die_cost_their_cells_time_only(cluster: Cluster, folder: Path, expected: dict[str, Any]) -> None:
    cluster.start("three")
    driver = Driver(folder, cluster)
    training = driver.wait_for(lambda event: isinstance(event, EpochDone)).cell
    driver.wait_for(lambda _: driver.store.resume_state(training).exists())
    first = driver.node_of(training)
    cluster.kill(first)
    second = driver.node_of(driver.wait_for(is_attacking).cell)
    assert second != first
    cluster.kill(second)
    driver.ends(0)
    assert outcomes(driver.store.results) == expected
    taken_up = read_record(driver.store.record(training)).timing.resumed_after_epoch
    assert taken_up is not None
    assert taken_up > 0
    told = [event.reason for event in read_latest_run(driver.store.events) if isinstance(event, CellPutBack)]
    for name in (first, second):
        assert f"the node {name} is gone: begun anew (1 of 3)" in told


@needs_ray
def test_a_driver_that_is_killed_is_gone_on_from(cluster: Cluster, folder: Path, expected: dict[str, Any]) -> None:
    driver = Driver(folder, cluster)
    driver.wait_for(is_attacking)
    driver.process.send_signal(signal.SIGKILL)
    driver.process.wait()
    before = {file.name: file.read_bytes() for file in driver.store.results.glob("*.s0.*.json")}
    assert 0 < len(before) < 8
    other = shutil.copytree(folder, folder.parent / f"{folder.name}-local")
    done = subprocess.run(command("run", FILE, "--jobs", 1), cwd=other, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    Driver(folder, cluster).ends(0)
    for each in (folder, other):
        results = each / "results" / "faults"
        assert outcomes(results) == expected
        assert {name: (results / name).read_bytes() for name in before} == before, "nothing is done twice"


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:nothing", "127.0.0.1:99999"])
def test_what_is_no_cluster_is_refused_at_once(tmp_path: Path, address: str) -> None:
    done = command_here("run", "smoke", "--executor", "ray", "--address", address, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"--address {address}: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_ray_a_sentence_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = command_here("run", "smoke", "--executor", "ray", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == '--executor ray needs Ray: pip install "robustbench_cmic[ray]"\n'


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--executor", "dask"], "--executor: should be local or ray, not 'dask'"),
        (["--address", "auto"], "--address and --gpus-per-cell are of a cluster: say --executor ray, too"),
        (["--gpus-per-cell", "0.5"], "--address and --gpus-per-cell are of a cluster: say --executor ray, too"),
        (["--executor", "ray", "--gpus-per-cell", "1.5"], "--gpus-per-cell: should be a part of a GPU or a whole"),
        (["--shard", "3/2"], "--shard: should be a part of the trainings such as 2/4, from 1/4 to 4/4, not '3/2'"),
        (["--shard", "0/2"], "--shard: should be"),
    ],
)
def test_options_that_mean_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    done = command_here("run", "smoke", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
