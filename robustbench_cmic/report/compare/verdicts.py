"""What a cell made anew is worth beside the recorded one: bit-identical, the same predictions, …, drifted.

Accuracies are compared example by example. A cell has drifted if its flips are more than chance explains (exact
McNemar test, adjusted by Holm's method over all sets of examples that were judged twice), or if the Wilson 95 %
intervals of its accuracies, recorded and new, do not overlap. `same predictions` are the same outcomes: every example
is classified correctly, or wrongly, both times; which wrong class it is taken for is not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, AuditRecord
from robustbench_cmic.report.compare import flips as outcomes
from robustbench_cmic.report.compare.differences import Difference, largest_difference, payload
from robustbench_cmic.report.compare.flips import PairedOutcomes
from robustbench_cmic.statistics import holm
from robustbench_cmic.suite.fields import Frozen

LEVEL = 0.05
Verdict = Literal["bit-identical", "same predictions", "within interval", "drifted", "missing", "failed"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class Flips(Frozen):
    """The examples of one attack, or of one check of an audit, whose outcome is another.

    Attributes:
        check: which check; empty for an attack.
        lost, gained: positions among the evaluated examples, counted from 0: classified correctly in the record only,
            and here only.
        p: McNemar's, adjusted by Holm's method.
    """

    check: str
    lost: list[int]
    gained: list[int]
    p: float


class CellVerdict(Frozen):
    """What became of one recorded cell.

    Attributes:
        cell: its recorded id, or the suite's where nothing is recorded.
        title: the same in words.
        verdict: see the module.
        why: a sentence; empty where the verdict says all.
        n: evaluated examples; accuracy_recorded, accuracy_here: fractions.
        flips: sets of examples in which some flipped.
        largest: the number that differs most.
        checkpoint_recorded, checkpoint_here: hashes of the weights that were trained or attacked.
    """

    cell: str
    title: str
    kind: Literal["train", "attack", "audit"]
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


@dataclass(frozen=True)
class Pair:
    """A recorded cell and the same made anew.

    Attributes:
        cell: the recorded one.
        old: its record.
        new: the new record; None where there is none.
    """

    cell: Cell
    old: AnyRecord
    new: AnyRecord | None


@dataclass(frozen=True)
class _Case:
    """A pair and the examples that were judged on both sides; None: they cannot be compared."""

    pair: Pair
    twice: list[PairedOutcomes] | None
    p: list[float]


def missing(cell: Cell, why: str) -> CellVerdict:
    """The verdict on a cell that has nothing to be compared with."""
    return CellVerdict(cell=cell.id, title=title(cell), kind=cell.kind, verdict="missing", why=why)


def judge(pairs: Sequence[Pair]) -> list[CellVerdict]:
    """A verdict on every cell, in the order given."""
    cases = [_Case(pair, _judged_twice(pair), []) for pair in pairs]
    adjusted = iter(holm([twice.p for case in cases for twice in case.twice or []]))
    cases = [replace(case, p=[next(adjusted) for _ in case.twice or []]) for case in cases]
    verdicts = {case.pair.cell.id: _verdict(case) for case in cases if case.pair.cell.kind != "train"}
    clean = {(pair.cell.model, pair.cell.seed): verdicts[pair.cell.id] for pair in pairs if pair.cell.attack == "none"}
    for pair in pairs:
        if pair.cell.kind == "train":
            verdicts[pair.cell.id] = _training(pair, clean.get((pair.cell.model, pair.cell.seed)))
    return [verdicts[pair.cell.id] for pair in pairs]


def _judged_twice(pair: Pair) -> list[PairedOutcomes] | None:
    old, new = pair.old, pair.new
    if new is None or (old.status, new.status) != ("ok", "ok"):
        return None
    if isinstance(old, AttackRecord) and isinstance(new, AttackRecord):
        twice = outcomes.pair_outcomes(old, new)
        return None if twice is None else [twice]
    if isinstance(old, AuditRecord) and isinstance(new, AuditRecord):
        return outcomes.of_audits(old, new)
    return None


def _verdict(case: _Case) -> CellVerdict:
    """Of an attack or an audit."""
    old, new = case.pair.old, case.pair.new
    found = _empty(case.pair)
    if new is None or new.status != "ok":
        return found.model_copy(update={"verdict": "failed", "why": _why_not(case.pair)})
    if payload(old) == payload(new):
        return found
    found = found.model_copy(update={"largest": largest_difference(old, new)})
    if case.twice is None:
        what = "its checks are others, or one crashed" if case.pair.cell.kind == "audit" else "other examples"
        return found.model_copy(update={"verdict": "drifted", "why": f"not comparable example by example: {what}"})
    flips = [
        Flips(check=twice.what, lost=twice.lost, gained=twice.gained, p=p)
        for twice, p in zip(case.twice, case.p, strict=True)
        if twice.flips
    ]
    significant = any(p <= LEVEL for p in case.p)
    outside = [twice.what or "its accuracy" for twice in case.twice if not twice.inside]
    counted, odd, other_facts = _counted(old, new)
    why = []
    if significant:
        why.append(f"more examples flipped than chance explains (McNemar, Holm: p = {min(case.p):.2g})")
    if outside + odd:
        why.append(f"the 95 % intervals do not overlap: {', '.join(outside + odd)}")
    if other_facts:
        why.append("the audit says something else of the model")
    verdict: Verdict = "drifted" if why else "within interval" if flips or counted else "same predictions"
    if counted and not why:
        why.append(f"other counts: {', '.join(counted)}")
    return found.model_copy(update={"verdict": verdict, "why": "; ".join(why), "flips": flips})


def _counted(old: AnyRecord, new: AnyRecord) -> tuple[list[str], list[str], bool]:
    """Of two audits: names of the counts that differ, those by more than chance explains, and whether facts differ."""
    if not isinstance(old, AuditRecord) or not isinstance(new, AuditRecord):
        return [], [], False
    left, right = outcomes.counts(old), outcomes.counts(new)
    differing = outcomes.other_counts(old, new)
    odd = [key for key in differing if not outcomes.intervals_overlap(left.get(key, (0, 0)), right.get(key, (0, 0)))]
    return differing, odd, outcomes.facts(old) != outcomes.facts(new)


def _training(pair: Pair, clean: CellVerdict | None) -> CellVerdict:
    """Weights that differ are worth what the clean evaluation says of them."""
    old, new = pair.old, pair.new
    found = _empty(pair)
    if new is None or new.status == "failed":
        return found.model_copy(update={"verdict": "failed", "why": _why_not(pair)})
    if old.status != new.status:
        reason = new.reason or old.reason
        return found.model_copy(
            update={"verdict": "drifted", "why": f"recorded as {old.status}, here {new.status}: {reason}"}
        )
    if payload(old) == payload(new) or (old.checkpoint_sha256 == new.checkpoint_sha256 is not None):
        return found
    if old.status == "diverged":
        return found.model_copy(
            update={
                "verdict": "same predictions",
                "why": "diverged both times",
                "largest": largest_difference(old, new),
            }
        )
    verdict: Verdict = "drifted" if clean is None else clean.verdict
    why = "its weights differ; its clean evaluation " + ("is not recorded" if clean is None else f"is: {verdict}")
    return found.model_copy(update={"verdict": verdict, "why": why, "largest": largest_difference(old, new)})


def _empty(pair: Pair) -> CellVerdict:
    """The facts of a pair under the best verdict."""
    old, new = pair.old, pair.new
    accuracies = {}
    if isinstance(old, AttackRecord):
        accuracies = {"n": old.n, "accuracy_recorded": old.accuracy}
        accuracies["accuracy_here"] = new.accuracy if isinstance(new, AttackRecord) else None
    return CellVerdict(
        cell=pair.cell.id,
        title=title(pair.cell),
        kind=pair.cell.kind,
        verdict="bit-identical",
        checkpoint_recorded=old.checkpoint_sha256,
        checkpoint_here=None if new is None else new.checkpoint_sha256,
        **accuracies,
    )


def _why_not(pair: Pair) -> str:
    return "not run: what it needs has no result" if pair.new is None else pair.new.reason
