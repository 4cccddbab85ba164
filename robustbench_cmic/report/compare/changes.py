"""Two results folders, cell by cell: what differs in configuration, environment, weights, outcomes and flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from robustbench_cmic.audit import flag_results
from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord
from robustbench_cmic.report import Results
from robustbench_cmic.report.compare import flips as outcomes
from robustbench_cmic.report.compare.differences import (
    Difference,
    Identity,
    declared_differences,
    environment,
    environment_differences,
    hash_differences,
    identity,
    payload,
    plan_differences,
)
from robustbench_cmic.statistics import holm
from robustbench_cmic.suite.fields import Frozen, Threat

LEVEL = 0.05
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
        p: exact McNemar where paired, else Fisher's exact test of two proportions; Holm's method over all cells.
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
        told = self.configuration or self.environment or self.hashes
        return not told and all(cell.identical or cell.old_status == cell.new_status == MISSING for cell in self.cells)


@dataclass(frozen=True)
class _Match:
    """The cells of equal identity in two folders, and their records."""

    old: Cell | None
    new: Cell | None
    old_record: AnyRecord | None
    new_record: AnyRecord | None


def compare_folders(old: Results, new: Results, old_folder: Path, new_folder: Path) -> Comparison:
    """Compare the planned cells of two folders; cells are matched by what they are, not by their parameters."""
    matches = _matched(old, new)
    planned = [(m.old, m.new) for m in matches if m.old is not None and m.new is not None]
    both = [(m.old_record, m.new_record) for m in matches if m.old_record is not None and m.new_record is not None]
    cells = _tested([_compared(match) for match in matches], matches)
    raised, gone = _flag_changes(old, new, matches)
    return Comparison(
        old=str(old_folder),
        new=str(new_folder),
        configuration=plan_differences(old.plan, new.plan) + declared_differences(planned),
        environment=environment_differences(environment(a for a, _ in both), environment(b for _, b in both)),
        hashes=hash_differences(both),
        cells=cells,
        flags_raised=raised,
        flags_gone=gone,
        drift=list(_drift(cells)),
        regression=list(_regression(cells)),
    )


def _matched(old: Results, new: Results) -> list[_Match]:
    """In the order of the old plan, then what only the new one has."""
    left = {identity(cell): cell for cell in old.plan.cells}
    right = {identity(cell): cell for cell in new.plan.cells}
    found = []
    for key in dict.fromkeys([*left, *right]):
        a, b = left.get(key), right.get(key)
        records = old.records.get(a.id) if a else None, new.records.get(b.id) if b else None
        found.append(_Match(a, b, *records))
    return found


def _compared(match: _Match) -> CellComparison:
    """Everything but the adjusted p and the verdicts that follow from it."""
    cell = match.old or match.new
    assert cell is not None
    old, new = match.old_record, match.new_record
    found = CellComparison(
        title=title(cell),
        kind=cell.kind,
        old_cell=match.old and match.old.id,
        new_cell=match.new and match.new.id,
        old_status=_status(match.old, old),
        new_status=_status(match.new, new),
    )
    if old is None or new is None or (old.status, new.status) != (OK, OK):
        same = old is not None and new is not None and payload(old) == payload(new)
        change = f"{found.old_status} -> {found.new_status}"
        return found.model_copy(update={"verdict": change, "identical": same})
    found = found.model_copy(update={"identical": payload(old) == payload(new)})
    if isinstance(old, AttackRecord) and isinstance(new, AttackRecord):
        return found.model_copy(update=_numbers(old, new))
    if isinstance(old, AuditRecord) and isinstance(new, AuditRecord):
        judged = outcomes.of_audits(old, new)
        differ = judged is None or any(twice.flips for twice in judged)
        verdict = OTHER if differ else FINDINGS if outcomes.other_findings(old, new) else SAME
        return found.model_copy(update={"outcomes_differ": verdict != SAME, "verdict": verdict})
    same = old.checkpoint_sha256 == new.checkpoint_sha256
    return found.model_copy(update={"verdict": "weights identical" if same else "weights differ"})


def _status(cell: Cell | None, record: AnyRecord | None) -> str:
    return NOT_PLANNED if cell is None else MISSING if record is None else record.status


def _numbers(old: AttackRecord, new: AttackRecord) -> dict[str, object]:
    """Of two attacks that gave results: accuracies, flips, NCMI, and p before it is adjusted."""
    twice = outcomes.pair_outcomes(old, new) if old.dataset_sha256 == new.dataset_sha256 else None
    a, b = old.accuracy or 0.0, new.accuracy or 0.0
    return {
        "outcomes_differ": twice is None or twice.flips > 0,
        "paired": twice is not None,
        "old_n": old.n,
        "new_n": new.n,
        "old_accuracy": a,
        "new_accuracy": b,
        "points": 100 * (b - a),
        "lost": twice.lost if twice else [],
        "gained": twice.gained if twice else [],
        "p": _two_proportions(old, new) if twice is None else twice.p,
        "old_ncmi": old.information and old.information.ncmi,
        "new_ncmi": new.information and new.information.ncmi,
    }


def _two_proportions(old: AttackRecord, new: AttackRecord) -> float:
    """Fisher's exact test, for accuracies on different examples."""
    from scipy.stats import fisher_exact  # takes a second to import, and is seldom needed

    rows = []
    for record in (old, new):
        correct, n = round((record.accuracy or 0.0) * (record.n or 0)), record.n or 0
        rows.append([correct, n - correct])
    return float(fisher_exact(rows).pvalue)


