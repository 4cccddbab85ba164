"""The same examples judged twice: who flipped, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.records.packing import outcome_bits
from robustbench_cmic.records.schema import AttackRecord, AuditRecord
from robustbench_cmic.statistics import discordant, mcnemar, wilson_interval


@dataclass(frozen=True)
class PairedOutcomes:
    """Outcomes of n examples, old and new: bit i from the left is 1 where example i is classified correctly.

    Attributes:
        what: of an audit the check, such as `reference linf 0.1`; empty for an attack.
        positions: of the n examples among the evaluated ones, counted from 0.
    """

    what: str
    old: int
    new: int
    positions: Sequence[int]

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.positions)

    @property
    def lost(self) -> list[int]:
        """Positions of the examples that only the old side classifies correctly."""
        return self._places(self.old & ~self.new)

    @property
    def gained(self) -> list[int]:
        """Positions of those that only the new side classifies correctly."""
        return self._places(self.new & ~self.old)

    @property
    def flips(self) -> int:
        """How many examples flipped, either way."""
        return (self.old ^ self.new).bit_count()

    @property
    def change(self) -> float:
        """New minus old accuracy, a fraction."""
        return (self.new.bit_count() - self.old.bit_count()) / self.n

    @property
    def p(self) -> float:
        """McNemar's exact test, not adjusted."""
        return mcnemar(*discordant(self.old, self.new))

    @property
    def inside(self) -> bool:
        """The Wilson 95 % intervals of both accuracies overlap."""
        return intervals_overlap((self.old.bit_count(), self.n), (self.new.bit_count(), self.n))

    def _places(self, bits: int) -> list[int]:
        return [place for place, bit in zip(self.positions, f"{bits:0{self.n}b}", strict=True) if bit == "1"]


def intervals_overlap(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """The Wilson 95 % intervals of two proportions (count, of how many) overlap.

    Both have one: that of 1 of 599 excludes 0, so that near 0 % and 100 % a single flip would count for much.
    """
    if not old[1] or not new[1]:
        return old == new
    (old_low, old_high), (new_low, new_high) = wilson_interval(*old), wilson_interval(*new)
    return old_low <= new_high and new_low <= old_high


def pair_outcomes(old: AttackRecord, new: AttackRecord) -> PairedOutcomes | None:
    """The outcomes of two attacks; None unless both judged the same examples."""
    if not old.n or old.n != new.n or old.examples_sha256 != new.examples_sha256:
        return None
    return PairedOutcomes(
        "", outcome_bits(old.outcomes or "", old.n), outcome_bits(new.outcomes or "", old.n), range(old.n)
    )


def of_audits(old: AuditRecord, new: AuditRecord) -> list[PairedOutcomes] | None:
    """The outcomes of two audits, check by check; None unless both made the same checks on the same examples."""
    left, right = _checks(old), _checks(new)
    if old.positions != new.positions or old.examples_sha256 != new.examples_sha256 or list(left) != list(right):
        return None
    found = []
    for key, (name, a) in left.items():
        b = right[key][1]
        if (a is None) != (b is None):
            return None  # one of them crashed
        if a is not None and b is not None:
            n = len(old.positions)
            found.append(PairedOutcomes(name, outcome_bits(a, n), outcome_bits(b, n), old.positions))
    return found


def _checks(record: AuditRecord) -> dict[str, tuple[str, str | None]]:
    """By what a check is: its name for people, and its outcomes."""
    return {
        canonical_json(check.model_dump(exclude={"outcomes", "error"})): (
            " ".join(filter(None, (check.check, check.of, check.norm, f"{check.eps:g}"))),
            check.outcomes,
        )
        for check in record.checks
    }


def counts(record: AuditRecord) -> dict[str, tuple[int, int]]:
    """What else an audit counted: number of examples, and of how many."""
    n = len(record.positions)
    found: dict[str, tuple[int, int]] = {}
    if record.forward_pass is not None:
        found |= {"repeat": (record.forward_pass.repeat, n), "companions": (record.forward_pass.companions, n)}
    if record.outputs is not None:
        found |= {"saturated": (record.outputs.saturated, n), "at_bound": (record.outputs.at_bound, n)}
    for gradients in record.gradients:
        for key in ("zero", "bad", "unhelpful"):
            found[f"{key} gradients of {gradients.loss}"] = (getattr(gradients, key), gradients.n)
    for test in record.active:
        found[f"active test of {test.of} {test.norm} {test.eps:g}"] = (test.found, test.tested)
    return found


def other_counts(old: AuditRecord, new: AuditRecord) -> list[str]:
    """Names of the counts that differ between two audits."""
    left, right = counts(old), counts(new)
    return [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]


def facts(record: AuditRecord) -> list[str]:
    """What an audit says beyond counts: kinds of outputs, layers in training mode, crashes."""
    return list(_facts(record))


def other_findings(old: AuditRecord, new: AuditRecord) -> bool:
    """Whether two audits differ in a count or a fact."""
    return bool(other_counts(old, new)) or facts(old) != facts(new)


def _facts(record: AuditRecord) -> Iterator[str]:
    if record.outputs is not None and record.outputs.probabilities:
        yield "probabilities"
    yield from (f"training mode: {layer}" for layer in (record.forward_pass.training if record.forward_pass else []))
    errors = [part.error for parts in (record.gradients, record.checks, record.active) for part in parts]
    yield from (f"error: {error}" for error in errors if error)
