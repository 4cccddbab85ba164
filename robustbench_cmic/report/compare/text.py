"""A comparison of two results folders in words and tables, for the terminal or as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tabulate import tabulate

from robustbench_cmic.report.compare.changes import (
    HIGHER,
    LOWER,
    MISSING,
    NOT_PLANNED,
    OK,
    CellComparison,
    Comparison,
    FlagChange,
)
from robustbench_cmic.report.compare.differences import Difference, shown
from robustbench_cmic.report.tables import NOTHING, escaped

HEADERS = ["cell", "old %", "new %", "points", "lost", "gained", "p (Holm)", "NCMI", "verdict"]


def comparison_text(found: Comparison, markdown: bool = False) -> str:
    """What differs; one line where nothing does."""
    done = [cell for cell in found.cells if cell.common]
    if found.identical:
        same = sum(cell.identical for cell in found.cells)
        return f"{found.old} and {found.new} are identical: {same} of {len(found.cells)} cells, times aside\n"
    page = _Page(markdown)
    parts = [page.heading(f"{found.old} against {found.new}", 1), _summary(found, done)]
    parts += _differences(page, "Configuration", found.configuration)
    parts += _differences(page, "Data and evaluated examples", found.hashes)
    parts += _differences(page, "Environment", found.environment)
    parts += _weights(page, found.cells)
    parts += _accuracies(page, done)
    parts += _statuses(page, found.cells)
    parts += _flags(page, "Flags raised", found.flags_raised)
    parts += _flags(page, "Flags gone", found.flags_gone)
    return "\n".join(parts)


class _Page:
    """Headings and tables, plain or in Markdown."""

    def __init__(self, markdown: bool) -> None:
        self.markdown = markdown

    def heading(self, text: str, level: int = 2) -> str:
        return f"{'#' * level} {escaped(text)}\n" if self.markdown else f"{text}\n{'=' * len(text)}\n"

    def table(self, rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
        cells = [[escaped(cell) for cell in row] for row in rows] if self.markdown else rows
        return tabulate(cells, headers, tablefmt="pipe" if self.markdown else "simple", disable_numparse=True) + "\n"


def _summary(found: Comparison, done: list[CellComparison]) -> str:
    evaluated = [cell for cell in done if cell.kind == "attack"]
    differing = [cell for cell in evaluated if cell.outcomes_differ]
    significant = [cell for cell in differing if cell.verdict.startswith((LOWER, HIGHER))]
    return (
        f"{len(evaluated)} evaluations on both sides: {len(differing)} with other outcomes, {len(significant)} of them "
        f"significantly (exact tests, Holm's method over all, 0.05); "
        f"{len(_one_sided(found.cells))} planned cells without a result on both sides\n"
    )


def _one_sided(cells: list[CellComparison]) -> list[CellComparison]:
    """Planned on both sides, but without results to compare; a difference of plans is one of configuration."""
    statuses = [(cell, {cell.old_status, cell.new_status}) for cell in cells]
    return [cell for cell, both in statuses if both not in ({OK}, {MISSING}) and NOT_PLANNED not in both]


def _differences(page: _Page, name: str, differences: list[Difference]) -> Iterator[str]:
    if differences:
        rows = [[d.key, shown(d.old), shown(d.new), ", ".join(d.where)] for d in differences]
        yield page.heading(name)
        yield page.table(rows, ["key", "old", "new", "where"])


def _weights(page: _Page, cells: list[CellComparison]) -> Iterator[str]:
    trainings = [cell for cell in cells if cell.kind == "train" and cell.common]
    differing = [cell.title for cell in trainings if cell.verdict == "weights differ"]
    if differing:
        yield page.heading("Weights")
        same = len(trainings) - len(differing)
        yield f"{same} of {len(trainings)} trainings gave identical weights; others: {', '.join(differing)}\n"


def _accuracies(page: _Page, done: list[CellComparison]) -> Iterator[str]:
    rows = [_row(cell) for cell in done if cell.outcomes_differ]
    if rows:
        yield page.heading("Cells with other outcomes")
        yield page.table(rows, HEADERS)


def _row(cell: CellComparison) -> list[str]:
    name = cell.title if cell.old_cell == cell.new_cell else f"{cell.title} (configuration changed)"
    if cell.old_accuracy is None or cell.new_accuracy is None:
        return [name, *[NOTHING] * 7, cell.verdict]
    flips = [str(len(places)) if cell.paired else NOTHING for places in (cell.lost, cell.gained)]
    ncmi = [NOTHING if value is None else f"{value:.4g}" for value in (cell.old_ncmi, cell.new_ncmi)]
    numbers = [f"{100 * cell.old_accuracy:.1f}", f"{100 * cell.new_accuracy:.1f}", f"{cell.points or 0.0:+.1f}"]
    return [name, *numbers, *flips, f"{cell.p:.2g}", " -> ".join(ncmi), cell.verdict]


def _statuses(page: _Page, cells: list[CellComparison]) -> Iterator[str]:
    rows = [[cell.title, cell.old_status, cell.new_status] for cell in _one_sided(cells)]
    if rows:
        yield page.heading("Cells without a result on both sides")
        yield page.table(rows, ["cell", "old", "new"])


def _flags(page: _Page, name: str, changes: list[FlagChange]) -> Iterator[str]:
    if changes:
        yield page.heading(name)
        yield page.table([[change.flag, change.about] for change in changes], ["flag", "about"])
