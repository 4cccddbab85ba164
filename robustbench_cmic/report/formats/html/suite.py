"""The page of a suite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustbench_cmic.audit import RULES
from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.costs import COSTS, PARTS, TRANSFERS, cost_table, parts_table, transfer_tables
from robustbench_cmic.report.formats.html.charts import Chart, curves, forest
from robustbench_cmic.report.formats.html.numbers import AGAIN, RECORD, all_numbers
from robustbench_cmic.report.formats.html.pictures import gallery
from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.formats.markdown import READING, about, ncmi_sentences, reading
from robustbench_cmic.report.frame import CLEAN, NORM_NAMES, size_of
from robustbench_cmic.report.pairs import WITHDRAWN
from robustbench_cmic.report.summary import Clean, RankedModel, Summary
from robustbench_cmic.report.tables import Table, clean_table, pair_table, percent_of, robust_tables, seed_table, spread


def suite_page(board: Summary, folder: Path) -> str:
    """An HTML file on a suite: standings, curves, pairs, flags, examples, every number and where it came from.

    Args:
        board: a suite's results, judged.
        folder: the suite's results folder, where its pictures lie; the page is to be written there, for it leads to
            the records beside it.
    """
    results = board.results
    measured = bool(board.examples)
    charts = {norm: curves(board, norm) for norm in dict.fromkeys(norm for norm, _ in board.standings)}
    pairs = pair_views(board)
    everything = all_numbers(board)
    shown = [chart for chart in (*charts.values(), *(pair.chart for pair in pairs)) if chart] if measured else []
    return render(
        "suite.html",
        ["page.js", "plotly", "charts.js"] if shown else ["page.js"],
        board=board,
        plan=results.plan,
        reading=reading(board) if measured else "",
        places=places(board) if measured else [],
        clean=clean_table(board),
        norms=_norms(board, charts) if measured else [],
        pairs=pairs if measured else [],
        gallery=gallery(board, folder),
        rules=_rules(board),
        entries=everything.entries,
        provenance={"facts": everything.facts, "rows": [entry.facts for entry in everything.entries],
                    "record": RECORD, "again": AGAIN},
        costs=_costs(board) if measured else [],
        models=what_was_run(results),
        settings=evaluation_facts(results),
        origin=origin(results),
        figures={chart.id: {"figure": chart.figure, "series": chart.series} for chart in shown},
    )  # fmt: skip


def _norms(board: Summary, charts: dict[str, Chart]) -> list[dict[str, Any]]:
    """For each norm its name, its chart and the chart's numbers."""
    tables = robust_tables(board)
    return [
        {"name": NORM_NAMES[norm], "chart": chart, "table": tables[NORM_NAMES[norm]]} for norm, chart in charts.items()
    ]


def _rules(board: Summary) -> list[dict[str, Any]]:
    """Each rule that raised a flag, with what it raised."""
    return [
        {
            "name": name,
            "rule": rule,
            "raised": [(flag, about(flag)) for flag in board.flags if flag.name == name],
        }
        for name, rule in RULES.items()
        if any(flag.name == name for flag in board.flags)
    ]


def _costs(board: Summary) -> list[tuple[str, str, dict[str, Table]]]:
    """Headings, what is said under them, and their tables by caption."""
    found = [
        ("Transfer between models", TRANSFERS, transfer_tables(board.results)),
        ("What attacks cost and add", COSTS, {"Costs": cost_table(board.results)}),
        ("Parts of attacks", PARTS, {"Parts": parts_table(board.results)}),
    ]
    return [part for part in found if any(table.rows for table in part[2].values())]


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


def pair_views(board: Summary) -> list[PairView]:
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


def verdicts(board: Summary) -> list[tuple[str, str, str, str]]:
    """Both models of a pair, what is claimed of them on clean examples or in the worst case, and the verdict."""
    return [
        (first, second, "clean accuracy" if line.ball == CLEAN else f"{line.what}, {size_of(line.ball)}", line.verdict)
        for (first, second), lines in board.pairs.items()
        for line in lines
        if line.claim and line.what != "NCMI" and line.verdict
    ]


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

    standing: RankedModel
    clean: Clean
    size: str
    rank: str
    order: int
    worst: str
    clean_accuracy: str
    ncmi: str
    own_flags: list[str]
    attack_flags: list[str]


def places(board: Summary) -> list[Place]:
    """Ball by ball in the order of the norms and radii, the best first, what has no rank last."""
    clean = {entry.model: entry for entry in board.clean}
    return [
        _place(entry, clean[entry.model], len(entries) + 1, board.seeds)
        for entries in board.standings.values()
        for entry in entries
    ]


def _place(entry: RankedModel, clean: Clean, last: int, seeds: int) -> Place:
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
