"""The main tables as data, for every format that prints them: plain text, and what in it is a name or stands out."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from robustbench_cmic.report.frame import CLEAN, NORM_NAMES, size_of
from robustbench_cmic.report.pairs import LEVEL, NO_DISCORDANT, PairTest, SeedTest
from robustbench_cmic.report.summary import RankedModel, SeedValues, Summary
from robustbench_cmic.suite.fields import format_eps


class Code(str):
    """An identifier."""


class Strong(str):
    """What stands out: the best of its kind, or a claim."""


@dataclass(frozen=True)
class Table:
    """A table of text; nothing in it is escaped for any format."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def clean_table(board: Summary) -> Table:
    """Every model on clean examples; the best sound accuracy stands out."""
    rows = []
    for entry in board.clean:
        measures = [_measure(number, board.seeds) for number in (entry.ncmi, entry.cmi, entry.separation)]
        accuracy = percent_of(entry.accuracy, board.seeds)
        rows.append([Code(entry.model), entry.objective, Strong(accuracy) if entry.best else accuracy, *measures])
    return Table(["model", "objective", "accuracy %", "NCMI", "CMI (nats)", "separation (nats)"], rows)


def robust_tables(board: Summary) -> dict[str, Table]:
    """For each norm, by its name, who stands where; the best worst case of a ball stands out."""
    tables = {}
    for norm in dict.fromkeys(norm for norm, _ in board.standings):
        inside = {ball: entries for ball, entries in board.standings.items() if ball[0] == norm}
        names = dict.fromkeys(name for entries in inside.values() for entry in entries for name in entry.attacks)
        own = [name for name in names if ":" not in name]  # transfers have a table of their own
        rows = []
        for (_, eps), entries in inside.items():
            for entry in entries:
                columns = [percent_of(entry.attacks.get(name, SeedValues({})), board.seeds) for name in own]
                worst = percent_of(entry.worst, board.seeds)
                shown = Strong(worst) if entry.rank == 1 else worst
                rows.append([format_eps(eps), rank_of(entry), Code(entry.model), *columns, shown])
        headers = ["eps", "rank", "model", *(f"{name} %" for name in own), "worst case %"]
        tables[NORM_NAMES[norm]] = Table(headers, rows)
    return tables


def pair_table(board: Summary, first: str, second: str) -> Table:
    """What differs between the models of a pair, line by line, without NCMI; the claims stand out."""
    rows = [_line(line, board.seeds) for line in board.pairs[first, second] if line.what != "NCMI"]
    measured = ["difference (points)", "95 % over examples", "seeds that differ", "verdict"]
    return Table(["attack", "eps", f"{first} %", f"{second} %", *measured], rows)


def seed_table(board: Summary, first: str, second: str) -> Table:
    """Each claim about a pair, seed by seed, with its interval over examples."""
    rows = []
    for line in board.pairs[first, second]:
        for number, seed in line.seeds.items() if line.claim else ():
            if line.what == "NCMI":
                shown = [f"{seed.first:.3g}", f"{seed.second:.3g}", f"{seed.difference:+.2g}"]
                ends = "" if seed.interval is None else f" ({seed.interval[0]:+.2g} … {seed.interval[1]:+.2g})"
            else:
                shown = [f"{100 * seed.first:.1f} %", f"{100 * seed.second:.1f} %", f"{100 * seed.difference:+.1f}"]
                ends = "" if seed.interval is None else f" ({_ends(seed)})"
            p = NOTHING if seed.p is None else f"{seed.p:.2g}"
            rows.append([line.what, _size(line), str(number), shown[0], shown[1], shown[2] + ends, p])
    return Table(["claim", "eps", "seed", first, second, "difference", "p"], rows)


def percent_of(number: SeedValues, seeds: int) -> str:
    """Accuracy in percent over seeds, with a mark where any of them is flagged."""
    text = percent(number.values.values(), seeds)
    return f"{text} †" if number.flags else text


def rank_of(standing: RankedModel) -> str:
    """The rank, or why there is none."""
    return str(standing.rank) if standing.rank else standing.why.replace("incomplete", NOTHING)


def _measure(number: SeedValues, seeds: int) -> str:
    return spread(list(number.values.values()), "{:.3g}", seeds)


def _line(line: PairTest, planned: int) -> list[str]:
    seeds = line.seeds.values()
    label = "clean" if line.ball == CLEAN else line.what
    return [
        Strong(label) if line.claim else label,
        _size(line),
        percent([seed.first for seed in seeds], planned),
        percent([seed.second for seed in seeds], planned),
        difference([seed.difference for seed in seeds]),
        _ends(line),
        _differing(line),
        line.verdict or NOTHING,
    ]


def _ends(measured: PairTest | SeedTest) -> str:
    """The interval over examples in points; in words where there is nothing that it could be drawn from."""
    if measured.alike:
        return NO_DISCORDANT
    if measured.interval is None:
        return NOTHING
    low, high = measured.interval
    return f"{_points(low)} … {_points(high)}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"


def _size(line: PairTest) -> str:
    return "" if line.ball == CLEAN else size_of(line.ball)


def _differing(line: PairTest) -> str:
    """`2 of 3`, and the sign where there is one."""
    tested = [seed for seed in line.seeds.values() if seed.p is not None]
    if not tested:
        return NOTHING
    clear = [seed for seed in tested if seed.p is not None and seed.p <= LEVEL]
    signs = {"+" if seed.difference > 0 else "-" for seed in clear}
    return f"{len(clear)} of {len(tested)}" + (f" ({' and '.join(sorted(signs))})" if signs else "")


NOTHING = "–"


def spread(values: Sequence[float], form: str, planned: int) -> str:
    """`97.0 ± 0.5`: mean and standard deviation; `(2 of 3 seeds)` behind it where some are missing.

    Args:
        values: one a seed.
        form: such as `{:.1f}`.
        planned: how many seeds there should be.
    """
    if not values:
        return NOTHING
    text = form.format(statistics.fmean(values))
    if len(values) > 1:
        text += f" ± {form.format(statistics.stdev(values))}"
    return text if len(values) == planned else f"{text} ({len(values)} of {planned} seeds)"


def percent(fractions: Iterable[float], planned: int) -> str:
    """Fractions in [0, 1] as percentages, see `spread`."""
    return spread([100 * value for value in fractions], "{:.1f}", planned)


def difference(differences: Sequence[float]) -> str:
    """Differences of fractions in percentage points: their mean, and the least and greatest over seeds."""
    if not differences:
        return NOTHING
    points = [100 * value for value in differences]
    if len(points) == 1:
        return f"{points[0]:+.1f} (one seed)"
    return f"{statistics.fmean(points):+.1f} ({min(points):+.1f} … {max(points):+.1f})"


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """A Markdown table with a blank line behind it; nothing in it is taken for a number and changed."""
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True) + "\n"


def escaped(text: str) -> str:
    """A suite's own words as plain Markdown text in one line."""
    # An underscore inside a word is one.
    return re.sub(r"[\\`*{}\[\]<>|#&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain(text))


def plain(text: str) -> str:
    """A suite's own words in one line, without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
