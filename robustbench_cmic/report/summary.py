"""What a report says, as plain data: who stands where, what differs, what is flagged. Every format is made of it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from robustbench_cmic.audit import RULES, Audit, Rule, flag_results
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.report.frame import WORST, Group, Key, flag_names, group_rows, results_frame
from robustbench_cmic.report.law import LawScope, law_scopes
from robustbench_cmic.report.metrics import ACCURACY, CALIBRATION, OF_MODELS
from robustbench_cmic.report.pairs import PairTest, title_of
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.verdicts import pair_tests
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.fields import CLEAN, Threat

if TYPE_CHECKING:
    import pandas as pd


NOTHING_LEFT = 0.0005
"""Accuracies below it, a fraction, read 0.0 %."""


class SeedValues(NamedTuple):
    """One number of a model, seed by seed.

    Attributes:
        values: by seed; a seed without a result is left out.
        flags: names of the flags that make it doubtful, sorted.
    """

    values: Mapping[int, float]
    flags: tuple[str, ...] = ()

    @property
    def mean(self) -> float | None:
        """Over the seeds there are, to twelve digits, as equal counts may differ in the last bit; None of none."""
        return round(statistics.fmean(self.values.values()), 12) if self.values else None

    @property
    def sd(self) -> float:
        """Standard deviation over the seeds there are; 0 of one or none."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else 0.0


def ranks_of(means: Mapping[str, float]) -> dict[str, int]:
    """By model 1 plus the number of higher accuracies (fractions); of nobody where even the best reads 0.0 %."""
    if max(means.values(), default=0.0) < NOTHING_LEFT:
        return {}
    return {model: 1 + sum(other > mean for other in means.values()) for model, mean in means.items()}


class CleanModel(NamedTuple):
    """A model on clean examples.

    Attributes:
        measures: by the names of metrics: accuracy (fraction), NCMI, CMI and separation (nats), and calibration.
        best: of the accuracies that all seeds have and nothing flags, none is higher.
    """

    objective: str
    architecture: str
    measures: Mapping[str, SeedValues]
    best: bool


class RankedModel(NamedTuple):
    """A model at a threat.

    Attributes:
        rank: 1 for the best; equal worst cases share a rank; None where there is none.
        why: where there is no rank: `flagged`, `incomplete`, or `nothing left` where the best worst case is 0.0 %.
        worst: accuracy (fraction) in the worst case.
        attacks: accuracy by the label of an attack; transfers by `label:source`.
    """

    model: str
    threat: Threat
    rank: int | None
    why: str
    worst: SeedValues
    attacks: Mapping[str, SeedValues]

    @property
    def attack_flags(self) -> list[str]:
        """Names of the flags of single attacks that the worst case does not hang on, sorted."""
        return sorted({name for number in self.attacks.values() for name in number.flags} - set(self.worst.flags))


class RaisedFlag(NamedTuple):
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


