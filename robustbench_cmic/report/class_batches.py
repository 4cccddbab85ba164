"""Suites that vary |B_c|, how many extra images of every class a step takes for the centroids of CMIC-DL.

**The rule.** A measure at a size is *stable* where its mean over seeds is no further from that at the largest size than
the larger of the two standard deviations over seeds. The smallest stable size of a line is the smallest one at which,
and at every larger one, accuracy and NCMI on clean examples are stable. A size at which a seed has no number, since its
training diverged, say, is not. That is a description of these seeds, and no test: with few of them spreads are wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report.frame import WORST, declared_parameters
from robustbench_cmic.report.grid import parameter_text, short_name, varied_parameters
from robustbench_cmic.report.metrics import ACCURACY, NCMI, Metric
from robustbench_cmic.report.pairs import title_of
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.summary import SeedValues, Summary
from robustbench_cmic.report.tables import NOTHING, Table, seeds_text

_SIZE, _CENTROIDS = "objective.class_batch_size", "objective.centroids"
_OF_UPDATES = (_SIZE, _CENTROIDS, "objective.class_batch_mode")
_OF_READINGS = ("objective.separation_gradient", "objective.separation_mean", "objective.floor")
"""What the title of an objective tells."""
FEWEST_SIZES = 3
"""Of a curve."""
FROM_STEP = "step"
"""On the axis of sizes, of centroids that are taken from the step's own batch."""
_ASIDE = 0.06
"""Between lines on the axis of sizes, whose sizes are 1 apart, so that bars of one size do not cover each other."""


class SizeLine(NamedTuple):
    """Models that differ in |B_c| alone.

    Attributes:
        sizes: by |B_c|, ascending, the model.
        from_step: the model whose centroids are taken from the step's own batch; None where the suite has none.
    """

    sizes: Mapping[int, str]
    from_step: str | None


class SizeMeasure(NamedTuple):
    """One measure of all lines.

    Attributes:
        decides: it has a part in the smallest stable size.
        numbers: by model.
    """

    title: str
    metric: Metric
    decides: bool
    numbers: Mapping[str, SeedValues]

    @property
    def head(self) -> str:
        """`clean accuracy %`, `clean NCMI`."""
        return f"{self.title} %" if self.metric.unit == "%" else self.title


class SizePoint(NamedTuple):
    """A mark of a curve over |B_c|.

    Attributes:
        size: |B_c|; 0 of the step's own batch.
        x: its place on the axis of sizes.
        mean: over the seeds there are, in what people read.
        sd: one standard deviation over these seeds, in the same unit: how far the bar goes up and down; 0 of one seed.
        number: what is drawn.
    """

    size: int
    x: float
    mean: float
    sd: float
    number: SeedValues


def find_size_lines(results: Results) -> dict[str, SizeLine]:
    """By title, such as `CMIC-DL printed, horizon: 0.1`, the lines of a suite; none where it varies no |B_c|."""
    cells = [results.trainings[model] for model in results.models if results.trainings[model].objective == "cmic"]
    titles = _titles(cells)
    sizes: dict[str, dict[int, str]] = {}
    from_step = {}
    for cell in cells:
        declared = declared_parameters(cell)
        if declared[_CENTROIDS] == "class_batches":
            sizes.setdefault(titles[cell.model], {})[declared[_SIZE]] = cell.model
        elif declared[_CENTROIDS] == "batch":
            from_step[titles[cell.model]] = cell.model
    return {
        title: SizeLine(dict(sorted(own.items())), from_step.get(title))
        for title, own in sizes.items()
        if len(own) >= FEWEST_SIZES
    }


def _titles(cells: list[Cell]) -> dict[str, str]:
    """By model what it is called: what it declares but for its updates, as far as models differ in it."""
    declared = [
        {name: value for name, value in declared_parameters(cell).items() if name not in _OF_UPDATES} for cell in cells
    ]
    readings = len({title_of(cell) for cell in cells}) > 1
    names = [name for name in varied_parameters(declared) if not (readings and name in _OF_READINGS)]
    return {
        cell.model: ", ".join(
            [title_of(cell)] * readings + [f"{short_name(name)}: {parameter_text(own.get(name))}" for name in names]
        )
        for cell, own in zip(cells, declared, strict=True)
    }


