"""Reports as pages: self-contained HTML files that ask nothing of any network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustbench_cmic.report.about import objectives_text
from robustbench_cmic.report.class_batches import find_size_lines
from robustbench_cmic.report.counts import ClaimCounts, claim_counts
from robustbench_cmic.report.figures.curves import intervals_text
from robustbench_cmic.report.formats.html.charts import Chart, curves, forest, opening_pairs
from robustbench_cmic.report.formats.html.class_batches import size_charts
from robustbench_cmic.report.formats.html.information import evaluated_chart, ncmi_chart, training_chart
from robustbench_cmic.report.formats.html.numbers import AGAIN, RECORD, all_numbers, number_text
from robustbench_cmic.report.formats.html.pictures import gallery
from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.formats.html.simplex import simplex_charts
from robustbench_cmic.report.formats.html.transfers import transfer_charts
from robustbench_cmic.report.grid import find_grid
from robustbench_cmic.report.lead import lead
from robustbench_cmic.report.metrics import FOR_PEOPLE
from robustbench_cmic.report.simplex import simplex_pictures
from robustbench_cmic.report.strokes import COLORS, CROWDED
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import Table

LONG = len(COLORS)
"""With more models, where they are a grid or settings, what is said of these comes first and long tables are folded."""


def suite_page(summary: Summary) -> str:
    """An HTML file on a suite: finding, standings, curves, pairs, flags, examples, every number and where it came from.

    It is to be written into the suite's results folder, for it leads to the records there.
    """
    norms = dict.fromkeys(threat.norm for threat in summary.results.threats if summary.examples)
    grid = find_grid(summary.results)
    many = grid or find_size_lines(summary.results) or summary.results.plan.settings
    models = len(summary.results.models) if many else 0
    curves_of = {norm: None if models > CROWDED else curves(summary, norm) for norm in norms}
    pairs = summary.pairs.items() if summary.examples else ()
    forests = {pair: forest(lines, pair, f"pair-{place}") for place, (pair, lines) in enumerate(pairs)}
    over_training, evaluated, ncmi_error = training_chart(summary), evaluated_chart(summary), ncmi_chart(summary)
    over_sizes = size_charts(summary) if summary.examples else {}
    triangles, transfers = simplex_pictures(summary), transfer_charts(summary)
    simplexes = [] if isinstance(triangles, str) else simplex_charts(triangles)
    every = (*over_sizes.values(), *curves_of.values(), *forests.values(), ncmi_error, over_training, evaluated)
    charts = [chart for chart in (*every, *simplexes, *transfers) if chart]
    rows, facts = all_numbers(summary)
    return render(
        "suite.html",
        ["page.js", "scroll.js", "plotly", "charts.js"] if charts else ["page.js", "scroll.js"],
        summary=summary,
        leads=lead(summary),
        objectives=objectives_text([summary.results]),
        grid=grid,
        folded=models > LONG,
        over_sizes=over_sizes,
        curves=curves_of,
        intervals=intervals_text(summary.results.seeds),
        forests=forests,
        opened=opening_pairs(forests),
        ncmi_error=ncmi_error,
        over_training=over_training,
        evaluated=evaluated,
        triangles=triangles,
        simplexes=simplexes,
        transfers=transfers,
        counts=_counts(summary),
        gallery=gallery(summary),
        heat_color=COLORS[0],
        metrics=FOR_PEOPLE,
        number_text=number_text,
        verdict_first=_verdict_first,
        rows=rows,
        provenance={"facts": facts, "rows": [row["facts"] for row in rows], "record": RECORD, "again": AGAIN},
        figures={chart.id: _drawn(chart) for chart in charts},
    )


def index_page(summaries: Sequence[tuple[str, Summary]]) -> str:
    """An HTML file that leads to the pages of suites.

    Args:
        summaries: name of a suite's folder beside the file, and its results.
    """
    objectives = objectives_text(summary.results for _, summary in summaries)
    return render("index.html", ["page.js", "scroll.js"], summaries=summaries, objectives=objectives, counts=_counts)


def _drawn(chart: Chart) -> dict[str, Any]:
    """What the page's script is told of a chart."""
    told: dict[str, Any] = {"figure": chart.figure, "curves": chart.curves}
    return told if chart.frames is None else told | {"frames": chart.frames._asdict()}


def _counts(summary: Summary) -> dict[tuple[str, str], ClaimCounts]:
    """What each pair comes to."""
    return {pair: claim_counts(lines) for pair, lines in summary.pairs.items()}


def _verdict_first(table: Table) -> Table:
    """A comparison with its verdict right behind what was compared, so that no screen cuts it off."""
    place = table.headers.index("verdict")
    moved = [[*row[:2], row[place], *row[2:place], *row[place + 1 :]] for row in (table.headers, *table.rows)]
    return Table(moved[0], moved[1:])
