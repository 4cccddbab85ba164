"""The engine of `compare` and `reproduce`: cells of two sides matched by what they are, and tested as one family."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.report.compare.differences import payload
from robustbench_cmic.report.compare.paired import FindingChanges, PairedOutcomes, finding_changes, pair_outcomes
from robustbench_cmic.report.results import Results
from robustbench_cmic.statistics import holm

LEVEL = 0.05
"""An adjusted p of at most this is more than chance explains."""

Identity = tuple[str, str, int, str, str, float]
"""What a cell is, whatever its parameters: kind, model, seed, attack (with the source of a transfer), norm, eps."""


def identity(cell: Cell) -> Identity:
    """What a cell is: equal for two cells that differ in their parameters only."""
    return (cell.kind, cell.model, cell.seed, cell.attack, cell.norm, cell.eps)


def match_cells(first: Iterable[Cell], second: Iterable[Cell]) -> list[tuple[Cell | None, Cell | None]]:
    """Cells of equal identity, in the order of the first, then what only the second has; None where there is none."""
    left, right = ({identity(cell): cell for cell in cells} for cells in (first, second))
    return [(left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])]


@dataclass(frozen=True)
class CellPair:
    """One cell on both sides.

    Attributes:
        old, new: the cells, of equal identity; None where a plan has none.
        old_record, new_record: their records; None where there is none.
    """

    old: Cell | None
    new: Cell | None
    old_record: AnyRecord | None
    new_record: AnyRecord | None

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
        """Both records, if both are of cells that gave a result."""
        return self.records if self.records and all(record.status == "ok" for record in self.records) else None


@dataclass(frozen=True)
class ComparedCell:
    """The facts about a cell from which every word and verdict follows.

    Attributes:
        pair: the cell on both sides.
        identical: both records are the same but for times and origins.
        outcomes: sets of examples that were judged on both sides; None where they cannot be compared one by one, or
            a side has no result.
        p: of the tests, adjusted by Holm's method over all sets of examples of all cells: McNemar's exact test of each
            set; of accuracies on other examples Fisher's, where it was asked for.
        findings: what audits say differently.
    """

    pair: CellPair
    identical: bool
    outcomes: list[PairedOutcomes] | None
    p: list[float]
    findings: FindingChanges


def pair_results(old: Results, new: Results) -> list[CellPair]:
    """The planned cells of two folders, in the order of the old plan, then what only the new one has."""
    return [
        CellPair(a, b, old.records.get(a.id) if a else None, new.records.get(b.id) if b else None)
        for a, b in match_cells(old.plan.cells, new.plan.cells)
    ]


def compare_cells(pairs: Sequence[CellPair], *, across_data: bool = False) -> list[ComparedCell]:
    """Compare the records of cells, and test all of them as one family.

    Args:
        pairs: cells on both sides.
        across_data: compare attacks example by example though their data differ: with data that should be the same,
            the examples that flipped name what was changed. Otherwise accuracies on other data or other examples are
            two proportions.
    """
    outcomes = [_outcomes(pair, across_data) for pair in pairs]
    tests = [
        [paired.p for paired in sets] if sets is not None else [] if across_data else _two_proportions(pair)
        for pair, sets in zip(pairs, outcomes, strict=True)
    ]
    adjusted = iter(holm([p for values in tests for p in values]))
    return [
        ComparedCell(
            pair,
            pair.records is not None and payload(pair.records[0]) == payload(pair.records[1]),
            sets,
            [next(adjusted) for _ in values],
            finding_changes(*pair.results) if pair.results else FindingChanges(),
        )
        for pair, sets, values in zip(pairs, outcomes, tests, strict=True)
    ]


def _outcomes(pair: CellPair, across_data: bool) -> list[PairedOutcomes] | None:
    if pair.results is None:
        return None
    old, new = pair.results
    other_data = isinstance(old, AttackRecord) and old.dataset_sha256 != new.dataset_sha256
    return None if other_data and not across_data else pair_outcomes(old, new)


def _two_proportions(pair: CellPair) -> list[float]:
    """Fisher's exact test, for accuracies of an attack on different examples; nothing for other cells."""
    if pair.results is None or not all(isinstance(record, AttackRecord) for record in pair.results):
        return []
    from scipy.stats import fisher_exact  # takes a second to import, and is seldom needed

    rows = []
    for record in pair.results:
        assert isinstance(record, AttackRecord)
        correct, n = round((record.accuracy or 0.0) * (record.n or 0)), record.n or 0
        rows.append([correct, n - correct])
    return [float(fisher_exact(rows).pvalue)]
