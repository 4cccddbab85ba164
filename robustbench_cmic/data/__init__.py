"""Data sources: each a function of the declared data set and the data folder that returns a `Data`.

Neither this module nor any source imports torch, but for the download of torchvision's data sets.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_cmic.suite.data import DeclaredDataset

if TYPE_CHECKING:
    from robustbench_cmic.data.base import Data


Say = Callable[[str], None]
"""Called with a line about long work."""


def default_data_folder() -> Path:
    """Where data lies unless `--data` or `ROBUSTBENCH_DATA` says otherwise: in the user's cache folder."""
    import platformdirs

    return platformdirs.user_cache_path("robustbench_cmic", appauthor=False) / "data"


def load_data(
    dataset: DeclaredDataset,
    folder: Path,
    memory: int | None = None,
    say: Say = lambda _: None,
    reread: bool = False,
) -> Data:
    """Load a data set.

    Args:
        dataset: as a suite declares it.
        folder: where data lies and is downloaded to.
        memory: images that would take more bytes than this, decoded, are streamed; None: half of the machine's.
        say: told about downloads and decoding, files that are left out, and numbers that are hardly meant.
        reread: read a user's own files anew, whatever is kept of them from an earlier time.

    Raises:
        DataError: the data is not there, or not right.
    """
    loaded: Data = pkgutil.resolve_name(dataset.implementation)(dataset, folder, memory, say, reread)
    if dataset.holdout is None:
        return loaded
    # Imported where it is needed, as the sources are: what only names a data set does without numpy.
    from robustbench_cmic.data.holdout import judged_on_training_examples

    return judged_on_training_examples(loaded, dataset.held_out(len(loaded.train.labels)))
