"""What a report says, as plain data: who stands where, what differs, what is flagged. Every format is made of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from robustbench_cmic.audit import Audit, flag_results
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report.frame import (
    CLEAN,
    Ball,
    attacks,
    balls,
    by_seed,
    cells_of,
    models,
    planned_seeds,
    worst_case,
)
from robustbench_cmic.report.pairs import PairTest, compare
from robustbench_cmic.report.results import Results


@dataclass(frozen=True)
class SeedValues:
    """One number of a model, seed by seed.

    Attributes:
        values: by seed; a seed without a result is left out.
        flags: names of the flags that make it doubtful, sorted.
    """

    values: Mapping[int, float]
    flags: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Over the seeds there are; None without any."""
        return statistics.fmean(self.values.values()) if self.values else None


@dataclass(frozen=True)
class Clean:
    """A model on clean examples: accuracy (fraction), NCMI, CMI and separation (nats)."""

    model: str
    objective: str
    architecture: str
    accuracy: SeedValues
    ncmi: SeedValues
    cmi: SeedValues
    separation: SeedValues
    best: bool = False


@dataclass(frozen=True)
class RankedModel:
    """A model in a ball.

    Attributes:
        ball: norm and eps.
        rank: 1 for the best; equal worst cases share a rank; None where there is none.
        why: where there is no rank: `flagged` or `incomplete`.
        worst: accuracy (fraction) in the worst case.
        attacks: accuracy by the label of an attack; transfers by `label:source`.
    """

    model: str
    ball: Ball
    rank: int | None
    why: str
    worst: SeedValues
    attacks: Mapping[str, SeedValues]


@dataclass(frozen=True)
class RaisedFlag:
    """A flag that was raised.

    Attributes:
        about: the cells whose numbers it is about; none where it is about a worst case.
        ball: of that worst case; None for other flags.
        everything: it is about the model, whatever the attack.
    """

    model: str
    seed: int
    name: str
    about: tuple[Cell, ...]
    ball: Ball | None
    everything: bool
    evidence: str


@dataclass(frozen=True)
class Missing:
    """What is not there: how many cells have which status, and why those that failed or diverged did."""

    counts: Mapping[str, int]
    reasons: tuple[tuple[str, str, str], ...]
    """Status, cell id and reason."""


@dataclass(frozen=True)
class Summary:
    """A suite's results, judged.

    Attributes:
        results: the records.
        audit: what is flagged.
    """

    results: Results
    audit: Audit

    @cached_property
    def seeds(self) -> int:
        """How many seeds the suite has."""
        return planned_seeds(self.results)

    @cached_property
    def examples(self) -> list[int]:
        """Numbers of examples that evaluations were made on, ascending; none where nothing is measured."""
        records = (self.results.attack(cell) for cell in self.results.plan.of("attack"))
        return sorted({record.n or 0 for record in records if record is not None})

    @cached_property
    def clean(self) -> list[Clean]:
        """Every model on clean examples, in the suite's order."""
        entries = [_clean(self.results, self.audit, model) for model in models(self.results)]
        whole = [entry.accuracy.mean or 0.0 for entry in entries if _sound(entry.accuracy, self.seeds)]
        best = max(whole, default=None)
        return [
            replace(entry, best=_sound(entry.accuracy, self.seeds) and entry.accuracy.mean == best) for entry in entries
        ]

    @cached_property
    def standings(self) -> dict[Ball, list[RankedModel]]:
        """In each ball the models, the best first; what is flagged or incomplete last, without a rank."""
        return {ball: _ranked(self, ball) for ball in balls(self.results)}

    @cached_property
    def pairs(self) -> dict[tuple[str, str], list[PairTest]]:
        """For each pair of the suite what differs, line by line."""
        return compare(self.results, self.audit)

    @cached_property
    def flags(self) -> list[RaisedFlag]:
        """Every flag; those that are about a worst case alone come last for each training."""
        return [flag for training in self.results.plan.of("train") for flag in _raised(self, training)]

    @cached_property
    def missing(self) -> Missing | None:
        """What is not there; None where everything is."""
        return _missing(self.results)


