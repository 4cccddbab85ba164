"""The page of a suite."""

from __future__ import annotations

from typing import Any

from robustbench_cmic.report.about import evaluation_facts, objectives_text, origin, reading, what_was_run
from robustbench_cmic.report.costs import cost_sections
from robustbench_cmic.report.formats.html.charts import curves, forest
from robustbench_cmic.report.formats.html.numbers import AGAIN, RECORD, all_numbers
from robustbench_cmic.report.formats.html.pictures import gallery
from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.metrics import FOR_PEOPLE, NCMI
from robustbench_cmic.report.pairs import READING, WITHDRAWN
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import (
    about,
    clean_table,
    ncmi_sentences,
    pair_table,
    robust_tables,
    seed_table,
    seeds_text,
)
from robustbench_cmic.suite.fields import NORM_NAMES


def suite_page(summary: Summary) -> str:
    """An HTML file on a suite: standings, curves, pairs, flags, examples, every number and where it came from.

    It is to be written into the suite's results folder, for it leads to the records there.
    """
    results = summary.results
    measured = bool(summary.examples)
    norms = [
        {"name": NORM_NAMES[norm], "chart": curves(summary, norm), "table": table}
        for norm, table in robust_tables(summary).items()
    ]
    pairs = _pairs(summary)
    charts = [part["chart"] for part in (*norms, *pairs) if part["chart"]] if measured else []
    everything = all_numbers(summary)
    return render(
        "suite.html",
        ["page.js", "plotly", "charts.js"] if charts else ["page.js"],
        summary=summary,
        plan=results.plan,
        objectives=objectives_text([results]),
        reading=reading(results, summary.examples, summary.audit.wanted) if measured else "",
        places=_places(summary) if measured else [],
        clean=clean_table(summary),
        norms=norms if measured else [],
        pairs=pairs if measured else [],
        gallery=gallery(summary),
        about=about,
        metrics=FOR_PEOPLE,
        entries=everything.entries,
        provenance={"facts": everything.facts, "rows": [entry.facts for entry in everything.entries],
                    "record": RECORD, "again": AGAIN},
        costs=cost_sections(summary) if measured else [],
        models=what_was_run(results),
        settings=evaluation_facts(results),
        origin=origin(results),
        figures={chart.id: {"figure": chart.figure, "series": chart.series} for chart in charts},
    )  # fmt: skip


def _pairs(summary: Summary) -> list[dict[str, Any]]:
    """The suite's pairs, in its order; `withdrawn` says of each row of the table whether its number is flagged."""
    return [
        {
            "first": first,
            "second": second,
            "reading": READING.format(first=first, second=second),
            "table": pair_table(summary, first, second),
            "withdrawn": [line.verdict.startswith(WITHDRAWN) for line in lines if line.what != NCMI.title],
            "ncmi": ncmi_sentences(summary, first, second),
            "seeds": seed_table(summary, first, second),
            "chart": forest(lines, (first, second), f"pair-{place}"),
        }
        for place, ((first, second), lines) in enumerate(summary.pairs.items())
    ]


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
