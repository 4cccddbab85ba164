"""Suites whose models are a grid of two parameters: maps of their numbers, for every format that draws them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple, TypeGuard

from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.report.frame import WORST, declared_parameters
from robustbench_cmic.report.metrics import ACCURACY, NCMI_CALIBRATED, Metric
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.summary import SeedValues, Summary
from robustbench_cmic.report.tables import NOTHING, Table, seeds_text

FACET_VALUES = 4
"""A parameter beside the two axes may have as many values; with more the models are no grid."""


class Axis(NamedTuple):
    """A numeric parameter in which models differ.

    Attributes:
        name: without the part of the suite that declares it: `lambda`, not `objective.lambda`.
        values: two or more, ascending.
    """

    name: str
    values: tuple[float, ...]

    @property
    def labels(self) -> list[str]:
        """Its values for people."""
        return [f"{value:g}" for value in self.values]


class Grid(NamedTuple):
    """Models, one for each combination of two parameters.

    Attributes:
        facets: by title such as `separation_gradient: both` (empty where only the axes vary) the models, by the
            values of `rows` and `columns`.
    """

    rows: Axis
    columns: Axis
    facets: Mapping[str, Mapping[tuple[float, float], str]]


class GridCell(NamedTuple):
    """A combination.

    Attributes:
        value: the mean over seeds, `diverged`, or a dash.
        detail: the standard deviation, marked † where the number is flagged; or how many seeds diverged.
        kind: `number`; `diverged` where the training of any seed did; `incomplete` where a seed has no number.
        share: place between the ends (0 and 1) of the measure's scale; None where there is no number.
    """

    value: str
    detail: str
    kind: Literal["number", "diverged", "incomplete"]
    share: float | None

    @property
    def text(self) -> str:
        """`97.0 ± 0.5 †`, `diverged (1 of 3 seeds)`."""
        return f"{self.value} {self.detail}".strip()


class GridMap(NamedTuple):
    """One measure of the models of one facet.

    Attributes:
        facet: its title; empty where there is only one.
        cells: as the rows and columns of the grid.
    """

    facet: str
    cells: Sequence[Sequence[GridCell]]


class GridMeasure(NamedTuple):
    """One measure of all models, on one scale.

    Attributes:
        title: with its unit: `worst case %, L-inf 0.1`.
        ends: of the scale, for people, with `≤` or `≥` where means lie beyond; None where no combination has a number.
        maps: one for each facet.
    """

    title: str
    ends: tuple[str, str] | None
    maps: Sequence[GridMap]


def find_grid(results: Results) -> Grid | None:
    """The grid that a suite's trained models are; None where they are none.

    The axes are the two numeric parameters with the most values, of equally many the ones declared first. Each other
    parameter in which models differ has few values, and each combination of these, a facet, has exactly one model for
    every combination of the axes.
    """
    trainings = {model: results.trainings[model] for model in results.models}
    trained = {model: cell for model, cell in trainings.items() if cell.declared["objective"] is not None}
    declared = {model: declared_parameters(cell) for model, cell in trained.items()}
    varied = varied_parameters(list(declared.values()))
    numeric = [name for name, values in varied.items() if all(map(_is_number, values))]
    axes = sorted(numeric, key=lambda name: -len(varied[name]))[:2]
    others = [name for name in varied if name not in axes]
    if len(axes) < 2 or any(len(varied[name]) > FACET_VALUES for name in others):
        return None
    rows, columns = (Axis(short_name(name), tuple(sorted(varied[name]))) for name in varied if name in axes)
    facets: dict[str, dict[tuple[float, float], str]] = {}
    for model, own in declared.items():
        title = ", ".join(f"{short_name(name)}: {parameter_text(own.get(name))}" for name in others)
        row, column = (own[name] for name in varied if name in axes)
        facets.setdefault(title, {})[row, column] = model
    wanted = set(product(rows.values, columns.values))
    whole = all(set(facet) == wanted for facet in facets.values())
    return Grid(rows, columns, facets) if whole and len(wanted) * len(facets) == len(declared) else None


def varied_parameters(declared: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The parameters in which models differ, with their values; None stands for one that a model does not have."""
    varied = {}
    for name in dict.fromkeys(name for own in declared for name in own):
        # As JSON, since 1 and True are equal in Python and a list is no key; but 1 and 1.0 are one number.
        values = [own.get(name) for own in declared]
        different = {canonical_json(float(value) if _is_number(value) else value): value for value in values}
        if len(different) > 1:
            varied[name] = list(different.values())
    return varied


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def short_name(name: str) -> str:
    """`lambda`, of `objective.lambda`."""
    return name.partition(".")[2]


