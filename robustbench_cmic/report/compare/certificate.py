"""What cells made anew are worth beside the recorded ones, and the certificate over all of them.

Accuracies are compared example by example. A cell has drifted if its flips are more than chance explains (exact
McNemar test, adjusted by Holm's method over all sets of examples that were judged twice), or if the Wilson 95 %
intervals of its accuracies, recorded and new, do not overlap. `same predictions` are the same outcomes: every example
is classified correctly, or wrongly, both times; which wrong class it is taken for is not recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, get_args

from pydantic import Field

from robustbench_cmic.plan.cell import Kind, title
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.compare.differences import Difference, largest_difference
from robustbench_cmic.report.compare.matching import CellPair
from robustbench_cmic.statistics import LEVEL
from robustbench_cmic.suite.fields import Frozen

Verdict = Literal["bit-identical", "same predictions", "within interval", "drifted", "missing", "failed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Overall = Literal["bit-identical", "same predictions", "within interval", "drifted", "different inputs", "incomplete"]
REPRODUCED, INCOMPLETE, DIFFERENT = 0, 1, 3
MAX_FLIPS = 10


class Flips(Frozen):
    """The examples of one attack, or of one check of an audit, whose outcome is another.

    Attributes:
        check, lost, gained: see `PairedOutcomes`; p: McNemar's, adjusted by Holm's method.
    """

    check: str
    lost: list[int]
    gained: list[int]
    p: float


class CellVerdict(Frozen):
    """What became of one recorded cell.

    Attributes:
        cell: its recorded id, or the suite's where nothing is recorded.
        why: a sentence; empty where the verdict says all.
        n: evaluated examples; accuracy_recorded, accuracy_here: fractions.
        largest: the number that differs most.
        checkpoint_recorded, checkpoint_here: hashes of the weights that were trained or attacked.
    """

    cell: str
    title: str
    kind: Kind
    verdict: Verdict
    why: str = ""
    n: int | None = None
    accuracy_recorded: float | None = None
    accuracy_here: float | None = None
    flips: list[Flips] = []
    largest: Difference | None = None
    checkpoint_recorded: str | None = None
    checkpoint_here: str | None = None

    @property
    def flipped(self) -> list[int]:
        """Positions of all examples that flipped, ascending."""
        return sorted({place for flips in self.flips for place in (*flips.lost, *flips.gained)})

    @property
    def change_points(self) -> float:
        """Accuracy here minus recorded, in percentage points; 0 where there are not both."""
        if self.accuracy_recorded is None or self.accuracy_here is None:
            return 0.0
        return 100 * (self.accuracy_here - self.accuracy_recorded)


class Certificate(Frozen):
    """A comparison of recorded and new results, with a header that says what it is worth.

    Attributes:
        verdict: that of the worst cell; `different inputs` where it was not the recorded experiment that was made
            anew; `incomplete` where cells could not be run, or nothing is recorded of them.
        started: UTC, ISO 8601; seconds: wall time of the run.
        against, results: the folders of the recorded and of the new results.
        fraction: share of the recorded evaluations that was asked for; recorded: how many cells are recorded in all.
        inputs: in which data, examples, given weights, configuration or seeds differ; old is recorded, new is here.
        environment: in which code, versions or machines differ; environment_recorded, environment_here: all of that.
    """

    schema_: Literal["robustbench_cmic/certificate/1"] = Field("robustbench_cmic/certificate/1", alias="schema")
    suite: str
    sentence: str
    verdict: Overall
    exit_code: int
    started: str
    seconds: float
    suite_file: str
    suite_sha256: str
    against: str
    results: str
    fraction: float
    recorded: int
    counts: dict[str, int]
    inputs: list[Difference]
    environment: list[Difference]
    environment_recorded: dict[str, str]
    environment_here: dict[str, str]
    dataset_sha256: dict[Literal["recorded", "here"], list[str]]
    cells: list[CellVerdict]


def judge(pairs: Sequence[CellPair]) -> list[CellVerdict]:
    """A verdict on every cell that was compared, in the order given; the old side is the recorded one."""
    clean = {(pair.cell.model, pair.cell.seed): _of_examples(pair) for pair in pairs if pair.cell.attack == "none"}
    return [
        _of_training(pair, clean.get((pair.cell.model, pair.cell.seed)))
        if pair.cell.kind == "train"
        else _of_examples(pair)
        for pair in pairs
    ]


def _of_examples(pair: CellPair) -> CellVerdict:
    """The verdict on an attack or an audit."""
    if pair.results is None:
        return _verdict(pair, "failed", _why_not(pair))
    if pair.identical:
        return _verdict(pair, "bit-identical")
    largest = largest_difference(*pair.results)
    if pair.outcomes is None:
        what = "its checks are others, or one crashed" if pair.cell.kind == "audit" else "other examples"
        return _verdict(pair, "drifted", f"not comparable example by example: {what}", largest=largest)
    flips = [
        Flips(check=paired.check, lost=paired.lost, gained=paired.gained, p=p)
        for paired, p in zip(pair.outcomes, pair.p, strict=True)
        if paired.flipped
    ]
    outside = [paired.check or "its accuracy" for paired in pair.outcomes if not paired.overlap]
    outside += pair.findings.beyond_chance
    reasons = []
    if any(p <= LEVEL for p in pair.p):
        reasons.append(f"more examples flipped than chance explains (McNemar, Holm: p = {min(pair.p):.2g})")
    if outside:
        reasons.append(f"the 95 % intervals do not overlap: {', '.join(outside)}")
    if pair.findings.facts:
        reasons.append("the audit says something else of the model")
    if reasons:
        return _verdict(pair, "drifted", "; ".join(reasons), largest=largest, flips=flips)
    counts = ", ".join(pair.findings.counts)
    verdict: Verdict = "within interval" if flips or counts else "same predictions"
    return _verdict(pair, verdict, counts and f"other counts: {counts}", largest=largest, flips=flips)


def _of_training(pair: CellPair, clean: CellVerdict | None) -> CellVerdict:
    """Weights that differ are worth what the clean evaluation says of them."""
    if pair.records is None or pair.records[1].status == "failed":
        return _verdict(pair, "failed", _why_not(pair))
    old, new = pair.records
    if old.status != new.status:
        why = f"recorded as {old.status}, here {new.status}: {new.reason or old.reason}"
        return _verdict(pair, "drifted", why)
    if pair.identical or (old.checkpoint_sha256 == new.checkpoint_sha256 is not None):
        return _verdict(pair, "bit-identical")
    largest = largest_difference(old, new)
    if old.status == "diverged":
        return _verdict(pair, "same predictions", "diverged both times", largest=largest)
    verdict: Verdict = "drifted" if clean is None else clean.verdict
    worth = "is not recorded" if clean is None else f"is: {verdict}"
    return _verdict(pair, verdict, f"its weights differ; its clean evaluation {worth}", largest=largest)


def _verdict(pair: CellPair, verdict: Verdict, why: str = "", **details: Any) -> CellVerdict:
    """A verdict with what is known of the cell on both sides."""
    old, new = pair.old_record, pair.new_record
    if isinstance(old, AttackRecord):
        accuracy = new.accuracy if isinstance(new, AttackRecord) else None
        details |= {"n": old.n, "accuracy_recorded": old.accuracy, "accuracy_here": accuracy}
    return CellVerdict(
        cell=pair.cell.id,
        title=title(pair.cell),
        kind=pair.cell.kind,
        verdict=verdict,
        why=why,
        checkpoint_recorded=old and old.checkpoint_sha256,
        checkpoint_here=new and new.checkpoint_sha256,
        **details,
    )


def _why_not(pair: CellPair) -> str:
    return "not run: what it needs has no result" if pair.new_record is None else pair.new_record.reason


def conclude(
    suite: str, cells: Sequence[CellVerdict], inputs: Sequence[Difference], sampled: str = ""
) -> tuple[Overall, int, str]:
    """The verdict of a whole reproduction, the command's exit code, and the finding for people in one sentence.

    `sampled` says what the cells are a sample of, and may be empty.
    """
    counts, n = counts_of(cells), len(cells)
    bad = [name for name in ("drifted", "failed", "missing") if counts[name]]
    first = next((cell for name in bad for cell in cells if cell.verdict == name), None)
    example = f"(first: {first.title}, {flipped_text(first.flipped) or first.why})" if first else ""
    verdict: Overall
    if inputs:
        verdict, code = "different inputs", DIFFERENT
        rest = f", and {len(inputs) - 1} more" if len(inputs) > 1 else ""
        text = f"NOT A REPRODUCTION: not the recorded experiment: {inputs[0].text()}{rest}"
    elif counts["drifted"]:
        verdict, code, text = "drifted", DIFFERENT, f"DRIFTED: {counts['drifted']} of {n} cells {example}"
    elif bad:
        verdict, code = "incomplete", INCOMPLETE
        text = f"INCOMPLETE: {' and '.join(f'{counts[name]} {name}' for name in bad)} of {n} cells {example}"
    elif not cells:
        verdict, code, text = "incomplete", INCOMPLETE, "INCOMPLETE: nothing is recorded"
    elif counts["bit-identical"] == n:
        verdict, code, text = "bit-identical", REPRODUCED, f"{n} of {n} cells bit-identical"
    else:
        verdict, code = "within interval" if counts["within interval"] else "same predictions", REPRODUCED
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        text = f"reproduced: of {n} cells {', '.join(parts)}"
    return verdict, code, f"{suite}: {text}" + (f" ({sampled})" if sampled else "")


def counts_of(cells: Sequence[CellVerdict]) -> dict[str, int]:
    """How many cells have each verdict, zeros included."""
    counted = Counter(cell.verdict for cell in cells)
    return {verdict: counted[verdict] for verdict in VERDICTS}


def flipped_text(places: Sequence[int]) -> str:
    """`2 flipped: 3, 17`, with at most `MAX_FLIPS` examples; empty where none flipped."""
    if not places:
        return ""
    listed = ", ".join(map(str, places[:MAX_FLIPS]))
    return f"{len(places)} flipped: {listed}{', …' if len(places) > MAX_FLIPS else ''}"
