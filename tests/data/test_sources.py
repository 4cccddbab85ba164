"""Data sources through the command line: what is right runs, and each way to be wrong has its sentence."""

from __future__ import annotations

import http.server
import json
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustbench_cmic.data import load_data
from robustbench_cmic.data.imagefolder import decode
from robustbench_cmic.suite.data import ImageFolder
from tests.conftest import ROOT, Cli, contents
from tests.in_process import command_here

SUITE = """\
suite: own
dataset: {dataset}
training: {{epochs: 1, batch_size: 16, optimizer: {{name: sgd, lr: 0.1}}, augmentation: {{crop: 1, flip: true}}}}
models:
  - {{id: ce, architecture: mlp, objective: {{name: ce}}}}
attacks:
  - {{name: FGSM, eps: 8/255}}
"""

Arrays = dict[str, Any]


def suite(folder: Path, dataset: str) -> Path:
    file = folder / "own.yaml"
    file.write_text(SUITE.format(dataset=dataset))
    return file


def arrays(seed: int = 0) -> Arrays:
    draw = np.random.default_rng(seed)
    return {
        "x_train": draw.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(40) % 4,
        "x_test": draw.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 4,
    }


def store(file: Path, content: Arrays) -> Path:
    np.savez(file, **content)
    return file


def edited(**changes: Any) -> Callable[[Path], Any]:
    return lambda file: store(file, arrays() | changes)


def without(key: str) -> Callable[[Path], Any]:
    return lambda file: store(file, {name: value for name, value in arrays().items() if name != key})


def truncated(file: Path) -> None:
    whole = store(file, arrays()).read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def single_array(file: Path) -> None:
    with file.open("wb") as opened:
        np.save(opened, np.zeros((4, 8, 8, 3)))


def foreign_member(file: Path) -> None:
    without("y_test")(file)
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr("y_test", b"no array")


