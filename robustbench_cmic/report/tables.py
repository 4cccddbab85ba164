"""The main tables as data, for every format that prints them: plain text, and what in it is a name or stands out."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tabulate import tabulate

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import ACCURACY, CALIBRATION, NCMI, NCMI_CALIBRATED, OF_MODELS, Metric, percent
from robustbench_cmic.report.pairs import NO_DISCORDANT, PairTest, SeedTest
from robustbench_cmic.statistics import LEVEL
from robustbench_cmic.suite.fields import CLEAN, format_eps

if TYPE_CHECKING:
    from robustbench_cmic.report.summary import RankedModel, SeedValues, Summary

NOTHING = "–"


class Code(str):
    """An identifier."""


class Strong(str):
    """What stands out: the best of its kind, or a claim."""


class Table(NamedTuple):
    """A table of text; nothing in it is escaped for any format."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


def clean_table(summary: Summary) -> Table:
    """Every model on clean examples; the best sound accuracy stands out."""
    rows = []
    for model, entry in summary.clean.items():
        accuracy, *others = (seeds_text(entry.measures[metric.name], summary, metric) for metric in OF_MODELS)
        rows.append([Code(model), entry.objective, Strong(accuracy) if entry.best else accuracy, *others])
    return Table(["model", "objective", *(metric.head for metric in OF_MODELS)], rows)


def calibration_table(summary: Summary) -> Table:
    """How every model's outputs on clean examples fit the labels, and NCMI with and without them scaled to fit.

    Without rows where no record holds any of it, such as those from before it was measured.
    """
    columns = [NCMI, *(metric for metric in CALIBRATION if metric.title)]
    measured = any(entry.measures["nll"].values for entry in summary.clean.values())
    rows = [
        [Code(model), *(seeds_text(entry.measures[metric.name], summary, metric) for metric in columns)]
        for model, entry in summary.clean.items()
        if measured
    ]
    return Table(["model", *(metric.head for metric in columns)], rows)


def robust_tables(summary: Summary) -> dict[str, Table]:
    """For each norm who stands where; the best worst case at a threat stands out."""
    tables: dict[str, Table] = {}
    for norm in dict.fromkeys(threat.norm for threat in summary.standings):
        standings = {threat: entries for threat, entries in summary.standings.items() if threat.norm == norm}
        labels = dict.fromkeys(label for threat in standings for label in summary.attacks(threat))
        columns = [label for label in labels if ":" not in label]  # transfers have a table of their own
        rows = []
        for entry in (entry for entries in standings.values() for entry in entries):
            single = [seeds_text(entry.attacks.get(label), summary) for label in columns]
            worst = seeds_text(entry.worst, summary)
            best = Strong(worst) if entry.rank == 1 else worst
            rows.append([format_eps(entry.threat.eps), rank_of(entry), Code(entry.model), *single, best])
        tables[norm] = Table(["eps", "rank", "model", *(f"{label} %" for label in [*columns, WORST])], rows)
    return tables


def pair_table(summary: Summary, first: str, second: str) -> Table:
    """What differs between the models of a pair, line by line, without NCMI; the claims stand out."""
    rows = [_line(line, summary.results.seeds) for line in summary.pairs[first, second] if line.in_points]
    measured = ["difference (points)", "95 % over examples", "seeds that differ", "verdict"]
    return Table(["attack", "eps", f"{first} %", f"{second} %", *measured], rows)


def _line(line: PairTest, planned: int) -> list[str]:
    label = "clean" if line.threat == CLEAN else line.what
    return [
        Strong(label) if line.claim else label,
        _size(line),
        *(spread(accuracies, planned) for accuracies in line.sides),
        difference_text(line),
        interval_text(line),
        _differing(line),
        line.verdict or NOTHING,
    ]


def seed_table(summary: Summary, first: str, second: str) -> Table:
    """Each claim about a pair, seed by seed, with its interval over examples."""
    rows = []
    for line in summary.pairs[first, second]:
        for number, seed in line.seeds.items() if line.claim else ():
            if not line.in_points:
                texts = [f"{seed.first:.3g}", f"{seed.second:.3g}", f"{seed.difference:+.2g}"]
                ends = "" if seed.interval is None else f" ({seed.interval[0]:+.2g} … {seed.interval[1]:+.2g})"
            else:
                texts = [
                    f"{percent(seed.first):.1f} %",
                    f"{percent(seed.second):.1f} %",
                    f"{percent(seed.difference):+.1f}",
                ]
                ends = "" if seed.interval is None else f" ({interval_text(seed)})"
            p = NOTHING if seed.p is None else f"{seed.p:.2g}"
            rows.append([line.what, _size(line), str(number), texts[0], texts[1], texts[2] + ends, p])
    return Table(["claim", "eps", "seed", first, second, "difference", "p"], rows)


