"""Two models of a pair, compared line by line: over seeds, over examples, and in words.

Two questions are kept apart. *Over examples* (McNemar, paired bootstrap): do these two trained networks differ on more
than these test images? One answer a seed. *Over seeds* (paired t-test): does the method differ, for another seed too?
A claim about the method needs both, since all seeds are judged on the same images: the t-test over all planned seeds,
and a bootstrap over images of the mean over seeds that leaves 0 out. With one seed there is no claim.

P-values are adjusted by Holm's method over the lines of all pairs of a suite, in two families: what is claimed (clean
accuracy, NCMI and every worst case), and single attacks, which are no measure of robustness. Transfers are left out:
what is a transfer for one model of a pair is an attack with full knowledge on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from robustbench_cmic.records.packing import unpack_replicates
from robustbench_cmic.records.schema import AnyRecord, AttackRecord
from robustbench_cmic.report.frame import WORST, Group, Key, flag_names
from robustbench_cmic.report.metrics import ACCURACY, NCMI
from robustbench_cmic.report.results import Results
from robustbench_cmic.statistics import (
    discordant_pairs,
    holm,
    mcnemar,
    paired_accuracy_interval,
    paired_mean_interval,
    paired_replicates_interval,
    paired_seed_test,
)
from robustbench_cmic.suite.fields import CLEAN, Threat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.05
RESAMPLES = {True: 9999, False: 1999}
"""Of the bootstrap, for claims and for single attacks, of which a report may have hundreds."""
WITHDRAWN = "withdrawn: flagged"
NO_DIFFERENCE = "no difference shown"
NO_DISCORDANT = "no example differs"
ONE_SEED = "one seed: no claim about the method"
OBJECTIVE_TITLES = {"ce": "CE", "cmic": "CMIC-DL"}


@dataclass(frozen=True)
class SeedTest:
    """One seed of a line: two trained networks.

    Attributes:
        first, second: accuracies (fractions) or NCMI.
        interval: 95 % of the paired bootstrap for second - first; None for single attacks, and where it is not known.
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
        seeds: those that both models have.
        interval: 95 % of the paired bootstrap over examples for the mean over seeds of second - first.
        flags: names of the flags on either side, sorted.
        p: of the paired t-test over seeds, adjusted; None with fewer than two seeds.
        verdict: in words.
    """

    what: str
    threat: Threat
    claim: bool
    seeds: Mapping[int, SeedTest]
    flags: tuple[str, ...]
    interval: tuple[float, float] | None = None
    p: float | None = None
    verdict: str = ""

    @property
    def no_discordant(self) -> bool:
        """No example tells the two apart in any seed, see `SeedTest.no_discordant`."""
        return bool(self.seeds) and all(seed.no_discordant for seed in self.seeds.values())

    @property
    def differences(self) -> list[float]:
        """Second minus first, seed by seed."""
        return [seed.difference for seed in self.seeds.values()]

    @property
    def withdrawn(self) -> bool:
        """What would be said is not, for a number is flagged."""
        return self.verdict.startswith(WITHDRAWN)

    @property
    def name(self) -> str:
        """`clean`, `worst case, L-inf 0.1`."""
        return "clean" if self.threat == CLEAN else f"{self.what}, {self.threat}"


def pair_tests(results: Results, groups: Mapping[Key, Group]) -> dict[tuple[str, str], list[PairTest]]:
    """For each pair all lines: clean accuracy and NCMI, then at each threat attack by attack and the worst case.

    Args:
        results: a suite's results.
        groups: the rows of each number, as `frame.group_rows` makes them.
    """
    raw = [(pair, line) for pair in results.plan.pairs for line in _lines(results, groups, *pair)]
    tests: dict[tuple[str, str], list[PairTest]] = {pair: [] for pair in results.plan.pairs}
    for (pair, _), line in zip(raw, _adjusted([line for _, line in raw], results), strict=True):
        tests[pair].append(replace(line, verdict=_verdict(line, _names(results, *pair), results.seeds)))
    return tests


def _lines(results: Results, groups: Mapping[Key, Group], first: str, second: str) -> Iterator[PairTest]:
    numbers = [(attack, threat) for model, attack, threat in groups if model == first]
    for threat in (CLEAN, *results.threats):
        for attack in [attack for attack, where in numbers if where == threat and ":" not in attack]:
            sides = [groups.get((model, attack, threat), {}) for model in (first, second)]
            flags = flag_names(*sides)
            if threat == CLEAN:
                yield _accuracies(ACCURACY.title, threat, True, sides, flags)
                yield _ncmi(results, sides, flags)
            else:
                yield _accuracies(attack, threat, attack == WORST, sides, flags)


def title_of(objective: str) -> str:
    """What people call an objective: a user's own by its name."""
    return OBJECTIVE_TITLES.get(objective, objective)


def _names(results: Results, first: str, second: str) -> tuple[str, str]:
    """What verdicts call the two: by their objectives, where those tell them apart."""
    names = [OBJECTIVE_TITLES.get(results.trainings[model].objective, model) for model in (first, second)]
    return (names[0], names[1]) if names[0] != names[1] else (first, second)


