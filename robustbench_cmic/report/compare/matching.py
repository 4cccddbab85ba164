"""The engine of `compare` and `reproduce`: cells of two sides matched by what they are, and tested as one family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from robustbench_cmic.plan.cell import Cell, canonical_json
from robustbench_cmic.records.packing import unpack_outcomes
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord
from robustbench_cmic.report.compare.differences import payloads
from robustbench_cmic.statistics import holm, mcnemar, wilson_interval


def identity(cell: Cell) -> tuple[str, str, int, str, str, float]:
    """What a cell is, whatever its parameters: kind, model, seed, attack (with the source of a transfer), norm, eps."""
    return (cell.kind, cell.model, cell.seed, cell.attack, cell.norm, cell.eps)


def match_cells(first: Iterable[Cell], second: Iterable[Cell]) -> list[tuple[Cell | None, Cell | None]]:
    """Cells of equal identity, in the order of the first, then what only the second has; None where there is none."""
    left, right = ({identity(cell): cell for cell in cells} for cells in (first, second))
    return [(left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])]


@dataclass(frozen=True)
class PairedOutcomes:
    """Outcomes of the same n examples on both sides.

    Attributes:
        check: of an audit the check, such as `reference linf 0.1`; empty for an attack.
        lost, gained: the examples that only the old, and only the new side classifies correctly, by their positions
            among the evaluated ones, counted from 0.
        old_correct, new_correct: how many of the n each side classifies correctly.
    """

    check: str
    lost: list[int]
    gained: list[int]
    old_correct: int
    new_correct: int
    n: int

    @classmethod
    def unpacked(cls, check: str, old: str, new: str, positions: Sequence[int]) -> PairedOutcomes:
        """Of outcomes as records hold them, of the examples at these positions."""
        n = len(positions)
        a, b = unpack_outcomes(old, n), unpack_outcomes(new, n)
        lost, gained = ([positions[index] for index in only.nonzero()[0].tolist()] for only in (a & ~b, b & ~a))
        return cls(check, lost, gained, int(a.sum()), int(b.sum()), n)

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
        return _intervals_overlap((self.old_correct, self.n), (self.new_correct, self.n))


def _intervals_overlap(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """The Wilson 95 % intervals of two proportions (count, of how many) overlap.

    Both have one: that of 1 of 599 excludes 0, so that near 0 % and 100 % a single flip would count for much.
    """
    if not old[1] or not new[1]:
        return old == new
    (old_low, old_high), (new_low, new_high) = wilson_interval(*old), wilson_interval(*new)
    return old_low <= new_high and new_low <= old_high


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


@dataclass(frozen=True)
class CellPair:
    """One cell on both sides, and the facts from which every word of a comparison and every verdict follows.

    Attributes:
        old, new: the cells, of equal identity, and their records; None where there is none.
        outcomes: sets of examples that were judged on both sides; None where they cannot be compared one by one, or
            a side has no result. This and p are filled in by `compare_cells`.
        p: McNemar's exact test of each of these sets; of accuracies on other examples Fisher's, where it was asked
            for. Adjusted by Holm's method over all cells.
    """

    old: Cell | None
    new: Cell | None
    old_record: AnyRecord | None
    new_record: AnyRecord | None
    outcomes: Sequence[PairedOutcomes] | None = None
    p: Sequence[float] = ()

    @property
    def cell(self) -> Cell:
        """The old cell, or the new one where there is no old one."""
        cell = self.old or self.new
        assert cell is not None
        return cell

    @property
    def records(self) -> tuple[AnyRecord, AnyRecord] | None:
        """Both records; None where one is missing."""
        return None if self.old_record is None or self.new_record is None else (self.old_record, self.new_record)

    @property
    def results(self) -> tuple[AnyRecord, AnyRecord] | None:
        """Both records, where both cells gave a result."""
        return self.records if self.records and all(record.status == "ok" for record in self.records) else None

    @cached_property
    def identical(self) -> bool:
        """Both records are the same but for times and origins."""
        if self.records is None:
            return False
        old, new = payloads(*self.records)
        return old == new

    @cached_property
    def findings(self) -> FindingChanges:
        """What audits say differently; nothing for other cells."""
        old, new = self.results or (None, None)
        if not isinstance(old, AuditRecord) or not isinstance(new, AuditRecord):
            return FindingChanges()
        left, right = _counts(old), _counts(new)
        differing = [key for key in dict.fromkeys([*left, *right]) if left.get(key) != right.get(key)]
        odd = [key for key in differing if not _intervals_overlap(left.get(key, (0, 0)), right.get(key, (0, 0)))]
        return FindingChanges(differing, odd, facts=_facts(old) != _facts(new))


def compare_cells(pairs: Sequence[CellPair], *, across_data: bool = False) -> list[CellPair]:
    """Compare outcomes, and test those of all cells as one family.

    Those of attacks are compared example by example where their data are the same, or `across_data`: where these
    should be the same, the examples that flipped name what was changed. Otherwise accuracies on other data or other
    examples are two proportions.
    """
    pairs = [replace(pair, outcomes=_outcomes(*pair.results, across_data) if pair.results else None) for pair in pairs]
    tests = [
        [paired.p for paired in pair.outcomes or ()] or ([] if across_data else _two_proportions(pair))
        for pair in pairs
    ]
    adjusted = iter(holm([p for values in tests for p in values]))
    return [replace(pair, p=[next(adjusted) for _ in values]) for pair, values in zip(pairs, tests, strict=True)]


def _outcomes(old: AnyRecord, new: AnyRecord, across_data: bool) -> list[PairedOutcomes] | None:
    """Of an attack one set, of an audit one a check, of a training none.

    None unless both judged the same examples (an attack: of the same data, too, or `across_data`), and two audits made
    the same checks, of which the same crashed.
    """
    if isinstance(old, AttackRecord) and isinstance(new, AttackRecord):
        other_data = old.dataset_sha256 != new.dataset_sha256 and not across_data
        if other_data or not old.n or old.n != new.n or old.examples_sha256 != new.examples_sha256:
            return None
        return [PairedOutcomes.unpacked("", old.outcomes or "", new.outcomes or "", range(old.n))]
    if not isinstance(old, AuditRecord) or not isinstance(new, AuditRecord):
        return []
    if old.positions != new.positions or old.examples_sha256 != new.examples_sha256 or _checks(old) != _checks(new):
        return None
    pairs = []
    for check, other in zip(old.checks, new.checks, strict=True):
        if (check.outcomes is None) != (other.outcomes is None):
            return None  # one of them crashed
        if check.outcomes is not None and other.outcomes is not None:
            name = " ".join(filter(None, (check.check, check.of, check.norm, f"{check.eps:g}")))
            pairs.append(PairedOutcomes.unpacked(name, check.outcomes, other.outcomes, old.positions))
    return pairs


def _checks(record: AuditRecord) -> list[str]:
    """What the checks of an audit are, whatever they found."""
    return [canonical_json(check.model_dump(exclude={"outcomes", "error"})) for check in record.checks]


def _two_proportions(pair: CellPair) -> list[float]:
    """Fisher's exact test, for accuracies of an attack on different examples; nothing for other cells."""
    records = [record for record in pair.results or () if isinstance(record, AttackRecord)]
    if not records:
        return []
    from scipy.stats import fisher_exact  # takes a second to import, and is seldom needed

    counts = [(round((record.accuracy or 0.0) * (record.n or 0)), record.n or 0) for record in records]
    return [float(fisher_exact([[correct, n - correct] for correct, n in counts]).pvalue)]