def _tested(cells: list[CellComparison], matches: list[_Match]) -> list[CellComparison]:
    """The cells with p adjusted over all of them, and the verdicts."""
    assert len(cells) == len(matches)
    places = [index for index, cell in enumerate(cells) if cell.p is not None]
    adjusted = holm([cells[index].p or 0.0 for index in places])
    found = list(cells)
    for index, p in zip(places, adjusted, strict=True):
        cell = cells[index]
        points = cell.points or 0.0
        if not cell.outcomes_differ:
            verdict = SAME
        elif p <= LEVEL:
            verdict = LOWER if points < 0 else HIGHER
        else:
            verdict = UNSHOWN
        if cell.paired is False:
            verdict += " (other data or examples: not paired)"
        found[index] = cell.model_copy(update={"p": p, "verdict": verdict})
    return found


def _flag_changes(old: Results, new: Results, matches: list[_Match]) -> tuple[list[FlagChange], list[FlagChange]]:
    """Flags about numbers that both sides have: raised by the new side only, by the old side only."""
    common = {identity(m.old) for m in matches if m.old and m.old_record is not None and m.new_record is not None}
    shared = set(old.threats) & set(new.threats)
    left, right = (_flags(results, common, shared) for results in (old, new))
    raised = [FlagChange(flag=flag, about=about) for flag, about in right if (flag, about) not in left]
    gone = [FlagChange(flag=flag, about=about) for flag, about in left if (flag, about) not in right]
    return raised, gone


def _flags(results: Results, common: set[Identity], shared: set[Threat]) -> dict[tuple[str, str], None]:
    audited = flag_results(results.plan, results.records)
    found: dict[tuple[str, str], None] = {}
    for cell in results.plan.of("attack"):
        if identity(cell) in common:
            found |= dict.fromkeys((flag.name, title(cell)) for flag in audited.of_cell(cell))
    trainings = [cell for cell in results.plan.of("train") if identity(cell) in common]
    for training in trainings:
        for threat in (threat for threat in results.threats if threat in shared):
            about = f"{training.model} seed {training.seed}: worst case {threat}"
            found |= dict.fromkeys((flag.name, about) for flag in audited.of_worst_case(training.id, threat))
    return found


def _drift(cells: list[CellComparison]) -> Iterator[str]:
    for cell in cells:
        if cell.outcomes_differ:
            flipped = len(cell.lost) + len(cell.gained)
            yield f"{cell.title}: " + (
                f"{flipped} example{'s' if flipped > 1 else ''} flipped"
                if flipped
                else (cell.verdict if cell.kind == "audit" else OTHER)
            )
        elif cell.old_status == OK and cell.new_status != OK:
            yield f"{cell.title}: {cell.verdict}"


def _regression(cells: list[CellComparison]) -> Iterator[str]:
    """A cell that only the old suite has is another configuration, and no regression."""
    for cell in cells:
        if cell.common and cell.verdict.startswith(LOWER):
            yield f"{cell.title}: {cell.points:+.1f} points (p = {cell.p:.2g})"
        elif cell.old_status == OK and cell.new_status not in (OK, NOT_PLANNED):
            yield f"{cell.title}: {cell.verdict}"
