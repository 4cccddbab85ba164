"""A user's own image files: `train/<class>/*` and `test/<class>/*` (or `val`), brought to one size.

Every file is read once, at the first use: that finds the corrupt ones and gives the fingerprint and the moments. Where
all images fit in memory the same pass stores them decoded, to be memory-mapped from then on; else they are decoded
whenever they are needed. Both ways give the same pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import numpy.typing as npt
from PIL import Image

from robustbench_cmic.data.base import (
    Data,
    DataError,
    Images,
    Index,
    Split,
    StreamedImages,
    histogram,
    moments_of_histogram,
)
from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.suite.data import ImageFolder
from robustbench_cmic.suite.messages import os_error_reason

if TYPE_CHECKING:
    from robustbench_cmic.data import Say


SUFFIXES = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_VERSION = "RGB; central square resized bicubically; version 1"
_MOST_PIXELS = 80_000_000
_PILLOW_RAISES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    ArithmeticError,
    MemoryError,
    Image.DecompressionBombError,
)
_SHOWN = 10


class FolderImages(StreamedImages):
    """Image files, decoded to (3, size, size) when they are asked for."""

    def __init__(self, files: list[Path], size: int) -> None:
        self.files = files
        self.size = size
        self.shape = (len(files), 3, size, size)

    def __getitem__(self, index: Index) -> npt.NDArray[np.uint8]:
        wanted = range(*index.indices(len(self))) if isinstance(index, slice) else index
        images = np.empty((len(wanted), 3, self.size, self.size), np.uint8)
        for row, position in enumerate(wanted):
            images[row] = decode(self.files[position], self.size)
        return images


def decode(file: Path, size: int) -> npt.NDArray[np.uint8]:
    """One image as (3, size, size) uint8: its central square, resized.

    Raises:
        DataError: the file is no whole image; the message names it.
    """
    try:
        with Image.open(file) as opened:
            if opened.mode.startswith(("I", "F")):  # PIL would cut them off at 255
                raise DataError(f"{file}: has pixels of 16 or 32 bits (mode {opened.mode}): convert them to 8")
            if opened.width * opened.height > _MOST_PIXELS:
                raise DataError(f"{file}: has {opened.width} x {opened.height} pixels, more than {_MOST_PIXELS:,}")
            side = min(opened.size)
            left, top = (opened.width - side) // 2, (opened.height - side) // 2
            # Cropped first: of a long thin image the whole, resized, could fill the memory.
            square = opened.convert("RGB").crop((left, top, left + side, top + side))
            image = square.resize((size, size), Image.Resampling.BICUBIC)
    except _PILLOW_RAISES as error:
        raise DataError(f"{file}: {' '.join(str(error).split()) or type(error).__name__}") from None
    return np.asarray(image).transpose(2, 0, 1)


@dataclass(frozen=True)
class _Listing:
    """The files of both splits, sorted, with the label of each."""

    root: Path
    classes: list[str]
    files: dict[str, list[Path]]
    labels: dict[str, npt.NDArray[np.int64]]

    def state(self) -> str:
        """A hash over names, sizes and times of change: while it stays the same, no file is read again."""
        digest = hashlib.sha256()
        for file in (file for split in self.files.values() for file in split):
            stat = file.stat()
            digest.update(f"{file.relative_to(self.root)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()


def load_imagefolder(dataset: ImageFolder, folder: Path, memory: int | None, say: Say) -> Data:
    """The image files under `path`, absolute or in the data folder.

    Raises:
        DataError: folders or files that are missing, classes that differ between the splits, corrupt images.
    """
    root, size = folder / dataset.path, dataset.size
    try:
        listing = _list(root)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or root}: {os_error_reason(error)}") from None
    total = sum(math.prod(FolderImages(files, size).shape) for files in listing.files.values())
    fits = total <= (_half_of_memory() if memory is None else memory)
    key = hashlib.sha256(f"{root.resolve()}\0{size}\0{_VERSION}".encode()).hexdigest()[:16]
    cache = folder / "decoded" / key
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / ".lock"):
            index = _read_index(cache, listing)
            if index is None or (fits and not index["decoded"]):
                index = _look_at_all(listing, size, cache, fits, say)
            images: dict[str, Images] = {
                split: _mapped(cache, split) if index["decoded"] and fits else FolderImages(files, size)
                for split, files in listing.files.items()
            }
    except OSError as error:
        raise DataError(f"cannot use {error.filename or cache}: {os_error_reason(error)}") from None
    train, test = (Split(images[split], listing.labels[split]) for split in ("train", "test"))
    moments = moments_of_histogram(np.array(index["histogram"]))
    return Data(train, test, len(listing.classes), index["sha256"], moments, listing.classes)


def _list(root: Path) -> _Listing:
    folders = {"train": root / "train", "test": root / "test" if (root / "test").is_dir() else root / "val"}
    for split, folder in folders.items():
        if not folder.is_dir():
            wanted = "train" if split == "train" else "test` or `val"
            raise DataError(
                f"{root}: there is no folder `{wanted}` in it; images lie in train/<class>/ and test/<class>/"
            )
    names = {
        split: {entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
        for split, folder in folders.items()
    }
    for one, other in (("train", "test"), ("test", "train")):
        extra = sorted(names[one] - names[other])
        if extra:
            some = ", ".join(extra[:_SHOWN])
            raise DataError(f"{root}: the splits should have the same classes; only {folders[one].name} has {some}")
    classes = sorted(names["train"])
    if len(classes) < 2:
        raise DataError(f"{folders['train']}: should hold at least 2 folders, one a class, not {len(classes)}")
    files: dict[str, list[Path]] = {}
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for split, folder in folders.items():
        by_class = [_image_files(folder / name) for name in classes]
        files[split] = [file for members in by_class for file in members]
        labels[split] = np.repeat(np.arange(len(classes)), [len(members) for members in by_class])
    return _Listing(root, classes, files, labels)


def _image_files(folder: Path) -> list[Path]:
    named = (file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
    files = sorted(file for file in named if file.is_file())
    if not files:
        raise DataError(f"{folder}: holds no image file ({', '.join(sorted(SUFFIXES))})")
    return files


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _read_index(cache: Path, listing: _Listing) -> dict[str, Any] | None:
    """What an earlier look at the same files found; None where there was none."""
    try:
        index = json.loads((cache / "index.json").read_text(encoding="utf-8"))
        valid = index["state"] == listing.state() and index["stored"] == _stored(cache)
        valid = valid and isinstance(index["sha256"], str) and np.array(index["histogram"], np.int64).shape == (3, 256)
        if valid and index["decoded"]:
            valid = all(len(_mapped(cache, split)) == len(files) for split, files in listing.files.items())
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return dict(index) if valid else None


def _stored(cache: Path) -> dict[str, list[int]]:
    """Size and time of change of the decoded images, so that a store that anything else has touched is made anew."""
    files = {file.name: file.stat() for file in sorted(cache.glob("*.npy"))}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}


def _mapped(cache: Path, split: str) -> npt.NDArray[np.uint8]:
    # Copy on write: torch takes no arrays that cannot be written to, and nothing is ever written.
    mapped: npt.NDArray[np.uint8] = np.load(cache / f"{split}.npy", mmap_mode="c")
    return mapped


def _look_at_all(listing: _Listing, size: int, cache: Path, keep: bool, say: Say) -> dict[str, Any]:
    """Read every file once; the index is written last, so that a killed look counts for nothing."""
    for file in [cache / "index.json", *cache.glob("*.npy")]:
        file.unlink(missing_ok=True)
    state = listing.state()
    digest = hashlib.sha256(f"{_VERSION}\0{size}".encode())
    counts = np.zeros((3, 256), np.int64)
    corrupt: list[str] = []
    total = sum(map(len, listing.files.values()))
    done, began, reported = 0, time.monotonic(), time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, files in listing.files.items():
            shape = FolderImages(files, size).shape
            store = np.lib.format.open_memmap(cache / f"{split}.npy", "w+", np.uint8, shape) if keep else None
            for row, (sha256, pixels, problem) in enumerate(_windowed(pool, files, size)):
                digest.update(f"{split}/{files[row].parent.name}/{files[row].name}\0{sha256}\0".encode())
                if pixels is None:
                    corrupt.append(problem)
                else:
                    if store is not None:
                        store[row] = pixels
                    if split == "train":
                        counts += histogram(pixels[None])
                done += 1
                if time.monotonic() - reported > 5:
                    reported = time.monotonic()
                    left = (reported - began) / done * (total - done)
                    say(f"{listing.root}: looked at {done} of {total} images, about {left:.0f} s left")
            if store is not None:
                store.flush()
            del store
    if corrupt:
        more = f"\n  and {len(corrupt) - _SHOWN} more" if len(corrupt) > _SHOWN else ""
        listed = "\n  ".join(corrupt[:_SHOWN])
        raise DataError(f"{listing.root}: {len(corrupt)} corrupt images; replace or remove them:\n  {listed}{more}")
    index = {
        "state": state,
        "sha256": digest.hexdigest(),
        "histogram": counts.tolist(),
        "decoded": keep,
        "stored": _stored(cache),
    }
    write_atomically(cache / "index.json", json.dumps(index).encode())
    return index


def _windowed(
    pool: ThreadPoolExecutor, files: list[Path], size: int
) -> Iterator[tuple[str, npt.NDArray[np.uint8] | None, str]]:
    """(hash, pixels, problem) for each file in order, a bounded number of them decoded ahead."""
    rest = iter(files)
    ahead = [pool.submit(_look_at, file, size) for file in islice(rest, 64)]
    while ahead:
        yield ahead.pop(0).result()
        ahead += [pool.submit(_look_at, file, size) for file in islice(rest, 1)]


def _look_at(file: Path, size: int) -> tuple[str, npt.NDArray[np.uint8] | None, str]:
    try:
        with file.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        return sha256, decode(file, size), ""
    except OSError as error:
        return "", None, f"{file}: {os_error_reason(error)}"
    except DataError as error:
        return "", None, str(error)
