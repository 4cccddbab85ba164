"""The data sets of torchvision by name: downloaded and checked by torchvision, then kept as one `.npz` a data set.

The same `.npz` may come from anywhere else, so that suites run unchanged on machines without a network.
"""

from __future__ import annotations

import contextlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import numpy.typing as npt

from robustbench_cmic.data.arrays import KEYS, read_arrays
from robustbench_cmic.data.base import Data, DataError
from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.suite.data import TorchvisionDataset
from robustbench_cmic.suite.messages import os_error_reason

if TYPE_CHECKING:
    from robustbench_cmic.data import Say


@dataclass(frozen=True)
class _Source:
    """A data set of torchvision.

    Attributes:
        class_name: of the class in torchvision.datasets.
        shape: (C, H, W).
        class_names: by label, as the authors of the data list them.
        files: what torchvision downloads into the data folder, as a pattern.
        splits: the arguments of that class for training and test images.
        labels: its attribute that holds them.
    """

    class_name: str
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    files: str
    splits: tuple[dict[str, Any], dict[str, Any]] = ({"train": True}, {"train": False})
    labels: str = "targets"


_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_HUNDRED = tuple(name.replace("_", " ") for name in _CIFAR100.split())
_SPLIT = ({"split": "train"}, {"split": "test"})

SOURCES = {
    "cifar10": _Source("CIFAR10", (3, 32, 32), _CIFAR10, "cifar-10-python.tar.gz"),
    "cifar100": _Source("CIFAR100", (3, 32, 32), _HUNDRED, "cifar-100-python.tar.gz"),
    "mnist": _Source("MNIST", (1, 28, 28), _DIGITS, "MNIST/raw/*-ubyte.gz"),
    "fashion_mnist": _Source("FashionMNIST", (1, 28, 28), _CLOTHES, "FashionMNIST/raw/*-ubyte.gz"),
    "svhn": _Source("SVHN", (3, 32, 32), _DIGITS, "*_32x32.mat", _SPLIT, "labels"),
}
"""By the name that a suite gives."""


def load_named(dataset: TorchvisionDataset, folder: Path, _: int | None, say: Say) -> Data:
    """`<folder>/<name>.npz`, made from torchvision's download where it is not there yet.

    Raises:
        DataError: the download failed or is not whole, or the file holds something else than the data set.
    """
    source, path = SOURCES[dataset.name], folder / f"{dataset.name}.npz"
    if not path.exists():
        _convert(dataset.name, source, folder, path, say)
    data = read_arrays(path)
    data.class_names, classes = source.class_names, len(source.class_names)
    if (data.image_shape, data.classes) != (source.shape, classes):
        raise DataError(
            f"{path}: should hold images (C, H, W) of {source.shape} in {classes} classes, not {data.image_shape} "
            f"in {data.classes}; give your own data another name and use `dataset: {{name: arrays, path: FILE.npz}}`"
        )
    return data


def _convert(name: str, source: _Source, folder: Path, path: Path, say: Say) -> None:
    """Download with torchvision, which checks MD5 sums before it reads anything, and store the arrays."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f".{name}.lock"):
            if path.exists():  # another process has done it meanwhile
                return
            arrays = _download(name, source, folder, path, say)
            say(f"{name}: storing {path}")
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **dict(zip(KEYS, arrays, strict=True)))
            write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise DataError(f"cannot write {path}: {os_error_reason(error)}") from None


def _download(name: str, source: _Source, folder: Path, path: Path, say: Say) -> list[npt.NDArray[Any]]:
    say(f"{name}: not in {folder} yet: torchvision downloads it")
    import torchvision

    loader = getattr(torchvision.datasets, source.class_name)
    arrays: list[npt.NDArray[Any]] = []
    began = time.time()
    try:
        # It prints a line for each mirror that fails; what there is to say is said once, in the error.
        with contextlib.redirect_stdout(io.StringIO()):
            splits = [loader(folder, download=True, **arguments) for arguments in source.splits]
    except Exception as error:  # torchvision lets through whatever the network, gzip, tarfile or pickle raise
        raise DataError(_failure(name, source, folder, path, error, began)) from None
    for split in splits:
        images, labels = np.asarray(split.data), np.asarray(getattr(split, source.labels))
        arrays += [images[..., None] if images.ndim == 3 else images, labels.astype(np.int64)]
    return arrays


def _failure(name: str, source: _Source, folder: Path, path: Path, error: Exception, began: float) -> str:
    """What went wrong, which file was wanted, and the three ways out."""
    reason = " ".join(str(error).split()) or type(error).__name__
    for file in folder.glob(source.files):
        if file.stat().st_mtime < began - 1:  # not of this download
            continue
        with file.open("rb") as opened:
            start = opened.read(512).lstrip().lower()
        if start.startswith((b"<!doctype html", b"<html")):
            reason = f"the server sent a web page (HTML) instead of {file.name}; it was removed"
            file.unlink()
        elif "corrupt" in reason.lower():
            reason = f"{file.name} came truncated or altered (its MD5 sum differs); it was removed"
            file.unlink()
    return (
        f"{name}: cannot get the data: {reason}\n"
        f"  wanted: {source.files} (as torchvision's {source.class_name} stores it), or {path.name}\n"
        f"  looked in: {folder} (choose with --data DIR or ROBUSTBENCH_DATA)\n"
        f"  ways out: place either there; or bring arrays: `dataset: {{name: arrays, path: FILE.npz}}`; "
        "or image files: `dataset: {name: imagefolder, path: FOLDER, size: PIXELS}`"
    )
