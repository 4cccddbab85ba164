"""The 1,797 handwritten digits (8x8, 10 classes) that scikit-learn ships; no download."""

from __future__ import annotations

import numpy as np
from sklearn import datasets

from robustbench_cmic.data import Data

TRAIN_EXAMPLES = 1198


def load_digits() -> Data:
    """The first two thirds of the file to train on, the last third (599 images) to test on.

    The file is ordered by writer (13 people), so that the split keeps nearly all writers of the test images out of
    the training images; a shuffled split would not. Pixel counts 0 ... 16 become [0, 1] exactly.
    """
    bunch = datasets.load_digits()
    images = (bunch.images / 16.0).astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    return Data(
        x_train=images[:TRAIN_EXAMPLES],
        y_train=labels[:TRAIN_EXAMPLES],
        x_test=images[TRAIN_EXAMPLES:],
        y_test=labels[TRAIN_EXAMPLES:],
        classes=10,
    )
