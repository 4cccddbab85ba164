"""A case: one trained model, the attacks on it, and what its audit found, as the rules of the audit see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import outcome_bits
from robustbench_cmic.records.schema import AttackRecord, AuditRecord, Check

# What torchattacks' classes are, for those that are not iterated attacks with the gradient of cross entropy.
ONE_STEP = {"FGSM", "FFGSM", "RFGSM"}
"""RFGSM where its `steps` are 1."""
BLACK_BOX = {"GN", "OnePixel", "Pixle", "Square", "SPSA"}
OTHER_LOSS = {"APGDT", "AutoAttack", "CW", "DeepFool", "EADEN", "EADL1", "FAB", "JSMA", "Jitter", "SparseFool"}
"""Besides those whose `loss` says so."""
MINIMAL = {"DeepFool", "EADEN", "EADL1", "JSMA", "SparseFool"}
"""They look for a small change in a norm of their own, not for any in the ball."""
FEW_STEPS = 10


@dataclass(frozen=True)
class AttackResult:
    """An attack that gave a result: its cell and its record."""

    cell: Cell
    record: AttackRecord

    @cached_property
    def bits(self) -> int:
        """The outcomes: bit i from the left is 1 where example i is classified correctly."""
        return outcome_bits(self.record.outcomes or "", self.n)

    @property
    def n(self) -> int:
        """Number of examples."""
        return self.record.n or 0

    @property
    def setting(self) -> dict[str, Any]:
        """The attack's name and parameters."""
        setting: dict[str, Any] = self.cell.declared["attack"]
        return setting

    @property
    def ball(self) -> tuple[str, float]:
        """Norm and eps."""
        return self.cell.norm, self.cell.eps

    @property
    def _library(self) -> str:
        name: str = self.setting["name"]
        return name.removeprefix("torchattacks.") if name.startswith("torchattacks.") else ""

    @property
    def _own(self) -> bool:
        """Code of a user's own. Nobody knows what it does: it is taken for the least that it may be."""
        return ":" in self.setting["name"]

    @property
    def one_step(self) -> bool:
        """A single step along the gradient."""
        if self._library:
            return self._library in ONE_STEP and self.setting.get("steps", 1) == 1
        iterated = self.setting["name"] in ("PGD", "Transfer") and not self.black_box
        single = iterated and self.setting["steps"] == 1 and self.setting["restarts"] == 1
        return self.setting["name"] == "FGSM" or single

    @property
    def black_box(self) -> bool:
        """Without the gradients of the attacked model, as far as is known."""
        transferred = self.setting["name"] == "Transfer" and self.cell.source != self.cell.needs
        return self.setting["name"] == "Noise" or transferred or self._own or self._library in BLACK_BOX

    @property
    def search(self) -> bool:
        """An iterated attack with the gradients of the attacked model."""
        return self.setting["name"] != "none" and not self.one_step and not self.black_box

    @property
    def strong(self) -> bool:
        """A search that a worst case may rest on: not on cross entropy, many steps, and they reach across the ball."""
        if not self.search or self.on_cross_entropy or self._library in MINIMAL:
            return False
        if self.setting["name"] not in ("PGD", "Transfer"):
            return True
        steps, alpha = self.setting["steps"], self.setting["alpha"]
        return bool(steps >= FEW_STEPS and steps * alpha >= self.cell.eps)

    @property
    def on_cross_entropy(self) -> bool:
        """What it raises is cross entropy, as float32 computes it, or may be."""
        if self._own:
            return True
        if self._library:
            return self._library not in OTHER_LOSS | BLACK_BOX and self.setting.get("loss", "ce") == "ce"
        return self.setting.get("loss") == "ce"

    def at(self, positions: list[int]) -> int:
        """The outcomes of some examples, in order, as bits."""
        found = 0
        for position in positions:
            found = found << 1 | (self.bits >> (self.n - 1 - position) & 1)
        return found


@dataclass(frozen=True)
class AuditedModel:
    """One trained model.

    Attributes:
        training: its cell.
        clean: the clean evaluation; None where there is none.
        rows: the attacks that gave a result, in the plan's order.
        probe: what the audit found; None where it gave nothing.
    """

    training: Cell
    clean: AttackResult | None
    rows: list[AttackResult]
    probe: AuditRecord | None

    def balls(self) -> dict[tuple[str, float], list[AttackResult]]:
        """The attacks in each ball."""
        found: dict[tuple[str, float], list[AttackResult]] = {}
        for row in self.rows:
            found.setdefault(row.ball, []).append(row)
        return found

    def every_cell(self) -> frozenset[str]:
        """All evaluations of the model, the clean one too."""
        return frozenset(row.cell.id for row in ([self.clean] if self.clean else []) + self.rows)

    def attacked(self) -> frozenset[str]:
        """All attacks on the model."""
        return frozenset(row.cell.id for row in self.rows)

    def cross_entropy_rows(self) -> frozenset[str]:
        """The attacks that raise cross entropy."""
        return frozenset(row.cell.id for row in self.rows if row.on_cross_entropy)

    def checks(self, name: str) -> list[tuple[Check, int]]:
        """The audit's own attacks of one kind that did not crash, with their outcomes as bits."""
        if self.probe is None:
            return []
        n = len(self.probe.positions)
        return [
            (check, outcome_bits(check.outcomes, n))
            for check in self.probe.checks
            if check.check == name and check.outcomes is not None
        ]

    def mirrored(self, check: Check) -> AttackResult | None:
        """The attack of the suite that a check mirrors."""
        ball = (check.norm, check.eps)
        return next((row for row in self.rows if row.cell.attack == check.of and row.ball == ball), None)