class Missing(NamedTuple):
    """What is not there.

    Attributes:
        counts: how many cells have which status.
        reasons: status, cell id and reason of those that failed or diverged.
    """

    counts: Mapping[str, int]
    reasons: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Summary:
    """A suite's results, judged."""

    results: Results
    audit: Audit

    def __reduce__(self) -> tuple[type[Summary], tuple[Results, Audit]]:
        """What follows from these two is worked out anew, and some of it cannot be pickled."""
        return Summary, (self.results, self.audit)

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

    def interval_over_examples(self, model: str, label: str, threat: Threat) -> tuple[float, float]:
        """95 % for the accuracy (a fraction) of a mean over seeds, over the choice of the examples: Wilson's.

        Seeds are judged on the same examples, of which there are n: for several seeds the interval is at least as wide
        as it should be. A seed without a number has no part in it; there has to be one.
        """
        number = self.values(model, label, threat)
        n = min(int(self.groups[model, label, threat][seed].n) for seed in number.values)
        return wilson_interval(min((number.mean or 0.0) * n, n), n)

    def attacks(self, threat: Threat) -> list[str]:
        """Labels of the attacks at a threat, in the suite's order."""
        return list(dict.fromkeys(label for _, label, where in self.groups if where == threat and label != WORST))

    @cached_property
    def examples(self) -> list[int]:
        """Numbers of examples that evaluations were made on, ascending; none where nothing is measured."""
        return sorted(self.frame.loc[~self.frame["limited"], "n"].dropna().unique().tolist())

    def doubts(self, number: SeedValues) -> str:
        """Why a number cannot be compared with others; empty where it can."""
        return "flagged" if number.flags else "incomplete" if len(number.values) < self.results.seeds else ""

    @cached_property
    def clean(self) -> dict[str, CleanModel]:
        """Every model on clean examples, in the suite's order."""
        measures = {
            model: {
                metric.name: self.values(model, "none", CLEAN, metric.name) for metric in (*OF_MODELS, *CALIBRATION)
            }
            for model in self.results.models
        }
        accuracies = {model: own[ACCURACY.name] for model, own in measures.items()}
        sound = {model: number.mean or 0.0 for model, number in accuracies.items() if not self.doubts(number)}
        best = [model for model, mean in sound.items() if mean == max(sound.values())]
        trainings = self.results.trainings
        return {
            model: CleanModel(title_of(trainings[model]), trainings[model].architecture, own, model in best)
            for model, own in measures.items()
        }

    @cached_property
    def standings(self) -> dict[Threat, list[RankedModel]]:
        """At each threat the models, the best first; what is flagged or incomplete last, without a rank.

        Where even the best worst case reads 0.0 %, nobody is best and nobody has a rank.
        """
        return {threat: self._ranked(threat) for threat in self.results.threats}

    def _ranked(self, threat: Threat) -> list[RankedModel]:
        worst = {model: self.values(model, WORST, threat) for model in self.results.models}
        sound = {model: number.mean or 0.0 for model, number in worst.items() if not self.doubts(number)}
        ranks = ranks_of(sound)
        entries = []
        for model, number in worst.items():
            rank = ranks.get(model)
            why = "nothing left" if model in sound and rank is None else self.doubts(number)
            single = {label: self.values(model, label, threat) for label in self.attacks(threat)}
            entries.append(RankedModel(model, threat, rank, why, number, single))
        return sorted(entries, key=lambda entry: (entry.model not in sound, entry.rank or 0))

    @cached_property
    def pairs(self) -> dict[tuple[str, str], list[PairTest]]:
        """For each pair of the suite what differs, line by line."""
        return pair_tests(self.results, self.groups)

    @cached_property
    def law(self) -> list[LawScope]:
        """Over what the NCMI law is looked at; nothing where there are too few models, or they are tried settings."""
        return [] if self.results.plan.settings else law_scopes(self.results)

    @cached_property
    def flags(self) -> list[RaisedFlag]:
        """Every flag; those that are about a worst case alone come last for each training."""
        return [flag for training in self.results.plan.of("train") for flag in self._raised(training)]

    def _raised(self, training: Cell) -> Iterator[RaisedFlag]:
        attacked = [cell for cell in self.results.plan.of("attack") if cell.needs == training.id]
        own = training.model, training.seed
        for flag in self.audit.flags.get(training.id, []):
            whole = flag.scope == "model"
            cells = [] if whole else [cell for cell in attacked if cell.id in flag.cells]
            about = "everything" if whole else _about(cells)
            yield RaisedFlag(*own, flag.name, about, tuple(cell.id for cell in cells), flag.evidence)
        for threat in self.results.threats:
            for flag in self.audit.of_worst_case(training.id, threat):
                if flag.name == "no-strong-attack":
                    yield RaisedFlag(*own, flag.name, f"{WORST}, {threat}", (), flag.evidence)

    @cached_property
    def rules(self) -> dict[str, Rule]:
        """The rules that raised a flag, by name."""
        raised = {flag.name for flag in self.flags}
        return {name: rule for name, rule in RULES.items() if name in raised}

    @cached_property
    def missing(self) -> Missing | None:
        """What is not there; None where everything is."""
        records = self.results.records
        statuses = {cell.id: self.results.status(cell)[0] for cell in self.results.plan.cells}
        if set(statuses.values()) <= {"ok"}:
            return None
        lost = [(status, cell) for status in ("diverged", "failed") for cell in statuses if statuses[cell] == status]
        counts = dict(sorted(Counter(statuses.values()).items()))
        return Missing(counts, [(status, cell, records[cell].reason) for status, cell in lost])


def summarize(results: Results) -> Summary:
    """A suite's results, judged by the audit's rules."""
    return Summary(results, flag_results(results.plan, results.records))


def _about(cells: Iterable[Cell]) -> str:
    """Attack by attack."""
    ordered = sorted(cells, key=lambda cell: (cell.attack, cell.threat))
    by_attack = groupby(ordered, key=lambda cell: cell.attack)
    return "; ".join(f"{attack} at {', '.join(str(cell.threat) for cell in own)}" for attack, own in by_attack)
