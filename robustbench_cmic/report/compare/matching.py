"""The engine of `compare` and `reproduce`: cells of two sides matched by what they are, and tested as one family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.report.compare.differences import payload
from robustbench_cmic.report.compare.paired import FindingChanges, PairedOutcomes, finding_changes, pair_outcomes
from robustbench_cmic.statistics import holm

LEVEL = 0.05
"""An adjusted p of at most this is more than chance explains."""


def identity(cell: Cell) -> tuple[str, str, int, str, str, float]:
    """What a cell is, whatever its parameters: kind, model, seed, attack (with the source of a transfer), norm, eps."""
    return (cell.kind, cell.model, cell.seed, cell.attack, cell.norm, cell.eps)


def match_cells(first: Iterable[Cell], second: Iterable[Cell]) -> list[tuple[Cell | None, Cell | None]]:
    """Cells of equal identity, in the order of the first, then what only the second has; None where there is none."""
    left, right = ({identity(cell): cell for cell in cells} for cells in (first, second))
    return [(left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])]


@dataclass(frozen=True)
class CellPair:
    """One cell on both sides, and the facts from which every word of a comparison and every verdict follows.

    Attributes:
        old, new: the cells, of equal identity; None where a plan has none.
        old_record, new_record: their records; None where there is none.
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
        return self.records is not None and payload(self.records[0]) == payload(self.records[1])

    @cached_property
    def findings(self) -> FindingChanges:
        """What audits say differently."""
        return finding_changes(*self.results) if self.results else FindingChanges()


def compare_cells(pairs: Sequence[CellPair], *, across_data: bool = False) -> list[CellPair]:
    """Compare outcomes, and test those of all cells as one family.

    Args:
        pairs: cells on both sides.
        across_data: compare attacks example by example though their data differ: where these should be the same, the
            examples that flipped name what was changed. Otherwise accuracies on other data or other examples are two
            proportions.
    """
    outcomes: list[list[PairedOutcomes] | None] = []
    tests: list[list[float]] = []
    for pair in pairs:
        sets = pair_outcomes(*pair.results, across_data) if pair.results else None
        outcomes.append(sets)
        tests.append([paired.p for paired in sets or ()] if sets is not None or across_data else _two_proportions(pair))
    adjusted = iter(holm([p for values in tests for p in values]))
    return [
        replace(pair, outcomes=sets, p=[next(adjusted) for _ in values])
        for pair, sets, values in zip(pairs, outcomes, tests, strict=True)
    ]


def _two_proportions(pair: CellPair) -> list[float]:
    """Fisher's exact test, for accuracies of an attack on different examples; nothing for other cells."""
    records = [record for record in pair.results or () if isinstance(record, AttackRecord)]
    if not records:
        return []
    from scipy.stats import fisher_exact  # takes a second to import, and is seldom needed

    counts = [(round((record.accuracy or 0.0) * (record.n or 0)), record.n or 0) for record in records]
    return [float(fisher_exact([[correct, n - correct] for correct, n in counts]).pvalue)]
