"""A user's own files: what is read is what is there, and what is not read, or is hardly meant, is said."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageOps

from robustbench_cmic.data import imagefolder, load_data
from robustbench_cmic.data.arrays import read_arrays
from robustbench_cmic.data.base import DataError
from robustbench_cmic.data.imagefolder import decode
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.data import ImageFolder
from tests.conftest import Cli, contents
from tests.in_process import command_here

SUITE = """\
suite: own
dataset: {dataset}
training: {{epochs: 8, batch_size: 16, optimizer: {{name: sgd, lr: 0.05}}}}
models: [{{id: a, architecture: small_cnn, objective: {{name: ce}}}}]
audit: off
"""
FOLDER = ImageFolder(name="imagefolder", path="set", size=16)


def suite(folder: Path, dataset: str) -> Path:
    file = folder / "own.yaml"
    file.write_text(SUITE.format(dataset=dataset))
    return file


def old(file: Path) -> None:
    """A time of change as archives have it that are packed with fixed times."""
    os.utime(file, (1e9, 1e9))


def halves(root: Path, train: int = 24, test: int = 12, suffix: str = "bmp") -> Path:
    """Two classes, dark above or dark to the left; files of one size and one time."""
    draw = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name in ("c0", "c1"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(120, 255, (16, 16, 3)).astype(np.uint8)
                dark = pixels[:8] if name == "c0" else pixels[:, :8]
                dark //= 4
                file = root / split / name / f"{index:02d}.{suffix}"
                Image.fromarray(pixels).save(file)
                old(file)
    return root


def swap_folders(root: Path) -> None:
    (root / "test" / "c0").rename(root / "test" / "t")
    (root / "test" / "c1").rename(root / "test" / "c0")
    (root / "test" / "t").rename(root / "test" / "c1")


def swap_contents(root: Path) -> None:
    for first, second in zip(*(sorted((root / "test" / name).iterdir()) for name in ("c0", "c1")), strict=True):
        ours, theirs = first.read_bytes(), second.read_bytes()
        for file, content in ((first, theirs), (second, ours)):
            file.write_bytes(content)
            old(file)


def swap_links(root: Path) -> None:
    """Class folders that are links, turned to one another."""
    for name in ("c0", "c1"):
        (root / "test" / name).rename(root / f"kept-{name}")
        (root / "test" / name).symlink_to(root / f"kept-{name}")
    load_data(FOLDER, root.parent)
    for name, other in (("c0", "c1"), ("c1", "c0")):
        (root / "test" / name).unlink()
        (root / "test" / name).symlink_to(root / f"kept-{other}")


def test_without_training_images_the_others_are_those_of_the_whole_folder(tmp_path: Path) -> None:
    halves(tmp_path / "set")
    whole, alone = (load_data(FOLDER.model_copy(update={"train": train}), tmp_path) for train in (True, False))
    assert (alone.test.images[:] == whole.test.images[:]).all()
    assert (alone.test.labels == whole.test.labels).all()
    assert alone.train is not whole.train
    assert len(alone.train.labels) == len(alone.test.labels) == 24
    assert alone.sha256 != whole.sha256
    (tmp_path / "set" / "train").rename(tmp_path / "elsewhere")
    assert load_data(FOLDER.model_copy(update={"train": False}), tmp_path).sha256 == alone.sha256
    with pytest.raises(DataError, match="there is no folder `train` in it"):
        load_data(FOLDER, tmp_path)
    assert "train" not in FOLDER.model_dump(), "cells of folders with training images are as they were"


@pytest.mark.parametrize("change", [swap_folders, swap_contents, swap_links])
@pytest.mark.parametrize("settled", [False, True])
def test_a_change_that_keeps_sizes_and_times_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, settled: bool
) -> None:
    if settled:  # else all files are too young for the file system's word to count
        monkeypatch.setattr("robustbench_cmic.data.listing._RECENT", -(10**12))
    root = halves(tmp_path / "set", 2, 3)
    before = load_data(FOLDER, tmp_path)
    images = np.array(before.test.images[:])
    assert load_data(FOLDER, tmp_path).sha256 == before.sha256
    change(root)
    after = load_data(FOLDER, tmp_path)
    assert after.sha256 != before.sha256
    assert np.array_equal(after.test.images[:3], images[3:])
    assert np.array_equal(after.test.images[3:], images[:3])
    if change is not swap_links:
        change(root)
        assert load_data(FOLDER, tmp_path).sha256 == before.sha256


def test_settled_files_are_not_hashed_again_and_touched_ones_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustbench_cmic.data.listing._RECENT", -(10**12))
    root = halves(tmp_path / "set", 2, 2)
    first = load_data(FOLDER, tmp_path)
    calls: list[str] = []

    def counted(name: str) -> None:
        original = getattr(imagefolder, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(imagefolder, name, call)

    for name in ("_hash_all", "_look_at_all"):
        counted(name)
    load_data(FOLDER, tmp_path)
    assert calls == []
    (root / "train" / "c0" / "00.bmp").touch()
    assert load_data(FOLDER, tmp_path).sha256 == first.sha256
    assert calls == ["_hash_all"]
    load_data(FOLDER, tmp_path)
    assert calls == ["_hash_all"]
    load_data(FOLDER, tmp_path, reread=True)
    assert calls == ["_hash_all", "_look_at_all"]


def test_runs_see_a_change_that_keeps_sizes_and_times(tmp_path: Path, cli_here: Cli) -> None:
    root = halves(tmp_path / "set")
    declared = suite(tmp_path, "{name: imagefolder, path: set, size: 16}")
    accuracies, hashes = [], []
    for step in range(3):
        done = cli_here("run", declared, "--data", ".", *(("--force",) if step == 2 else ()))
        assert done.returncode == 0, done.stdout + done.stderr
        records = contents(tmp_path / "results" / "own").values()
        (clean,) = [record for record in records if "outcomes" in record]
        accuracies.append(clean["accuracy"])
        hashes.append(clean["dataset_sha256"])
        if step == 0:
            swap_folders(root)
    assert accuracies == [1.0, 0.0, 0.0]
    assert hashes[0] != hashes[1] == hashes[2]


def exif(orientation: object) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(12, 31), (30, 13)])
def test_images_are_turned_as_exif_says(tmp_path: Path, suffix: str, orientation: int, shape: tuple[int, int]) -> None:
    """The same pixels as those of the image that PIL turns upright and stores without EXIF."""
    file = tmp_path / f"x.{suffix}"
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    pixels = np.stack([rows * 8, columns * 8, (rows > 4) * 200], 2).astype(np.uint8)
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(pixels).save(file, exif=exif(orientation), **options)
    with Image.open(file) as opened:
        ImageOps.exif_transpose(opened).convert("RGB").save(tmp_path / "upright.png", exif=b"")
    assert (decode(file, 8) == decode(tmp_path / "upright.png", 8)).all()


def test_exif_that_says_nothing_turns_nothing(tmp_path: Path) -> None:
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    broken = [b"Exif\0\0junk", b"Exif\0\0MM\0*" + struct.pack(">I", 99), exif(0).tobytes(), exif(9).tobytes()]
    for number, content in enumerate(broken):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png", exif=content)
        assert (decode(tmp_path / f"{number}.png", 8) == decode(tmp_path / "plain.png", 8)).all()


def test_files_that_are_left_out_are_counted_in_one_line_and_named_in_the_record(tmp_path: Path, cli_here: Cli) -> None:
    root = halves(tmp_path / "set")
    picture = (root / "train" / "c0" / "00.bmp").read_bytes()
    (root / "train" / "c0" / "more").mkdir()
    left_out = ["train/c0/a.gif", "train/c0/more/00.bmp", "train/c0/more/01.bmp", "train/c1/notes", "train/stray.bmp"]
    for name in (*left_out, "train/c0/.hidden.bmp"):
        (root / name).write_bytes(picture)
    (root / "test" / "c1" / "gone.bmp").symlink_to("nowhere.bmp")
    (root / "test" / "c1" / "loop.bmp").symlink_to("loop.bmp")
    os.mkfifo(root / "test" / "c1" / "pipe.bmp")
    left_out += ["test/c1/gone.bmp", "test/c1/loop.bmp", "test/c1/pipe.bmp"]
    said: list[str] = []
    data = load_data(FOLDER, tmp_path, say=said.append)
    assert len(data.train.labels) == 48
    assert sorted(data.left_out) == sorted(left_out)
    assert said[-1] == (
        f"{root}: 8 files are left out: 2 in folders within a class, 2 links to nothing, 1 beside the folders of "
        "classes, 1 of type .gif, 1 without a type, 1 no regular files; the first: train/stray.bmp"
    )
    done = cli_here("run", suite(tmp_path, "{name: imagefolder, path: set, size: 16}"), "--only", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("8 files are left out") == 1
    (training,) = [record for record in contents(tmp_path / "results" / "own").values() if "curve" in record]
    assert sorted(training["left_out"]) == sorted(left_out)


def test_a_class_of_files_that_are_all_left_out_says_so(tmp_path: Path) -> None:
    for file in (halves(tmp_path / "set", 2, 2) / "test" / "c1").iterdir():
        file.rename(file.with_suffix(".gif"))
    declared = suite(tmp_path, "{name: imagefolder, path: set, size: 16}")
    done = command_here("run", declared, "--data", "data", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("), but 2 others, the first test/c1/00.gif\n"), done.stderr


def store(file: Path, images: npt.NDArray[Any], test: npt.NDArray[Any] | None = None) -> Path:
    labels = np.arange(len(images)) % 2
    np.savez(file, x_train=images, y_train=labels, x_test=images if test is None else test, y_test=labels)
    return file


UP = float(np.nextafter(np.float32(1), np.float32(2)))


@pytest.mark.parametrize(("value", "kind"), [(UP, "f4"), (1 + 9e-7, "f8"), (-1e-7, "f4"), (1 + 1e-12, "f8")])
def test_values_that_rounding_put_outside_are_clipped(tmp_path: Path, value: float, kind: str) -> None:
    images = np.linspace(0, 1, 4 * 64).reshape(4, 1, 8, 8).astype(kind)
    inside = store(tmp_path / "inside.npz", images)
    images[1, 0, 2, 3] = value
    data = read_arrays(store(tmp_path / "outside.npz", images))
    expected = images.astype(np.float32).clip(0, 1)
    assert data.train.images[:][1, 0, 2, 3] == (value > 0)
    assert np.array_equal(data.train.images[:], expected)
    assert read_arrays(inside).train.images.dtype == np.float32


@pytest.mark.parametrize(
    ("factor", "what"),
    [
        (1 + 2e-6, "not in [0, 1.000002]; clip them?"),
        (1.05, "not in [0, 1.05]; clip them?"),
        (1.5, "not in [0, 1.5]\n"),
        (16, "not in [0, 16]; divide by the value that stands for white?"),
        (255, "not in [0, 255]; divide by 255?"),
        (65535, "not in [0, 65535]; divide by the value that stands for white?"),
    ],
)
def test_values_beyond_rounding_are_refused_with_what_may_help(tmp_path: Path, factor: float, what: str) -> None:
    images = (np.linspace(0, 1, 4 * 64).reshape(4, 1, 8, 8) * factor).astype(np.float32)
    file = store(tmp_path / "own.npz", images)
    done = command_here("run", suite(tmp_path, "{name: arrays, path: own.npz}"), "--data", "data", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{file}: x_train should lie in [0, 1], ")
    assert what in done.stderr


RAMP = np.linspace(0, 1, 4 * 64).reshape(4, 1, 8, 8)


@pytest.mark.parametrize(
    ("train", "test", "warnings"),
    [
        ((RAMP * 16).astype(np.uint8), None, ["x_train: the largest value is 16 of 255", "x_test: the largest value"]),
        ((RAMP * 255).astype(np.uint8), RAMP.round().astype(np.uint8), ["x_test: the largest value is 1 of 255"]),
        (RAMP, RAMP / 255, ["x_test: the largest value is 0.003922 of 1"]),
        ((RAMP * 128).astype(np.uint8), None, []),
        (RAMP, RAMP * 0.6, []),
    ],
)
def test_a_suspicious_maximum_is_warned_of(
    tmp_path: Path, train: npt.NDArray[Any], test: npt.NDArray[Any] | None, warnings: list[str]
) -> None:
    said: list[str] = []
    read_arrays(store(tmp_path / "own.npz", train, test), said.append)
    assert len(said) == len(warnings), said
    for sentence, expected in zip(said, warnings, strict=True):
        assert sentence.startswith("warning: ")
        assert expected in sentence


def test_dark_image_files_are_warned_of(tmp_path: Path) -> None:
    root = halves(tmp_path / "set", 2, 2)
    said: list[str] = []
    load_data(FOLDER, tmp_path, say=said.append)
    assert said == []
    for file in root.glob("train/*/*.bmp"):
        Image.fromarray(np.full((16, 16), 16, np.uint8)).save(file)
    load_data(FOLDER, tmp_path, say=said.append)
    sentence = "the largest value is 16 of 255, as uint8 has it: nearly black images, or on another scale?"
    assert said == [f"warning: {root}/train: {sentence}"]


def test_images_without_channels_have_one(tmp_path: Path) -> None:
    for images in (RAMP.astype(np.float32), (RAMP * 255).astype(np.uint8)):
        plain = read_arrays(store(tmp_path / "plain.npz", images[:, 0], images))
        assert plain.image_shape == (1, 8, 8)
        assert plain.sha256 == read_arrays(store(tmp_path / "channel.npz", images)).sha256


def test_a_path_is_beside_the_suite_or_else_in_the_data_folder(tmp_path: Path, cli_here: Cli) -> None:
    data, place = tmp_path / "data", tmp_path / "suites"
    for folder in (data, place):
        folder.mkdir()
    declared = suite(place, "{name: arrays, path: own.npz}")
    for command in ("validate", "plan"):
        done = command_here(command, declared, "--data", data, cwd=tmp_path)
        assert done.returncode == 0
        absent = f"there is no such file or folder beside the suite ({place}), nor in the data folder ({data})"
        assert done.stderr == f"warning: {declared}:2: dataset.path: {absent}: `run` will need it\n"
    done = command_here("run", declared, "--data", data, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"own.npz: {absent}\n")
    store(data / "own.npz", RAMP)
    cells = [cell.id for cell in make_plan(load_suite(declared).suite).cells]
    hashes = []
    for _ in range(2):
        for command in ("validate", "plan"):
            assert command_here(command, declared, "--data", data, cwd=tmp_path).stderr == ""
        done = cli_here("run", declared, "--data", "data", "--only", "none")
        assert done.returncode == 0, done.stdout + done.stderr
        hashes += [
            {
                record["dataset_sha256"]
                for record in contents(tmp_path / "results" / "own").values()
                if "status" in record
            }
        ]
        store(place / "own.npz", RAMP[::-1])
    assert hashes == [{read_arrays(folder / "own.npz").sha256} for folder in (data, place)]
    assert [cell.id for cell in make_plan(load_suite(declared).suite).cells] == cells, "where it lies is not declared"


@pytest.mark.parametrize(
    "dataset", ["{name: arrays, path: /gone/own.npz}", "{name: imagefolder, path: /gone, size: 8}"]
)
def test_validate_says_that_an_absolute_path_is_not_there(tmp_path: Path, dataset: str) -> None:
    declared = suite(tmp_path, dataset)
    done = command_here("validate", declared, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        0,
        f"warning: {declared}:2: dataset.path: there is no such file or folder: `run` will need it\n",
    )
