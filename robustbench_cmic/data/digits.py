"""The 1,797 handwritten digits (8x8, 10 classes) that scikit-learn ships; no download."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from robustbench_cmic.data.base import Data, Split

TRAIN_EXAMPLES = 1198


def load_digits(*_: Any) -> Data:
    """The first two thirds of the file to train on, the last third (599 images) to test on.

    The file is ordered by writer (13 people), so that the split keeps nearly all writers of the test images out of
    the training images; a shuffled split would not. Pixel counts 0 ... 16 become [0, 1] exactly.
    """
    # Equal to sklearn.datasets.load_digits(), whose import takes seconds: a run that finds all done should not wait.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("scikit-learn is not installed: pip install scikit-learn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    images = (table[:, :-1] / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = table[:, -1].copy()
    return Data(
        train=Split(images[:TRAIN_EXAMPLES], labels[:TRAIN_EXAMPLES]),
        test=Split(images[TRAIN_EXAMPLES:], labels[TRAIN_EXAMPLES:]),
        classes=10,
        class_names=tuple("0123456789"),
    )
