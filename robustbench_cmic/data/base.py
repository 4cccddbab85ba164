"""What every data source returns: two splits of images and labels, with a fingerprint."""

from __future__ import annotations

import abc
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from robustbench_cmic.records.schema import Features
from robustbench_cmic.suite.messages import UserError

Index = slice | npt.NDArray[np.int64]
Labels = npt.NDArray[np.int64]

CHUNK = 4096
"""Images looked at together where a whole split would not fit in memory."""


class DataError(UserError):
    """Data that is not there or not right; the message says what, where, and what would be right."""


class StreamedImages(abc.ABC):
    """Images of one split that are read when they are asked for; behaves like an array (N, C, H, W) of uint8."""

    dtype: np.dtype[Any] = np.dtype(np.uint8)
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    @abc.abstractmethod
    def __getitem__(self, index: Index) -> npt.NDArray[np.uint8]:
        """The images at these positions."""


Images = npt.NDArray[Any] | StreamedImages
"""(N, C, H, W) of uint8 (0 ... 255 for [0, 1]) or float32 in [0, 1]: in memory, memory-mapped, or streamed."""


class Moments(NamedTuple):
    """Mean and standard deviation of a split, per channel, of images in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) and their labels (N,) in [0, classes)."""

    images: Images
    labels: Labels


@dataclass(eq=False)
class Data:
    """A labelled data set in two splits.

    Attributes:
        classes: their number; each has at least one training image.
        known_sha256: fingerprint of the content, where a source has it already.
        known_moments: of the training images, likewise.
        class_names: what the classes are called, by label; None where they have no names.
        left_out: files of a user's own folder that are not among the images, by their paths in it.
        features: of a table, whose rows are images of (1, 1, features): what was done to its columns.
    """

    train: Split
    test: Split
    classes: int
    known_sha256: str | None = None
    known_moments: Moments | None = None
    class_names: Sequence[str] | None = None
    left_out: Sequence[str] = ()
    features: Features | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def split(self, name: Literal["train", "test"]) -> Split:
        """The split of that name."""
        return self.train if name == "train" else self.test

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) over shapes, types and contents of images and labels of both splits."""
        return self.known_sha256 or fingerprint([self.train, self.test])

    @functools.cached_property
    def moments(self) -> Moments:
        """Mean and standard deviation of the training images, per channel, computed exactly or in float64."""
        return self.known_moments or moments_of(self.train.images)


def suspicious_maximum(what: str, largest: float, white: int) -> str:
    """A warning where the largest value of all images is under half of what stands for white; else empty."""
    if largest >= white / 2:
        return ""
    scale = "of 255, as uint8 has it" if white == 255 else "of 1, as floats have it"
    return f"warning: {what}: the largest value is {largest:.4g} {scale}: nearly black images, or on another scale?"


def fingerprint(splits: Sequence[Split]) -> str:
    """SHA-256 (hex) over shapes, types and contents."""
    digest = hashlib.sha256()
    for split in splits:
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype.str}{tuple(array.shape)}".encode())
            for start in range(0, len(array), CHUNK):
                digest.update(np.ascontiguousarray(array[start : start + CHUNK]).data)
    return digest.hexdigest()


def histogram(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How often each of the 256 values occurs in each channel, (C, 256), of uint8 images (N, C, H, W)."""
    channels = images.swapaxes(0, 1).reshape(images.shape[1], -1)
    return np.stack([np.bincount(channel, minlength=256) for channel in channels])


def moments_of_histogram(counts: npt.NDArray[np.int64]) -> Moments:
    """Mean and standard deviation, exact up to the last rounding, from counts (C, 256) of values 0 ... 255."""
    values = np.arange(256) / 255
    total = counts.sum(1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(1) / total
    return Moments(tuple(mean.tolist()), tuple(np.sqrt(variance).tolist()))


def moments_of(images: Images) -> Moments:
    """Mean and standard deviation of images in [0, 1], per channel."""
    chunks = range(0, len(images), CHUNK)
    if images.dtype == np.uint8:
        return moments_of_histogram(sum((histogram(images[s : s + CHUNK]) for s in chunks), np.int64(0)))  # type: ignore[arg-type]
    count = len(images) * images.shape[2] * images.shape[3]
    axes = (0, 2, 3)
    mean = sum(images[s : s + CHUNK].sum(axes, dtype=np.float64) for s in chunks) / count
    centred = mean[None, :, None, None]
    variance = sum(((images[s : s + CHUNK] - centred) ** 2).sum(axes) for s in chunks) / count
    return Moments(tuple(mean.tolist()), tuple(np.sqrt(variance).tolist()))
