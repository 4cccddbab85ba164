"""`leaderboard.md`: the tables for people."""

from __future__ import annotations

import textwrap

from robustbench_cmic.report.formats import renderer
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import Code, Strong, Table, escaped, table


def leaderboard(summary: Summary) -> str:
    """The whole file as Markdown."""
    templates = renderer(__package__, autoescape=False)
    templates.filters |= {"escaped": escaped, "fill": lambda text: textwrap.fill(text, 120), "table": markdown_table}
    return templates.get_template("leaderboard.md.j2").render(summary=summary).rstrip() + "\n"


def markdown_table(content: Table) -> str:
    """A table with a line break behind it."""
    return table([[_cell(cell) for cell in row] for row in content.rows], [escaped(text) for text in content.headers])


def _cell(text: str) -> str:
    if isinstance(text, Code):
        return f"`{text}`"
    return f"**{escaped(text)}**" if isinstance(text, Strong) else escaped(text)
