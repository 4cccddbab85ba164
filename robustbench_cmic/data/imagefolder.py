"""A user's own image files: `train/<class>/*` and `test/<class>/*` (or `val`), brought to one size.

Every file is decoded once, at the first use: that finds the corrupt ones and gives the fingerprint and the moments.
Where all images fit in memory the same pass stores them decoded, to be memory-mapped from then on; else they are
decoded whenever they are needed. Both ways give the same pixels.

What is stored counts for files of the same content: where the file system says that any of them was touched, all are
hashed again, and decoded again where a hash is another.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from robustbench_cmic.data.base import (
    Data,
    DataError,
    Images,
    Index,
    Split,
    StreamedImages,
    histogram,
    moments_of_histogram,
    suspicious_maximum,
)
from robustbench_cmic.data.listing import MOST_NAMED, Listing, list_images
from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.suite.data import ImageFolder
from robustbench_cmic.suite.files import read_regular
from robustbench_cmic.suite.messages import os_error_reason

if TYPE_CHECKING:
    from robustbench_cmic.data import Say

_VERSION = "RGB; turned as EXIF says; central square resized bicubically; version 2"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF's orientation, what brings the image as it is stored to how it is seen (EXIF 2.32, tag 0x0112)."""
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


def decode(file: Path, size: int, content: bytes | None = None) -> npt.NDArray[np.uint8]:
    """One image as (3, size, size) uint8: turned as its EXIF data says, its central square, resized.

    `content` is what the file holds, where that is read already.

    Raises:
        DataError: the file is no whole image; the message names it.
    """
    try:
        with Image.open(file if content is None else io.BytesIO(content)) as opened:
            if opened.mode.startswith(("I", "F")):  # PIL would cut them off at 255
                raise DataError(f"{file}: has pixels of 16 or 32 bits (mode {opened.mode}): convert them to 8")
            if opened.width * opened.height > _MOST_PIXELS:
                raise DataError(f"{file}: has {opened.width} x {opened.height} pixels, more than {_MOST_PIXELS:,}")
            upright = _upright(opened.convert("RGB"), _orientation(opened))
            side = min(upright.size)
            left, top = (upright.width - side) // 2, (upright.height - side) // 2
            # Cropped first: of a long thin image the whole, resized, could fill the memory.
            square = upright.crop((left, top, left + side, top + side))
            image = square.resize((size, size), Image.Resampling.BICUBIC)
    except UnidentifiedImageError:
        raise DataError(f"{file}: is no image, or of a format that Pillow does not know") from None
    except _PILLOW_RAISES as error:
        raise DataError(f"{file}: {' '.join(str(error).split()) or type(error).__name__}") from None
    return np.asarray(image).transpose(2, 0, 1)


def _orientation(decoded: Image.Image) -> int | None:
    """EXIF's orientation of an image that is decoded; PIL has turned TIFFs by then, and says so."""
    try:
        found = decoded.getexif().get(ExifTags.Base.Orientation)
    except (*_PILLOW_RAISES, UserWarning, struct.error, LookupError, TypeError):  # what is no EXIF turns nothing
        return None
    return found if isinstance(found, int) else None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    turn = _TURNS.get(orientation or 1)
    return image if turn is None else image.transpose(turn)


