"""A data set in one file, as it travels to a machine that has not got it. Its numbers stay, bit for bit."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np

from robustbench_cmic.data.base import Data, Split, StreamedImages
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.suite.data import AnyDataset


def pack_data(data: Data) -> bytes | None:
    """A data set as `read_packed` reads it, with its fingerprint and moments; None of one that is streamed."""
    if any(isinstance(split.images, StreamedImages) for split in (data.train, data.test)):
        return None
    # What is mapped from a file becomes an array in memory.
    train, test = (Split(np.array(split.images), np.array(split.labels)) for split in (data.train, data.test))
    whole = replace(data, train=train, test=test, known_sha256=data.sha256, known_moments=data.moments)
    return pickle.dumps(whole, protocol=5)


def read_packed(file: Path) -> Data:
    """A data set from a file that this program has written itself: a pickle is code."""
    loaded: Data = pickle.loads(file.read_bytes())
    return loaded


def packed_file(folder: Path, dataset: AnyDataset) -> Path:
    """Where in a folder a data set lies packed; of folds, each has a file of its own."""
    declared = canonical_json([dataset.model_dump(), getattr(dataset, "fold", 0)])
    return folder / f"{hashlib.sha256(declared.encode()).hexdigest()}.pickle"
