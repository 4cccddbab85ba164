"""What a page shows of a pair: its table, its chart, and its verdicts as sentences."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_cmic.report.board import Board
from robustbench_cmic.report.comparison import WITHDRAWN
from robustbench_cmic.report.page.charts import Chart, forest
from robustbench_cmic.report.pairs import READING, ncmi_sentences
from robustbench_cmic.report.selecting import CLEAN, size_of
from robustbench_cmic.report.tables import Table, pair_table, seed_table


@dataclass(frozen=True)
class PairView:
    """A pair.

    Attributes:
        reading, ncmi: Markdown's emphasis is in them, see `render.prose`.
        withdrawn: for each row of `table`, whether its number is flagged.
    """

    first: str
    second: str
    reading: str
    table: Table
    withdrawn: list[bool]
    ncmi: list[str]
    seeds: Table
    chart: Chart | None


def pair_views(board: Board) -> list[PairView]:
    """The suite's pairs, in its order."""
    return [
        PairView(
            first=first,
            second=second,
            reading=READING.format(first=first, second=second),
            table=pair_table(board, first, second),
            withdrawn=[line.verdict.startswith(WITHDRAWN) for line in lines if line.what != "NCMI"],
            ncmi=list(ncmi_sentences(board, first, second)),
            seeds=seed_table(board, first, second),
            chart=forest(lines, (first, second), f"pair-{place}"),
        )
        for place, ((first, second), lines) in enumerate(board.pairs.items())
    ]


def verdicts(board: Board) -> list[tuple[str, str, str, str]]:
    """Both models of a pair, what is claimed of them on clean examples or in the worst case, and the verdict."""
    return [
        (first, second, "clean accuracy" if line.ball == CLEAN else f"{line.what}, {size_of(line.ball)}", line.verdict)
        for (first, second), lines in board.pairs.items()
        for line in lines
        if line.claim and line.what != "NCMI" and line.verdict
    ]