def load_imagefolder(dataset: ImageFolder, folder: Path, memory: int | None, say: Say, reread: bool) -> Data:
    """The image files under `path`, see `ImageFolder`.

    Raises:
        DataError: folders or files that are missing, classes that differ between the splits, corrupt images.
    """
    if (absence := dataset.absence(folder)) is not None:
        raise DataError(f"{dataset.path}: {absence}")
    root, size = dataset.find(folder), dataset.size
    try:
        listing = list_images(root, dataset.train)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or root}: {os_error_reason(error)}") from None
    total = sum(math.prod(FolderImages(files, size).shape) for files in listing.files.values())
    fits = total <= (_half_of_memory() if memory is None else memory)
    key = f"{root.resolve()}\0{size}\0{_VERSION}{'' if dataset.train else '; test images alone'}"
    cache = folder / "decoded" / hashlib.sha256(key.encode()).hexdigest()[:16]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / ".lock"):
            index = None if reread else _read_index(cache, listing, size)
            if index is None or (fits and not index["decoded"]):
                index = _look_at_all(listing, size, cache, fits, say)
            images: dict[str, Images] = {
                split: _mapped(cache, split) if index["decoded"] and fits else FolderImages(files, size)
                for split, files in listing.files.items()
            }
    except OSError as error:
        raise DataError(f"cannot use {error.filename or cache}: {os_error_reason(error)}") from None
    train, test = (Split(images[split], listing.labels[split]) for split in (listing.first, "test"))
    counts = np.array(index["histogram"])
    largest = int(np.nonzero(counts.any(axis=0))[0].max())
    for line in filter(None, (listing.left_out_text(), suspicious_maximum(f"{root}/{listing.first}", largest, 255))):
        say(line)
    left_out = [entry.name for entry in listing.left_out]
    moments = moments_of_histogram(counts)
    return Data(train, test, len(listing.classes), index["sha256"], moments, listing.classes, left_out)


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _read_index(cache: Path, listing: Listing, size: int) -> dict[str, Any] | None:
    """What an earlier look at files of the same content found; None where there was none."""
    state = listing.state(time.time_ns())
    try:
        index = json.loads(read_regular(cache / "index.json").decode())
        valid = (
            index["stored"] == _stored(cache)
            and isinstance(index["sha256"], str)
            and np.array(index["histogram"], np.int64).shape == (3, 256)
        )
        if valid and index["decoded"]:
            valid = all(len(_mapped(cache, split)) == len(files) for split, files in listing.files.items())
        if not valid:
            return None
        if state and index["state"] == state:
            return dict(index)
        if _hash_all(listing, size) != index["sha256"]:
            return None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    if state:
        write_atomically(cache / "index.json", json.dumps(index | {"state": state}).encode())
    return dict(index)


def _stored(cache: Path) -> dict[str, list[int]]:
    """Size and time of change of the decoded images, so that a store that anything else has touched is made anew."""
    files = {file.name: file.stat() for file in sorted(cache.glob("*.npy"))}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in files.items()}


def _mapped(cache: Path, split: str) -> npt.NDArray[np.uint8]:
    # Copy on write: torch takes no arrays that cannot be written to, and nothing is ever written.
    mapped: npt.NDArray[np.uint8] = np.load(cache / f"{split}.npy", mmap_mode="c")
    return mapped


def _digest(size: int) -> hashlib._Hash:
    """The fingerprint of a folder, of which `_add` takes the files."""
    return hashlib.sha256(f"{_VERSION}\0{size}".encode())


def _add(digest: hashlib._Hash, split: str, file: Path, sha256: str) -> None:
    digest.update(f"{split}/{file.parent.name}/{file.name}\0{sha256}\0".encode(errors="surrogateescape"))


def _hash_all(listing: Listing, size: int) -> str:
    """The fingerprint of the files as they are now, none of them decoded."""
    digest = _digest(size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, files in listing.files.items():
            for file, sha256 in zip(files, pool.map(_sha256, files), strict=True):
                _add(digest, split, file, sha256)
    return digest.hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _look_at_all(listing: Listing, size: int, cache: Path, keep: bool, say: Say) -> dict[str, Any]:
    """Decode every file once; the index is written last, so that a killed look counts for nothing."""
    state = listing.state(time.time_ns())
    for file in [cache / "index.json", *cache.glob("*.npy")]:
        file.unlink(missing_ok=True)
    digest = _digest(size)
    counts = np.zeros((3, 256), np.int64)
    corrupt: list[str] = []
    total = sum(map(len, listing.files.values()))
    done, began, reported = 0, time.monotonic(), time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for split, files in listing.files.items():
            shape = FolderImages(files, size).shape
            store = np.lib.format.open_memmap(cache / f"{split}.npy", "w+", np.uint8, shape) if keep else None
            for row, (sha256, pixels, problem) in enumerate(_windowed(pool, files, size)):
                _add(digest, split, files[row], sha256)
                if pixels is None:
                    corrupt.append(problem)
                else:
                    if store is not None:
                        store[row] = pixels
                    if split == listing.first:
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
        more = [f"and {len(corrupt) - MOST_NAMED} more"] if len(corrupt) > MOST_NAMED else []
        listed = (f"  {each}" for each in [*corrupt[:MOST_NAMED], *more])
        raise DataError(f"{listing.root}: {len(corrupt)} corrupt images; replace or remove them:", *listed)
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
        content = file.read_bytes()  # once, so that what is decoded is what was hashed
        return hashlib.sha256(content).hexdigest(), decode(file, size, content), ""
    except OSError as error:
        return "", None, f"{file}: {os_error_reason(error)}"
    except DataError as error:
        return "", None, str(error)
