"""`merge`: parts make the whole, and what does not fit together is refused before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from robustbench_cmic.plan.select import Shard
from robustbench_cmic.records.files import write_json
from robustbench_cmic.records.locks import exclusive
from robustbench_cmic.records.store import Store
from robustbench_cmic.run.executors import EXECUTORS
from robustbench_cmic.run.merge import merge_results
from robustbench_cmic.run.options import Options
from robustbench_cmic.run.runner import run_suite
from robustbench_cmic.suite import find_suite, load_suite
from robustbench_cmic.suite.messages import UserError
from tests.conftest import contents
from tests.in_process import command_here


def results_of(folder: Path, executor: str, shard: Shard | None = None) -> Path:
    """The results folder of a run of `smoke`, or of a part of it."""
    suite = load_suite(find_suite("smoke"))
    options = Options(results=folder, shard=shard, executor=executor, file=suite.path)
    with (folder.parent / "out").open("a") as out:
        assert run_suite(suite.suite, options, Console(file=out)) in (0, 1)
    return folder


def test_two_shards_merged_are_the_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXECUTORS, "here", "tests.in_process:InProcess")
    whole = results_of(tmp_path / "whole", "here")
    parts = [results_of(tmp_path / f"part-{number}", "here", Shard(number, 2)) for number in (1, 2)]
    assert [len(contents(part / "smoke")) for part in parts] == [6, 6], "a plan and half of the cells"
    done = command_here("merge", *parts, "--into", "all", cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("smoke: 10 cells from 2 folders: 10 done\n", "", 0)
    assert contents(tmp_path / "all" / "smoke") == contents(whole / "smoke")
    for one, other in ((whole, tmp_path / "all"), (tmp_path / "whole.work", tmp_path / "all.work")):
        for kind in ("pictures/*.json", "*.safetensors"):
            files = {file.name: file.read_bytes() for file in (one / "smoke").glob(kind)}
            assert files == {file.name: file.read_bytes() for file in (other / "smoke").glob(kind)}
    assert command_here("run", "smoke", "--results", "all", cwd=tmp_path).stdout.startswith("all 10 cells are done")


@pytest.fixture
def halves(finished: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two parts of a finished run, which have the training of `ce` in common."""
    folders = []
    for name, others in (("a", "cmic.*"), ("b", "ce.s0.[!t]*")):
        for ending in ("results", "results.work"):
            shutil.copytree(finished / ending, tmp_path / ending.replace("results", name))
            for file in (tmp_path / ending.replace("results", name) / "tiny").rglob(others):
                file.unlink()
        folders.append(tmp_path / name)
    return folders[0], folders[1]


def altered(folder: Path, pattern: str, **changes: Any) -> None:
    """Write other values into files of a results folder, with checksums that fit."""
    for file in (folder / "tiny").glob(pattern):
        payload = json.loads(file.read_text())
        write_json(file, {key: value for key, value in payload.items() if key != "sha256"} | changes)


def test_shared_cells_are_taken_once_and_failed_ones_give_way(finished: Path, halves: tuple[Path, Path]) -> None:
    first, second = halves
    ((sentence, done),) = merge_results([first / "tiny", second], first.parent / "all")
    assert (sentence, done) == ("tiny: 8 cells from 2 folders: 8 done; 1 in several of them, and equal", True)
    assert contents(first.parent / "all" / "tiny") == contents(finished / "results" / "tiny")
    altered(first, "ce.s0.train.*", status="failed", reason="its process died")
    ((sentence, done),) = merge_results([first, second], first.parent / "again")
    assert (sentence, done) == ("tiny: 8 cells from 2 folders: 8 done", True)


def test_what_is_missing_is_told_and_can_be_done(halves: tuple[Path, Path]) -> None:
    first, _ = halves
    for file in (first / "tiny").glob("ce.s0.PGD.*"):
        file.unlink()
    done = command_here("merge", first, "--into", "all", cwd=first.parent)
    assert (done.stdout, done.returncode) == ("tiny: 8 cells from 1 folder: 3 done, 5 missing\n", 1)
    assert (first.parent / "all" / "tiny" / "results.csv").is_file()


