"""An executor without a shared disk: what it takes to write one, and that its records are those of local processes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import file_sha256
from robustbench_cmic.records.schema import Status
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.executors import EXECUTORS, Queue, death
from robustbench_cmic.run.job import run_cell
from robustbench_cmic.run.options import Options, Settings
from robustbench_cmic.run.runner import run_suite
from robustbench_cmic.run.watch.event_log import read_latest_run
from robustbench_cmic.run.watch.events import CellEnded, Emit, Event
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.toy import toy
from tests.conftest import TINY_SUITE, contents
from tests.in_process import settings_for


class Elsewhere:
    """Runs every cell in a fresh folder, as if it were another machine's."""

    def __init__(self, settings: Settings, jobs: int) -> None:
        self.settings = settings
        self.folder = settings.store.work.parent / "elsewhere"

    @staticmethod
    def place(options: Options) -> tuple[str, int]:
        return "cpu", 1

    def run(self, cells: Sequence[Cell], emit: Emit) -> dict[str, Status]:
        queue = Queue(cells, emit)
        while (cell := queue.take()) is not None:
            queue.end(cell, self.run_one(cell, emit))
        return queue.statuses

    def run_one(self, cell: Cell, emit: Emit) -> CellEnded:
        here, there = self.settings.store, Store(self.folder / cell.id / "results", self.folder / cell.id / "work")
        for folder in (there.results, there.work):
            folder.mkdir(parents=True)
        copy(here.inputs(cell), there.inputs(cell))
        events: list[Event] = []
        run_cell(cell, replace(self.settings, store=there), events.append)
        for event in events[:-1]:
            emit(event)
        left = [path.read_bytes() if path.exists() else None for path in there.outputs(cell)]
        here.write_outputs(cell, left)
        end = events[-1]
        return end if isinstance(end, CellEnded) else death(cell, "its machine is gone", self.settings)


def copy(sources: list[Path], targets: list[Path]) -> None:
    """What is not there is not brought."""
    for source, target in zip(sources, targets, strict=True):
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)


def of_any_code(store: Store) -> dict[str, Any]:
    """All records, whether the code that made them lay in a checkout or was installed, which knows no commit."""
    records = contents(store.results)
    for record in records.values():
        record["provenance"] = record.get("provenance", {}) | {"commit": None, "dirty": None}
    return records


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(EXECUTORS, "elsewhere", "tests.run.executors.test_elsewhere:Elsewhere")
    return "elsewhere"


def test_records_pictures_and_weights_come_back_as_from_local_processes(
    finished: Path, tmp_path: Path, elsewhere: str
) -> None:
    file = Path(shutil.copy(finished / "tiny.yaml", tmp_path))
    suite = load_suite(file).suite
    options = Options(results=tmp_path / "results", executor=elsewhere, file=file)
    with (tmp_path / "out").open("w") as out:
        assert run_suite(suite, options, Console(file=out)) == 0
    ours, theirs = (Store.of_suite("tiny", folder / "results", None) for folder in (tmp_path, finished))
    assert of_any_code(ours) == of_any_code(theirs)
    for store in (ours, theirs):
        assert len(list(store.pictures_folder.iterdir())) == 4
    cells = make_plan(suite).cells
    for cell in cells:
        for one, other in zip(ours.outputs(cell), theirs.outputs(cell), strict=True):
            assert one.exists() == other.exists()
            assert one == ours.record(cell.id) or not one.exists() or one.read_bytes() == other.read_bytes()
    ends = {event.cell: event for event in read_latest_run(ours.events) if isinstance(event, CellEnded)}
    assert {cell: end.status for cell, end in ends.items()} == dict.fromkeys((cell.id for cell in cells), "ok")
    assert (tmp_path / "out").read_text().count("done in ") == len(cells)


def test_weights_of_sources_and_images_of_smaller_balls_are_brought_along(tmp_path: Path) -> None:
    attacks = "  - {name: PGD, eps: [0.05, 0.1], steps: 2, ascending: true}\n  - {name: Transfer, eps: 0.1, steps: 2}\n"
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY_SUITE[: TINY_SUITE.index("  - {name: FGSM")] + attacks + "audit: off\n")
    store = Store(tmp_path / "results", tmp_path / "work")
    cells = make_plan(toy(load_suite(file).suite)).cells
    statuses = Elsewhere(settings_for(tmp_path, store=store), 1).run(cells, lambda _: None)
    assert statuses == dict.fromkeys((cell.id for cell in cells), "ok")
    records = {cell.id: read_record(store.record(cell.id)) for cell in cells}
    chained = [cell for cell in cells if cell.source or cell.after]
    assert {cell.attack for cell in chained} == {"PGD", "Transfer:ce", "Transfer:cmic"}
    for cell in chained:
        (other, sha256), *_ = records[cell.id].inputs.items()
        (source,) = (cell for cell in cells if cell.id == other)
        assert file_sha256(store.product(source)) == sha256


def test_a_failure_comes_back_and_takes_old_pictures_with_it(copied: Path, elsewhere: str) -> None:
    """The weights that an attack needs are gone, elsewhere as here."""
    suite = load_suite(copied / "tiny.yaml").suite
    store = Store.of_suite("tiny", copied / "results", None)
    cells = make_plan(suite).cells
    attack = next(cell for cell in cells if cell.attack == "PGD")
    assert store.pictures(attack.id).exists()
    store.weights(attack.needs or "").unlink()
    settings = settings_for(copied, store=store)
    assert Elsewhere(settings, 1).run([attack], lambda _: None) == {attack.id: "failed"}
    assert read_record(store.record(attack.id)).status == "failed"
    assert not store.pictures(attack.id).exists()


def test_inputs_and_outputs_are_all_that_a_cell_reads_and_leaves(finished: Path) -> None:
    store = Store.of_suite("tiny", finished / "results", None)
    plan = make_plan(load_suite(finished / "tiny.yaml").suite)
    left = {path for cell in plan.cells for path in store.outputs(cell) if path.exists()}
    others = {
        store.plan,
        store.events,
        store.worker_log,
        store.results / "results.csv",
        store.results / "models.csv",
        store.results / "leaderboard.md",
    }
    there = {path for folder in (store.results, store.work) for path in folder.rglob("*") if path.is_file()}
    assert there - left - others == {store.results / ".lock", store.work / ".lock"}
    attack = next(cell for cell in plan.cells if cell.attack == "PGD")
    training = attack.needs or ""
    chained = attack.model_copy(update={"source": "b", "after": "c"})
    assert store.inputs(chained) == [
        store.record(training), store.weights(training), store.record("b"), store.weights("b"), store.record("c"),
        store.images("c"), store.resume_state(attack.id),
    ]  # fmt: skip
