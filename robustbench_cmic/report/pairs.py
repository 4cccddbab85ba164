"""Two models of a pair, compared line by line, before anything is said of them: see `verdicts` for that.

Transfers are left out: what is a transfer for one model of a pair is an attack with full knowledge on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from robustbench_cmic import statistics
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import unpack_replicates
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.frame import WORST, Group, Key, flag_names
from robustbench_cmic.report.metrics import ACCURACY, NCMI_CALIBRATED, Metric
from robustbench_cmic.report.results import Results
from robustbench_cmic.statistics import LEVEL, PairedTTest
from robustbench_cmic.suite.fields import CLEAN, Threat
from robustbench_cmic.suite.objectives import objective_of

NO_DISCORDANT = "no example differs"
Outcome = Literal["", "higher", "lower", "equivalent", "undecided", "not compared", "no claim", "withdrawn"]
"""Of the second model of a pair against the first; empty without a seed that both have."""


@dataclass(frozen=True)
class SeedTest:
    """One seed of a line: two trained networks.

    Attributes:
        first, second: accuracies (fractions) or NCMI.
        interval: 95 % of the paired bootstrap for second - first; None for single attacks, and where unknown.
        p: McNemar's, adjusted; None for NCMI.
        differing: number of examples that only one of the two classifies correctly; None for NCMI.
    """

    first: float
    second: float
    interval: tuple[float, float] | None
    p: float | None = None
    differing: int | None = None

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first

    @property
    def no_discordant(self) -> bool:
        """No example tells the two apart: the bootstrap's interval has no width then, which is no certainty."""
        return self.differing == 0


@dataclass(frozen=True)
class PairTest:
    """One line of a comparison.

    Attributes:
        what: `accuracy`, `NCMI`, the label of an attack, or `worst case`.
        threat: `CLEAN` for the first two.
        claim: it is of the family of claims.
        in_points: of accuracies, whose differences people read in points; not of NCMI.
        seeds: those that both models have.
        flags: names of the flags on either side, sorted.
        interval: 95 % of the paired bootstrap over examples for the mean over seeds of second - first.
        settled: why no difference is left to find, in words; empty where one may be.
        over_seeds: the paired t-test, as it is without other lines; None where it is of no family.
        p: of that test, adjusted; None where there is none.
        p_equivalent: of the two one-sided tests against the margin, adjusted; None where there is none.
        level: at which the family tests what it does not reject.
        outcome, verdict: what is said, in a word and in words.
        detectable: where it is undecided for too few seeds: the difference that these show with a power of 0.8.
        seeds_needed: where it is undecided for too few seeds: how many show the margin with a power of 0.8; None
            also where the seeds there are would, and where 1,000 would not.
    """

    what: str
    threat: Threat
    claim: bool
    in_points: bool
    seeds: Mapping[int, SeedTest]
    flags: tuple[str, ...]
    interval: tuple[float, float] | None = None
    settled: str = ""
    over_seeds: PairedTTest | None = None
    p: float | None = None
    p_equivalent: float | None = None
    level: float = LEVEL
    outcome: Outcome = ""
    verdict: str = ""
    detectable: float | None = None
    seeds_needed: int | None = None

    @property
    def no_discordant(self) -> bool:
        """No example tells the two apart in any seed, see `SeedTest.no_discordant`."""
        return bool(self.seeds) and all(seed.no_discordant for seed in self.seeds.values())

    @property
    def sides(self) -> tuple[list[float], list[float]]:
        """What was measured of the first and of the second model, seed by seed."""
        return [seed.first for seed in self.seeds.values()], [seed.second for seed in self.seeds.values()]

    @property
    def means(self) -> tuple[float, float]:
        """Of each side over the seeds; there has to be one."""
        first, second = self.sides
        return fmean(first), fmean(second)

    @property
    def mean(self) -> float:
        """Of the differences over the seeds; there has to be one."""
        return fmean(self.differences)

    @property
    def differences(self) -> list[float]:
        """Second minus first, seed by seed."""
        return [seed.difference for seed in self.seeds.values()]

    @property
    def withdrawn(self) -> bool:
        """What would be said is not, for a number is flagged."""
        return self.outcome == "withdrawn"

    @property
    def name(self) -> str:
        """`clean`, `worst case, L-inf 0.1`."""
        return "clean" if self.threat == CLEAN else f"{self.what}, {self.threat}"


