"""`leaderboard.md`: the tables for people."""

from __future__ import annotations

import textwrap

from robustbench_cmic.report.about import evaluation_facts, origin, reading, what_was_run
from robustbench_cmic.report.costs import cost_sections
from robustbench_cmic.report.formats import environment
from robustbench_cmic.report.pairs import READING
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import (
    Code,
    Strong,
    Table,
    clean_table,
    escaped,
    flags_table,
    limited_table,
    ncmi_sentences,
    pair_table,
    robust_tables,
    seed_table,
    table,
)
from robustbench_cmic.suite.fields import NORM_NAMES


def leaderboard(summary: Summary) -> str:
    """The whole file as Markdown."""
    results = summary.results
    renderer = environment(__package__, autoescape=False)
    renderer.filters |= {"escaped": escaped, "table": markdown_table}
    measured = bool(summary.examples)
    pairs = [
        {
            "first": first,
            "second": second,
            "reading": READING.format(first=first, second=second),
            "lines": pair_table(summary, first, second),
            "ncmi": ncmi_sentences(summary, first, second),
            "seeds": seed_table(summary, first, second),
        }
        for first, second in summary.pairs
    ]
    text = renderer.get_template("leaderboard.md.j2").render(
        plan=results.plan,
        missing=summary.missing,
        measured=measured,
        reading=textwrap.fill(reading(results, summary.examples, summary.audit.wanted), 120),
        clean=clean_table(summary),
        robust={NORM_NAMES[norm]: table for norm, table in robust_tables(summary).items()},
        pairs=pairs,
        flags=flags_table(summary),
        rules=summary.rules,
        costs=cost_sections(summary) if measured else [],
        limited=limited_table(summary) if results.limited else None,
        models=what_was_run(results),
        settings=evaluation_facts(results),
        origin=origin(results),
    )
    return text.rstrip() + "\n"


def markdown_table(content: Table) -> str:
    """A table with a line break behind it."""
    return table([[_cell(cell) for cell in row] for row in content.rows], [escaped(text) for text in content.headers])


def _cell(text: str) -> str:
    if isinstance(text, Code):
        return f"`{text}`"
    return f"**{escaped(text)}**" if isinstance(text, Strong) else escaped(text)
