"""Comparisons and certificates in words and tables, from templates: Markdown, comparisons for the terminal, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

from jinja2 import Environment
from tabulate import tabulate

from robustbench_cmic.report.compare.certificate import VERDICTS, CellVerdict, Certificate, flipped_text
from robustbench_cmic.report.compare.changes import HIGHER, LOWER, MISSING, NOT_PLANNED, OK, CellComparison, Comparison
from robustbench_cmic.report.compare.differences import Difference, brief
from robustbench_cmic.report.formats import renderer
from robustbench_cmic.report.metrics import percent
from robustbench_cmic.report.tables import NOTHING, escaped, plain


def comparison_text(comparison: Comparison, markdown: bool = False) -> str:
    """What differs; one line where nothing does."""
    if comparison.identical:
        same = sum(cell.identical for cell in comparison.cells)
        folders = f"{comparison.old} and {comparison.new}"
        return f"{folders} are identical: {same} of {len(comparison.cells)} cells, times aside\n"
    with_results = [cell for cell in comparison.cells if cell.common]
    differing = [cell for cell in with_results if cell.outcomes_differ]
    # A cell that only one suite has is a difference of configuration.
    planned = [cell for cell in comparison.cells if NOT_PLANNED not in (cell.old_status, cell.new_status)]
    template = _environment(markdown).get_template("comparison.j2")
    return template.render(
        comparison=comparison,
        evaluated=[cell for cell in with_results if cell.kind == "attack"],
        trainings=[cell for cell in with_results if cell.kind == "train"],
        significant=[cell for cell in differing if cell.verdict.startswith((LOWER, HIGHER))],
        one_sided=[cell for cell in planned if {cell.old_status, cell.new_status} not in ({OK}, {MISSING})],
        cells=[_accuracies(cell) for cell in differing],
    )


def certificate_text(certificate: Certificate) -> str:
    """The whole file for people, in Markdown: verdict, counts, what differs, cells, hashes, environment."""
    recorded, here = certificate.environment_recorded, certificate.environment_here
    origins = [[key, recorded.get(key, NOTHING), here.get(key, NOTHING)] for key in dict.fromkeys([*here, *recorded])]
    worst_first = sorted(certificate.cells, key=lambda cell: -VERDICTS.index(cell.verdict))
    template = _environment(markdown=True).get_template("certificate.j2")
    return template.render(
        certificate=certificate,
        cells=[_verdict(cell) for cell in worst_first],
        hardware=[row for row in origins if not row[0].startswith("versions.")],
        versions=[row for row in origins if row[0].startswith("versions.")],
    )


@cache
def _environment(markdown: bool) -> Environment:
    """Templates with headings and tables, plain or in Markdown, in which a suite's own words are escaped."""

    def heading(text: str, level: int = 2) -> str:
        return f"{'#' * level} {escaped(text)}" if markdown else f"{plain(text)}\n{'=' * len(plain(text))}"

    def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
        cells = [[(escaped if markdown else plain)(str(cell)) for cell in row] for row in rows]
        return tabulate(cells, headers, tablefmt="pipe" if markdown else "simple", disable_numparse=True)

    def columns(items: Iterable[object], *names: str) -> list[list[object]]:
        return [[getattr(item, name) or NOTHING for name in names] for item in items]

    def difference_rows(differences: Iterable[Difference]) -> list[list[str]]:
        return [[d.key, brief(d.old), brief(d.new), ", ".join(d.where)] for d in differences]

    environment = renderer(__package__ or "", autoescape=False, keep_trailing_newline=True)
    environment.globals |= {"heading": heading, "table": table, "nothing": NOTHING}
    environment.filters |= {"escaped": escaped, "columns": columns, "difference_rows": difference_rows}
    return environment


def _accuracies(cell: CellComparison) -> list[str]:
    name = cell.title if cell.old_cell == cell.new_cell else f"{cell.title} (configuration changed)"
    if cell.old_accuracy is None or cell.new_accuracy is None:
        return [name, *[NOTHING] * 7, cell.verdict]
    flips = [str(len(places)) if cell.paired else NOTHING for places in (cell.lost, cell.gained)]
    ncmi = _change(cell.old_ncmi, cell.new_ncmi)
    if cell.old_ncmi_calibrated is not None or cell.new_ncmi_calibrated is not None:
        ncmi += f" (at T {_change(cell.old_ncmi_calibrated, cell.new_ncmi_calibrated)})"
    numbers = [f"{percent(cell.old_accuracy):.1f}", f"{percent(cell.new_accuracy):.1f}", f"{cell.points or 0.0:+.1f}"]
    return [name, *numbers, *flips, f"{cell.p:.2g}", ncmi, cell.verdict]


def _change(*values: float | None) -> str:
    return " -> ".join(NOTHING if value is None else f"{value:.4g}" for value in values)


def _verdict(cell: CellVerdict) -> list[str]:
    fractions = cell.accuracy_recorded, cell.accuracy_here
    accuracies = [NOTHING if value is None else f"{100 * value:.2f}" for value in fractions]
    largest = "" if cell.largest is None else f"differs most: {cell.largest.text()}"
    remarks = "; ".join(filter(None, (cell.why, largest)))
    return [cell.title, cell.verdict, *accuracies, flipped_text(cell.flipped), remarks]
