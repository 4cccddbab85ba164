"""All rules over all trained models of a results folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from robustbench_cmic.audit.case import AttackResult, AuditedModel, Flag, Rule, ids
from robustbench_cmic.audit.rules_attacks import COMPARISON_RULES, NUMBER_RULES
from robustbench_cmic.audit.rules_model import AUDIT_RULES, PROBE_RULES, TEST_RULES, gave_nothing
from robustbench_cmic.audit.rules_normalization import NORMALIZATION_RULES
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.suite.fields import Threat

if TYPE_CHECKING:
    from robustbench_cmic.audit.case import Correct

_ALL = (*PROBE_RULES, *COMPARISON_RULES, *TEST_RULES, *NUMBER_RULES, *NORMALIZATION_RULES, *AUDIT_RULES)
RULES = {rule.name: rule for rule in _ALL}
"""Name -> rule, in the order in which reports explain them."""
_LAST = ("beaten-by-reference", "audit-failed", "active-test-inconclusive", "active-test-failed", "short-steps",
         "vanishing-gradients", "invalid-examples", "attacked-as-trained", "few-examples", "not-audited")  # fmt: skip
CHECKED = (
    *PROBE_RULES,
    *COMPARISON_RULES,
    *(RULES[name] for name in _LAST),
    *NORMALIZATION_RULES,
    Rule("audit-failed", gave_nothing, "this project"),
)
"""The rules in the order in which an attack's flags are listed; `no-strong-attack` is about worst cases alone."""


@dataclass(frozen=True)
class Audit:
    """What the audit says of a results folder.

    Attributes:
        wanted: the suite asks for an audit.
        flags: by the id of a training: what was raised about the model and the attacks on it.
        worst: (training, `Threat`) -> the flags of its worst case; absent where none is raised.
        survivors: (training, `Threat`) -> which examples survive the audit's own attacks in this ball, (n,) truth
            values, those that the audit did not take among them; absent where it made none.
    """

    wanted: bool
    flags: dict[str, list[Flag]]
    worst: dict[tuple[str, tuple[str, float]], list[Flag]]
    survivors: dict[tuple[str, tuple[str, float]], Correct]

    def of_cell(self, cell: Cell) -> list[Flag]:
        """The flags of one evaluation."""
        return [flag for flag in self.flags.get(cell.needs or "", []) if cell.id in flag.cells]

    def of_worst_case(self, training: str, threat: tuple[str, float]) -> list[Flag]:
        """The flags of a model's worst case in a ball."""
        return self.worst.get((training, threat), [])


def flag_results(plan: Plan, records: Mapping[str, AnyRecord]) -> Audit:
    """Judge every trained model of a plan by the records there are."""
    flags: dict[str, list[Flag]] = {}
    worst: dict[tuple[str, tuple[str, float]], list[Flag]] = {}
    survivors: dict[tuple[str, tuple[str, float]], Correct] = {}
    audits = {cell.needs: records.get(cell.id) for cell in plan.of("audit")}
    results: dict[str | None, list[AttackResult]] = {}
    for cell in plan.of("attack"):
        record = records.get(cell.id)
        if isinstance(record, AttackRecord) and record.status == "ok":
            results.setdefault(cell.needs, []).append(AttackResult(cell, record))
    for training in plan.of("train"):
        model = AuditedModel(training, results.get(training.id, []), audits.get(training.id))
        flags[training.id] = [flag for rule in CHECKED for flag in rule.flags(model)]
        for threat, inside in model.by_threat.items():
            if (alive := model.audited(threat)) is not None:
                survivors[training.id, threat] = alive
            smaller = [row for other in model.by_threat if _holds(threat, other) for row in model.by_threat[other]]
            if _survive(model, threat, smaller) and (raised := _of_worst_case(inside, flags[training.id])):
                worst[training.id, threat] = raised
    return Audit(bool(audits), flags, worst, survivors)


def _holds(large: Threat, small: Threat) -> bool:
    return large.norm == small.norm and small.eps <= large.eps


def _survive(model: AuditedModel, threat: Threat, rows: list[AttackResult]) -> bool:
    """Any example survives all, the audit's own attacks too; a worst case of none cannot be too high."""
    audited = (model.audited(other) for other in model.by_threat if _holds(threat, other))
    outcomes = [*(row.correct for row in rows), *(alive for alive in audited if alive is not None)]
    if len({len(alive) for alive in outcomes}) > 1:  # of other data: nothing to compare
        return True
    return bool(reduce(and_, outcomes).any())


def _of_worst_case(rows: list[AttackResult], flags: list[Flag]) -> list[Flag]:
    """Flags that reach the worst case of a ball; one of its own where every attack that could be trusted is missing."""
    cells = ids(rows)
    raised = [flag for flag in flags if flag.scope != "rows" and cells & flag.cells]
    strong = {row.cell.id: row.cell.attack for row in rows if row.strong}
    names = {
        cell: sorted({flag.name for flag in flags if flag.scope == "rows" and cell in flag.cells}) for cell in strong
    }
    if all(names.values()):
        count = f"{len(rows)} attack{'s' if len(rows) > 1 else ''} in this ball"
        but = [f"{strong[cell]} is flagged {' and '.join(own)}" for cell, own in names.items()]
        raised.append(Flag("no-strong-attack", cells, "balls", "; ".join([count, *but])))
    return raised
