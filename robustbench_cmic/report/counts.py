"""What a pair comes to, counted: a word for clean accuracy, and how many radii of the worst case have which verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.pairs import Outcome, PairTest
from robustbench_cmic.suite.fields import CLEAN

_WORDS: dict[Outcome, str] = {"": "not measured"}
"""What an outcome is called where its own name says nothing."""
_SIDES: tuple[Outcome, ...] = ("higher", "lower")
_SILENT: tuple[Outcome, ...] = ("equivalent", "undecided", "not compared", "no claim", "withdrawn", "")
"""Outcomes that show no difference, in the order in which they are counted."""


class ClaimCounts(NamedTuple):
    """The claims about the second model of a pair against the first, in short.

    Attributes:
        clean: `lower (-3.1 points)`, `undecided`.
        worst: `2 of 7 radii differ (2 higher); 4 undecided, 1 withdrawn`.
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
        return f"{outcome} ({100 * line.mean:+.1f} points)"
    return _WORDS.get(outcome, outcome)


def _worst(outcomes: Sequence[Outcome]) -> str:
    if not any(outcomes):
        return "not measured"
    counts = Counter(outcomes)
    differing = sum(counts[side] for side in _SIDES)
    text = f"{differing} of {len(outcomes)} {'radius differs' if len(outcomes) == 1 else 'radii differ'}"
    if differing:
        text += f" ({', '.join(f'{counts[side]} {side}' for side in _SIDES if counts[side])})"
    others = ", ".join(f"{counts[outcome]} {_WORDS.get(outcome, outcome)}" for outcome in _SILENT if counts[outcome])
    return f"{text}; {others}" if others else text
