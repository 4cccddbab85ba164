"""Tables as Markdown."""

from __future__ import annotations

from robustbench_cmic.report.numbers import escaped, table
from robustbench_cmic.report.tables import Code, Strong, Table


def markdown(found: Table) -> str:
    """A table with a blank line behind it."""
    return table([[_cell(cell) for cell in row] for row in found.rows], [escaped(text) for text in found.headers])


def _cell(text: str) -> str:
    if isinstance(text, Code):
        return f"`{text}`"
    return f"**{escaped(text)}**" if isinstance(text, Strong) else escaped(text)
