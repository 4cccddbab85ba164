"""Comparisons and certificates in words and tables, from templates: Markdown, comparisons for the terminal, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from tabulate import tabulate

from robustbench_cmic.report.compare.certificate import Certificate, flipped_text
from robustbench_cmic.report.compare.changes import HIGHER, LOWER, MISSING, NOT_PLANNED, OK, CellComparison, Comparison
from robustbench_cmic.report.compare.differences import Difference, brief
from robustbench_cmic.report.compare.verdicts import VERDICTS, CellVerdict
from robustbench_cmic.report.tables import NOTHING, escaped


def comparison_text(comparison: Comparison, markdown: bool = False) -> str:
    """What differs; one line where nothing does."""
    if comparison.identical:
        same = sum(cell.identical for cell in comparison.cells)
        folders = f"{comparison.old} and {comparison.new}"
        return f"{folders} are identical: {same} of {len(comparison.cells)} cells, times aside\n"
    with_results = [cell for cell in comparison.cells if cell.common]
    evaluated = [cell for cell in with_results if cell.kind == "attack"]
    differing = [cell for cell in evaluated if cell.outcomes_differ]
    trainings = [cell for cell in with_results if cell.kind == "train"]
    return _render(
        "comparison.j2",
        markdown,
        comparison=comparison,
        evaluated=len(evaluated),
        differing=len(differing),
        significant=sum(cell.verdict.startswith((LOWER, HIGHER)) for cell in differing),
        one_sided=[cell for cell in comparison.cells if _one_sided(cell)],
        trainings=len(trainings),
        other_weights=[cell.title for cell in trainings if cell.verdict == "weights differ"],
        cells=[_accuracies(cell) for cell in with_results if cell.outcomes_differ],
    )


def certificate_text(certificate: Certificate) -> str:
    """The whole file for people, in Markdown: verdict, counts, what differs, cells, hashes, environment."""
    recorded, here = certificate.environment_recorded, certificate.environment_here
    origins = [[key, recorded.get(key, NOTHING), here.get(key, NOTHING)] for key in dict.fromkeys([*here, *recorded])]
    worst_first = sorted(certificate.cells, key=lambda cell: -VERDICTS.index(cell.verdict))
    return _render(
        "certificate.j2",
        True,
        certificate=certificate,
        counts=[[verdict, str(certificate.counts[verdict])] for verdict in VERDICTS],
        cells=[_verdict(cell) for cell in worst_first],
        weights=[cell for cell in certificate.cells if cell.kind == "train"],
        hardware=[row for row in origins if not row[0].startswith("versions.")],
        versions=[row for row in origins if row[0].startswith("versions.")],
    )


def _render(template: str, markdown: bool, **context: Any) -> str:
    return _environment(markdown).get_template(template).render(context)


@cache
def _environment(markdown: bool) -> Environment:
    """Templates with headings and tables, plain or in Markdown, in which a suite's own words are escaped."""

    def heading(text: str, level: int = 2) -> str:
        return f"{'#' * level} {escaped(text)}" if markdown else f"{text}\n{'=' * len(text)}"

    def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
        cells = [[escaped(cell) for cell in row] if markdown else row for row in rows]
        return tabulate(cells, headers, tablefmt="pipe" if markdown else "simple", disable_numparse=True)

    environment = Environment(
        loader=PackageLoader(__package__ or ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {"heading": heading, "table": table, "nothing": NOTHING}
    environment.filters |= {"escaped": escaped, "columns": _columns, "difference_rows": _difference_rows}
    return environment


def _columns(items: Iterable[object], *names: str) -> list[list[str]]:
    """Attributes of things as the rows of a table."""
    return [[getattr(item, name) or NOTHING for name in names] for item in items]


def _difference_rows(differences: Iterable[Difference]) -> list[list[str]]:
    return [[d.key, brief(d.old), brief(d.new), ", ".join(d.where)] for d in differences]


def _one_sided(cell: CellComparison) -> bool:
    """Planned on both sides, but without results to compare; a difference of plans is one of configuration."""
    statuses = {cell.old_status, cell.new_status}
    return statuses not in ({OK}, {MISSING}) and NOT_PLANNED not in statuses


def _accuracies(cell: CellComparison) -> list[str]:
    name = cell.title if cell.old_cell == cell.new_cell else f"{cell.title} (configuration changed)"
    if cell.old_accuracy is None or cell.new_accuracy is None:
        return [name, *[NOTHING] * 7, cell.verdict]
    flips = [str(len(places)) if cell.paired else NOTHING for places in (cell.lost, cell.gained)]
    ncmi = [NOTHING if value is None else f"{value:.4g}" for value in (cell.old_ncmi, cell.new_ncmi)]
    numbers = [f"{100 * cell.old_accuracy:.1f}", f"{100 * cell.new_accuracy:.1f}", f"{cell.points or 0.0:+.1f}"]
    return [name, *numbers, *flips, f"{cell.p:.2g}", " -> ".join(ncmi), cell.verdict]


def _verdict(cell: CellVerdict) -> list[str]:
    accuracies = [
        NOTHING if value is None else f"{100 * value:.2f}" for value in (cell.accuracy_recorded, cell.accuracy_here)
    ]
    remarks = [cell.why] if cell.why else []
    if cell.largest is not None:
        remarks.append(f"differs most: {cell.largest.text()}")
    return [cell.title, cell.verdict, *accuracies, flipped_text(cell.flipped), "; ".join(remarks)]