def summarize(results: Results) -> Summary:
    """The board of a suite's results."""
    return Summary(results, flag_results(results.plan, results.records))


def _sound(number: SeedValues, seeds: int) -> bool:
    return not number.flags and len(number.values) == seeds


def _clean(results: Results, judged: Audit, model: str) -> Clean:
    cells = cells_of(results, model, "none", CLEAN)
    records = {cell.seed: record for cell in cells if (record := results.attack(cell)) is not None}
    measures = {seed: record.information for seed, record in records.items() if record.information is not None}
    training = next(cell for cell in results.plan.of("train") if cell.model == model)
    return Clean(
        model=model,
        objective=training.objective,
        architecture=training.architecture,
        accuracy=_accuracy(results, judged, model, "none", CLEAN),
        ncmi=SeedValues({seed: found.ncmi for seed, found in measures.items() if found.ncmi is not None}),
        cmi=SeedValues({seed: found.cmi for seed, found in measures.items()}),
        separation=SeedValues({seed: found.separation for seed, found in measures.items()}),
    )


def _accuracy(results: Results, judged: Audit, model: str, label: str, ball: Ball) -> SeedValues:
    cells = cells_of(results, model, label, ball)
    flags = {flag.name for cell in cells for flag in judged.of_cell(cell)}
    values = {seed: found.accuracy for seed, found in by_seed(results, model, label, ball).items()}
    return SeedValues(values, tuple(sorted(flags)) if values else ())


def _ranked(board: Summary, ball: Ball) -> list[RankedModel]:
    results, judged = board.results, board.audit
    entries = []
    for model in models(results):
        values = {seed: found.accuracy for seed, found in worst_case(results, model, ball).items()}
        trainings = [cell.id for cell in results.plan.of("train") if cell.model == model]
        flags = {flag.name for training in trainings for flag in judged.of_worst_case(training, ball)}
        worst = SeedValues(values, tuple(sorted(flags)) if values else ())
        why = "flagged" if worst.flags else "incomplete" if len(values) < board.seeds else ""
        own = {label: _accuracy(results, judged, model, label, ball) for label in attacks(results, ball)}
        entries.append(RankedModel(model, ball, None, why, worst, own))
    ranked = sorted((entry for entry in entries if not entry.why), key=lambda entry: -(entry.worst.mean or 0.0))
    means = [entry.worst.mean or 0.0 for entry in ranked]
    places = [1 + sum(other > mean for other in means) for mean in means]
    best_first = [replace(entry, rank=place) for place, entry in zip(places, ranked, strict=True)]
    return best_first + [entry for entry in entries if entry.why]


def _raised(board: Summary, training: Cell) -> list[RaisedFlag]:
    cells = {cell.id: cell for cell in board.results.plan.of("attack") if cell.needs == training.id}
    found = []
    for flag in board.audit.flags.get(training.id, []):
        about = () if flag.scope == "model" else tuple(cells[cell] for cell in cells if cell in flag.cells)
        found.append(
            RaisedFlag(training.model, training.seed, flag.name, about, None, flag.scope == "model", flag.evidence)
        )
    weak = [
        RaisedFlag(training.model, training.seed, flag.name, (), ball, False, flag.evidence)
        for ball in balls(board.results)
        for flag in board.audit.of_worst_case(training.id, ball)
        if flag.name == "no-strong-attack"
    ]
    return found + weak


def _missing(results: Results) -> Missing | None:
    by_status: dict[str, list[Cell]] = {}
    for cell in results.plan.cells:
        record = results.records.get(cell.id)
        trainings = [results.records.get(other or "") for other in (cell.needs, cell.source)]
        lost = any(training is not None and training.status != "ok" for training in trainings)
        status = "skipped" if lost else record.status if record is not None else "not run"
        by_status.setdefault(status, []).append(cell)
    if len(by_status.get("ok", ())) == len(results.plan.cells):
        return None
    reasons = tuple(
        (status, cell.id, results.records[cell.id].reason)
        for status in ("diverged", "failed")
        for cell in by_status.get(status, ())
    )
    return Missing({status: len(found) for status, found in sorted(by_status.items())}, reasons)