NAN = np.full((40, 8, 8, 3), np.nan)
NOT_FINITE = np.zeros((5, 8, 8, 3))
NOT_FINITE[1, 0, 0], NOT_FINITE[3, 2, 2, 0] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda _: None, "there is no such file or folder"),
        (lambda file: file.mkdir(), "cannot be read: Is a directory"),
        (lambda file: file.write_text("<html>"), "no whole .npz file"),
        (truncated, "no whole .npz file"),
        (single_array, "should be a .npz of x_train, y_train, x_test, y_test, not a single array"),
        (without("y_test"), "the array y_test is missing; it holds x_train, y_train, x_test"),
        (edited(y_train=np.array([{"a": 1}] * 40)), "holds Python objects (a pickle), which are never loaded"),
        (edited(x_train=np.zeros((40, 64), np.uint8)), "(N, H, W) of one channel, none of them 0, not (40, 64)"),
        (edited(x_test=np.zeros((0, 8, 8, 3), np.uint8)), "x_test should have shape"),
        (edited(x_train=np.zeros((40, 3, 8, 3), np.uint8)), "could be read both ways"),
        (edited(x_train=np.zeros((40, 8, 8, 7), np.uint8)), "has neither 1 nor 3 channels, first or last"),
        (edited(x_train=np.zeros((40, 8, 8, 3), np.int64)), "x_train should be uint8, or floats in [0, 1], not int64"),
        (edited(x_train=np.full((40, 8, 8, 3), 255.0)), "not in [255, 255]; divide by 255?"),
        (edited(x_train=np.full((40, 8, 8, 3), -0.5)), "x_train should lie in [0, 1], not in [-0.5, -0.5]"),
        (edited(x_train=NAN), "x_train: 40 of 40 images hold NaN or infinity; they should be in [0, 1]"),
        (edited(x_test=NOT_FINITE), "x_test: 2 of 5 images hold NaN or infinity"),
        (edited(x_train=np.zeros((40, 9, 9, 3), np.uint8)), "x_train and x_test should be alike"),
        (edited(y_train=np.arange(39) % 4), "x_train has 40 images, y_train 39 labels"),
        (edited(y_train=np.arange(40) % 4 * 2), "the labels of y_train leave out 1"),
        (edited(y_train=np.arange(40) % 4 - 1), "y_train has the label -1"),
        (edited(y_train=np.zeros(40, int), y_test=np.zeros(12, int)), "y_train has one class only"),
        (edited(y_test=np.arange(12) % 5), "y_test has the label 4, which y_train has not"),
        (edited(y_train=np.arange(40) / 4), "y_train should be (N,) integers, not float64"),
        (edited(y_train=np.arange(40).astype("m8[s]")), "y_train should be (N,) integers, not timedelta64"),
        (edited(y_train=np.array([2**40] * 40)), "y_train has the label 1099511627776"),
        (edited(y_test=np.array([2**64 - 1] * 12, np.uint64)), "y_test has the label 18446744073709551615"),
        (foreign_member, "no whole .npz file"),
        (os.mkfifo, "is no regular file"),
    ],
)
def test_wrong_arrays_get_one_sentence(tmp_path: Path, make: Callable[[Path], Any], sentence: str) -> None:
    file = tmp_path / "own.npz"
    make(file)
    declared = suite(tmp_path, f"{{name: arrays, path: {file}}}")
    done = command_here("run", declared, "--data", tmp_path / "data", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"{file}: "), done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_equal_images_in_every_layout_and_type_give_equal_results(tmp_path: Path, cli_here: Cli) -> None:
    content = arrays()
    layouts = {
        "last": content,
        "first": {k: v.transpose(0, 3, 1, 2) if k.startswith("x") else v for k, v in content.items()},
        "float": {k: v / 255 if k.startswith("x") else v.astype(np.int8) for k, v in content.items()},
    }
    outcomes = {}
    for layout, held in layouts.items():
        folder = tmp_path / layout
        folder.mkdir()
        store(folder / "mine.npz", held)
        declared = suite(folder, "{name: arrays, path: mine.npz}")
        done = cli_here("run", declared, "--data", ".", "--only", "none", "--only", "FGSM", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        records = contents(folder / "results" / "own")
        outcomes[layout] = {name: record["outcomes"] for name, record in records.items() if "outcomes" in record}
    assert outcomes["last"] == outcomes["first"] == outcomes["float"]
    assert len(outcomes["last"]) == 2


def tiny_cifar(folder: Path, classes: int = 100) -> None:
    draw = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    content: Arrays = {}
    for split, n in (("train", 2 * classes), ("test", classes)):
        content[f"x_{split}"] = draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        content[f"y_{split}"] = np.arange(n) % classes
    store(folder / "cifar100.npz", content)


def test_an_npz_in_the_data_folder_serves_the_name(
    tmp_path: Path, cli_here: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_cifar(tmp_path / "data")
    monkeypatch.setenv("ROBUSTBENCH_DATA", str(tmp_path / "data"))
    done = cli_here("run", suite(tmp_path, "{name: cifar100}"))
    assert done.returncode == 0, done.stdout + done.stderr
    records = contents(tmp_path / "results" / "own")
    assert {record["n"] for record in records.values() if "n" in record} == {100}


def test_the_gpu_suite_runs_at_toy_size(tmp_path: Path, cli_here: Cli) -> None:
    """The ResNet-18 of `cifar100`, its training and an attack, on images that are no CIFAR-100."""
    tiny_cifar(tmp_path / "data")
    one = "resnet18-cmic-authors.s0.PGD-10-cmic.linf.eps0.031373.*"
    done = cli_here("run", ROOT / "suites" / "cifar100.yaml", "--toy", "--only", one, "--data", tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    records = contents(tmp_path / "results" / "cifar100-toy")
    (training,) = [record for record in records.values() if record.get("kind") == "train"]
    assert training["parameters"] == 11_220_132
    (attack,) = [record for record in records.values() if "outcomes" in record]
    assert (attack["status"], attack["n"]) == ("ok", 16)


def test_other_data_under_a_known_name_is_refused(tmp_path: Path, cli_here: Cli) -> None:
    tiny_cifar(tmp_path / "data", classes=10)
    done = cli_here("run", suite(tmp_path, "{name: cifar100}"), "--data", tmp_path / "data")
    assert done.returncode == 2
    assert "should hold images (C, H, W) of (3, 32, 32) in 100 classes, not (3, 32, 32) in 10" in done.stderr


class _Server(http.server.BaseHTTPRequestHandler):
    """A proxy that answers every request for a plain http address with what the test wants."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's terminal."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Server]]:
    """Downloads go to a server of ours (http), or nowhere (https)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield _Server
    server.shutdown()
    server.server_close()


RAW = "FashionMNIST/raw/*-ubyte.gz (as torchvision's FashionMNIST stores it)"


@pytest.mark.parametrize(
    ("name", "body", "reason", "wanted"),
    [
        ("cifar100", b"", "Connection refused", "cifar-100-python.tar.gz (as torchvision's CIFAR100 stores it)"),
        ("fashion_mnist", b"<!DOCTYPE html><p>Log in", "a web page (HTML) instead of", RAW),
        ("fashion_mnist", b"\x1f\x8b" + 99 * b"x", "came truncated or altered", RAW),
    ],
)
def test_a_download_that_fails_says_what_was_wanted_and_the_ways_out(
    tmp_path: Path, cli: Cli, proxy: type[_Server], name: str, body: bytes, reason: str, wanted: str
) -> None:
    proxy.body = body
    done = cli("run", suite(tmp_path, f"{{name: {name}}}"), "--data", tmp_path / "data")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert f"{name}: cannot get the data: " in done.stderr
    assert reason in done.stderr
    assert f"wanted: {wanted}, or {name}.npz" in " ".join(done.stderr.split())
    assert f"looked in: {tmp_path / 'data'}" in done.stderr
    assert "{name: arrays, path: FILE.npz}" in done.stderr
    assert "{name: imagefolder, path: FOLDER, size: PIXELS}" in done.stderr
    left = [file for file in (tmp_path / "data").rglob("*") if file.is_file() and file.suffix in (".gz", ".npz")]
    assert left == []


def idx(rows: int, cut: int = 0) -> bytes:
    """An IDX file of 28 x 28 images, or of labels, without its last bytes."""
    head = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (rows, 28, 28))
    return head + bytes(rows * 28 * 28 - cut)


RAW_FILES = [f"FashionMNIST/raw/{name}-ubyte" for name in (
    "train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1",
)]  # fmt: skip
LABELS = b"\0\0\x08\x01\0\0\0\x02\0\1"


@pytest.mark.parametrize(
    ("name", "there", "sentence"),
    [
        (
            "cifar10",
            {"cifar-10-python.tar.gz": b"<html>rate limited</html>"},
            "(a web page, HTML) in {data} is damaged",
        ),
        (
            "cifar10",
            {"cifar-10-python.tar.gz": b"\x1f\x8b" + 99 * b"x"},
            "cifar-10-python.tar.gz (its MD5 sum differs) in",
        ),
        (
            "cifar100",
            {"cifar-100-python/train": b"x"},
            "cifar-100-python/train (its MD5 sum differs) in {data} is damaged",
        ),
        ("svhn", {"train_32x32.mat": b"MATLAB 5.0", "test_32x32.mat": b"<!doctype html>"}, "in {data} are damaged"),
        (
            "fashion_mnist",
            {f"{RAW_FILES[0]}.gz": b"\x1f\x8b\x08"},
            "idx3-ubyte.gz (its MD5 sum differs) in {data} is damaged",
        ),
        (
            "fashion_mnist",
            dict(zip(RAW_FILES, (idx(2, cut=5), LABELS, idx(2), LABELS), strict=True)),
            "FashionMNIST/raw/train-images-idx3-ubyte (cut short) in {data} is damaged",
        ),
        ("fashion_mnist", dict.fromkeys(RAW_FILES, b""), "(cut short) in {data} are damaged"),
    ],
)
def test_a_damaged_download_that_is_there_is_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, there: dict[str, bytes], sentence: str
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    data = tmp_path / "data"
    for file, content in there.items():
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).write_bytes(content)
    done = command_here("run", suite(tmp_path, f"{{name: {name}}}"), "--data", data, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    expected = sentence.format(data=data)
    assert expected in done.stderr
    assert "and should be replaced or removed; torchvision says: " in done.stderr
    assert expected in done.stdout
    assert "torchvision downloads it" not in done.stdout
    assert {file: (data / file).read_bytes() for file in there} == there, "what a user has placed is the user's"


def folders(root: Path, per_class: int = 12, names: tuple[str, ...] = ("cat", "dog")) -> Path:
    draw = np.random.default_rng(1)
    for split, n in (("train", per_class), ("val", 5)):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for index in range(n):
                size = (int(draw.integers(8, 20)), int(draw.integers(8, 20)), 3)
                pixels = Image.fromarray(draw.integers(0, 256, size, dtype=np.uint8))
                pixels.save(root / split / name / f"{index}.{'png' if index % 2 else 'jpg'}")
    return root


def remove(folder: Path) -> None:
    for file in sorted(folder.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    folder.rmdir()


def corrupt(root: Path) -> None:
    (root / "train" / "cat" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n junk")
    whole = (root / "val" / "dog" / "0.jpg").read_bytes()
    (root / "val" / "dog" / "0.jpg").write_bytes(whole[: len(whole) // 3])


def sixteen_bits(root: Path) -> None:
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(root / "train" / "cat" / "1.png")


@pytest.mark.parametrize(
    ("damage", "sentences"),
    [
        (lambda root: remove(root), ["pets: there is no such file or folder beside the suite"]),
        (lambda root: remove(root / "train"), ["there is no folder `train` in it"]),
        (lambda root: remove(root / "val"), ["there is no folder `test` or `val` in it"]),
        (lambda root: (root / "val" / "cow").mkdir(), ["the same classes; only val has cow"]),
        (lambda root: remove(root / "val" / "dog"), ["the same classes; only train has dog"]),
        (lambda root: list(map(remove, root.glob("*/dog"))), ["at least 2 folders, one a class, not 1"]),
        (lambda root: list(map(Path.unlink, (root / "val" / "cat").iterdir())), ["val/cat: holds no image file"]),
        (sixteen_bits, ["1 corrupt images", "train/cat/1.png: has pixels of 16 or 32 bits (mode I;16)"]),
        (corrupt, ["2 corrupt images; replace or remove them", "train/cat/3.png: is no image", "val/dog/0.jpg: "]),
    ],
)
def test_wrong_image_folders_get_one_sentence(
    tmp_path: Path, damage: Callable[[Path], Any], sentences: list[str]
) -> None:
    damage(folders(tmp_path / "data" / "pets"))
    declared = suite(tmp_path, "{name: imagefolder, path: pets, size: 8}")
    done = command_here("run", declared, "--data", tmp_path / "data", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    for sentence in sentences:
        assert sentence in done.stderr, done.stderr
    assert not (tmp_path / "results").exists()


def test_images_that_are_streamed_give_the_results_of_decoded_ones(tmp_path: Path, cli_here: Cli) -> None:
    """Kept decoded and memory-mapped, or decoded by worker processes batch by batch: the same records."""
    found = {}
    for way, options in (("kept", ()), ("streamed", ("--memory", 0))):
        folder = tmp_path / way
        folders(folder / "pets")
        done = cli_here(
            "run", suite(folder, "{name: imagefolder, path: pets, size: 8}"), "--data", ".", *options, cwd=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found[way] = contents(folder / "results" / "own")
        assert bool(list(folder.glob("decoded/*/train.npy"))) == (way == "kept")
    assert found["kept"] == found["streamed"]
    assert len(found["kept"]) == 5  # with the plan and the audit


def test_decoded_images_are_looked_at_again_only_when_files_change(tmp_path: Path) -> None:
    root = folders(tmp_path / "pets")
    declared = ImageFolder(name="imagefolder", path="pets", size=8)
    first = load_data(declared, tmp_path)
    (index,) = tmp_path.glob("decoded/*/index.json")
    looked = index.stat().st_mtime_ns
    again = load_data(declared, tmp_path)
    assert (again.sha256, again.moments) == (first.sha256, first.moments)
    assert index.stat().st_mtime_ns == looked
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "train" / "cat" / "1.png")
    changed = load_data(declared, tmp_path)
    assert changed.sha256 != first.sha256
    assert changed.moments.mean[0] < first.moments.mean[0]
    assert index.stat().st_mtime_ns > looked
    expected = np.array(changed.train.images[:])
    # A store that is not whole, or that something else has written to, counts for nothing; nor does an odd index.
    (stored,) = tmp_path.glob("decoded/*/train.npy")
    whole = stored.read_bytes()
    for content in (whole[:500], b"", whole[:-9] + bytes(9)):
        stored.unlink()
        stored.write_bytes(content)
        assert np.array_equal(load_data(declared, tmp_path).train.images[:], expected)
    for key, value in (("histogram", "x"), ("histogram", [[1, 2]]), ("sha256", 5), ("state", None)):
        index.write_text(json.dumps(json.loads(index.read_text()) | {key: value}))
        mended = load_data(declared, tmp_path)
        assert (mended.sha256, mended.moments) == (changed.sha256, changed.moments)


def test_the_central_square_is_taken_whatever_the_shape(tmp_path: Path) -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 15:25] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    Image.fromarray(np.full((15_000, 1, 3), 7, np.uint8)).save(tmp_path / "thin.png")
    assert (decode(tmp_path / "wide.png", 8) == np.array([200, 100, 50])[:, None, None]).all()
    assert (decode(tmp_path / "thin.png", 256) == 7).all()


def test_a_data_folder_that_is_a_file(tmp_path: Path, cli_here: Cli) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = cli_here("run", suite(tmp_path, "{name: mnist}"), "--data", file)
    assert done.returncode == 2
    assert done.stderr == f"--data {file}: is a file, not a folder\n"
