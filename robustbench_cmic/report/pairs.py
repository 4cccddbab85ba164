"""The leaderboard's sections on pairs: what differs, and whether the difference may be claimed."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.report.board import Board
from robustbench_cmic.report.markdown import markdown
from robustbench_cmic.report.numbers import spread
from robustbench_cmic.report.tables import pair_table, seed_table

READING = """\
The difference is `{second}` minus `{first}`, seed by seed: the mean, and the least and greatest over seeds; a row holds
only seeds that both models have. *95 % over examples*: of that mean, by the paired bootstrap; it has nothing to draw
from where no example's outcome differs in any seed. *Seeds that differ*: in how many of them the examples alone show a
difference of these two trained networks (exact McNemar, p at most 0.05). *Verdict*: whether the method differs, by a
paired t-test over seeds and by the bootstrap; both have to say so. P-values are adjusted by Holm's method over all
pairs: over the rows in bold, which are the claims, and over the others, which are single attacks.
"""


def pair_sections(board: Board) -> Iterator[str]:
    """A section for each pair of the suite."""
    for first, second in board.pairs:
        yield f"## `{first}` against `{second}`\n"
        yield READING.format(first=first, second=second)
        yield markdown(pair_table(board, first, second))
        yield from (f"{sentence}\n" for sentence in ncmi_sentences(board, first, second))
        by_seed = seed_table(board, first, second)
        if by_seed.rows:
            yield "Claims seed by seed; in parentheses 95 % of the paired bootstrap over examples; p: McNemar's test:\n"
            yield markdown(by_seed)


def ncmi_sentences(board: Board, first: str, second: str) -> Iterator[str]:
    """What is said of a pair's NCMI on clean examples; nothing where neither has any."""
    for line in board.pairs[first, second]:
        if line.what == "NCMI" and line.seeds:
            sides = zip(*((seed.first, seed.second) for seed in line.seeds.values()), strict=True)
            shown = [spread(list(side), "{:.3g}", board.seeds) for side in sides]
            yield f"NCMI on clean examples: `{first}` {shown[0]}, `{second}` {shown[1]}; verdict: {line.verdict}."
