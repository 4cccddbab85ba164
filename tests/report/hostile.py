"""A board in which every string that a suite, its records or its audit may hold tries to run something."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from robustbench_cmic.audit import Audit, Flag
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, Part
from robustbench_cmic.report import Results, Summary
from tests.report.folders import HEAD, bits, cell_of, fill, planned, read, replace

# No colon: what stands behind one in the label of an attack is the source of a transfer.
BAD = (
    "<script>window.hacked = 1</script>\"><img src=x onerror=\"window.hacked = 2\">' onmouseover='window.hacked = 3'"
    "{{7*7}}{% raw %}</script><script>window.hacked = 4</script><!--<svg onload=window.hacked=5></style></title>"
    "%{x}`**|<a href=#x onclick=window.hacked=6>x</a><b>bold</b>&lt;i&gt;"
)

SUITE = f"""{HEAD}attacks:
  - {{name: FGSM, eps: [4/255, 8/255]}}
  - {{name: PGD, eps: [4/255, 8/255]}}
  - {{name: PGD, id: PGD-2, norm: l2, eps: 0.5}}
  - {{name: Transfer, eps: 8/255}}
"""


def hostile(tmp_path: Path) -> Summary:
    """A board of two models, three seeds, two norms, transfers, flags, a failure and limited evaluations."""
    plan = planned(tmp_path, SUITE)
    folder = fill(tmp_path / "made", plan, lambda cell: bits("1101" if cell.attack == "none" else "0101"))
    replace(folder, cell_of(plan, "b", 2, "FGSM", 8 / 255))
    board = read(folder)
    results = board.results
    cells = [_cell(cell) for cell in results.plan.cells]
    renamed = results.plan.model_copy(
        update={
            "suite": BAD, "description": BAD, "dataset": BAD, "cells": cells,
            "pairs": [(first + BAD, second + BAD) for first, second in results.plan.pairs],
        }
    )  # fmt: skip
    records = {cell + BAD: _record(record) for cell, record in results.records.items()}
    limited = [cell.model_copy(update={"declared": _limited(cell)}) for cell in cells if cell.attack == "none"][:1]
    return Summary(Results(tmp_path, renamed, records, limited, [BAD]), _audit(board.audit))


def _cell(cell: Cell) -> Cell:
    attack = cell.attack if cell.attack in ("none", "") else cell.attack + BAD
    others = {name: _more(getattr(cell, name)) for name in ("needs", "source", "after")}
    if cell.source is not None:
        attack = f"{cell.attack.partition(':')[0]}{BAD}:{cell.attack.partition(':')[2]}{BAD}"
    names = {name: getattr(cell, name) + BAD for name in ("id", "model", "architecture", "objective")}
    declared = _all(cell.declared)
    if cell.kind == "train":  # a user's own: any other has a title and keys of this project
        declared["objective"] = {"name": f"own.code:{BAD}", "code_sha256": BAD, "parameters": {BAD: BAD}}
    return cell.model_copy(update=names | others | {"attack": attack, "declared": declared})


def _more(text: str | None) -> str | None:
    return None if text is None else text + BAD


def _all(value: Any) -> Any:
    """Every text in plain data made hostile, and one hostile key in every mapping that is not empty."""
    if isinstance(value, dict):
        return {key: _all(inner) for key, inner in value.items()} | ({BAD: BAD} if value else {})
    if isinstance(value, list):
        return [_all(inner) for inner in value]
    return value + BAD if isinstance(value, str) else value


def _limited(cell: Cell) -> dict[str, Any]:
    return cell.declared | {"evaluation": {"limit": BAD, "by_command_line": True}}


def _record(record: AnyRecord) -> AnyRecord:
    changes: dict[str, Any] = {
        "suite": BAD, "cell": _cell(record.cell), "reason": BAD, "provenance": _all(record.provenance),
        "timing": record.timing.model_copy(update={"started": BAD}),
        "dataset_sha256": BAD, "checkpoint_sha256": BAD, "inputs": {BAD: BAD},
    }  # fmt: skip
    if isinstance(record, AttackRecord):
        part = Part(name=BAD, attacked=4, broken=1, forwards=1, backwards=1, seconds=1.0)
        changes |= {"examples_sha256": BAD, "images_sha256": BAD, "parts": [part]}
    return record.model_copy(update=changes)


def _audit(audit: Audit) -> Audit:
    flags = {training + BAD: [_flag(flag) for flag in found] for training, found in audit.flags.items()}
    worst = {(training + BAD, ball): [_flag(flag) for flag in found] for (training, ball), found in audit.worst.items()}
    return Audit(audit.wanted, flags, worst, audit.survivors)


def _flag(flag: Flag) -> Flag:
    return dataclasses.replace(flag, cells=frozenset(cell + BAD for cell in flag.cells), evidence=flag.evidence + BAD)
