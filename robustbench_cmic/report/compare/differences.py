"""What two results folders declare and where they come from, side by side: key by key, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from robustbench_cmic.plan.cell import Cell, Plan, canonical_json
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.suite.fields import Frozen, format_eps

_MAX_CHARACTERS = 60
_HASHES = {"dataset_sha256", "examples_sha256"}


class Difference(Frozen):
    """One key that differs.

    Attributes:
        old, new: the values; None where there is none.
        where: the models or attacks it is about; empty where it is about everything.
        cells: how many cells it is declared by; 0 where it is about no cell.
    """

    key: str
    old: Any
    new: Any
    where: list[str] = []
    cells: int = 0

    def text(self) -> str:
        """`training.epochs: 20 -> 30 (cnn-ce)`."""
        about = f" ({', '.join(self.where)})" if self.where else ""
        return f"{self.key}: {brief(self.old)} -> {brief(self.new)}{about}"


def brief(value: Any) -> str:
    """A value in few characters: hashes and long lists are cut."""
    if value is None:
        return "–"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return f"{len(value)} entries ({canonical_json(value)[:20]}…)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return f"{text[:12]}…"
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"


def flattened(value: Any, prefix: str = "", into_lists: bool = False) -> dict[str, Any]:
    """Nested mappings (and lists, if asked for) as one, with dotted keys."""
    if isinstance(value, Mapping):
        parts: Iterable[tuple[str, Any]] = ((f"{prefix}.{key}" if prefix else str(key), v) for key, v in value.items())
    elif into_lists and isinstance(value, list):
        parts = ((f"{prefix}[{index}]", item) for index, item in enumerate(value))
    else:
        return {prefix: value}
    return {key: leaf for name, part in parts for key, leaf in flattened(part, name, into_lists).items()}


def declared_differences(pairs: Iterable[tuple[Cell, Cell]]) -> list[Difference]:
    """In which parameters old and new cells of equal identity differ; those of a training are told by its model."""
    return _grouped(
        (old.model if old.kind == "train" else old.attack or old.kind, change)
        for old, new in pairs
        for change in value_differences(_own_parameters(old), _own_parameters(new))
    )


def _grouped(changes: Iterable[tuple[str, Difference]]) -> list[Difference]:
    """Equal changes once, in the order of their first place, with all places."""
    places: dict[tuple[str, str, str], list[str]] = {}
    for place, change in changes:
        places.setdefault((change.key, canonical_json(change.old), canonical_json(change.new)), []).append(place)
    return [
        Difference(key=key, old=json.loads(a), new=json.loads(b), where=list(dict.fromkeys(where)), cells=len(where))
        for (key, a, b), where in places.items()
    ]


def _own_parameters(cell: Cell) -> dict[str, Any]:
    """Without those of the cells that it depends on."""
    others = () if cell.kind == "train" else ("train", "source", "after")
    return flattened({key: value for key, value in cell.declared.items() if key not in others})


def value_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """The keys in which two flat mappings differ, in the order of the old one, then of the new one."""
    keys = dict.fromkeys([*old, *new])
    return [Difference(key=key, old=old.get(key), new=new.get(key)) for key in keys if old.get(key) != new.get(key)]


def plan_differences(old: Plan, new: Plan) -> list[Difference]:
    """Models, seeds, attacks, audits and pairs that only one of two plans has, and how reports of each judge."""
    claims = (flattened({"claims": plan.claims.model_dump()}) for plan in (old, new))
    differences = value_differences(*claims)
    new_names = _names(new)
    for what, before in _names(old).items():
        after = new_names[what]
        if removed := [name for name in before if name not in after]:
            differences.append(Difference(key=f"{what} removed", old=", ".join(removed), new=None))
        if added := [name for name in after if name not in before]:
            differences.append(Difference(key=f"{what} added", old=None, new=", ".join(added)))
    return differences


def _names(plan: Plan) -> dict[str, dict[str, None]]:
    """What a plan is made of, by kind, in its order."""
    trainings, attacks = plan.of("train"), [cell for cell in plan.of("attack") if cell.norm]
    return {
        "models": dict.fromkeys(cell.model for cell in trainings),
        "seeds": dict.fromkeys(str(cell.seed) for cell in trainings),
        "attacks": dict.fromkeys(f"{cell.attack} {cell.norm} eps {format_eps(cell.eps)}" for cell in attacks),
        "audits": dict.fromkeys(["audit"] if plan.of("audit") else []),
        "pairs": dict.fromkeys(f"{first} against {second}" for first, second in plan.pairs),
    }


def environment(provenances: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Code, versions and machine behind records, key by key, as text; several values of a key are joined by `; `."""
    by_key: dict[str, set[str]] = {}
    for provenance in provenances:
        for key, value in flattened(provenance).items():
            if value is not None:
                by_key.setdefault(key, set()).add(value if isinstance(value, str) else json.dumps(value))
    return {key: "; ".join(sorted(values)) for key, values in by_key.items()}


def hash_differences(pairs: Iterable[tuple[AnyRecord, AnyRecord]]) -> list[Difference]:
    """Where the data or the evaluated examples are others: hashes, old and new, with the models concerned."""
    return _grouped(
        (old.cell.model, change)
        for old, new in pairs
        if (old.status, new.status) == ("ok", "ok")
        for change in value_differences(old.model_dump(include=_HASHES), new.model_dump(include=_HASHES))
    )


def payloads(old: AnyRecord, new: AnyRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two records as plain data without what may differ between equal runs, and what only one of them measured.

    Calibration, accuracy without the normalisation, and what a training says of its data, are in no record from before
    there were such fields, and outputs where they are asked for: that one has none is no other result.
    """
    plain = _payload(old), _payload(new)
    for later in ("calibration", "without_normalization", "image_shape", "classes", "features", "outputs"):
        if any(side.get(later) is None for side in plain):
            for side in plain:
                side.pop(later, None)
    return plain


def _payload(record: AnyRecord) -> dict[str, Any]:
    """Without times, origins, names of the suite."""
    plain = record.model_dump(mode="json", exclude={"timing", "provenance", "suite"})
    for part in plain.get("parts", []):
        del part["seconds"]
    return plain


def largest_difference(old: AnyRecord, new: AnyRecord) -> Difference | None:
    """The number that differs most between two records, relative to its size; without numbers, what differs first."""
    sides = [flattened({k: v for k, v in r.items() if k != "cell"}, into_lists=True) for r in payloads(old, new)]
    changes = value_differences(*sides)
    numbers = [change for change in changes if {type(change.old), type(change.new)} <= {int, float}]
    if numbers:
        return max(numbers, key=lambda change: abs(change.old - change.new) / max(abs(change.old), abs(change.new)))
    return changes[0] if changes else None