def test_weights_come_along_only_where_they_are_the_recorded_ones(halves: tuple[Path, Path]) -> None:
    first, second = halves
    (weights,) = (first.parent / "a.work" / "tiny").glob("ce.s0.train.*.safetensors")
    (other,) = (second.parent / "b.work" / "tiny").glob("ce.s0.train.*.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(b"damaged")
    merge_results([first, second], first.parent / "all")
    merged = Store(first.parent / "all" / "tiny").work
    assert (merged / weights.name).read_bytes() == content == other.read_bytes()
    other.unlink()
    merge_results([first, second], first.parent / "again")
    assert not (Store(first.parent / "again" / "tiny").work / weights.name).exists()


CLASH = "contradict each other (parameters differs; made on"


@pytest.mark.parametrize(
    ("pattern", "changes", "message"),
    [
        ("ce.s0.train.*", {"parameters": 1}, CLASH),
        ("*.s0.*", {"dataset_sha256": "0" * 64}, "the data set's fingerprint differs"),
        ("plan.json", {"description": "another"}, "hold results of different plans (description: "),
        ("cmic.s0.PGD.*", {"schema": "robustbench_cmic/record/9"}, "newer than this one"),
        ("cmic.s0.PGD.*", {"n": 3}, "the outcomes are not 3 packed bits; run that part again"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_nothing_written(
    halves: tuple[Path, Path], pattern: str, changes: dict[str, Any], message: str
) -> None:
    first, second = halves
    altered(second, pattern, **changes)
    done = command_here("merge", first, second, "--into", "all", cwd=first.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (first.parent / "all").exists()


def test_other_weights_than_the_attacked_ones_are_refused(halves: tuple[Path, Path]) -> None:
    """The training of one part failed, and that of the other gave other weights."""
    first, second = halves
    altered(first, "ce.s0.train.*", status="failed", reason="its process died")
    altered(second, "ce.s0.train.*", checkpoint_sha256="0" * 64)
    with pytest.raises(UserError, match=r"made with another checkpoint .*: leave the folder that it is from out"):
        merge_results([first, second], first.parent / "all")
    assert list((first.parent / "all").iterdir()) == [], "nothing half written is left"


def test_folders_that_cannot_be_merged(halves: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = halves
    with pytest.raises(UserError, match="holds no results of any suite"):
        merge_results([first, tmp_path / "none"], tmp_path / "all")
    with pytest.raises(UserError, match="is there already"):
        merge_results([first], second)
    with exclusive(second / "tiny"), pytest.raises(UserError, match="a run is using"):
        merge_results([first, second], tmp_path / "all")
    with pytest.raises(UserError, match=r"all/tiny/tiny lies in .*all/tiny: results and work folders go beside"):
        merge_results([first, second], tmp_path / "all", tmp_path / "all" / "tiny")
    assert not (tmp_path / "all").exists()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "tiny").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="linked/tiny is there already"):
        merge_results([first, second], tmp_path / "linked")
    assert not (tmp_path / "linked.work").exists()


def test_a_work_folder_may_be_the_results_folder(halves: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = halves
    merge_results([first, second], tmp_path / "apart")
    merge_results([first, second], tmp_path / "all", tmp_path / "all")
    merged = {file.name for file in (tmp_path / "all" / "tiny").iterdir()}
    apart = [tmp_path / place / "tiny" for place in ("apart", "apart.work")]
    assert merged == {file.name for folder in apart for file in folder.iterdir()}


def test_a_folder_that_is_named_twice_counts_once(halves: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = halves
    ((sentence, _),) = merge_results([first, second, first / "tiny", first], tmp_path / "all")
    assert sentence == "tiny: 8 cells from 2 folders: 8 done; 1 in several of them, and equal"


def test_what_a_killed_merge_has_left_is_removed_by_the_next(halves: tuple[Path, Path], tmp_path: Path) -> None:
    left, going_on, new = (tmp_path / "all" / f".merge.{name}.tmp" for name in ("left", "going-on", "new"))
    for folder in (left, going_on, new):
        (folder / "tiny").mkdir(parents=True)
    for folder in (left, going_on):
        os.utime(folder, (0, 0))
    with exclusive(going_on):
        os.utime(going_on, (0, 0))
        merge_results(halves, tmp_path / "all")
    assert [folder.exists() for folder in (left, going_on, new)] == [False, True, True]
