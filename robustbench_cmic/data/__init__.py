"""Data sources by name: each a function of the declared data set and the data folder that returns a `Data`.

Neither this module nor any source imports torch, but for the download of torchvision's data sets.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_cmic.data.base import Data


DATASETS = {
    "digits": "robustbench_cmic.data.digits:load_digits",
    "cifar10": "robustbench_cmic.data.named:load_named",
    "cifar100": "robustbench_cmic.data.named:load_named",
    "mnist": "robustbench_cmic.data.named:load_named",
    "fashion_mnist": "robustbench_cmic.data.named:load_named",
    "svhn": "robustbench_cmic.data.named:load_named",
    "arrays": "robustbench_cmic.data.arrays:load_arrays",
    "imagefolder": "robustbench_cmic.data.imagefolder:load_imagefolder",
}
"""Name -> the function that loads it."""

Say = Callable[[str], None]
"""Called with a line about long work."""


def default_folder() -> Path:
    """Where data lies unless `--data` or `ROBUSTBENCH_DATA` says otherwise: in the user's cache folder."""
    import platformdirs

    return platformdirs.user_cache_path("robustbench_cmic", appauthor=False) / "data"


def load_data(declared: dict[str, Any], folder: Path, memory: int | None = None, say: Say = lambda _: None) -> Data:
    """Load a data set.

    Args:
        declared: `name`, one of `DATASETS`, and its parameters, as a suite declares them.
        folder: where data lies and is downloaded to.
        memory: images that would take more bytes than this, decoded, are streamed; None: half of the machine's.
        say: told about downloads and decoding.

    Raises:
        DataError: the data is not there, or not right.
    """
    loaded: Data = pkgutil.resolve_name(DATASETS[declared["name"]])(declared, folder, memory, say)
    return loaded
