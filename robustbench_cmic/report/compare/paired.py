"""The same examples judged twice: which flipped, and whether that is more than chance; and what else audits count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.records.packing import unpack_outcomes
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord, Check
from robustbench_cmic.statistics import mcnemar, wilson_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PairedOutcomes:
    """Outcomes of n examples on both sides.

    Attributes:
        check: of an audit the check, such as `reference linf 0.1`; empty for an attack.
        old, new: (n,) truth values: the example is classified correctly.
        positions: of the n examples among the evaluated ones, counted from 0.
    """

    check: str
    old: NDArray[np.bool_]
    new: NDArray[np.bool_]
    positions: Sequence[int]

    @cached_property
    def lost(self) -> list[int]:
        """Positions of the examples that only the old side classifies correctly."""
        return [self.positions[index] for index in (self.old & ~self.new).nonzero()[0].tolist()]

    @cached_property
    def gained(self) -> list[int]:
        """Positions of those that only the new side classifies correctly."""
        return [self.positions[index] for index in (self.new & ~self.old).nonzero()[0].tolist()]

    @property
    def flipped(self) -> bool:
        """Some example is classified correctly on one side only."""
        return bool(self.lost or self.gained)

    @property
    def p(self) -> float:
        """McNemar's exact test, not adjusted."""
        return mcnemar(len(self.lost), len(self.gained))

    @property
    def overlap(self) -> bool:
        """The Wilson 95 % intervals of both accuracies overlap."""
        return intervals_overlap((int(self.old.sum()), len(self.old)), (int(self.new.sum()), len(self.new)))


def intervals_overlap(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """The Wilson 95 % intervals of two proportions (count, of how many) overlap.

    Both have one: that of 1 of 599 excludes 0, so that near 0 % and 100 % a single flip would count for much.
    """
    if not old[1] or not new[1]:
        return old == new
    (old_low, old_high), (new_low, new_high) = wilson_interval(*old), wilson_interval(*new)
    return old_low <= new_high and new_low <= old_high


def pair_outcomes(old: AnyRecord, new: AnyRecord, across_data: bool = False) -> list[PairedOutcomes] | None:
    """The outcomes of two records of one cell: of an attack one set, of an audit one a check, of a training none.

    Returns:
        None unless both judged the same examples (an attack: of the same data, too, or `across_data`), and two audits
        made the same checks, of which the same crashed.
    """
    if isinstance(old, AttackRecord) and isinstance(new, AttackRecord):
        other_data = old.dataset_sha256 != new.dataset_sha256 and not across_data
        if other_data or not old.n or old.n != new.n or old.examples_sha256 != new.examples_sha256:
            return None
        sides = [unpack_outcomes(record.outcomes or "", old.n) for record in (old, new)]
        return [PairedOutcomes("", sides[0], sides[1], range(old.n))]
    if isinstance(old, AuditRecord) and isinstance(new, AuditRecord):
        return _paired_checks(old, new)
    return []


def _paired_checks(old: AuditRecord, new: AuditRecord) -> list[PairedOutcomes] | None:
    left, right = _checks(old), _checks(new)
    if old.positions != new.positions or old.examples_sha256 != new.examples_sha256 or list(left) != list(right):
        return None
    pairs = []
    n = len(old.positions)
    for key, check in left.items():
        a, b = check.outcomes, right[key].outcomes
        if (a is None) != (b is None):
            return None  # one of them crashed
        if a is not None and b is not None:
            name = " ".join(filter(None, (check.check, check.of, check.norm, f"{check.eps:g}")))
            pairs.append(PairedOutcomes(name, unpack_outcomes(a, n), unpack_outcomes(b, n), old.positions))
    return pairs


def _checks(record: AuditRecord) -> dict[str, Check]:
    """The checks of an audit by what they are, whatever they found."""
    return {canonical_json(check.model_dump(exclude={"outcomes", "error"})): check for check in record.checks}


class FindingChanges(NamedTuple):
    """What two audits say differently, beside the outcomes of their checks.

    Attributes:
        counts: names of the counts of examples that differ.
        beyond_chance: those of them whose Wilson 95 % intervals do not overlap.
        facts: kinds of outputs, layers in training mode or crashes differ.
    """

    counts: Sequence[str] = ()
    beyond_chance: Sequence[str] = ()
    facts: bool = False

    @property
    def any(self) -> bool:
        """Something differs."""
        return bool(self.counts) or self.facts


def finding_changes(old: AnyRecord, new: AnyRecord) -> FindingChanges:
    """What two audits say differently; nothing for records of another kind."""
    if not isinstance(old, AuditRecord) or not isinstance(new, AuditRecord):
        return FindingChanges()
    left, right = _counts(old), _counts(new)
    differing = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
    odd = [key for key in differing if not intervals_overlap(left.get(key, (0, 0)), right.get(key, (0, 0)))]
    return FindingChanges(differing, odd, facts=_facts(old) != _facts(new))


def _counts(record: AuditRecord) -> dict[str, tuple[int, int]]:
    """What else an audit counted: number of examples, and of how many."""
    n = len(record.positions)
    counts: dict[str, tuple[int, int]] = {}
    for part, keys in ((record.forward_pass, ("repeat", "companions")), (record.outputs, ("saturated", "at_bound"))):
        if part is not None:
            counts |= {key: (getattr(part, key), n) for key in keys}
    for gradients in record.gradients:
        for key in ("zero", "bad", "unhelpful"):
            counts[f"{key} gradients of {gradients.loss}"] = (getattr(gradients, key), gradients.n)
    for test in record.active:
        counts[f"active test of {test.of} {test.norm} {test.eps:g}"] = (test.found, test.tested)
    return counts


def _facts(record: AuditRecord) -> tuple[bool, list[str], list[str]]:
    """Kind of outputs, layers in training mode, crashes."""
    probabilities = record.outputs is not None and record.outputs.probabilities
    training = record.forward_pass.training if record.forward_pass else []
    errors = [part.error for parts in (record.gradients, record.checks, record.active) for part in parts if part.error]
    return probabilities, training, errors
