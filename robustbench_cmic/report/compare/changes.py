"""Two results folders, cell by cell: what differs in configuration, environment, weights, outcomes and flags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from robustbench_cmic.audit import flag_results
from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.report import Results
from robustbench_cmic.report.compare.differences import (
    Difference,
    declared_differences,
    environment,
    hash_differences,
    plan_differences,
    value_differences,
)
from robustbench_cmic.report.compare.matching import (
    LEVEL,
    CellPair,
    ComparedCell,
    Identity,
    compare_cells,
    identity,
    pair_results,
)
from robustbench_cmic.suite.fields import Frozen, Threat

OK, MISSING, NOT_PLANNED = "ok", "missing", "not in the suite"
LOWER, HIGHER = "significantly lower", "significantly higher"
UNSHOWN, SAME, OTHER, FINDINGS = "no significant difference", "same outcomes", "outcomes differ", "findings differ"


class CellComparison(Frozen):
    """One cell of either folder; old is the first folder, new the second.

    Attributes:
        title: what the cell is, in words.
        old_cell, new_cell: ids; they differ where its configuration does.
        old_status, new_status: `ok`, `diverged`, `failed`, `missing`, or `not in the suite`.
        identical: the records are equal but for times and origins.
        outcomes_differ: some example flipped, the outcomes cannot be compared example by example, or an audit counted
            or found something else; None for a training and where one side has no result.
        paired: data and evaluated examples are the same on both sides; None where nothing was tested.
        old_n, new_n: evaluated examples.
        points: new minus old accuracy in percentage points.
        lost, gained: positions of the examples that only the old, and only the new side classifies correctly, counted
            from 0; empty where unpaired.
        p: exact McNemar where paired, else Fisher's exact test of two proportions; adjusted as in `ComparedCell`.
        old_ncmi, new_ncmi: on the examples that the attack returned.
        verdict: in words.
    """

    title: str
    kind: Literal["train", "attack", "audit"]
    old_cell: str | None
    new_cell: str | None
    old_status: str
    new_status: str
    identical: bool = False
    outcomes_differ: bool | None = None
    paired: bool | None = None
    old_n: int | None = None
    new_n: int | None = None
    old_accuracy: float | None = None
    new_accuracy: float | None = None
    points: float | None = None
    lost: list[int] = []
    gained: list[int] = []
    p: float | None = None
    old_ncmi: float | None = None
    new_ncmi: float | None = None
    verdict: str = ""

    @property
    def common(self) -> bool:
        """Both sides have a result."""
        return (self.old_status, self.new_status) == (OK, OK)


class FlagChange(Frozen):
    """A flag about one number that only one side raises; `about` is a cell or a worst case in words."""

    flag: str
    about: str


class Comparison(Frozen):
    """Everything in which two results folders differ.

    Attributes:
        configuration: of the suites: cells that only one has, then parameters key by key.
        hashes: of data and evaluated examples.
        flags_raised, flags_gone: by the audit, about numbers that both sides have.
        drift, regression: sentences; why `--fail-on` would exit 3.
    """

    schema_: Literal["robustbench_cmic/comparison/1"] = Field("robustbench_cmic/comparison/1", alias="schema")
    old: str
    new: str
    configuration: list[Difference]
    environment: list[Difference]
    hashes: list[Difference]
    cells: list[CellComparison]
    flags_raised: list[FlagChange]
    flags_gone: list[FlagChange]
    drift: list[str]
    regression: list[str]

    @property
    def evaluated(self) -> bool:
        """Some evaluation has a result on both sides."""
        return any(cell.common and cell.kind == "attack" for cell in self.cells)

    @property
    def identical(self) -> bool:
        """Nothing differs but times."""
        declared = self.configuration or self.environment or self.hashes
        return not declared and all(
            cell.identical or cell.old_status == cell.new_status == MISSING for cell in self.cells
        )


def compare_folders(old: Results, new: Results, old_folder: Path, new_folder: Path) -> Comparison:
    """Compare the planned cells of two folders; cells are matched by what they are, not by their parameters."""
    pairs = pair_results(old, new)
    planned = [(pair.old, pair.new) for pair in pairs if pair.old is not None and pair.new is not None]
    records = [pair.records for pair in pairs if pair.records is not None]
    cells = [_comparison(compared) for compared in compare_cells(pairs)]
    raised, gone = _flag_changes(old, new, pairs)
    return Comparison(
        old=str(old_folder),
        new=str(new_folder),
        configuration=plan_differences(old.plan, new.plan) + declared_differences(planned),
        environment=value_differences(environment(a for a, _ in records), environment(b for _, b in records)),
        hashes=hash_differences(records),
        cells=cells,
        flags_raised=raised,
        flags_gone=gone,
        drift=list(_drift(cells)),
        regression=list(_regression(cells)),
    )


def _comparison(compared: ComparedCell) -> CellComparison:
    """The facts about a cell in the words of a comparison."""
    pair = compared.pair
    statuses = _status(pair.old, pair.old_record), _status(pair.new, pair.new_record)
    header: dict[str, Any] = {
        "title": title(pair.cell),
        "kind": pair.cell.kind,
        "old_cell": pair.old and pair.old.id,
        "new_cell": pair.new and pair.new.id,
        "old_status": statuses[0],
        "new_status": statuses[1],
        "identical": compared.identical,
    }
    if pair.results is None:
        return CellComparison(**header, verdict=" -> ".join(statuses))
    old, new = pair.results
    if pair.cell.kind == "train":
        same = old.checkpoint_sha256 == new.checkpoint_sha256
        return CellComparison(**header, verdict="weights identical" if same else "weights differ")
    flipped = compared.outcomes is None or any(paired.flipped for paired in compared.outcomes)
    if isinstance(old, AttackRecord) and isinstance(new, AttackRecord):
        return CellComparison(**header, outcomes_differ=flipped, **_numbers(compared, old, new, flipped))
    verdict = OTHER if flipped else FINDINGS if compared.findings.any else SAME
    return CellComparison(**header, outcomes_differ=verdict != SAME, verdict=verdict)


def _status(cell: Cell | None, record: AnyRecord | None) -> str:
    return NOT_PLANNED if cell is None else MISSING if record is None else record.status


def _numbers(compared: ComparedCell, old: AttackRecord, new: AttackRecord, flipped: bool) -> dict[str, Any]:
    """Of two attacks that gave results: accuracies, flips, p, NCMI, and the verdict."""
    (p,) = compared.p
    paired = compared.outcomes[0] if compared.outcomes else None
    a, b = old.accuracy or 0.0, new.accuracy or 0.0
    verdict = SAME if not flipped else UNSHOWN if p > LEVEL else LOWER if b < a else HIGHER
    return {
        "paired": paired is not None,
        "old_n": old.n,
        "new_n": new.n,
        "old_accuracy": a,
        "new_accuracy": b,
        "points": 100 * (b - a),
        "lost": paired.lost if paired else [],
        "gained": paired.gained if paired else [],
        "p": p,
        "old_ncmi": old.information and old.information.ncmi,
        "new_ncmi": new.information and new.information.ncmi,
        "verdict": verdict if paired else f"{verdict} (other data or examples: not paired)",
    }


def _flag_changes(old: Results, new: Results, pairs: list[CellPair]) -> tuple[list[FlagChange], list[FlagChange]]:
    """Flags about numbers that both sides have: raised by the new side only, by the old side only."""
    common = {identity(pair.cell) for pair in pairs if pair.records is not None}
    threats = _threats(old) & _threats(new)
    left, right = (_flags(results, common, sorted(threats)) for results in (old, new))
    raised = [FlagChange(flag=flag, about=about) for flag, about in right if (flag, about) not in left]
    gone = [FlagChange(flag=flag, about=about) for flag, about in left if (flag, about) not in right]
    return raised, gone


def _threats(results: Results) -> set[Threat]:
    return {Threat(cell.norm, cell.eps) for cell in results.plan.of("attack") if cell.norm}


def _flags(results: Results, common: set[Identity], threats: list[Threat]) -> dict[tuple[str, str], None]:
    """Flags and what they are about: evaluations, then worst cases of trainings."""
    audited = flag_results(results.plan, results.records)
    flags: dict[tuple[str, str], None] = {}
    for cell in results.plan.of("attack"):
        if identity(cell) in common:
            flags |= dict.fromkeys((flag.name, title(cell)) for flag in audited.of_cell(cell))
    for training in results.plan.of("train"):
        for threat in threats if identity(training) in common else []:
            about = f"{training.model} seed {training.seed}: worst case {threat}"
            flags |= dict.fromkeys((flag.name, about) for flag in audited.of_worst_case(training.id, threat))
    return flags


def _drift(cells: list[CellComparison]) -> Iterator[str]:
    for cell in cells:
        if cell.outcomes_differ:
            flips = len(cell.lost) + len(cell.gained)
            other = cell.verdict if cell.kind == "audit" else OTHER
            yield f"{cell.title}: " + (f"{flips} example{'s' if flips > 1 else ''} flipped" if flips else other)
        elif cell.old_status == OK and cell.new_status != OK:
            yield f"{cell.title}: {cell.verdict}"


def _regression(cells: list[CellComparison]) -> Iterator[str]:
    """A cell that only the old suite has is another configuration, and no regression."""
    for cell in cells:
        if cell.common and cell.verdict.startswith(LOWER):
            yield f"{cell.title}: {cell.points:+.1f} points (p = {cell.p:.2g})"
        elif cell.old_status == OK and cell.new_status not in (OK, NOT_PLANNED):
            yield f"{cell.title}: {cell.verdict}"
