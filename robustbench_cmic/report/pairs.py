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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from robustbench_cmic.audit import Audit
from robustbench_cmic.records.packing import unpack_replicates
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.frame import (
    CLEAN,
    Ball,
    Outcomes,
    attacks,
    balls,
    by_seed,
    cells_of,
    planned_seeds,
    worst_case,
)
from robustbench_cmic.report.results import Results
from robustbench_cmic.statistics import (
    discordant,
    holm,
    mcnemar,
    paired_accuracy_interval,
    paired_mean_interval,
    paired_replicates_interval,
    paired_seed_test,
)
from robustbench_cmic.suite.objectives import OBJECTIVES

LEVEL = 0.05
RESAMPLES = {True: 9999, False: 1999}
"""Of the bootstrap, for claims and for single attacks, of which a report may have hundreds."""
WITHDRAWN = "withdrawn: flagged"
NO_DIFFERENCE = "no difference shown"
NO_DISCORDANT = "no example differs"
ONE_SEED = "one seed: no claim about the method"


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
    def alike(self) -> bool:
        """No example tells the two apart: the bootstrap's interval has no width then, which is no certainty."""
        return self.differing == 0


@dataclass(frozen=True)
class PairTest:
    """One line of a comparison.

    Attributes:
        what: `accuracy`, `NCMI`, the label of an attack, or `worst case`.
        ball: `CLEAN` for the first two.
        claim: it is of the family of claims.
        seeds: those that both models have.
        interval: 95 % of the paired bootstrap over examples for the mean over seeds of second - first.
        flags: names of the flags on either side, sorted.
        p: of the paired t-test over seeds, adjusted; None with fewer than two seeds.
        verdict: in words.
    """

    what: str
    ball: Ball
    claim: bool
    seeds: Mapping[int, SeedTest]
    flags: tuple[str, ...]
    interval: tuple[float, float] | None = None
    p: float | None = None
    verdict: str = ""

    @property
    def alike(self) -> bool:
        """No example tells the two apart in any seed, see `SeedTest.alike`."""
        return bool(self.seeds) and all(seed.alike for seed in self.seeds.values())


def compare(results: Results, audit: Audit) -> dict[tuple[str, str], list[PairTest]]:
    """For each pair all lines: clean accuracy and NCMI, then in each ball attack by attack and the worst case."""
    raw = [(pair, line) for pair in results.plan.pairs for line in _lines(results, audit, *pair)]
    planned = planned_seeds(results)
    found: dict[tuple[str, str], list[PairTest]] = {pair: [] for pair in results.plan.pairs}
    for (pair, _), line in zip(raw, _adjusted([line for _, line in raw], results), strict=True):
        found[pair].append(replace(line, verdict=_verdict(line, _names(results, *pair), planned)))
    return found


def _lines(results: Results, audit: Audit, first: str, second: str) -> Iterator[PairTest]:
    yield _clean(results, audit, first, second)
    yield _ncmi(results, audit, first, second)
    for ball in balls(results):
        for label in attacks(results, ball):
            if ":" not in label:
                sides = [by_seed(results, model, label, ball) for model in (first, second)]
                flags = _cell_flags(results, audit, (first, second), label, ball)
                yield _accuracies(label, ball, False, sides, flags)
        sides = [worst_case(results, model, ball) for model in (first, second)]
        yield _accuracies("worst case", ball, True, sides, _worst_flags(results, audit, (first, second), ball))


def _names(results: Results, first: str, second: str) -> tuple[str, str]:
    """What verdicts call the two: by their objectives, where those tell them apart."""
    objectives = {cell.model: cell.objective for cell in results.plan.of("train")}
    titles = {name: objective.title for name, objective in OBJECTIVES.items()}
    names = [titles.get(objectives[model]) or model for model in (first, second)]
    return (names[0], names[1]) if names[0] != names[1] else (first, second)


def _clean(results: Results, audit: Audit, first: str, second: str) -> PairTest:
    sides = [by_seed(results, model, "none", CLEAN) for model in (first, second)]
    return _accuracies("accuracy", CLEAN, True, sides, _cell_flags(results, audit, (first, second), "none", CLEAN))


