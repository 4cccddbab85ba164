"""A data set whose test examples are a part of its training examples: settings are chosen on it, tests stay unseen."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from robustbench_cmic.data.base import Data, DataError, Images, Index, Split, StreamedImages
from robustbench_cmic.data.subset import hold_out


class PartOfImages(StreamedImages):
    """Some streamed images by their positions (M,)."""

    def __init__(self, images: StreamedImages, rows: npt.NDArray[np.int64]) -> None:
        self.shape = (len(rows), *images.shape[1:])
        self.dtype = images.dtype
        self._images = images
        self._rows = rows

    def __getitem__(self, index: Index) -> npt.NDArray[np.uint8]:
        return self._images[self._rows[index]]


def judged_on_training_examples(data: Data, count: int) -> Data:
    """The same data, of whose training examples `count` are tested on; the test examples are in no split.

    Which they are depends on the labels alone, see `hold_out`: they are those that `select: best` would hold out.
    Images are normalised, and tables standardised, by all training examples, which takes no label of theirs.

    Raises:
        DataError: too few training examples are left, or none of some class.
    """
    labels = data.train.labels
    kept, held = hold_out(labels, count, "holdout")
    counts = np.bincount(labels[kept], minlength=data.classes)
    if not counts.all():
        lost = int(np.flatnonzero(counts == 0)[0])
        name = lost if data.class_names is None else data.class_names[lost]
        raise DataError(f"`holdout` leaves no training image of the class {name}: hold out a smaller share")
    told = f"{data.sha256}, {count} training examples held out, version 1"
    return replace(
        data,
        train=Split(_part(data.train.images, kept), labels[kept]),
        test=Split(_part(data.train.images, held), labels[held]),
        known_sha256=hashlib.sha256(told.encode()).hexdigest(),
        known_moments=data.moments,
    )


def _part(images: Images, rows: npt.NDArray[np.int64]) -> Images:
    return PartOfImages(images, rows) if isinstance(images, StreamedImages) else images[rows]
