"""Two results folders, cell by cell: what differs in configuration, environment, weights, outcomes and flags."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from robustbench_cmic.audit import flag_results
from robustbench_cmic.plan.cell import Cell, Kind, title
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.report import Results
from robustbench_cmic.report.compare import differences
from robustbench_cmic.report.compare.matching import CellPair, compare_cells, identity, match_cells
from robustbench_cmic.statistics import LEVEL
from robustbench_cmic.suite.fields import Frozen

OK, MISSING, NOT_PLANNED = "ok", "missing", "not in the suite"
LOWER, HIGHER = "significantly lower", "significantly higher"
UNSHOWN, SAME, OTHER, FINDINGS = "no significant difference", "same outcomes", "outcomes differ", "findings differ"


class CellComparison(Frozen):
    """One cell of either folder; old is the first folder, new the second.

    Attributes:
        old_status, new_status: `ok`, `diverged`, `failed`, `missing`, or `not in the suite`.
        identical: the records are equal but for times and origins.
        outcomes_differ: some example flipped, the outcomes cannot be compared example by example, or an audit counted
            or found something else; None for a training and where one side has no result.
        paired: data and evaluated examples are the same on both sides; None where nothing was tested.
        points: new minus old accuracy in percentage points.
        lost, gained: see `PairedOutcomes`; empty where unpaired.
        p: exact McNemar where paired, else Fisher's exact test of two proportions; adjusted as in `CellPair`.
        old_ncmi_calibrated, new_ncmi_calibrated: of clean evaluations, at the temperature that minimises NLL.
    """

    title: str
    kind: Kind
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
    old_ncmi_calibrated: float | None = None
    new_ncmi_calibrated: float | None = None
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
    configuration: list[differences.Difference]
    environment: list[differences.Difference]
    hashes: list[differences.Difference]
    cells: list[CellComparison]
    flags_raised: list[FlagChange]
    flags_gone: list[FlagChange]
    drift: list[str]
    regression: list[str]

    @property
    def identical(self) -> bool:
        """Nothing differs but times."""
        declared = self.configuration or self.environment or self.hashes
        same = (cell.identical or cell.old_status == cell.new_status == MISSING for cell in self.cells)
        return not declared and all(same)


def compare_folders(old: Results, new: Results) -> Comparison:
    """Compare the planned cells of two folders; cells are matched by what they are, not by their parameters."""
    matches = match_cells(old.plan.cells, new.plan.cells)
    pairs = compare_cells(
        [CellPair(a, b, old.records.get(a.id if a else ""), new.records.get(b.id if b else "")) for a, b in matches]
    )
    records = [pair.records for pair in pairs if pair.records is not None]
    cells = [_comparison(pair) for pair in pairs]
    old_flags, new_flags = _flags(old, new, pairs)
    drift, regression = _reasons(cells)
    return Comparison(
        old=str(old.folder),
        new=str(new.folder),
        configuration=differences.plan_differences(old.plan, new.plan)
        + differences.declared_differences((a, b) for a, b in matches if a is not None and b is not None),
        environment=differences.value_differences(
            differences.environment(a.provenance for a, _ in records),
            differences.environment(b.provenance for _, b in records),
        ),
        hashes=differences.hash_differences(records),
        cells=cells,
        flags_raised=[flag for flag in new_flags if flag not in old_flags],
        flags_gone=[flag for flag in old_flags if flag not in new_flags],
        drift=drift,
        regression=regression,
    )


def _comparison(pair: CellPair) -> CellComparison:
    """The facts about a cell in the words of a comparison."""
    statuses = _status(pair.old, pair.old_record), _status(pair.new, pair.new_record)
    facts: dict[str, Any]
    if pair.results is None:
        facts = {"verdict": " -> ".join(statuses)}
    elif pair.cell.kind == "train":
        old, new = pair.results
        facts = {"verdict": f"weights {'identical' if old.checkpoint_sha256 == new.checkpoint_sha256 else 'differ'}"}
    else:
        flipped = pair.outcomes is None or any(paired.flipped for paired in pair.outcomes)
        verdict = OTHER if flipped else FINDINGS if pair.findings.any else SAME
        facts = {"outcomes_differ": verdict != SAME, "verdict": verdict} | _accuracies(pair, *pair.results)
    return CellComparison(
        title=title(pair.cell),
        kind=pair.cell.kind,
        old_cell=pair.old and pair.old.id,
        new_cell=pair.new and pair.new.id,
        old_status=statuses[0],
        new_status=statuses[1],
        identical=pair.identical,
        **facts,
    )


def _status(cell: Cell | None, record: AnyRecord | None) -> str:
    return NOT_PLANNED if cell is None else MISSING if record is None else record.status


def _accuracies(pair: CellPair, old: AnyRecord, new: AnyRecord) -> dict[str, Any]:
    """Of an attack: accuracies, flips, p, NCMI, and the verdict; nothing of an audit."""
    if not isinstance(old, AttackRecord) or not isinstance(new, AttackRecord):
        return {}
    (p,) = pair.p
    paired = pair.outcomes[0] if pair.outcomes else None
    a, b = old.accuracy or 0.0, new.accuracy or 0.0
    same = paired is not None and not paired.flipped
    verdict = SAME if same else UNSHOWN if p > LEVEL else LOWER if b < a else HIGHER
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
        "old_ncmi_calibrated": _ncmi_calibrated(old),
        "new_ncmi_calibrated": _ncmi_calibrated(new),
        "verdict": verdict if paired else f"{verdict} (other data or examples: not paired)",
    }


def _ncmi_calibrated(record: AttackRecord) -> float | None:
    calibrated = record.calibration and record.calibration.calibrated
    return calibrated.ncmi if calibrated else None


def _flags(old: Results, new: Results, pairs: list[CellPair]) -> list[dict[FlagChange, None]]:
    """For each side the flags about numbers that both have, in order, each once."""
    common = {identity(pair.cell) for pair in pairs if pair.records is not None}
    threats = [threat for threat in old.threats if threat in new.threats]
    flags = []
    for side in (old, new):
        audited = flag_results(side.plan, side.records)
        cells = [cell for cell in side.plan.cells if identity(cell) in common]
        raised = [(title(cell), audited.of_cell(cell)) for cell in cells if cell.kind == "attack"]
        raised += [
            (f"{cell.model} seed {cell.seed}: worst case {threat}", audited.of_worst_case(cell.id, threat))
            for cell in cells
            if cell.kind == "train"
            for threat in threats
        ]
        flags.append({FlagChange(flag=flag.name, about=about): None for about, group in raised for flag in group})
    return flags


def _reasons(cells: list[CellComparison]) -> tuple[list[str], list[str]]:
    """Drift and regression; a cell that only the old suite has is another configuration, and no regression."""
    drift, regression = [], []
    for cell in cells:
        gone = cell.old_status == OK != cell.new_status
        if cell.outcomes_differ:
            flips = len(cell.lost) + len(cell.gained)
            other = cell.verdict if cell.kind == "audit" else OTHER
            drift.append(f"{cell.title}: " + (f"{flips} example{'s' if flips > 1 else ''} flipped" if flips else other))
        elif gone:
            drift.append(f"{cell.title}: {cell.verdict}")
        if cell.common and cell.verdict.startswith(LOWER):
            regression.append(f"{cell.title}: {cell.points:+.1f} points (p = {cell.p:.2g})")
        elif gone and cell.new_status != NOT_PLANNED:
            regression.append(f"{cell.title}: {cell.verdict}")
    return drift, regression
