"""One trained model, attacks on it and its audit, made up as records: what the rules of the audit are tried on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from robustbench_cmic.audit import Audit, Flag, flag_results
from robustbench_cmic.audit.case import AttackResult
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.records.packing import pack_outcomes
from robustbench_cmic.records.probed import Derivatives, Forward, Gradients, Outputs
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord, Check, Part, Timing

N = 500
PROBED = 128
POSITIONS = [index * N // PROBED for index in range(PROBED)]
TIMING = Timing(started="2026-01-01T00:00:00+00:00", seconds=1.0)
TRAINING = "m.s0.train.0"

PGD: dict[str, Any] = {
    "name": "PGD", "alpha": 0.01, "steps": 40, "random_start": True, "restarts": 1, "targets": 0,
    "schedule": "constant", "loss": "ce", "early_stop": False,
}  # fmt: skip
FGSM = {"name": "FGSM", "loss": "ce"}
MARGIN = PGD | {"loss": "margin"}
NOISE = {"name": "Noise", "samples": 100}
AUTOATTACK = {"name": "AutoAttack", "targets": 9, "steps": 100, "queries": 5000}
OWN: dict[str, Any] = {
    "name": "my_package.code:attack",
    "code_sha256": "0",
    "parameters": {"steps": "many", "loss": "dlr"},
}
TRANSFER = {key: value for key, value in MARGIN.items() if key != "early_stop"} | {"name": "Transfer"}


def row(
    setting: dict[str, Any],
    broken: Iterable[int] = (),
    *,
    eps: float = 0.1,
    n: int = N,
    label: str = "",
    source: str | None = None,
    **changes: Any,
) -> AttackResult:
    """An attack that breaks the examples at some places and no other."""
    label = label or setting["name"]
    clean = setting["name"] == "none"
    cell = Cell(
        id=f"m.s0.{label}@{eps}", kind="attack", model="m", architecture="mlp", objective="ce", seed=0, attack=label,
        norm="" if clean else "linf", eps=0.0 if clean else eps, needs=TRAINING, source=source,
        declared={"attack": setting},
    )  # fmt: skip
    record = AttackRecord(
        suite="x", cell=cell, status="ok", provenance={}, timing=TIMING, n=n, outcomes=packed(broken, n), **changes
    )
    return AttackResult(cell, record)


def packed(broken: Iterable[int], n: int) -> str:
    lost = set(broken)
    return pack_outcomes([place not in lost for place in range(n)])


def check(
    name: str, setting: dict[str, Any], broken: Iterable[int] | None, *, of: str = "", eps: float = 0.1, n: int = PROBED
) -> Check:
    """One of the audit's own attacks; None: it crashed."""
    outcomes = None if broken is None else packed(broken, n)
    error = "crash" if broken is None else ""
    return Check(check=name, of=of, norm="linf", eps=eps, attack=setting, outcomes=outcomes, error=error)


def square(broken: int, name: str = "Square") -> list[Part]:
    return [Part(name=name, attacked=100, broken=broken, forwards=1, backwards=0, seconds=1.0)]


def gradients(ce: dict[str, Any] | None = None, margin: dict[str, Any] | None = None) -> list[Gradients]:
    """Of 120 examples."""
    facts = {"ce": ce or {}, "margin": margin or {}}
    return [Gradients.model_validate({"loss": loss, "n": 120} | own) for loss, own in facts.items()]


def slopes(place: str = "attacked", **changes: int) -> list[Derivatives]:
    """Of 120 examples at each place; `changes` at one of them."""
    names = ("clean", "random", "attacked")
    return [Derivatives.model_validate({"place": one, "n": 120} | (changes if one == place else {})) for one in names]


def probe(**changes: Any) -> AuditRecord:
    """What an audit finds on a model with which nothing is wrong, but for `changes`."""
    fields: dict[str, Any] = {
        "suite": "x", "cell": _audit_cell(), "status": "ok", "provenance": {}, "timing": TIMING,
        "positions": POSITIONS, "forward_pass": Forward(repeat=0, companions=0, training=[]),
        "outputs": Outputs(probabilities=False, saturated=0, at_bound=1, median_lead=5.0), "gradients": gradients(),
    }  # fmt: skip
    return AuditRecord.model_validate(fields | changes)


def forward(**changes: Any) -> AuditRecord:
    return probe(forward_pass=Forward.model_validate({"repeat": 0, "companions": 0, "training": []} | changes))


def outputs(**changes: Any) -> AuditRecord:
    facts = {"probabilities": False, "saturated": 0, "at_bound": 1, "median_lead": 5.0}
    return probe(outputs=Outputs.model_validate(facts | changes))


def _audit_cell() -> Cell:
    return Cell(
        id="m.s0.audit.0", kind="audit", model="m", architecture="mlp", objective="ce", seed=0, needs=TRAINING,
        declared={},
    )  # fmt: skip


def judged(
    rows: Sequence[AttackResult],
    found: AuditRecord | None,
    adversary: dict[str, Any] | None = None,
    wanted: bool = True,
) -> Audit:
    """All rules on one model: its attacks, the clean evaluation, and its audit."""
    objective: dict[str, Any] = {"name": "ce"} | ({} if adversary is None else {"adversary": adversary})
    training = Cell(
        id=TRAINING, kind="train", model="m", architecture="mlp", objective="ce", seed=0,
        declared={"objective": objective},
    )  # fmt: skip
    every = [row({"name": "none"}), *rows]
    cells = [training, *(one.cell for one in every), *([_audit_cell()] if wanted else [])]
    records: dict[str, AnyRecord] = {one.cell.id: one.record for one in every}
    if found is not None:
        records[found.cell.id] = found
    return flag_results(Plan(suite="x", description="", dataset="digits", pairs=[], cells=cells), records)


def raised(world: Audit) -> list[tuple[str, str, str]]:
    """(flag, attacks it is about, how far it reaches)."""
    return [(flag.name, about(flag), flag.scope) for flag in world.flags[TRAINING]]


def about(flag: Flag) -> str:
    """`PGD 0.1, PGD 0.2`."""
    return ", ".join(sorted(cell.removeprefix("m.s0.").replace("@", " ") for cell in flag.cells))
