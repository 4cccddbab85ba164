"""What a pair comes to, counted: a word for clean accuracy, and how many radii of the worst case have which verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import percent
from robustbench_cmic.report.pairs import Outcome, PairTest
from robustbench_cmic.suite.fields import CLEAN

_WORDS: dict[Outcome, str] = {"": "not measured"}
"""What an outcome is called where its own name says nothing."""
_SIDES: tuple[Outcome, ...] = ("higher", "lower")
_OTHERS: tuple[Outcome, ...] = ("not compared", "no claim", "withdrawn", "")
"""Outcomes that are no answer, in the order in which they are counted; where there are none they are left out."""


class ClaimCounts(NamedTuple):
    """The claims about the second model of a pair against the first, in short.

    Attributes:
        clean: `lower (-3.1 points)`, `undecided`.
        worst: `7 radii: 2 shown to differ (2 higher), 0 shown to be equivalent, 4 undecided; 1 withdrawn`. The first
            three are always there, so that nobody takes what is undecided for equal.
    """

    clean: str
    worst: str

    def __str__(self) -> str:
        return f"clean: {self.clean}; worst case: {self.worst}"


def claim_counts(lines: Sequence[PairTest]) -> ClaimCounts:
    """Count the verdicts of a pair on accuracies; NCMI and single attacks are no part of it."""
    clean = next((line for line in lines if line.threat == CLEAN and line.in_points), None)
    return ClaimCounts(_clean(clean), _worst([line.outcome for line in lines if line.what == WORST]))


def _clean(line: PairTest | None) -> str:
    outcome = "" if line is None else line.outcome
    if line is not None and outcome in _SIDES:
        return f"{outcome} ({percent(line.mean):+.1f} points)"
    return _WORDS.get(outcome, outcome)


def _worst(outcomes: Sequence[Outcome]) -> str:
    if not any(outcomes):
        return "not measured"
    counts = Counter(outcomes)
    differing = sum(counts[side] for side in _SIDES)
    sides = ", ".join(f"{counts[side]} {side}" for side in _SIDES if counts[side])
    answers = [
        f"{differing} shown to differ{f' ({sides})' if sides else ''}",
        f"{counts['equivalent']} shown to be equivalent",
        f"{counts['undecided']} undecided",
    ]
    others = ", ".join(f"{counts[outcome]} {_WORDS.get(outcome, outcome)}" for outcome in _OTHERS if counts[outcome])
    text = f"{len(outcomes)} {'radius' if len(outcomes) == 1 else 'radii'}: {', '.join(answers)}"
    return f"{text}; {others}" if others else text
