"""What a report says, as plain data: who stands where, what differs, what is flagged. Every format is made of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from robustbench_cmic.audit import RULES, Audit, Rule, flag_results
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report.frame import WORST, Group, Key, flag_names, group_rows, results_frame
from robustbench_cmic.report.metrics import ACCURACY, NCMI, OF_MODELS
from robustbench_cmic.report.pairs import PairTest, pair_tests
from robustbench_cmic.report.results import Results
from robustbench_cmic.suite.fields import CLEAN, Threat

if TYPE_CHECKING:
    import pandas as pd


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
class CleanModel:
    """A model on clean examples.

    Attributes:
        measures: by the names of metrics: accuracy (fraction), NCMI, CMI and separation (nats).
        best: of the accuracies that all seeds have and nothing flags, none is higher.
    """

    model: str
    objective: str
    architecture: str
    measures: Mapping[str, SeedValues]
    best: bool = False

    @property
    def accuracy(self) -> SeedValues:
        """Fraction in [0, 1]."""
        return self.measures[ACCURACY.name]

    @property
    def ncmi(self) -> SeedValues:
        """As it comes, at temperature 1."""
        return self.measures[NCMI.name]


@dataclass(frozen=True)
class RankedModel:
    """A model at a threat.

    Attributes:
        rank: 1 for the best; equal worst cases share a rank; None where there is none.
        why: where there is no rank: `flagged` or `incomplete`.
        worst: accuracy (fraction) in the worst case.
        attacks: accuracy by the label of an attack; transfers by `label:source`.
    """

    model: str
    threat: Threat
    rank: int | None
    why: str
    worst: SeedValues
    attacks: Mapping[str, SeedValues]


@dataclass(frozen=True)
class RaisedFlag:
    """A flag that was raised.

    Attributes:
        about: which numbers, in words: `PGD at L-inf 0.1, L-inf 0.2`; `everything` about the model; a worst case.
        cells: ids of the evaluations that it is about; none where it is about everything or a worst case.
    """

    model: str
    seed: int
    name: str
    about: str
    cells: tuple[str, ...]
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
    def frame(self) -> pd.DataFrame:
        """One row a cell, see `load_results`."""
        return results_frame(self.results, self.audit)

    @cached_property
    def groups(self) -> dict[Key, Group]:
        """The rows of each number by seed; limited evaluations are in none."""
        return group_rows(self.frame)

    def values(self, model: str, attack: str, threat: Threat, metric: str = ACCURACY.name) -> SeedValues:
        """A metric of a model under an attack, or in the worst case, by seed."""
        group = self.groups.get((model, attack, threat), {})
        values = {seed: getattr(row, metric) for seed, row in group.items()}
        values = {seed: value for seed, value in values.items() if value == value}  # NaN where there is none
        doubtful = metric == ACCURACY.name and values  # flags are about what an attack leaves
        return SeedValues(values, flag_names(group) if doubtful else ())

    def attacks(self, threat: Threat) -> list[str]:
        """Labels of the attacks at a threat, in the suite's order."""
        labels = (attack for _, attack, where in self.groups if where == threat)
        return [label for label in dict.fromkeys(labels) if label != WORST]

    @cached_property
    def examples(self) -> list[int]:
        """Numbers of examples that evaluations were made on, ascending; none where nothing is measured."""
        return sorted(self.frame.loc[~self.frame["limited"], "n"].dropna().unique().tolist())

    @cached_property
    def clean(self) -> list[CleanModel]:
        """Every model on clean examples, in the suite's order."""
        entries = []
        for model in self.results.models:
            training = self.results.trainings[model]
            measures = {metric.name: self.values(model, "none", CLEAN, metric.name) for metric in OF_MODELS}
            entries.append(CleanModel(model, training.objective, training.architecture, measures))
        sound = [entry.accuracy.mean for entry in entries if self._is_sound(entry.accuracy)]
        best = max((mean for mean in sound if mean is not None), default=None)
        return [
            replace(entry, best=self._is_sound(entry.accuracy) and entry.accuracy.mean == best) for entry in entries
        ]

    def _is_sound(self, number: SeedValues) -> bool:
        return not number.flags and len(number.values) == self.results.seeds

    @cached_property
    def standings(self) -> dict[Threat, list[RankedModel]]:
        """At each threat the models, the best first; what is flagged or incomplete last, without a rank."""
        return {threat: self._ranked(threat) for threat in self.results.threats}

    def _ranked(self, threat: Threat) -> list[RankedModel]:
        entries = []
        for model in self.results.models:
            worst = self.values(model, WORST, threat)
            why = "flagged" if worst.flags else "incomplete" if len(worst.values) < self.results.seeds else ""
            single = {label: self.values(model, label, threat) for label in self.attacks(threat)}
            entries.append(RankedModel(model, threat, None, why, worst, single))
        ranked = sorted((entry for entry in entries if not entry.why), key=lambda entry: -(entry.worst.mean or 0.0))
        means = [entry.worst.mean or 0.0 for entry in ranked]
        best_first = [replace(entry, rank=1 + sum(other > mean for other in means))
                      for entry, mean in zip(ranked, means, strict=True)]  # fmt: skip
        return best_first + [entry for entry in entries if entry.why]

    @cached_property
    def pairs(self) -> dict[tuple[str, str], list[PairTest]]:
        """For each pair of the suite what differs, line by line."""
        return pair_tests(self.results, self.groups)

    @cached_property
    def flags(self) -> list[RaisedFlag]:
        """Every flag; those that are about a worst case alone come last for each training."""
        return [flag for training in self.results.plan.of("train") for flag in self._raised(training)]

    def _raised(self, training: Cell) -> Iterator[RaisedFlag]:
        attacked = [cell for cell in self.results.plan.of("attack") if cell.needs == training.id]
        for flag in self.audit.flags.get(training.id, []):
            whole = flag.scope == "model"
            cells = [] if whole else [cell for cell in attacked if cell.id in flag.cells]
            about, ids = "everything" if whole else _about(cells), tuple(cell.id for cell in cells)
            yield RaisedFlag(training.model, training.seed, flag.name, about, ids, flag.evidence)
        for threat in self.results.threats:
            for flag in self.audit.of_worst_case(training.id, threat):
                if flag.name == "no-strong-attack":
                    about = f"{WORST}, {threat}"
                    yield RaisedFlag(training.model, training.seed, flag.name, about, (), flag.evidence)

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """The rules that raised a flag, by name."""
        raised = {flag.name for flag in self.flags}
        return {name: rule for name, rule in RULES.items() if name in raised}

    @cached_property
    def missing(self) -> Missing | None:
        """What is not there; None where everything is."""
        return _missing(self.results)


def summarize(results: Results) -> Summary:
    """A suite's results, judged by the audit's rules."""
    return Summary(results, flag_results(results.plan, results.records))


def _about(cells: Iterable[Cell]) -> str:
    """Attack by attack."""
    threats: dict[str, list[Threat]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.attack, cell.norm, cell.eps)):
        threats.setdefault(cell.attack, []).append(Threat(cell.norm, cell.eps))
    return "; ".join(f"{attack} at {', '.join(map(str, where))}" for attack, where in threats.items())


def _missing(results: Results) -> Missing | None:
    by_status: dict[str, list[Cell]] = {}
    for cell in results.plan.cells:
        by_status.setdefault(results.status(cell)[0], []).append(cell)
    if len(by_status.get("ok", ())) == len(results.plan.cells):
        return None
    reasons = tuple(
        (status, cell.id, results.records[cell.id].reason)
        for status in ("diverged", "failed")
        for cell in by_status.get(status, ())
    )
    return Missing({status: len(cells) for status, cells in sorted(by_status.items())}, reasons)
