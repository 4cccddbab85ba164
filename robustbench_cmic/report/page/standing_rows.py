"""The main table's rows: every model in every ball, with its rank or why it has none."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_cmic.report.board import Board, Clean, Standing
from robustbench_cmic.report.numbers import spread
from robustbench_cmic.report.selecting import size_of
from robustbench_cmic.report.tables import percent_of


@dataclass(frozen=True)
class Place:
    """A model in a ball.

    Attributes:
        standing, clean: the numbers; what is empty in them is not there yet.
        size: norm and eps in words.
        rank: or why there is none, in words.
        order: what it is sorted by when sorted by rank: what has none comes last.
        own_flags: flags of the worst case.
        attack_flags: flags of single attacks in the ball alone, which the worst case does not hang on.
    """

    standing: Standing
    clean: Clean
    size: str
    rank: str
    order: int
    worst: str
    clean_accuracy: str
    ncmi: str
    own_flags: list[str]
    attack_flags: list[str]


def places(board: Board) -> list[Place]:
    """Ball by ball in the order of the norms and radii, the best first, what has no rank last."""
    clean = {entry.model: entry for entry in board.clean}
    return [
        _place(entry, clean[entry.model], len(entries) + 1, board.seeds)
        for entries in board.standings.values()
        for entry in entries
    ]


def _place(entry: Standing, clean: Clean, last: int, seeds: int) -> Place:
    own = list(entry.worst.flags)
    return Place(
        standing=entry,
        clean=clean,
        size=size_of(entry.ball),
        rank=str(entry.rank) if entry.rank else entry.why,
        order=entry.rank or last,
        worst=percent_of(entry.worst, seeds),
        clean_accuracy=percent_of(clean.accuracy, seeds),
        ncmi=spread(list(clean.ncmi.values.values()), "{:.3g}", seeds),
        own_flags=own,
        attack_flags=sorted({name for number in entry.attacks.values() for name in number.flags} - set(own)),
    )
