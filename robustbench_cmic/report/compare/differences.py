"""What two results folders declare and where they come from, side by side: key by key, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robustbench_cmic.plan.cell import Cell, Plan, canonical_json
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.suite.fields import Frozen, format_eps

Identity = tuple[str, str, int, str, str, float]
"""What a cell is, whatever its parameters: kind, model, seed, attack (with the source of a transfer), norm, eps."""

_LONGEST = 60


class Difference(Frozen):
    """One key that differs.

    Attributes:
        key: dotted, such as `training.epochs`.
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
        return f"{self.key}: {shown(self.old)} -> {shown(self.new)}{about}"


def shown(value: Any) -> str:
    """A value in few characters: hashes and long lists are cut."""
    if value is None:
        return "–"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return f"{len(value)} entries ({canonical_json(value)[:20]}…)"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return f"{text[:12]}…"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def identity(cell: Cell) -> Identity:
    """What a cell is: equal for two cells that differ in their parameters only."""
    return (cell.kind, cell.model, cell.seed, cell.attack, cell.norm, cell.eps)


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
    """In which parameters cells differ that are otherwise the same; those of a training are told once, by its model.

    Args:
        pairs: old and new cells of equal `identity`.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for old, new in pairs:
        left, right = _own(old), _own(new)
        for key in dict.fromkeys([*left, *right]):
            a, b = left.get(key), right.get(key)
            if a != b:
                place = found.setdefault((key, canonical_json(a), canonical_json(b)), [])
                place.append(old.model if old.kind == "train" else old.attack or old.kind)
    return [
        Difference(key=key, old=json.loads(a), new=json.loads(b), where=list(dict.fromkeys(where)), cells=len(where))
        for (key, a, b), where in found.items()
    ]


def _own(cell: Cell) -> dict[str, Any]:
    """What a cell declares itself; what its training, source or smaller ball declares is theirs to tell."""
    others = () if cell.kind == "train" else ("train", "source", "after")
    return flattened({key: value for key, value in cell.declared.items() if key not in others})


def plan_differences(old: Plan, new: Plan) -> list[Difference]:
    """Models, seeds, attacks, audits and pairs that only one of two plans has."""
    found = []
    for what, left, right in zip(_KINDS, _names(old), _names(new), strict=True):
        removed = [name for name in left if name not in right]
        added = [name for name in right if name not in left]
        if removed:
            found.append(Difference(key=f"{what} removed", old=", ".join(removed), new=None))
        if added:
            found.append(Difference(key=f"{what} added", old=None, new=", ".join(added)))
    return found


_KINDS = ("models", "seeds", "attacks", "audits", "pairs")


def _names(plan: Plan) -> Sequence[dict[str, None]]:
    trainings = plan.of("train")
    attacks = [f"{cell.attack} {cell.norm} eps {format_eps(cell.eps)}" for cell in plan.of("attack") if cell.norm]
    audited = ["audit"] if plan.of("audit") else []
    pairs = [f"{first} against {second}" for first, second in plan.pairs]
    names = ([cell.model for cell in trainings], [str(cell.seed) for cell in trainings], attacks, audited, pairs)
    return [dict.fromkeys(group) for group in names]


def environment(records: Iterable[AnyRecord]) -> dict[str, str]:
    """Code, versions and machine behind records, key by key; several values of a key are joined by `; `."""
    found: dict[str, set[str]] = {}
    for record in records:
        for key, value in environment_of(record.provenance).items():
            found.setdefault(key, set()).add(value)
    return {key: "; ".join(sorted(values)) for key, values in found.items()}


def environment_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The provenance of one record, key by key, as text; without what is not known."""
    known = {key: value for key, value in flattened(provenance).items() if value is not None}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in known.items()}


def environment_differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[Difference]:
    """The keys in which two environments differ."""
    keys = dict.fromkeys([*old, *new])
    return [Difference(key=key, old=old.get(key), new=new.get(key)) for key in keys if old.get(key) != new.get(key)]


def hash_differences(pairs: Iterable[tuple[AnyRecord, AnyRecord]]) -> list[Difference]:
    """Where the data or the evaluated examples are others: hashes, old and new, with the models concerned."""
    found: dict[tuple[str, str | None, str | None], list[str]] = {}
    for old, new in pairs:
        for key in ("dataset_sha256", "examples_sha256"):
            a, b = getattr(old, key, None), getattr(new, key, None)
            if a != b and (old.status, new.status) == ("ok", "ok"):
                found.setdefault((key, a, b), []).append(old.cell.model)
    return [
        Difference(key=key, old=a, new=b, where=list(dict.fromkeys(models)), cells=len(models))
        for (key, a, b), models in found.items()
    ]


def payload(record: AnyRecord) -> dict[str, Any]:
    """A record as plain data without what may differ between equal runs: times, origins, names of the suite."""
    plain = record.model_dump(mode="json", exclude={"timing", "provenance", "suite"})
    for part in plain.get("parts", []):
        del part["seconds"]
    return plain


def largest_difference(old: AnyRecord, new: AnyRecord) -> Difference | None:
    """The number that differs most between two records, relative to its size; without numbers, what differs first."""
    sides = [flattened({k: v for k, v in payload(r).items() if k != "cell"}, into_lists=True) for r in (old, new)]
    left, right = sides
    differing = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
    numbers = [key for key in differing if _is_number(left.get(key)) and _is_number(right.get(key))]
    if not differing:
        return None
    key = max(numbers, key=lambda key: _relative(left[key], right[key])) if numbers else differing[0]
    return Difference(key=key, old=left.get(key), new=right.get(key))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b))
