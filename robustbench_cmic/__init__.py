"""Does training with CMIC-DL make classifiers more accurate and more robust than cross entropy?

What is exported here is imported where it is asked for, and torch with it: `import robustbench_cmic` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_cmic.attacks.pgd import pgd
    from robustbench_cmic.information.measures import measure_information
    from robustbench_cmic.objectives.ce import CrossEntropy
    from robustbench_cmic.objectives.cmic import Cmic
    from robustbench_cmic.report.frame import load_results, worst_case
    from robustbench_cmic.run.evaluate import evaluate
    from robustbench_cmic.run.trained_model import load_model

__all__ = [
    "Cmic",
    "CrossEntropy",
    "__version__",
    "evaluate",
    "load_model",
    "load_results",
    "measure_information",
    "pgd",
    "worst_case",
]
__version__ = "0.1.0"

_PLACES = {
    "Cmic": "objectives.cmic",
    "CrossEntropy": "objectives.ce",
    "evaluate": "run.evaluate",
    "load_model": "run.trained_model",
    "load_results": "report.frame",
    "measure_information": "information.measures",
    "pgd": "attacks.pgd",
    "worst_case": "report.frame",
}
"""Name of an export -> the module that defines it; type checkers and editors read the imports above."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
