"""The data sets of torchvision by name: downloaded and checked by torchvision, then kept as one `.npz` a data set.

The same `.npz` may come from anywhere else, so that suites run unchanged on machines without a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
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
        class_names: by label, as the authors of the data list them.
        files: what torchvision downloads into the data folder, as a pattern.
        splits: the arguments of that class for training and test images.
        labels: its attribute that holds them.
    """

    class_name: str
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
    "cifar10": _Source("CIFAR10", _CIFAR10, "cifar-10-python.tar.gz"),
    "cifar100": _Source("CIFAR100", _HUNDRED, "cifar-100-python.tar.gz"),
    "mnist": _Source("MNIST", _DIGITS, "MNIST/raw/*-ubyte.gz"),
    "fashion_mnist": _Source("FashionMNIST", _CLOTHES, "FashionMNIST/raw/*-ubyte.gz"),
    "svhn": _Source("SVHN", _DIGITS, "*_32x32.mat", _SPLIT, "labels"),
}
"""By the name that a suite gives."""


def load_named(dataset: TorchvisionDataset, folder: Path, _: int | None, say: Say, *__: Any) -> Data:
    """`<folder>/<name>.npz`, made from torchvision's download where it is not there yet.

    Raises:
        DataError: the download failed or is not whole, or the file holds something else than the data set.
    """
    source, path = SOURCES[dataset.name], folder / f"{dataset.name}.npz"
    if not path.exists():
        _convert(dataset.name, source, folder, path, say)
    data = read_arrays(path, say)
    data.class_names, classes = source.class_names, len(source.class_names)
    if (data.image_shape, data.classes) != (dataset.image_shape, classes):
        wanted = f"images (C, H, W) of {dataset.image_shape} in {classes} classes"
        raise DataError(
            f"{path}: should hold {wanted}, not {data.image_shape} in {data.classes}; give your own data another name "
            "and use `dataset: {name: arrays, path: FILE.npz}`"
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
    import torchvision

    loader = getattr(torchvision.datasets, source.class_name)
    damaged, before = _damaged(loader, folder), _stamps(source, folder)
    missing = f"not in {folder} yet: torchvision downloads it"
    say(f"{name}: {f'{damaged}: torchvision gets what it lacks' if damaged else missing}")
    arrays: list[npt.NDArray[Any]] = []
    try:
        # It prints a line for each mirror that fails; what there is to say is said once, in the error.
        with contextlib.redirect_stdout(io.StringIO()):
            splits = [loader(folder, download=True, **arguments) for arguments in source.splits]
    except Exception as error:  # torchvision lets through whatever the network, gzip, tarfile or pickle raise
        reason = _reason(source, folder, error, before)
        if damaged:
            reason = f"{damaged}, and should be replaced or removed; torchvision says: {reason}"
        raise DataError(*_failure(name, source, folder, path, reason)) from None
    for split in splits:
        images, labels = np.asarray(split.data), np.asarray(getattr(split, source.labels))
        arrays += [images[..., None] if images.ndim == 3 else images, labels.astype(np.int64)]
    return arrays


def _published(loader: Any) -> dict[str, str]:
    """The MD5 sums of what a class of torchvision keeps in the data folder, by path."""
    if hasattr(loader, "resources"):
        return {f"{loader.__name__}/raw/{file}": md5 for file, md5 in loader.resources}
    if hasattr(loader, "split_list"):
        return {file: md5 for _, file, md5 in (loader.split_list[split] for split in ("train", "test"))}
    batches = {f"{loader.base_folder}/{file}": md5 for file, md5 in (*loader.train_list, *loader.test_list)}
    return {loader.filename: loader.tgz_md5} | batches


def _damaged(loader: Any, folder: Path) -> str:
    """Which of the files that are there are not the published ones, and how that shows; empty where none is."""
    found = []
    for name, md5 in _published(loader).items():
        file = folder / name
        unpacked = file.with_suffix("")
        if file.suffix == ".gz" and unpacked.is_file():  # it is read in place of the archive, and unchecked
            if _is_cut_short(unpacked):
                found.append(f"{unpacked.relative_to(folder)} (cut short)")
        elif file.is_file():
            with file.open("rb") as opened:
                page = _is_web_page(opened.read(512))
                opened.seek(0)
                md5_here = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if md5_here != md5:
                found.append(f"{name} ({'a web page, HTML' if page else 'its MD5 sum differs'})")
    return f"{', '.join(found)} in {folder} {'is' if len(found) == 1 else 'are'} damaged" if found else ""


def _is_cut_short(file: Path) -> bool:
    """An IDX file of bytes that does not hold as many as its head says (http://yann.lecun.com/exdb/mnist)."""
    with file.open("rb") as opened:
        head = opened.read(16)
    sizes = [int.from_bytes(head[4 * i : 4 * i + 4], "big") for i in range(1, 1 + (head[3] if len(head) > 3 else 0))]
    return not sizes or file.stat().st_size != 4 + 4 * len(sizes) + math.prod(sizes)


def _is_web_page(start: bytes) -> bool:
    return start.lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _stamps(source: _Source, folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of the archives that are there."""
    stats = {file: file.stat() for file in folder.glob(source.files)}
    return {file: (stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()}


def _reason(source: _Source, folder: Path, error: Exception, before: dict[Path, tuple[int, int]]) -> str:
    """Why a download failed; what came of it is removed where it is of no use."""
    reason = " ".join(str(error).split()) or type(error).__name__
    for file, stamp in _stamps(source, folder).items():
        if before.get(file) == stamp:  # not of this download
            continue
        with file.open("rb") as opened:
            start = opened.read(512)
        if _is_web_page(start):
            reason = f"the server sent a web page (HTML) instead of {file.name}; it was removed"
            file.unlink()
        elif "corrupt" in reason.lower():
            reason = f"{file.name} came truncated or altered (its MD5 sum differs); it was removed"
            file.unlink()
    return reason


def _failure(name: str, source: _Source, folder: Path, path: Path, reason: str) -> list[str]:
    """What went wrong, which file was wanted, and the three ways out."""
    return [
        f"{name}: cannot get the data: {reason}",
        f"  wanted: {source.files} (as torchvision's {source.class_name} stores it), or {path.name}",
        f"  looked in: {folder} (choose with --data DIR or ROBUSTBENCH_DATA)",
        "  ways out: place either there; or bring arrays: `dataset: {name: arrays, path: FILE.npz}`; "
        "or image files: `dataset: {name: imagefolder, path: FOLDER, size: PIXELS}`",
    ]