def _accuracies(what: str, threat: Threat, claim: bool, sides: Sequence[Group], flags: tuple[str, ...]) -> PairTest:
    left, right = ({seed: row.outcomes for seed, row in side.items() if row.outcomes is not None} for side in sides)
    seeds = {}
    for seed in sorted(left.keys() & right.keys()):
        n = len(left[seed])
        if n == len(right[seed]):
            counts = discordant_pairs(left[seed], right[seed])
            interval = paired_accuracy_interval(*counts, n) if claim else None
            accuracies = float(left[seed].mean()), float(right[seed].mean())
            seeds[seed] = SeedTest(*accuracies, interval, mcnemar(*counts), sum(counts))
    differences = [right[seed].astype(float) - left[seed] for seed in seeds]
    return PairTest(what, threat, claim, seeds, flags, _over_examples(differences, RESAMPLES[claim]))


def _over_examples(differences: Sequence[NDArray[np.float64]], resamples: int) -> tuple[float, float] | None:
    """The interval for the mean over seeds; None where seeds were judged on different numbers of examples."""
    if len({len(difference) for difference in differences}) != 1:
        return None
    return paired_mean_interval(sum(differences) / len(differences), resamples=resamples)


def _ncmi(results: Results, sides: Sequence[Group], flags: tuple[str, ...]) -> PairTest:
    # NaN, where it is undefined, is not equal to itself.
    left, right = ({seed: row for seed, row in side.items() if row.ncmi == row.ncmi} for side in sides)
    seeds = {}
    spread: list[list[float]] = []
    for seed in sorted(left.keys() & right.keys()):
        first, second = left[seed].ncmi, right[seed].ncmi
        replicates = _replicates(*(results.records[side[seed].cell] for side in (left, right)))
        interval = paired_replicates_interval(*replicates, second - first) if replicates else None
        seeds[seed] = SeedTest(first, second, interval)
        if replicates:
            spread.append([b - a for a, b in zip(*replicates, strict=True)])
    interval = None
    if seeds and len(spread) == len(seeds):
        # A replicate is the same resample for every seed, so that its mean over seeds is one, too.
        means = [fmean(values) for values in zip(*spread, strict=True)]
        estimate = fmean(seed.difference for seed in seeds.values())
        interval = paired_replicates_interval([0.0] * len(means), means, estimate)
    return PairTest(NCMI.title, CLEAN, True, seeds, flags, interval)


def _replicates(left: AnyRecord, right: AnyRecord) -> tuple[list[float], list[float]] | None:
    """The bootstrap of two records; None unless they were made on the same examples."""
    assert isinstance(left, AttackRecord)
    assert isinstance(right, AttackRecord)
    if left.ncmi_replicates and right.ncmi_replicates and left.examples_sha256 == right.examples_sha256:
        return unpack_replicates(left.ncmi_replicates), unpack_replicates(right.ncmi_replicates)
    return None


def _adjusted(lines: list[PairTest], results: Results) -> list[PairTest]:
    """The lines with adjusted p-values, over seeds and over examples, family by family."""
    sizes = [record.n for cell in results.plan.of("attack") if (record := results.attack(cell)) and record.n]
    resolution = 1 / min(sizes, default=1)
    adjusted = list(lines)
    for claim in (True, False):
        family = [index for index, line in enumerate(lines) if line.claim is claim and line.seeds]
        tests = {}
        for index in family:
            line = lines[index]
            step = 0.0 if line.what == NCMI.title else resolution
            p = paired_seed_test(line.differences, step).p
            if p is not None:
                tests[index] = p
        for index, p in zip(tests, holm(list(tests.values())), strict=True):
            adjusted[index] = replace(adjusted[index], p=p)
        places = [(index, seed) for index in family for seed, at in lines[index].seeds.items() if at.p is not None]
        raw = [lines[index].seeds[seed].p or 0.0 for index, seed in places]
        for (index, seed), p in zip(places, holm(raw), strict=True):
            seeds = dict(adjusted[index].seeds)
            seeds[seed] = replace(seeds[seed], p=p)
            adjusted[index] = replace(adjusted[index], seeds=seeds)
    return adjusted


def _verdict(line: PairTest, names: tuple[str, str], planned: int) -> str:
    if not line.seeds:
        return ""
    if line.flags:
        return f"{WITHDRAWN} ({', '.join(line.flags)})"
    if planned < 2:
        return ONE_SEED
    if len(line.seeds) < planned:  # which seeds are lost need not be chance: trainings that diverge, say
        return f"{len(line.seeds)} of {planned} seeds: no claim about the method"
    over_examples = line.interval is not None and (line.interval[0] > 0 or line.interval[1] < 0)
    if line.p is None or line.p > LEVEL or not over_examples:
        return NO_DIFFERENCE
    mean = sum(line.differences) / len(line.seeds)
    by = f"{mean:+.2g}" if line.what == NCMI.title else f"{100 * mean:+.1f} points"
    side = "higher" if mean > 0 else "lower"
    return f"{names[1]} {side} (p = {line.p:.2g}, {by}, {len(line.seeds)} seeds)"