def interval_text(measured: PairTest | SeedTest, before: str = "", otherwise: str = NOTHING) -> str:
    """The interval over examples in points; in words where there is nothing that it could be drawn from."""
    if measured.no_discordant:
        return NO_DISCORDANT
    if measured.interval is None:
        return otherwise
    low, high = measured.interval
    return f"{before}{percent(low):+.1f} … {percent(high):+.1f}"


def _size(line: PairTest) -> str:
    return "" if line.threat == CLEAN else str(line.threat)


def difference_text(line: PairTest) -> str:
    """Differences of accuracies in percentage points: their mean, and the least and greatest over seeds."""
    points = [percent(value) for value in line.differences]
    if len(points) < 2:
        return f"{points[0]:+.1f} (one seed)" if points else NOTHING
    return f"{percent(line.mean):+.1f} ({min(points):+.1f} … {max(points):+.1f})"


def _differing(line: PairTest) -> str:
    """`2 of 3`, and the sign where there is one."""
    tested = [(seed.p, seed.difference) for seed in line.seeds.values() if seed.p is not None]
    if not tested:
        return NOTHING
    clear = [difference for p, difference in tested if p <= LEVEL]
    signs = {"+" if difference > 0 else "-" for difference in clear}
    return f"{len(clear)} of {len(tested)}" + (f" ({' and '.join(sorted(signs))})" if signs else "")


def ncmi_sentences(summary: Summary, first: str, second: str) -> list[str]:
    """What is said of a pair's NCMI on clean examples; nothing where neither has any."""
    sentences = []
    for metric, where in ((NCMI, "as it comes"), (NCMI_CALIBRATED, "at the temperature that minimises NLL")):
        sides = [summary.clean[model].measures[metric.name] for model in (first, second)]
        if all(number.values for number in sides):
            a, b = (seeds_text(number, summary, metric) for number in sides)
            sentences.append(f"NCMI on clean examples {where}: `{first}` {a}, `{second}` {b}.")
    lines = [line for line in summary.pairs[first, second] if not line.in_points and line.seeds]
    return [*sentences, *(f"Verdict on {line.what}: {line.verdict}." for line in lines)]


def rank_of(standing: RankedModel) -> str:
    """The rank; without one a dash, or that it is flagged."""
    return str(standing.rank) if standing.rank else standing.why if standing.worst.flags else NOTHING


def spread(values: Iterable[float], planned: int, metric: Metric = ACCURACY) -> str:
    """`97.0 ± 0.5`: mean and standard deviation; `(2 of 3 seeds)` behind it where some are missing.

    Args:
        values: of the metric as they are stored, one a seed.
        planned: how many seeds there should be.
        metric: how people read them.
    """
    read = list(values)
    if not read:
        return NOTHING
    text = metric.text(statistics.fmean(read))
    if len(read) > 1:
        text += f" ± {metric.text(statistics.stdev(read))}"
    return text if len(read) == planned else f"{text} ({len(read)} of {planned} seeds)"


def seeds_text(number: SeedValues | None, summary: Summary, metric: Metric = ACCURACY) -> str:
    """A number over seeds, see `spread`, with a mark where any of them is flagged."""
    if number is None:
        return NOTHING
    text = spread(number.values.values(), summary.results.seeds, metric)
    return f"{text} †" if number.flags else text


def flags_table(summary: Summary) -> Table:
    """Every flag, with what it is about."""
    rows = [[Code(flag.model), str(flag.seed), flag.name, flag.about, flag.evidence] for flag in summary.flags]
    return Table(["model", "seed", "flag", "about", "evidence"], rows)


def flags_text(summary: Summary) -> str:
    """The flags for the terminal, under the name of the suite."""
    suite, (headers, rows) = plain(summary.results.plan.suite), flags_table(summary)
    rows = [[plain(str(cell)) for cell in row] for row in rows]
    if not rows:
        return f"{suite}: no flag raised"
    return f"{suite}: {len(rows)} flags\n\n{tabulate(rows, headers=headers, disable_numparse=True)}\n"


def limited_table(summary: Summary) -> Table:
    """The evaluations that the command line limited."""
    frame = summary.frame[summary.frame["limited"] & summary.frame["accuracy"].notna()]
    evaluations: Any = frame.itertuples()  # whose fields are columns
    rows = [
        [Code(row.model), str(row.seed), row.attack, format_eps(row.eps), str(row.n), ACCURACY.text(row.accuracy)]
        for row in evaluations
    ]
    return Table(["model", "seed", "attack", "eps", "examples", ACCURACY.head], rows)


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


def marked(name: str) -> str:
    """A name as Markdown code in one line."""
    return "`" + plain(name).replace("`", "'") + "`"