def pair_lines(results: Results, groups: Mapping[Key, Group], first: str, second: str) -> Iterator[PairTest]:
    """Clean accuracy and calibrated NCMI, then at each threat attack by attack and the worst case; not judged yet."""
    folds = results.folds > 0
    for threat in (CLEAN, *results.threats):
        for attack in [attack for model, attack, where in groups if (model, where) == (first, threat)]:
            sides = [groups.get((model, attack, threat), {}) for model in (first, second)]
            if threat == CLEAN:
                yield _accuracies(ACCURACY.title, threat, True, sides, folds)
                # The native NCMI is no claim: a factor on the logits moves it.
                yield _information(results, sides, NCMI_CALIBRATED)
            elif ":" not in attack:
                yield _accuracies(attack, threat, attack == WORST, sides, folds)


def title_of(training: Cell, otherwise: str | None = None) -> str:
    """What people call the objective of a training; one of a user's own has its name, or what is given instead.

    `CE with TRADES`: with the method of robust training, if there is one.
    """
    declared = training.declared["objective"]
    objective = None if declared is None else objective_of(declared)
    title = (objective and objective.title) or otherwise or training.objective
    return f"{title} with {objective.adversary.title}" if objective and objective.adversary else title


def _accuracies(what: str, threat: Threat, claim: bool, sides: Sequence[Group], folds: bool) -> PairTest:
    left, right = ({seed: row.outcomes for seed, row in side.items() if row.outcomes is not None} for side in sides)
    seeds, differences = {}, []
    for seed in sorted(left.keys() & right.keys()):
        if len(left[seed]) == len(right[seed]):
            differences.append(right[seed].astype(int) - left[seed])
            counts = statistics.discordant_pairs(left[seed], right[seed])
            interval = statistics.paired_accuracy_interval(differences[-1]) if claim else None
            accuracies = float(left[seed].mean()), float(right[seed].mean())
            seeds[seed] = SeedTest(*accuracies, interval, statistics.mcnemar(*counts), sum(counts))
    interval = None
    if len({len(difference) for difference in differences}) == 1:  # else there is no mean over seeds of an example
        # Folds are of one size and hold other examples each: one network's verdict on every example of all of them.
        pooled = (np.concatenate(differences), 1) if folds else (sum(differences), len(differences))
        interval = statistics.paired_accuracy_interval(*pooled)
    return PairTest(what, threat, claim, True, seeds, flag_names(*sides), interval)


def _information(results: Results, sides: Sequence[Group], metric: Metric) -> PairTest:
    """A measure of the clean outputs, with the bootstrap replicates that records hold beside it."""

    def measured(side: Group) -> dict[int, float]:
        values = {seed: getattr(row, metric.name) for seed, row in side.items()}
        return {seed: value for seed, value in values.items() if value == value}  # NaN where it is undefined

    left, right = (measured(side) for side in sides)
    seeds = {}
    spread: list[list[float]] = []
    for seed in sorted(left.keys() & right.keys()):
        first, second = left[seed], right[seed]
        interval = None
        if replicates := _replicates([results.attack(side[seed].cell) for side in sides]):
            interval = statistics.paired_replicates_interval(*replicates, second - first)
            spread.append([b - a for a, b in zip(*replicates, strict=True)])
        seeds[seed] = SeedTest(first, second, interval)
    interval = None
    if seeds and len(spread) == len(seeds):
        # A replicate is the same resample for every seed, so that its mean over seeds is one, too; of folds, whose
        # examples have nothing to do with each other, it takes another replicate of each.
        apart = len(spread[0]) // len(spread) if results.folds else 0
        moved = [values[k * apart :] + values[: k * apart] for k, values in enumerate(spread)]
        means = [fmean(values) for values in zip(*moved, strict=True)]
        estimate = fmean(seed.difference for seed in seeds.values())
        interval = statistics.paired_replicates_interval([0.0] * len(means), means, estimate)
    return PairTest(metric.title, CLEAN, True, False, seeds, flag_names(*sides), interval)


def _replicates(records: Sequence[AttackRecord | None]) -> tuple[list[float], list[float]] | None:
    """The bootstrap of the calibrated NCMI; None unless both records were made on the same examples."""
    left, right = records
    if left is None or right is None or left.examples_sha256 != right.examples_sha256:
        return None
    first, second = (None if of is None else of.calibrated for of in (left.calibration, right.calibration))
    if first is None or second is None:
        return None
    return unpack_replicates(first.ncmi_replicates), unpack_replicates(second.ncmi_replicates)
