"""A user's own images as one `.npz` file of four arrays, checked."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from robustbench_cmic.data.base import Data, DataError, Labels, Split, suspicious_maximum
from robustbench_cmic.suite.data import Arrays
from robustbench_cmic.suite.messages import os_error_reason

if TYPE_CHECKING:
    from robustbench_cmic.data import Say

KEYS = ("x_train", "y_train", "x_test", "y_test")
_CHANNELS = (1, 3)
_MOST_CLASSES = 1_000_000
_ROUNDING = 1e-6
"""How far a value may miss [0, 1]: what rounding does to float32 several times over."""


def load_arrays(dataset: Arrays, folder: Path, _: int | None, say: Say, *__: Any) -> Data:
    """The file `path`, see `Arrays`."""
    if (absence := dataset.absence(folder)) is not None:
        raise DataError(f"{dataset.path}: {absence}")
    return read_arrays(dataset.find(folder), say)


def read_arrays(path: Path, say: Say = lambda _: None) -> Data:
    """Read a `.npz` with `x_train`, `y_train`, `x_test` and `y_test`; other arrays in it are left alone.

    Images are (N, H, W, C) or (N, C, H, W) with one or three channels, or (N, H, W) of one, uint8 or floats in [0, 1];
    floats that miss it by 1e-6 at most are set to 0 or 1. Labels are (N,) integers 0 ... C - 1, each of which occurs in
    training. Nothing in the file is unpickled. `say` is warned of images that are hardly what was meant.

    Raises:
        DataError: no such file, not whole, or an array that does not fit; the message names the array.
    """
    arrays = _open(path)
    x_train, x_test = (_images(path, key, arrays[key]) for key in ("x_train", "x_test"))
    for key, images in (("x_train", x_train), ("x_test", x_test)):
        white = 255 if images.dtype == np.uint8 else 1
        if warning := suspicious_maximum(f"{path}: {key}", float(images.max()), white):
            say(warning)
    y_train, y_test = (_labels(path, key, arrays[key]) for key in ("y_train", "y_test"))
    for images, labels, split in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if len(images) != len(labels):
            raise DataError(f"{path}: x_{split} has {len(images)} images, y_{split} {len(labels)} labels")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        kinds = [f"{x.dtype} {x.shape[1:]}" for x in (x_train, x_test)]
        raise DataError(f"{path}: x_train and x_test should be alike, not {kinds[0]} and {kinds[1]} (C, H, W)")
    classes = int(y_train.max()) + 1
    missing = np.setdiff1d(np.arange(classes), y_train)
    if len(missing) > 0 or classes < 2:
        what = f"the labels of y_train leave out {missing[0]}" if len(missing) > 0 else "y_train has one class only"
        raise DataError(f"{path}: {what}; labels should be 0 ... classes - 1, each used, of at least 2 classes")
    if int(y_test.max()) >= classes:
        raise DataError(f"{path}: y_test has the label {y_test.max()}, which y_train has not")
    return Data(Split(x_train, y_train), Split(x_test, y_test), classes)


def _open(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(f"{path}: is no regular file")
        with path.open("rb") as opened:
            if opened.read(6) == b"\x93NUMPY":
                raise DataError(f"{path}: should be a .npz of {', '.join(KEYS)}, not a single array")
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile
        with np.load(path, allow_pickle=False) as file:
            absent = [key for key in KEYS if key not in file.files]
            if absent:
                held = ", ".join(file.files[:10]) or "nothing"
                raise DataError(
                    f"{path}: the array {absent[0]} is missing; it holds {held}, and needs {', '.join(KEYS)}"
                )
            arrays = {key: file[key] for key in KEYS}
            if not all(isinstance(array, np.ndarray) for array in arrays.values()):
                raise ValueError("a member that is no array")
            return arrays
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {os_error_reason(error)}") from None
    except MemoryError:
        raise DataError(f"{path}: its arrays do not fit in memory") from None
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{path}: holds Python objects (a pickle), which are never loaded; store numbers") from None
        raise DataError(f"{path}: is no whole .npz file (truncated, or not made by numpy.savez)") from None


def _images(path: Path, key: str, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, C, H, W), uint8 or float32."""
    if images.ndim not in (3, 4) or 0 in images.shape:
        shapes = "(N, H, W, C) or (N, C, H, W), or (N, H, W) of one channel, none of them 0"
        raise DataError(f"{path}: {key} should have shape {shapes}, not {tuple(images.shape)}")
    if images.ndim == 3:
        return np.ascontiguousarray(_in_bounds(path, key, images[:, None]))
    last, first = images.shape[3] in _CHANNELS, images.shape[1] in _CHANNELS
    if last == first:
        what = "could be read both ways" if last else "has neither 1 nor 3 channels, first or last"
        raise DataError(f"{path}: {key} of shape {tuple(images.shape)} {what}: store (N, C, H, W) or (N, H, W, C)")
    return np.ascontiguousarray(_in_bounds(path, key, images.transpose(0, 3, 1, 2) if last else images))


def _in_bounds(path: Path, key: str, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same images, uint8, or float32 in [0, 1]."""
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{path}: {key} should be uint8, or floats in [0, 1], not {images.dtype}")
    low, high = images.min(), images.max()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN fails both
        if lost := len(images) - int(np.isfinite(images).all((1, 2, 3)).sum()):
            raise DataError(
                f"{path}: {key}: {lost} of {len(images)} images hold NaN or infinity; they should be in [0, 1]"
            )
        hint = _hint(float(low), float(high))
        raise DataError(f"{path}: {key} should lie in [0, 1], not in [{_exact(low)}, {_exact(high)}]{hint}")
    images = images.astype(np.float32)
    return np.clip(images, 0, 1) if low < 0 or high > 1 else images


def _hint(low: float, high: float) -> str:
    """What may have happened to images outside [0, 1]."""
    if low >= 0 and 127 < high <= 255:
        return "; divide by 255?"
    if low >= 0 and high >= 2:
        return "; divide by the value that stands for white?"
    return "; clip them?" if low > -0.2 and high < 1.2 else ""


def _exact(value: np.floating[Any]) -> str:
    """As many digits as tell the number from its neighbours: what is not in [0, 1] never reads as 0 or 1."""
    return f"{float(str(value)):.16g}"


def _labels(path: Path, key: str, labels: npt.NDArray[Any]) -> Labels:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DataError(f"{path}: {key} should be (N,) integers, not {labels.dtype} of shape {tuple(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= _MOST_CLASSES:
        wrong = labels.min() if int(labels.min()) < 0 else labels.max()
        raise DataError(f"{path}: {key} has the label {wrong}; labels should be 0 ... classes - 1")
    return labels.astype(np.int64)
