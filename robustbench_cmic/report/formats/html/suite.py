"""The page of a suite."""

from __future__ import annotations

from typing import Any

from robustbench_cmic.report.about import objectives_text
from robustbench_cmic.report.formats import content
from robustbench_cmic.report.formats.html.charts import Chart, curves, forest
from robustbench_cmic.report.formats.html.numbers import AGAIN, RECORD, all_numbers
from robustbench_cmic.report.formats.html.pictures import gallery
from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.metrics import FOR_PEOPLE, NCMI
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import seeds_text
from robustbench_cmic.suite.fields import NORM_NAMES


def suite_page(summary: Summary) -> str:
    """An HTML file on a suite: standings, curves, pairs, flags, examples, every number and where it came from.

    It is to be written into the suite's results folder, for it leads to the records there.
    """
    parts = content(summary)
    curves_of = {norm: curves(summary, norm) for norm in parts["robust"]}
    forests = [
        forest(lines, names, f"pair-{place}") if parts["pairs"] else None
        for place, (names, lines) in enumerate(summary.pairs.items())
    ]
    charts: list[Chart] = [chart for chart in (*curves_of.values(), *forests) if chart]
    entries, facts = all_numbers(summary)
    return render(
        "suite.html",
        ["page.js", "plotly", "charts.js"] if charts else ["page.js"],
        **parts,
        objectives=objectives_text([summary.results]),
        places=_places(summary) if parts["reading"] else [],
        norm_names=NORM_NAMES,
        curves=curves_of,
        forests=forests,
        withdrawn=[[line.withdrawn for line in lines if line.what != NCMI.title] for lines in summary.pairs.values()],
        gallery=gallery(summary),
        metrics=FOR_PEOPLE,
        entries=entries,
        provenance={"facts": facts, "rows": [entry["facts"] for entry in entries], "record": RECORD, "again": AGAIN},
        figures={chart.id: {"figure": chart.figure, "series": chart.series} for chart in charts},
    )


def _places(summary: Summary) -> list[dict[str, Any]]:
    """Every model at every threat, the best first.

    `order` is what a place is sorted by when sorted by rank: what has none comes last. Flags of single attacks, which
    the worst case does not hang on, are told apart from its own.
    """
    clean = {entry.model: entry for entry in summary.clean}
    return [
        {
            "standing": entry,
            "clean": clean[entry.model],
            "size": str(entry.threat),
            "rank": str(entry.rank) if entry.rank else entry.why,
            "order": entry.rank or len(entries) + 1,
            "worst": seeds_text(entry.worst, summary),
            "clean_accuracy": seeds_text(clean[entry.model].accuracy, summary),
            "ncmi": seeds_text(clean[entry.model].ncmi, summary, NCMI),
            "own_flags": entry.worst.flags,
            "attack_flags": sorted({name for number in entry.attacks.values() for name in number.flags}
                                   - set(entry.worst.flags)),
        }
        for entries in summary.standings.values()
        for entry in entries
    ]  # fmt: skip
