"""Curves for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AttackRecord, Epoch, TrainRecord
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.watch.events import EpochDone
from robustbench_cmic.run.watch.tensorboard import Curves
from robustbench_cmic.suite import load_suite
from tests.conftest import ROOT, TINY_SUITE, Cli

Points = dict[str, list[tuple[int, float]]]


def read_back(folder: Path) -> Points:
    """All scalars of a model's folder: tag -> (step, value)."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def expected(folder: Path, cells: list[Cell], model: str) -> Points:
    """The same, from the records."""
    points: Points = {}
    for cell in (cell for cell in cells if cell.model == model):
        record = read_record(Store(folder).record(cell.id))
        if isinstance(record, TrainRecord):
            for epoch in record.curve:
                numbers = {f"train/{name}": getattr(epoch, name) for name in _NUMBERS}
                for tag, value in (numbers | {f"loss/{term}": value for term, value in epoch.loss.items()}).items():
                    points.setdefault(tag, []).append((epoch.epoch, value))
        elif isinstance(record, AttackRecord):
            assert record.information is not None
            name = f"{cell.attack}/{cell.norm}/eps{cell.eps}" if cell.norm else "none"
            points[f"accuracy/{name}"] = [(2, record.accuracy or 0.0)]
            points[f"ncmi/{name}"] = [(2, record.information.ncmi or 0.0)]
    return points


_NUMBERS = ("lr", "accuracy", "cmi", "separation", "ncmi")


def assert_equal(found: Points, wanted: Points) -> None:
    assert {tag: [step for step, _ in points] for tag, points in found.items()} == {
        tag: [step for step, _ in points] for tag, points in wanted.items()
    }
    for tag, points in wanted.items():  # TensorBoard keeps float32
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in points], rel=1e-6), tag


def test_curves_are_those_of_the_records_while_running_and_after_the_fact(tiny: Path, cli_here: Cli) -> None:
    cells = make_plan(load_suite(tiny).suite).cells
    records = tiny.parent / "results" / "tiny"
    # The second time it is one attack that runs: the rest comes from records, and nothing is there twice.
    for options in (("--tensorboard", "tb"), ("--tensorboard", "tb", "--only", "FGSM", "--force")):
        done = cli_here("run", tiny, *options, cwd=tiny.parent)
        assert done.returncode == 0, done.stdout + done.stderr
        for model in ("ce", "cmic"):
            assert_equal(read_back(tiny.parent / "tb" / "tiny" / f"{model}.s0"), expected(records, cells, model))
    assert "loss/separation" in expected(records, cells, "cmic")
    done = cli_here("run", tiny, "--tensorboard", "later", cwd=tiny.parent)
    assert "nothing to run" in done.stdout
    assert_equal(read_back(tiny.parent / "later" / "tiny" / "cmic.s0"), expected(records, cells, "cmic"))
    text = EventAccumulator(str(tiny.parent / "later" / "tiny" / "ce.s0")).Reload()
    (configuration,) = text.Tensors("configuration/text_summary")
    assert '"name": "ce"' in configuration.tensor_proto.string_val[0].decode()


def epoch(number: int, value: float) -> Epoch:
    return Epoch(epoch=number, lr=value, loss={"total": value}, accuracy=value, cmi=value, separation=value, ncmi=None)


def epoch_done(cell: Cell, number: int, value: float, restored: bool) -> EpochDone:
    return EpochDone(cell=cell.id, restored=restored, numbers=epoch(number, value))


def test_a_training_taken_up_again_shows_as_one_curve(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run gets to epoch 5, the second takes up what was stored after epoch 3."""
    cell = make_plan(load_suite(tiny).suite).cells[0]
    for session, (restored, last) in enumerate(((0, 5), (3, 7))):
        monkeypatch.setattr("time.time", lambda now=1e9 + session: now)  # names of files begin with the time
        with Curves(tiny.parent / "tb", tiny.parent, [cell], print) as curves:
            for number in range(1, last + 1):
                curves(epoch_done(cell, number, (session + 1) / (2 * number), number <= restored))
    found = read_back(tiny.parent / "tb" / "ce.s0")
    assert [step for step, _ in found["loss/total"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [value for _, value in found["loss/total"]] == pytest.approx([1 / number for number in range(1, 8)])
    assert "train/ncmi" not in found


def test_curves_that_cannot_be_written_are_told_and_the_run_goes_on(tiny: Path, cli_here: Cli) -> None:
    (tiny.parent / "tb" / "tiny").mkdir(parents=True)
    (tiny.parent / "tb" / "tiny" / "ce.s0").write_text("in the way")
    done = cli_here("run", tiny, "--tensorboard", "tb", cwd=tiny.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("warning: cannot write curves to tb/tiny: ") == 1
    assert "Traceback" not in done.stdout + done.stderr


_FULL = """
import resource
import sys
from pathlib import Path
from robustbench_cmic.run.watch.tensorboard import Curves
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.suite import load_suite
from tests.run.watch.test_tensorboard import epoch_done
cell = make_plan(load_suite(Path(sys.argv[1])).suite).cells[0]
free = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, free[1]))
with Curves(Path(sys.argv[2]), Path(), [cell], print) as curves:
    for number in range(1, 2000):
        curves(epoch_done(cell, number, 0.5, False))
resource.setrlimit(resource.RLIMIT_FSIZE, free)
print("went on")
"""


def test_a_full_disk_stops_the_curves_only(tiny: Path) -> None:
    """A limit on file sizes stands for the full disk; TensorBoard's own thread runs into it."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tiny), str(tiny.parent / "tb")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said, end = done.stdout.splitlines()
    assert said.startswith("warning: cannot write curves to ")
    assert said.endswith("File too large; the run goes on")
    assert end == "went on"
    assert done.stderr == ""


def test_without_tensorboard_nothing_is_run(tiny: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    stub = tmp_path_factory.mktemp("stub")
    (stub / "tensorboard.py").write_text("raise ModuleNotFoundError(\"No module named 'tensorboard'\")\n")
    path = os.pathsep.join([str(stub), os.environ.get("PYTHONPATH", "")])
    done = cli("run", tiny, "--tensorboard", "tb", cwd=tiny.parent, prefix=("env", f"PYTHONPATH={path}"))
    assert done.returncode == 2
    assert done.stderr == (
        "--tensorboard: TensorBoard cannot be used: No module named 'tensorboard'; "
        'pip install "robustbench_cmic[tensorboard]"\n'
    )
    assert [file.name for file in tiny.parent.iterdir()] == ["tiny.yaml"]


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_run(tiny: Path, cli_here: Cli) -> None:
    done = cli_here("run", tiny, "--tensorboard", "tiny.yaml", cwd=tiny.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("--tensorboard: cannot write to tiny.yaml/tiny: ")
    assert tiny.read_text() == TINY_SUITE
    assert [file.name for file in tiny.parent.iterdir()] == ["tiny.yaml"]
