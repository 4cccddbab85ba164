"""All rules over all trained models of a results folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from robustbench_cmic.audit.case import AttackResult, AuditedModel
from robustbench_cmic.audit.flags import Flag
from robustbench_cmic.audit.rules_attacks import ALL
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord

Ball = tuple[str, float]


@dataclass(frozen=True)
class Audit:
    """What the audit says of a results folder.

    Attributes:
        wanted: the suite asks for an audit.
        flags: by the id of a training: what was raised about the model and the attacks on it.
        worst: (training, ball) -> the flags of its worst case; absent where none is raised.
    """

    wanted: bool
    flags: dict[str, list[Flag]]
    worst: dict[tuple[str, Ball], list[Flag]]

    def of_cell(self, cell: Cell) -> list[Flag]:
        """The flags of one evaluation."""
        return [flag for flag in self.flags.get(cell.needs or "", []) if cell.id in flag.cells]

    def of_worst_case(self, training: str, ball: Ball) -> list[Flag]:
        """The flags of a model's worst case in a ball."""
        return self.worst.get((training, ball), [])


def flag_results(plan: Plan, records: Mapping[str, AnyRecord]) -> Audit:
    """Judge every trained model of a plan by the records there are."""
    wanted = bool(plan.of("audit"))
    flags: dict[str, list[Flag]] = {}
    worst: dict[tuple[str, Ball], list[Flag]] = {}
    audits = {cell.needs: cell for cell in plan.of("audit")}
    attacks: dict[str, list[Cell]] = {}
    for cell in plan.of("attack"):
        attacks.setdefault(cell.needs or "", []).append(cell)
    for training in plan.of("train"):
        probe = records.get(audits[training.id].id) if training.id in audits else None
        case = _case(training, attacks.get(training.id, []), probe, records)
        found_by_rules = [flag for rule in ALL for flag in rule(case)] + list(_unprobed(case, probe))
        raised = [flag for flag in found_by_rules if flag.cells]  # about no number at all: nothing to warn of
        flags[training.id] = raised
        for ball, rows in case.balls().items():
            ids = {row.cell.id for row in rows}
            found = [flag for flag in raised if flag.scope != "rows" and ids & flag.cells] + _weak(rows, raised)
            if found:
                worst[training.id, ball] = found
    return Audit(wanted, flags, worst)


def _case(
    training: Cell, cells: Iterable[Cell], probe: AnyRecord | None, records: Mapping[str, AnyRecord]
) -> AuditedModel:
    clean, rows = None, []
    for cell in cells:
        record = records.get(cell.id)
        if isinstance(record, AttackRecord) and record.status == "ok":
            if cell.attack == "none":
                clean = AttackResult(cell, record)
            else:
                rows.append(AttackResult(cell, record))
    if isinstance(probe, AuditRecord) and probe.status == "ok" and _fits(probe, rows):
        return AuditedModel(training, clean, rows, probe)
    return AuditedModel(training, clean, rows, None)


def _fits(probe: AuditRecord, rows: list[AttackResult]) -> bool:
    """It was made on a part of the examples that the attacks were made on."""
    return all(row.n > max(probe.positions, default=-1) for row in rows)


def _unprobed(case: AuditedModel, record: AnyRecord | None) -> Iterable[Flag]:
    """Without a probe nothing may pass for audited."""
    if case.probe is None and case.rows:
        name, why = (
            ("not-audited", "")
            if record is None
            else ("audit-failed", record.reason or "it was made on other examples")
        )
        yield Flag(name, case.attacked(), "model", why)


def _weak(rows: list[AttackResult], raised: list[Flag]) -> list[Flag]:
    """A worst case in which every attack that could be trusted is missing."""
    flagged = {cell for flag in raised if flag.scope == "rows" for cell in flag.cells}
    strong = [row for row in rows if row.strong and row.cell.id not in flagged]
    cells = frozenset(row.cell.id for row in rows)
    return [] if strong else [Flag("no-strong-attack", cells, "balls", f"{len(rows)} attacks in this ball")]
