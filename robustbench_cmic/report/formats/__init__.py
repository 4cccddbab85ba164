"""Report formats: one format, one file, and a template where it is text for people."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.costs import cost_table, parts_table, transfer_tables
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import clean_table, ncmi_sentences, pair_table, robust_tables, seed_table


def renderer(package: str, **options: Any) -> Environment:
    """What renders the files in the folder `templates` of a package."""
    return Environment(
        loader=PackageLoader(package), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options
    )


def content(summary: Summary) -> dict[str, Any]:
    """What the leaderboard and the page show alike, by the names that their templates use; all prose is Markdown."""
    results, measured = summary.results, bool(summary.examples)
    prose: Any = renderer(__package__ or "", autoescape=False).get_template("prose.md.j2").module
    n = " or ".join(map(str, summary.examples))
    costs = [
        ("Transfer between models", prose.transfers(), transfer_tables(summary)),
        ("What attacks cost and add", prose.costs(), {"Costs": cost_table(summary)}),
        ("Parts of attacks", prose.parts(), {"Parts": parts_table(summary)}),
    ]
    pairs = [
        {
            "first": first,
            "second": second,
            "reading": prose.pair(first, second),
            "table": pair_table(summary, first, second),
            "ncmi": ncmi_sentences(summary, first, second),
            "seeds": seed_table(summary, first, second),
        }
        for first, second in summary.pairs
    ]
    return {
        "summary": summary,
        "plan": results.plan,
        "reading": prose.reading(n, results.seeds, summary.audit.wanted) if measured else "",
        "clean": clean_table(summary),
        "robust": robust_tables(summary) if measured else {},
        "pairs": pairs if measured else [],
        "costs": [cost for cost in costs if measured and any(table.rows for table in cost[2].values())],
        "models": what_was_run(results),
        "settings": evaluation_facts(results),
        "origin": origin(results),
    }