def _accuracies(
    what: str, ball: Ball, claim: bool, sides: list[dict[int, Outcomes]], flags: tuple[str, ...]
) -> PairTest:
    left, right = sides
    seeds = _paired(left, right, claim)
    return PairTest(what, ball, claim, seeds, flags, _over_examples(left, right, seeds, RESAMPLES[claim]))


def _over_examples(
    left: Mapping[int, Outcomes], right: Mapping[int, Outcomes], seeds: Mapping[int, SeedTest], resamples: int
) -> tuple[float, float] | None:
    """The interval for the mean over seeds; None where seeds were judged on different numbers of examples."""
    sizes = {left[seed].n for seed in seeds}
    if len(sizes) != 1:
        return None
    (n,) = sizes
    import numpy as np

    sums = np.zeros(n)
    for seed in seeds:
        sums += right[seed].array.astype(float) - left[seed].array
    return paired_mean_interval(sums / len(seeds), resamples=resamples)


def _ncmi(results: Results, audit: Audit, first: str, second: str) -> PairTest:
    sides: list[dict[int, AttackRecord]] = []
    for model in (first, second):
        cells = cells_of(results, model, "none", CLEAN)
        sides.append({cell.seed: record for cell in cells if (record := results.attack(cell)) is not None})
    left, right = sides
    seeds = {}
    spread: list[list[float]] = []
    for seed in sorted(left.keys() & right.keys()):
        values = [record.information.ncmi for record in (left[seed], right[seed]) if record.information is not None]
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            replicates = _replicates(left[seed], right[seed])
            interval = paired_replicates_interval(*replicates, values[1] - values[0]) if replicates else None
            seeds[seed] = SeedTest(values[0], values[1], interval)
            if replicates:
                spread.append([b - a for a, b in zip(*replicates, strict=True)])
    interval = None
    if seeds and len(spread) == len(seeds):
        # A replicate is the same resample for every seed, so that its mean over seeds is one, too.
        means = [fmean(values) for values in zip(*spread, strict=True)]
        estimate = fmean(seed.difference for seed in seeds.values())
        interval = paired_replicates_interval([0.0] * len(means), means, estimate)
    flags = _cell_flags(results, audit, (first, second), "none", CLEAN)
    return PairTest("NCMI", CLEAN, True, seeds, flags, interval)


def _replicates(left: AttackRecord, right: AttackRecord) -> tuple[list[float], list[float]] | None:
    """The bootstrap of two records; None unless they were made on the same examples."""
    if left.ncmi_replicates and right.ncmi_replicates and left.examples_sha256 == right.examples_sha256:
        return unpack_replicates(left.ncmi_replicates), unpack_replicates(right.ncmi_replicates)
    return None


def _paired(left: Mapping[int, Outcomes], right: Mapping[int, Outcomes], claim: bool) -> dict[int, SeedTest]:
    seeds = {}
    for seed in sorted(left.keys() & right.keys()):
        a, b = left[seed], right[seed]
        if a.n == b.n:
            only_first, only_second = discordant(a.bits, b.bits)
            interval = paired_accuracy_interval(only_first, only_second, a.n) if claim else None
            p = mcnemar(only_first, only_second)
            seeds[seed] = SeedTest(a.accuracy, b.accuracy, interval, p, only_first + only_second)
    return seeds


def _cell_flags(results: Results, audit: Audit, pair: tuple[str, str], label: str, ball: Ball) -> tuple[str, ...]:
    cells = [cell for model in pair for cell in cells_of(results, model, label, ball)]
    return tuple(sorted({flag.name for cell in cells for flag in audit.of_cell(cell)}))


def _worst_flags(results: Results, audit: Audit, pair: tuple[str, str], ball: Ball) -> tuple[str, ...]:
    trainings = [cell.id for cell in results.plan.of("train") if cell.model in pair]
    return tuple(sorted({flag.name for training in trainings for flag in audit.of_worst_case(training, ball)}))


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
            step = 0.0 if line.what == "NCMI" else resolution
            p = paired_seed_test([seed.difference for seed in line.seeds.values()], step).p
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
    mean = sum(seed.difference for seed in line.seeds.values()) / len(line.seeds)
    by = f"{mean:+.2g}" if line.what == "NCMI" else f"{100 * mean:+.1f} points"
    side = "higher" if mean > 0 else "lower"
    return f"{names[1]} {side} (p = {line.p:.2g}, {by}, {len(line.seeds)} seeds)"