def parameter_text(value: object) -> str:
    """A value in the title of a facet."""
    if value is None:
        return "none"
    return f"{value:g}" if _is_number(value) else value if isinstance(value, str) else canonical_json(value)


def grid_measures(summary: Summary, grid: Grid) -> list[GridMeasure]:
    """Clean accuracy, the NCMI that no rescaling changes, and every worst case; one without any value is left out."""
    models = [model for facet in grid.facets.values() for model in facet.values()]
    accuracy, ncmi = (
        {model: summary.clean[model].measures[metric.name] for model in models}
        for metric in (ACCURACY, NCMI_CALIBRATED)
    )
    # What makes clean outputs doubtful is told of accuracy; verdicts on NCMI hang on it as well.
    ncmi = {model: number._replace(flags=accuracy[model].flags) for model, number in ncmi.items()}
    measured = [
        (f"clean {ACCURACY.head}", ACCURACY, accuracy),
        (f"{NCMI_CALIBRATED.head}, clean", NCMI_CALIBRATED, ncmi),
    ]
    for threat in summary.results.threats:
        worst = {model: summary.values(model, WORST, threat) for model in models}
        measured.append((f"{WORST} %, {threat}", ACCURACY, worst))
    return [
        _measure(summary, grid, title, metric, numbers)
        for title, metric, numbers in measured
        if any(number.values for number in numbers.values())
    ]


def _measure(
    summary: Summary, grid: Grid, title: str, metric: Metric, numbers: Mapping[str, SeedValues]
) -> GridMeasure:
    seeds, diverged = summary.results.seeds, _diverged(summary.results)
    means = {
        model: number.mean
        for model, number in numbers.items()
        if number.mean is not None and len(number.values) == seeds and model not in diverged
    }
    low, high = scale_ends(list(means.values())) if means else (0.0, 0.0)

    def cell(model: str) -> GridCell:
        if model in diverged:
            return GridCell("diverged", f"({diverged[model]} of {seeds} seeds)", "diverged", None)
        if model not in means:
            return GridCell(NOTHING, "", "incomplete", None)
        share = min(max((means[model] - low) / (high - low), 0.0), 1.0) if high > low else 0.0
        mean, _, deviation = seeds_text(numbers[model], summary, metric).partition(" ")
        return GridCell(mean, deviation, "number", share)

    maps = [
        GridMap(title, [[cell(facet[row, column]) for column in grid.columns.values] for row in grid.rows.values])
        for title, facet in grid.facets.items()
    ]
    below, above = ("≤ " * (min(means.values()) < low), "≥ " * (max(means.values()) > high)) if means else ("", "")
    return GridMeasure(title, (below + metric.text(low), above + metric.text(high)) if means else None, maps)


def scale_ends(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest value within 1.5 interquartile ranges of the quartiles (Tukey 1977, the whiskers).

    A model that all but collapsed would else take the scale for itself. The least and greatest of all where only one
    value is within.

    >>> scale_ends([0.95, 0.96, 0.97, 0.98, 0.3])
    (0.95, 0.98)
    """
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    reach = 1.5 * (third - first)
    within = [value for value in values if first - reach <= value <= third + reach]
    inner, outer = (min(within), max(within)), (min(values), max(values))
    return inner if inner[0] < inner[1] else outer


def _diverged(results: Results) -> dict[str, int]:
    """In how many seeds the training of a model diverged or collapsed; without those that did in none."""
    counts: dict[str, int] = {}
    for cell in results.plan.of("train"):
        if results.status(cell)[0] == "diverged":
            counts[cell.model] = counts.get(cell.model, 0) + 1
    return counts


def grid_table(grid: Grid, drawn: GridMap) -> Table:
    """A map as a table of text."""
    heads = [grid.rows.name, *(f"{grid.columns.name} {label}" for label in grid.columns.labels)]
    rows = [[label, *(cell.text for cell in cells)] for label, cells in zip(grid.rows.labels, drawn.cells, strict=True)]
    return Table(heads, rows)
