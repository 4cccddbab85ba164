"""Does training with CMIC-DL make classifiers more accurate and more robust than training with cross entropy?"""

from __future__ import annotations

__version__ = "0.1.0"