def size_measures(summary: Summary, lines: Mapping[str, SizeLine]) -> list[SizeMeasure]:
    """Accuracy and NCMI on clean examples, and every worst case; one without any value is left out."""
    models = [model for line in lines.values() for model in (*line.sizes.values(), line.from_step) if model is not None]
    measures = [
        SizeMeasure(f"clean {metric.title}", metric, True, {m: summary.clean[m].measures[metric.name] for m in models})
        for metric in (ACCURACY, NCMI)
    ]
    for threat in summary.results.threats:
        worst = {model: summary.values(model, WORST, threat) for model in models}
        measures.append(SizeMeasure(f"{WORST}, {threat}", ACCURACY, False, worst))
    return [measure for measure in measures if any(number.values for number in measure.numbers.values())]


def size_axis(lines: Mapping[str, SizeLine]) -> dict[int, str]:
    """Ticks at 0, 1, ... with their texts: the sizes, ascending, and then 0, the step's own batch, if a line has it."""
    sizes = sorted({size for line in lines.values() for size in line.sizes})
    has_step = any(line.from_step for line in lines.values())
    return {size: str(size) for size in sizes} | ({0: FROM_STEP} if has_step else {})


def size_curves(measure: SizeMeasure, lines: Mapping[str, SizeLine]) -> dict[str, list[SizePoint]]:
    """By title the marks of each line that have a number, by size, the step's own batch at the end."""
    places = {size: place for place, size in enumerate(size_axis(lines))}
    scale = measure.metric.scale
    curves = {}
    for place, (title, line) in enumerate(lines.items()):
        aside = _ASIDE * (place - (len(lines) - 1) / 2)
        models = dict(line.sizes) | ({} if line.from_step is None else {0: line.from_step})
        numbers = {size: measure.numbers[model] for size, model in models.items()}
        curves[title] = [
            SizePoint(size, places[size] + aside, scale * number.mean, scale * number.sd, number)
            for size, number in numbers.items()
            if number.mean is not None
        ]
    return curves


def smallest_stable(line: SizeLine, numbers: Mapping[str, SeedValues], planned: int) -> int | None:
    """The smallest size at which, and at every larger one, a measure is stable; None where it is not at the largest.

    Args:
        line: the models.
        numbers: the measure, by model.
        planned: how many seeds each should have.
    """
    largest, *smaller = sorted(line.sizes, reverse=True)
    end = numbers[line.sizes[largest]]
    if len(end.values) < planned:
        return None
    found = largest
    for size in smaller:
        number = numbers[line.sizes[size]]
        if len(number.values) < planned or abs((number.mean or 0.0) - (end.mean or 0.0)) > max(number.sd, end.sd):
            break
        found = size
    return found


def stable_table(summary: Summary) -> Table:
    """For each line the smallest stable size; without rows where the suite varies no |B_c| or has one seed."""
    lines = find_size_lines(summary.results)
    deciding = [measure for measure in size_measures(summary, lines) if measure.decides]
    rows = []
    for title, line in lines.items() if summary.results.seeds > 1 else ():
        found = [smallest_stable(line, measure.numbers, summary.results.seeds) for measure in deciding]
        sizes = [size for size in found if size is not None]
        both = max(sizes) if sizes and len(sizes) == len(found) else None
        rows.append([title, *(NOTHING if size is None else str(size) for size in (*found, both))])
    return Table(["centroids", *(measure.title for measure in deciding), "both"], rows)


def size_tables(summary: Summary) -> dict[str, Table]:
    """By measure every line over its sizes; none where the suite varies no |B_c|."""
    lines = find_size_lines(summary.results)
    sizes = sorted({size for line in lines.values() for size in line.sizes})
    heads = ["centroids", *(f"|B_c| {size}" for size in sizes)]
    heads += ["from the step"] if any(line.from_step for line in lines.values()) else []
    tables = {}
    for measure in size_measures(summary, lines):
        rows = []
        for title, line in lines.items():
            models = [*(line.sizes.get(size) for size in sizes), line.from_step][: len(heads) - 1]
            texts = [seeds_text(measure.numbers.get(model or ""), summary, measure.metric) for model in models]
            rows.append([title, *texts])
        tables[measure.head] = Table(heads, rows)
    return tables
