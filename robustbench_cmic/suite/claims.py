"""How a report judges what a suite measured; no result depends on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from robustbench_cmic.suite.fields import Number, Strict


class Claims(Strict):
    """What a report may claim: accuracies that differ by less than `margin` points are equivalent."""

    margin: Annotated[Number, Field(gt=0, le=100)] = 2.0
