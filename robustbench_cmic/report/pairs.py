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

from robustbench_cmic import statistics
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.packing import unpack_replicates
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.frame import WORST, Group, Key, flag_names
from robustbench_cmic.report.metrics import ACCURACY, NCMI
from robustbench_cmic.report.results import Results
from robustbench_cmic.statistics import LEVEL
from robustbench_cmic.suite.fields import CLEAN, Threat
from robustbench_cmic.suite.objectives import objective_of

RESAMPLES = {True: 9999, False: 1999}
"""Of the bootstrap, for claims and for single attacks, of which a report may have hundreds."""
WITHDRAWN = "withdrawn: flagged"
NO_DISCORDANT = "no example differs"


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
    def sides(self) -> tuple[list[float], list[float]]:
        """What was measured of the first and of the second model, seed by seed."""
        return [seed.first for seed in self.seeds.values()], [seed.second for seed in self.seeds.values()]

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
    """For each pair all lines: clean accuracy and NCMI, then at each threat attack by attack and the worst case."""
    raw = [(pair, line) for pair in results.plan.pairs for line in _lines(results, groups, *pair)]
    tests: dict[tuple[str, str], list[PairTest]] = {pair: [] for pair in results.plan.pairs}
    for (pair, _), line in zip(raw, _adjusted([line for _, line in raw], results), strict=True):
        tests[pair].append(replace(line, verdict=_verdict(line, _names(results, *pair), results.seeds)))
    return tests


def _lines(results: Results, groups: Mapping[Key, Group], first: str, second: str) -> Iterator[PairTest]:
    for threat in (CLEAN, *results.threats):
        for attack in [attack for model, attack, where in groups if (model, where) == (first, threat)]:
            sides = [groups.get((model, attack, threat), {}) for model in (first, second)]
            if threat == CLEAN:
                yield _accuracies(ACCURACY.title, threat, True, sides)
                yield _ncmi(results, sides)
            elif ":" not in attack:
                yield _accuracies(attack, threat, attack == WORST, sides)


def title_of(training: Cell, otherwise: str | None = None) -> str:
    """What people call the objective of a training; one of a user's own has its name, or what is given instead."""
    declared = training.declared["objective"]
    title = None if declared is None else objective_of(declared).title
    return title or otherwise or training.objective


def _names(results: Results, first: str, second: str) -> tuple[str, str]:
    """What verdicts call the two: by their objectives, where those tell them apart."""
    names = [title_of(results.trainings[model], model) for model in (first, second)]
    return (names[0], names[1]) if names[0] != names[1] else (first, second)


def _accuracies(what: str, threat: Threat, claim: bool, sides: Sequence[Group]) -> PairTest:
    left, right = ({seed: row.outcomes for seed, row in side.items() if row.outcomes is not None} for side in sides)
    seeds = {}
    for seed in sorted(left.keys() & right.keys()):
        n = len(left[seed])
        if n == len(right[seed]):
            counts = statistics.discordant_pairs(left[seed], right[seed])
            interval = statistics.paired_accuracy_interval(*counts, n) if claim else None
            accuracies = float(left[seed].mean()), float(right[seed].mean())
            seeds[seed] = SeedTest(*accuracies, interval, statistics.mcnemar(*counts), sum(counts))
    differences = [right[seed].astype(float) - left[seed] for seed in seeds]
    interval = None
    if len({len(difference) for difference in differences}) == 1:  # else seeds were judged on other examples each
        interval = statistics.paired_mean_interval(sum(differences) / len(differences), resamples=RESAMPLES[claim])
    return PairTest(what, threat, claim, seeds, flag_names(*sides), interval)


def _ncmi(results: Results, sides: Sequence[Group]) -> PairTest:
    # NaN, where it is undefined, is not equal to itself.
    left, right = ({seed: row for seed, row in side.items() if row.ncmi == row.ncmi} for side in sides)
    seeds = {}
    spread: list[list[float]] = []
    for seed in sorted(left.keys() & right.keys()):
        first, second = left[seed].ncmi, right[seed].ncmi
        interval = None
        if replicates := _replicates(*(results.attack(side[seed].cell) for side in (left, right))):
            interval = statistics.paired_replicates_interval(*replicates, second - first)
            spread.append([b - a for a, b in zip(*replicates, strict=True)])
        seeds[seed] = SeedTest(first, second, interval)
    interval = None
    if seeds and len(spread) == len(seeds):
        # A replicate is the same resample for every seed, so that its mean over seeds is one, too.
        means = [fmean(values) for values in zip(*spread, strict=True)]
        estimate = fmean(seed.difference for seed in seeds.values())
        interval = statistics.paired_replicates_interval([0.0] * len(means), means, estimate)
    return PairTest(NCMI.title, CLEAN, True, seeds, flag_names(*sides), interval)


def _replicates(left: AttackRecord | None, right: AttackRecord | None) -> tuple[list[float], list[float]] | None:
    """The bootstrap of two records; None unless they were made on the same examples."""
    if left is None or right is None or left.examples_sha256 != right.examples_sha256:
        return None
    packed = left.ncmi_replicates, right.ncmi_replicates
    return (unpack_replicates(packed[0]), unpack_replicates(packed[1])) if packed[0] and packed[1] else None


def _adjusted(lines: list[PairTest], results: Results) -> list[PairTest]:
    """The lines with adjusted p-values, over seeds and over examples, family by family."""
    sizes = [record.n for cell in results.plan.of("attack") if (record := results.attack(cell.id)) and record.n]
    resolution = 1 / min(sizes, default=1)
    p: dict[tuple[int, int | None], float] = {}  # by line and seed; None: over seeds
    for claim in (True, False):
        family = {index: line for index, line in enumerate(lines) if line.claim is claim and line.seeds}
        steps = {index: 0.0 if line.what == NCMI.title else resolution for index, line in family.items()}
        tests = {index: statistics.paired_seed_test(lines[index].differences, step) for index, step in steps.items()}
        p |= _holm({(index, None): test.p for index, test in tests.items()})
        p |= _holm({(index, seed): test.p for index, line in family.items() for seed, test in line.seeds.items()})
    adjusted = []
    for index, line in enumerate(lines):
        seeds = {seed: replace(test, p=p.get((index, seed))) for seed, test in line.seeds.items()}
        adjusted.append(replace(line, p=p.get((index, None)), seeds=seeds))
    return adjusted


def _holm(p_values: Mapping[tuple[int, int | None], float | None]) -> dict[tuple[int, int | None], float]:
    """One family, adjusted; what has no p-value is left out."""
    tested = {test: p for test, p in p_values.items() if p is not None}
    return dict(zip(tested, statistics.holm(list(tested.values())), strict=True))


def _verdict(line: PairTest, names: tuple[str, str], planned: int) -> str:
    if not line.seeds:
        return ""
    if line.flags:
        return f"{WITHDRAWN} ({', '.join(line.flags)})"
    if planned < 2:
        return "one seed: no claim about the method"
    if len(line.seeds) < planned:  # which seeds are lost need not be chance: trainings that diverge, say
        return f"{len(line.seeds)} of {planned} seeds: no claim about the method"
    over_examples = line.interval is not None and (line.interval[0] > 0 or line.interval[1] < 0)
    if line.p is None or line.p > LEVEL or not over_examples:
        return "no difference shown"
    mean = sum(line.differences) / len(line.seeds)
    by = f"{mean:+.2g}" if line.what == NCMI.title else f"{100 * mean:+.1f} points"
    side = "higher" if mean > 0 else "lower"
    return f"{names[1]} {side} (p = {line.p:.2g}, {by}, {len(line.seeds)} seeds)"
