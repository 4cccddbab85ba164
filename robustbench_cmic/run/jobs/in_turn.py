"""Checks of an audit that are made in turn in a ball, each on what the earlier ones left."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_cmic.plan.audit import IN_TURN, PlannedCheck
from robustbench_cmic.records.packing import unpack_outcomes
from robustbench_cmic.records.schema import Check
from robustbench_cmic.suite.fields import Threat

CLOSED = 0.02
"""Where PGD leaves no more than this share of the examples, no attack without gradients is tried."""


class InTurn:
    """Which of the audit's examples are left to those of its checks that are made in turn, in each ball.

    Args:
        examples: how many the audit takes.
    """

    def __init__(self, examples: int) -> None:
        self._all = torch.ones(examples, dtype=torch.bool)
        self._left: dict[Threat, Tensor] = {}
        self._alone: dict[Threat, Tensor] = {}

    def attacked(self, check: PlannedCheck) -> Tensor:
        """(n,) truth values: the examples that a check attacks."""
        left = self._left.get(check.threat, self._all)
        if check.check == "confirm":
            return self._alone.get(check.threat, ~self._all)
        if check.check == "gradient-free" and int(left.sum()) <= CLOSED * len(left):
            return ~self._all
        return left if check.check in IN_TURN else self._all

    def note(self, check: Check) -> None:
        """What a check did."""
        if check.check not in IN_TURN or check.outcomes is None:
            return
        correct = torch.from_numpy(unpack_outcomes(check.outcomes, len(self._all)))
        if check.check == "confirm":
            self._alone[check.threat] = self._alone[check.threat] & correct
            return
        left = self._left.get(check.threat, self._all)
        if check.check == "gradient-free":
            self._alone[check.threat] = left & ~correct
        self._left[check.threat] = left & correct
