"""Does training with CMIC-DL make classifiers more accurate and more robust than training with cross entropy?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustbench_cmic.report.frame import load_results, worst_case

__all__ = ["__version__", "load_results", "worst_case"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported where it is asked for: a command that starts needs no tables.
    if name in ("load_results", "worst_case"):
        from robustbench_cmic.report import frame

        return getattr(frame, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
