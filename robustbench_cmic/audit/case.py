"""A case: one trained model, the attacks on it, and what its audit found, as the rules of the audit see them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import unpack_outcomes
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord
from robustbench_cmic.suite.attack_base import Attack, AttackKind
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.schema import attack_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Correct = NDArray[np.bool_]


@dataclass(frozen=True)
class AttackResult:
    """An attack that gave a result: its cell and its record."""

    cell: Cell
    record: AttackRecord

    @cached_property
    def correct(self) -> Correct:
        """(n,) truth values: the example is classified correctly."""
        return unpack_outcomes(self.record.outcomes or "", self.n)

    @property
    def n(self) -> int:
        """Number of examples."""
        return self.record.n or 0

    @cached_property
    def attack(self) -> Attack | None:
        """None for the clean evaluation."""
        return attack_of(self.cell.declared["attack"], self.cell.threat)

    @property
    def kind(self) -> AttackKind | None:
        """What the attack does, seen from the model that it is tried on."""
        if self.cell.source not in (None, self.cell.needs):
            return "transfer"
        return None if self.attack is None else self.attack.kind

    @property
    def one_step(self) -> bool:
        """A single step along the gradient."""
        return self.kind == "one-step"

    @property
    def black_box(self) -> bool:
        """Without the gradients of the attacked model, as far as is known."""
        return self.kind in ("black-box", "noise", "transfer", "unknown")

    @property
    def search(self) -> bool:
        """An iterated attack with the gradients of the attacked model."""
        return self.kind in ("gradient", "minimum-norm")

    @property
    def strong(self) -> bool:
        """A worst case may rest on it."""
        return self.search and self.attack is not None and self.attack.strong

    @property
    def on_cross_entropy(self) -> bool:
        """What it raises is cross entropy, as float32 computes it, or may be."""
        return self.attack is not None and self.attack.raises_cross_entropy

    def at(self, positions: list[int]) -> Correct:
        """The outcomes of some examples, in order."""
        return self.correct[positions]


@dataclass(frozen=True)
class CheckResult:
    """One of the audit's own attacks that did not crash.

    Attributes:
        of: label of the suite's attack that it mirrors.
        attack: what was run.
        correct: outcomes of the audit's examples.
    """

    of: str
    attack: Attack
    correct: Correct


@dataclass(frozen=True)
class AuditedModel:
    """One trained model.

    Attributes:
        training: its cell.
        clean: the clean evaluation; None where there is none.
        rows: the attacks that gave a result, in the plan's order.
        audit: the audit's record, whatever became of it; None where there is none.
    """

    training: Cell
    clean: AttackResult | None
    rows: list[AttackResult]
    audit: AnyRecord | None

    @cached_property
    def probe(self) -> AuditRecord | None:
        """What the audit found; None where it gave nothing, or was not made on a part of the attacks' examples."""
        if not isinstance(self.audit, AuditRecord) or self.audit.status != "ok":
            return None
        last = max(self.audit.positions, default=-1)
        return self.audit if all(row.n > last for row in self.rows) else None

    @cached_property
    def by_threat(self) -> dict[Threat, list[AttackResult]]:
        """The attacks in each ball."""
        rows: dict[Threat, list[AttackResult]] = {}
        for row in self.rows:
            rows.setdefault(row.cell.threat, []).append(row)
        return rows

    def every_cell(self) -> frozenset[str]:
        """All evaluations of the model, the clean one too."""
        return frozenset(row.cell.id for row in ([self.clean] if self.clean else []) + self.rows)

    def attacked(self) -> frozenset[str]:
        """All attacks on the model."""
        return frozenset(row.cell.id for row in self.rows)

    def cross_entropy_rows(self) -> frozenset[str]:
        """The attacks that raise cross entropy."""
        return frozenset(row.cell.id for row in self.rows if row.on_cross_entropy)

    def checks(self, name: str) -> list[CheckResult]:
        """The audit's own attacks of one kind that did not crash."""
        checks = [] if self.probe is None else self.probe.checks
        n = 0 if self.probe is None else len(self.probe.positions)
        return [
            CheckResult(check.of, attack, unpack_outcomes(check.outcomes, n))
            for check in checks
            if check.check == name
            and check.outcomes is not None
            and (attack := attack_of(check.attack, check.threat)) is not None
        ]

    def mirrored(self, check: CheckResult) -> AttackResult | None:
        """The attack of the suite that a check mirrors."""
        rows = self.by_threat.get(check.attack.threat, [])
        return next((row for row in rows if row.cell.attack == check.of), None)
