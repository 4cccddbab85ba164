"""Data sources by name: each a function that returns a `Data` of images in [0, 1].

This module imports next to nothing, so that suites can be checked in no time.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustbench_cmic.data.base import Data

DATASETS = {
    "digits": "robustbench_cmic.data.digits:load_digits",
}
"""Name -> the function that loads it."""


def load_data(name: str) -> Data:
    """Load the data set `name`, one of `DATASETS`."""
    loaded: Data = pkgutil.resolve_name(DATASETS[name])()
    return loaded
