"""A user's own images as one `.npz` file of four arrays, checked."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustbench_cmic.data.base import Data, DataError, Labels, Split
from robustbench_cmic.suite.data import Arrays
from robustbench_cmic.suite.messages import os_error_reason

KEYS = ("x_train", "y_train", "x_test", "y_test")
_CHANNELS = (1, 3)
_MOST_CLASSES = 1_000_000


def load_arrays(dataset: Arrays, folder: Path, *_: Any) -> Data:
    """The file `path`, absolute or in the data folder."""
    return read_arrays(folder / dataset.path)


def read_arrays(path: Path) -> Data:
    """Read a `.npz` with `x_train`, `y_train`, `x_test` and `y_test`; other arrays in it are left alone.

    Images are (N, H, W, C) or (N, C, H, W) with one or three channels, uint8 or floats in [0, 1]; labels are (N,)
    integers 0 ... C - 1, each of which occurs in training. Nothing in the file is unpickled.

    Raises:
        DataError: no such file, not whole, or an array that does not fit; the message names the array.
    """
    arrays = _open(path)
    x_train, x_test = (_images(path, key, arrays[key]) for key in ("x_train", "x_test"))
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
    if images.ndim != 4 or 0 in images.shape:
        shape = tuple(images.shape)
        raise DataError(f"{path}: {key} should have shape (N, H, W, C) or (N, C, H, W), none of them 0, not {shape}")
    last, first = images.shape[3] in _CHANNELS, images.shape[1] in _CHANNELS
    if last == first:
        what = "could be read both ways" if last else "has neither 1 nor 3 channels, first or last"
        raise DataError(f"{path}: {key} of shape {tuple(images.shape)} {what}: store (N, C, H, W) or (N, H, W, C)")
    if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"{path}: {key} should be uint8, or floats in [0, 1], not {images.dtype}")
    if images.dtype != np.uint8:
        low, high = float(images.min()), float(images.max())
        if not (low >= 0 and high <= 1):  # NaN fails both
            hint = "; divide by 255?" if low >= 0 and 1 < high <= 255 else ""
            raise DataError(f"{path}: {key} should lie in [0, 1], not in [{low:g}, {high:g}]{hint}")
        images = images.astype(np.float32)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2) if last else images)


def _labels(path: Path, key: str, labels: npt.NDArray[Any]) -> Labels:
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DataError(f"{path}: {key} should be (N,) integers, not {labels.dtype} of shape {tuple(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= _MOST_CLASSES:
        wrong = labels.min() if int(labels.min()) < 0 else labels.max()
        raise DataError(f"{path}: {key} has the label {wrong}; labels should be 0 ... classes - 1")
    return labels.astype(np.int64)
