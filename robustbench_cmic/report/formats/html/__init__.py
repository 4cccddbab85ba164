"""Reports as pages: self-contained HTML files that ask nothing of any network."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_cmic.report.about import objectives_text
from robustbench_cmic.report.formats.html.charts import COLORS, curves, forest
from robustbench_cmic.report.formats.html.numbers import AGAIN, RECORD, all_numbers, number_text
from robustbench_cmic.report.formats.html.pictures import gallery
from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.grid import find_grid
from robustbench_cmic.report.metrics import FOR_PEOPLE
from robustbench_cmic.report.summary import Summary


def suite_page(summary: Summary) -> str:
    """An HTML file on a suite: standings, curves, pairs, flags, examples, every number and where it came from.

    It is to be written into the suite's results folder, for it leads to the records there.
    """
    norms = dict.fromkeys(threat.norm for threat in summary.results.threats if summary.examples)
    grid = find_grid(summary.results)
    # Curves of more models than there are colours tell nothing apart; the maps of a grid do.
    crowded = grid is not None and len(summary.results.models) > len(COLORS)
    curves_of = {norm: None if crowded else curves(summary, norm) for norm in norms}
    pairs = summary.pairs.items() if summary.examples else ()
    forests = {pair: forest(lines, pair, f"pair-{place}") for place, (pair, lines) in enumerate(pairs)}
    charts = [chart for chart in (*curves_of.values(), *forests.values()) if chart]
    rows, facts = all_numbers(summary)
    return render(
        "suite.html",
        ["page.js", "plotly", "charts.js"] if charts else ["page.js"],
        summary=summary,
        objectives=objectives_text([summary.results]),
        grid=grid,
        crowded=crowded,
        curves=curves_of,
        forests=forests,
        gallery=gallery(summary),
        heat_color=COLORS[0],
        metrics=FOR_PEOPLE,
        number_text=number_text,
        rows=rows,
        provenance={"facts": facts, "rows": [row["facts"] for row in rows], "record": RECORD, "again": AGAIN},
        figures={chart.id: {"figure": chart.figure, "series": chart.series} for chart in charts},
    )


def index_page(summaries: Sequence[tuple[str, Summary]]) -> str:
    """An HTML file that leads to the pages of suites.

    Args:
        summaries: name of a suite's folder beside the file, and its results.
    """
    objectives = objectives_text(summary.results for _, summary in summaries)
    return render("index.html", ["page.js"], summaries=summaries, objectives=objectives)
