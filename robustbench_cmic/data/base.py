"""What every data source returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Data:
    """A labelled data set in two splits.

    Attributes:
        x_train: (N, C, H, W) float32 images in [0, 1].
        y_train: (N,) int64 labels in [0, classes).
        x_test: (M, C, H, W) float32 images in [0, 1].
        y_test: (M,) int64 labels.
        classes: number of classes.
    """

    x_train: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.int64]
    classes: int

    def fingerprint(self) -> str:
        """SHA-256 (hex) over shapes, types and contents of all four arrays."""
        digest = hashlib.sha256()
        for array in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()
