"""The leaderboard's sections on pairs: what differs, and whether the difference may be claimed."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.report.board import Board
from robustbench_cmic.report.comparison import LEVEL, Line
from robustbench_cmic.report.numbers import NOTHING, difference, escaped, percent, spread, table
from robustbench_cmic.report.selecting import CLEAN, size_of

_READING = """\
The difference is `{second}` minus `{first}`, seed by seed: the mean, and the least and greatest over seeds; a row holds
only seeds that both models have. *95 % over examples*: of that mean, by the paired bootstrap. *Seeds that differ*: in
how many of them the examples alone show a difference of these two trained networks (exact McNemar, p at most 0.05).
*Verdict*: whether the method differs, by a paired t-test over seeds and by the bootstrap; both have to say so. P-values
are adjusted by Holm's method over all pairs: over the rows in bold, which are the claims, and over the others, which
are single attacks.
"""


def pair_sections(board: Board) -> Iterator[str]:
    """A section for each pair of the suite."""
    for (first, second), lines in board.pairs.items():
        yield f"## `{first}` against `{second}`\n"
        yield _READING.format(first=first, second=second)
        headers = [
            "attack",
            "eps",
            f"`{first}` %",
            f"`{second}` %",
            "difference (points)",
            "95 % over examples",
            "seeds that differ",
            "verdict",
        ]
        yield table([_row(line, board.seeds) for line in lines if line.what != "NCMI"], headers)
        yield from _ncmi(lines, first, second, board.seeds)
        yield from _by_seed(lines, first, second)


def _row(line: Line, planned: int) -> list[str]:
    seeds = line.seeds.values()
    columns = [percent([seed.first for seed in seeds], planned), percent([seed.second for seed in seeds], planned)]
    return [
        _label(line),
        "" if line.ball == CLEAN else size_of(line.ball),
        *columns,
        difference([seed.difference for seed in seeds]),
        NOTHING if line.interval is None else f"{100 * line.interval[0]:+.1f} … {100 * line.interval[1]:+.1f}",
        _differing(line),
        line.verdict or NOTHING,
    ]


def _label(line: Line) -> str:
    if line.ball == CLEAN:
        return "**clean**"
    return f"**{line.what}**" if line.claim else escaped(line.what)


def _differing(line: Line) -> str:
    """`2 of 3`, and the sign where there is one."""
    tested = [seed for seed in line.seeds.values() if seed.p is not None]
    if not tested:
        return NOTHING
    clear = [seed for seed in tested if seed.p is not None and seed.p <= LEVEL]
    signs = {"+" if seed.difference > 0 else "-" for seed in clear}
    return f"{len(clear)} of {len(tested)}" + (f" ({' and '.join(sorted(signs))})" if signs else "")


def _ncmi(lines: list[Line], first: str, second: str, planned: int) -> Iterator[str]:
    for line in lines:
        if line.what == "NCMI" and line.seeds:
            sides = zip(*((seed.first, seed.second) for seed in line.seeds.values()), strict=True)
            shown = [spread(list(side), "{:.3g}", planned) for side in sides]
            yield f"NCMI on clean examples: `{first}` {shown[0]}, `{second}` {shown[1]}; verdict: {line.verdict}.\n"


def _by_seed(lines: list[Line], first: str, second: str) -> Iterator[str]:
    """Each claim, seed by seed, with its interval over examples."""
    rows = []
    for line in lines:
        for number, seed in line.seeds.items() if line.claim else ():
            if line.what == "NCMI":
                shown = [f"{seed.first:.3g}", f"{seed.second:.3g}", f"{seed.difference:+.2g}"]
                ends = "" if seed.interval is None else f" [{seed.interval[0]:+.2g}, {seed.interval[1]:+.2g}]"
            else:
                shown = [f"{100 * seed.first:.1f} %", f"{100 * seed.second:.1f} %", f"{100 * seed.difference:+.1f}"]
                ends = (
                    "" if seed.interval is None else f" [{100 * seed.interval[0]:+.1f}, {100 * seed.interval[1]:+.1f}]"
                )
            size = "" if line.ball == CLEAN else size_of(line.ball)
            p = NOTHING if seed.p is None else f"{seed.p:.2g}"
            rows.append([line.what, size, number, shown[0], shown[1], shown[2] + ends, p])
    if rows:
        yield "Claims seed by seed; in brackets 95 % of the paired bootstrap over examples, p of McNemar's test:\n"
        yield table(rows, ["claim", "eps", "seed", f"`{first}`", f"`{second}`", "difference", "p"])
