"""What the rules of the audit see, one trained model with the attacks on it, and what a rule is and raises."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

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

Scope = Literal["rows", "balls", "model"]
Finding = tuple[frozenset[str], Scope, str]
"""Cells, scope and evidence of a `Flag`."""

_IN_BALLS = ("reference", "gradient-free", "confirm", "other-loss", "longer", "noise")
ATHALYE = "Athalye, Carlini & Wagner 2018, section 3.1"
CARLINI = "Carlini et al. 2019, On Evaluating Adversarial Robustness"


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
        """Without the gradients of the attacked model; not a user's own that does not say so."""
        return self.kind in ("black-box", "noise", "transfer")

    @property
    def search(self) -> bool:
        """An iterated attack with the gradients of the attacked model."""
        return self.kind in ("gradient", "minimum-norm")

    @property
    def reaches_edge(self) -> bool:
        """Its steps may go as far as the edge of the ball; where they cannot, its failing says nothing of gradients."""
        return self.attack is None or self.attack.reaches_edge

    @property
    def strong(self) -> bool:
        """A worst case may rest on it."""
        return self.search and self.attack is not None and self.attack.strong

    @property
    def on_cross_entropy(self) -> bool:
        """What it raises is cross entropy, as float32 computes it, or may be."""
        return self.attack is not None and self.attack.raises_cross_entropy


def ids(rows: Iterable[AttackResult]) -> frozenset[str]:
    """The ids of their cells."""
    return frozenset(row.cell.id for row in rows)


class CheckResult(NamedTuple):
    """One of the audit's own attacks that did not crash, with the outcomes of the audit's examples; see `Check`."""

    of: str
    attack: Attack
    correct: Correct


@dataclass(frozen=True)
class AuditedModel:
    """One trained model.

    Attributes:
        training: its cell.
        evaluations: those that gave a result, the clean one too, in the plan's order.
        audit: the audit's record, whatever became of it; None where there is none.
    """

    training: Cell
    evaluations: list[AttackResult]
    audit: AnyRecord | None

    @cached_property
    def rows(self) -> list[AttackResult]:
        """The attacks."""
        return [row for row in self.evaluations if row.attack is not None]

    @cached_property
    def probe(self) -> AuditRecord | None:
        """What the audit found; None where it gave nothing, or was not made on a part of the attacks' examples."""
        if not isinstance(self.audit, AuditRecord) or self.audit.status != "ok":
            return None
        last = max(self.audit.positions, default=-1)
        return self.audit if all(row.n > last for row in self.rows) else None

    @property
    def positions(self) -> list[int]:
        """The audit's examples among all, counted from 0; none without a probe."""
        return self.probe.positions if self.probe else []

    @cached_property
    def by_threat(self) -> dict[Threat, list[AttackResult]]:
        """The attacks in each ball."""
        rows: dict[Threat, list[AttackResult]] = {}
        for row in self.rows:
            rows.setdefault(row.cell.threat, []).append(row)
        return rows

    @property
    def attacked(self) -> frozenset[str]:
        """All attacks on the model."""
        return ids(self.rows)

    def reached(self, whole: bool) -> tuple[frozenset[str], Scope]:
        """Cells and scope of a flag that is about the model, or, if not the whole, about attacks on cross entropy."""
        return (self.attacked, "model") if whole else (ids(row for row in self.rows if row.on_cross_entropy), "rows")

    def audited(self, threat: Threat, *names: str) -> Correct | None:
        """(n,) truth values: which examples of a ball's attacks survive the audit's checks, of these kinds if named.

        Those that the audit did not take survive. None where no such check gave a result.
        """
        import numpy as np

        found = [check for name in names or _IN_BALLS for check in self.checks(name) if check.attack.threat == threat]
        if not found or threat not in self.by_threat:
            return None
        alive = np.ones(self.by_threat[threat][0].n, dtype=bool)
        for check in found:
            alive[self.positions] &= check.correct
        return alive

    def checks(self, name: str) -> Iterator[CheckResult]:
        """The audit's own attacks of one kind that did not crash."""
        for check in self.probe.checks if self.probe else []:
            attack = attack_of(check.attack, check.threat)
            if check.check == name and check.outcomes is not None and attack is not None:
                yield CheckResult(check.of, attack, unpack_outcomes(check.outcomes, len(self.positions)))


@dataclass(frozen=True)
class Flag:
    """A raised flag.

    Attributes:
        name: a key of `audit.RULES`.
        cells: ids of the attack cells whose numbers it is about.
        scope: `rows`: only the numbers of these attacks; `balls`: the worst cases of their balls, too; `model`: it is
            about the model whatever the attack, and so about every worst case.
        evidence: the numbers that raised it.
    """

    name: str
    cells: frozenset[str]
    scope: Scope
    evidence: str


@dataclass(frozen=True)
class Rule:
    """One rule of the audit.

    Attributes:
        name: of its flag.
        check: what of a model the flag is about, a pure function; its docstring is what reports say of the rule.
        source: where the rule comes from.
    """

    name: str
    check: Callable[[AuditedModel], Iterator[Finding]]
    source: str

    @property
    def meaning(self) -> str:
        """A sentence for people: what a raised flag says."""
        return " ".join((self.check.__doc__ or "").split())

    def flags(self, model: AuditedModel) -> list[Flag]:
        """The flags that it raises; about no number at all there is nothing to warn of."""
        return [Flag(self.name, *finding) for finding in self.check(model) if finding[0]]