def _counts(record: AuditRecord) -> dict[str, tuple[int, int]]:
    """What else an audit counted: number of examples, and of how many."""
    n = len(record.positions)
    counts: dict[str, tuple[int, int]] = {}
    passes = ("repeat", "companions", "companion_gradients", "grad_mode", "copies")
    for part, keys in ((record.forward_pass, passes), (record.outputs, ("saturated", "at_bound"))):
        if part is not None:
            counts |= {key: (getattr(part, key), n) for key in keys}
    for gradients in record.gradients:
        for key in ("zero", "bad", "unhelpful"):
            counts[f"{key} gradients of {gradients.loss}"] = (getattr(gradients, key), gradients.n)
    for facts in record.derivatives:
        for key in ("wrong", "stairs", "unhelpful"):
            counts[f"{key} derivatives, {facts.place}"] = (getattr(facts, key), facts.n)
    for test in record.active:
        counts[f"active test of {test.of} {test.norm} {test.eps:g}"] = (test.found, test.tested)
    return counts


def _facts(record: AuditRecord) -> tuple[bool, list[str], list[str]]:
    """Kind of outputs, layers in training mode, crashes."""
    probabilities = record.outputs is not None and record.outputs.probabilities
    training = record.forward_pass.training if record.forward_pass else []
    errors = [part.error for parts in (record.gradients, record.checks, record.active) for part in parts if part.error]
    return probabilities, training, errors
