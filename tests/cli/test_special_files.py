"""Anything but a regular file in place of one: it is left out or refused with a sentence, and nothing waits for it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from robustbench_cmic.models.weights import CorruptCheckpointError, load_weights
from robustbench_cmic.suite.files import open_regular, read_regular
from robustbench_cmic.training.checkpoint import load_state
from tests.conftest import TINY_SUITE, Cli, contents
from tests.in_process import command_here


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    """A FIFO that is opened to be read blocks for ever: end it with a failure."""

    def give_up(*_: object) -> None:
        raise AssertionError("it waits for a FIFO")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def a_socket(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # the path of a socket has 108 characters at most
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(place.name)
    finally:
        os.chdir(here)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "FIFO": (os.mkfifo, "it is a FIFO, no regular file"),
    "device": (lambda place: place.symlink_to("/dev/null"), "it is a device, no regular file"),
    "socket": (a_socket, "it is a socket, no regular file"),
    "dangling link": (lambda place: place.symlink_to("nowhere"), "it is a link to nothing"),
    "folder": (lambda place: place.mkdir(), "Is a directory"),
}
EACH = pytest.mark.parametrize(("make", "said"), KINDS.values(), ids=KINDS)


@EACH
def test_only_regular_files_are_opened(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    place = tmp_path / "x"
    with pytest.raises(FileNotFoundError):
        open_regular(place)
    make(place)
    with pytest.raises(OSError, match=said):
        open_regular(place)
    for reader, sentence in (
        (lambda: load_weights(place, ""), f"cannot read {place}: {said}"),
        (lambda: load_state(place, "c"), "is not whole"),
    ):
        if said != "it is a link to nothing" or sentence != "is not whole":
            with pytest.raises(CorruptCheckpointError, match=sentence):
                reader()


def test_regular_files_are_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00y")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link") == b"\x00y"


@EACH
def test_in_place_of_a_record(copied: Path, make: Callable[[Path], object], said: str) -> None:
    file = next((copied / "results" / "tiny").glob("ce.s0.PGD*"))
    file.unlink()
    make(file)
    why = f"its record is corrupt: cannot be read: {said}"
    for words in (["report", "tiny"], ["audit", "results/tiny"], ["compare", "results/tiny", "results/tiny"]):
        done = command_here(*words, cwd=copied)
        assert done.returncode == 1, done.stderr
        assert f"{file.name}: left out: {why}" in done.stderr
    assert f"to run again: {why}" in command_here("plan", "tiny.yaml", cwd=copied).stdout
    assert command_here("status", "tiny", cwd=copied).returncode == 0


def test_a_run_sets_it_aside_and_does_the_cell_again(finished: Path, copied: Path, cli_here: Cli) -> None:
    for pattern, make in (("ce.s0.PGD*", os.mkfifo), ("cmic.s0.PGD*", Path.mkdir), ("ce.s0.FGSM*", os.mkfifo)):
        file = next((copied / "results" / "tiny").glob(pattern))
        file.unlink()
        make(file)
    for pattern in ("ce.s0.train*", "cmic.s0.train*"):
        file = next((copied / "results.work" / "tiny").glob(pattern))
        file.unlink()
        os.mkfifo(file)
    os.mkfifo(next((copied / "results.work" / "tiny").glob("ce.s0.train*")).with_suffix(".state.safetensors"))
    done = cli_here("run", "tiny.yaml", cwd=copied)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("cannot be read: it is a FIFO, no regular file; set aside as") == 2
    assert contents(copied / "results" / "tiny") == contents(finished / "results" / "tiny")


@EACH
def test_in_place_of_a_plan(copied: Path, make: Callable[[Path], object], said: str) -> None:
    file = copied / "results" / "tiny" / "plan.json"
    file.unlink()
    make(file)
    done = command_here("report", "tiny", cwd=copied)
    assert done.returncode == 2, said
    assert done.stderr == "results/tiny/plan.json is damaged; `run` the suite again to renew it\n"


@EACH
def test_in_place_of_a_suite_file(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    make(tmp_path / "x.yaml")
    for words in (["run"], ["validate"], ["plan"]):
        done = command_here(*words, "x.yaml", cwd=tmp_path)
        assert done.returncode == 2
        expected = "x.yaml: it is a folder, and no" if said == "Is a directory" else f"x.yaml: no suite: {said}\n"
        assert done.stderr.startswith(expected)
        assert done.stderr.count("\n") == 1


@EACH
def test_in_place_of_given_weights(tiny: Path, make: Callable[[Path], object], said: str) -> None:
    weights = tiny.parent / "w.safetensors"
    tiny.write_text(TINY_SUITE.replace("mlp, objective: {name: ce}", "mlp, weights: w.safetensors"))
    missing = command_here("validate", "tiny.yaml", cwd=tiny.parent)
    assert (missing.returncode, missing.stderr.count("there is no file")) == (2, 1)
    make(weights)
    done = command_here("validate", "tiny.yaml", cwd=tiny.parent)
    assert done.returncode == 2
    assert done.stderr.endswith(f"tiny.yaml:5: models[0].weights: cannot read {weights}: {said}\n")


def test_every_damaged_file_of_weights_is_told(tiny: Path) -> None:
    tiny.write_text(
        TINY_SUITE.replace("mlp, objective: {name: ce}", 'mlp, weights: "w{seed}.safetensors"') + "seeds: [0, 1, 2]\n"
    )
    for seed in range(3):
        (tiny.parent / f"w{seed}.safetensors").write_text("no weights")
    done = command_here("validate", "tiny.yaml", cwd=tiny.parent)
    assert (done.returncode, done.stderr.count("\n")) == (2, 3)
    assert [f"w{seed}.safetensors" in line for seed, line in enumerate(done.stderr.splitlines())] == [True] * 3


def test_in_place_of_events_a_lock_and_pictures(copied: Path) -> None:
    folder, work = copied / "results" / "tiny", copied / "results.work" / "tiny"
    shutil.rmtree(folder / "pictures")
    (folder / "pictures").mkdir()
    attack = next(folder.glob("ce.s0.PGD*")).name
    for file in (work / "events.jsonl", work / ".lock", folder / ".lock", folder / "pictures" / attack):
        file.unlink(missing_ok=True)
        os.mkfifo(file)
    assert "no run is going on" in command_here("status", cwd=copied).stdout
    assert command_here("report", "tiny", "--format", "html", cwd=copied).returncode == 0


def test_a_schema_replaces_regular_files_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    done = command_here("schema", "--output", "x", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "--output x: is no regular file, which alone can be replaced\n")
    assert (tmp_path / "x").is_fifo()
