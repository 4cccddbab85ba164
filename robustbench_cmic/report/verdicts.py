"""What is said of the lines of a pair: higher, lower, equivalent or undecided, and why.

Two questions are kept apart. *Over examples* (McNemar, paired bootstrap): do these two trained networks differ on more
than these test images? One answer a seed. *Over seeds* (paired t-tests): does the method differ, for another seed too?
A claim about the method needs both, since all seeds are judged on the same images. With mean m, standard deviation s
and n seeds, at a level of 0.05:

- *higher*, *lower*: the t-test of m = 0 rejects, and the bootstrap's 95 % interval of m over images leaves 0 out.
- *equivalent*: the two one-sided t-tests of |m| >= margin reject (Schuirmann 1987; p is the larger of the two), and
  the bootstrap's interval lies within the margin. What is higher or lower is not called equivalent; the words add that
  it is within the margin. NCMI has no margin: a point means something for accuracies only. It is compared at the
  temperature that minimises NLL alone, since a factor on the logits moves it otherwise.
- *undecided*: neither. The words say which difference these seeds detect, and how many would detect the
  margin; see `power`.

**Families.** P-values are adjusted by Holm's method over the lines of all pairs of a suite. Claims (clean accuracy,
NCMI and every worst case) are families of their own, apart from single attacks, which are no measure of robustness.
Each has three: the t-tests of a difference; the equivalence tests of accuracies, one p-value a line; and McNemar's
tests, one a line and seed. Each family keeps its probability of any false rejection at 0.05 at most: one for a false
*higher* or *lower*, another one for a false *equivalent*.

**Folds.** Seeds that are folds of a table share most of what they learn from: the t-tests take the variance of Nadeau &
Bengio (2003) for it.

**Settled.** A line under attack on which nothing is left to find is *not compared*, and is in no family: where both
models are under 1 % accurate (mean over seeds) or under the margin, within which they are equivalent whatever is
found, or both within 1 point of their clean accuracy. That is read off how accurate they are, not how they differ, and
not while a seed is missing: such a line stays in its families.

**Single attacks.** One that shows what the worst case of its ball does not says so: it may be the attack that is weak.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from robustbench_cmic import statistics
from robustbench_cmic.report.frame import WORST, Group, Key
from robustbench_cmic.report.metrics import ACCURACY, percent
from robustbench_cmic.report.pairs import Outcome, PairTest, pair_lines, title_of
from robustbench_cmic.report.power import MOST_SEEDS, detectable_difference, remaining_level, seeds_to_detect
from robustbench_cmic.report.results import Results
from robustbench_cmic.statistics import LEVEL
from robustbench_cmic.suite.fields import CLEAN

LOST = 0.01
"""Accuracies below it, a fraction, are all alike, and so are those below the margin, if that is more."""
UNHARMED = 0.01
"""Largest loss of accuracy, a fraction, that is none."""


def pair_tests(results: Results, groups: Mapping[Key, Group]) -> dict[tuple[str, str], list[PairTest]]:
    """For each pair all lines: clean accuracy and NCMI, then at each threat attack by attack and the worst case."""
    raw = []
    margin = results.plan.claims.margin / 100
    for pair in results.plan.pairs:
        raw += [(pair, line) for line in _settled(list(pair_lines(results, groups, *pair)), results.seeds, margin)]
    tests: dict[tuple[str, str], list[PairTest]] = {pair: [] for pair in results.plan.pairs}
    tested = _tested([line for _, line in raw], _resolution(results), _overlap(results), margin)
    for (pair, _), line in zip(raw, tested, strict=True):
        judged = replace(line, outcome=_outcome(line, results.seeds, margin))
        tests[pair].append(_in_words(judged, names_of_pair(results, *pair)[1], results.seeds, margin))
    return {pair: list(_alone(lines)) for pair, lines in tests.items()}


def _alone(lines: Sequence[PairTest]) -> Iterator[PairTest]:
    """The lines of a pair; a single attack that shows what the worst case of its ball does not says so."""
    worst = {line.threat: line for line in lines if line.what == WORST}
    for line in lines:
        shown = not line.claim and line.outcome in ("higher", "lower")
        of_ball = worst.get(line.threat) if shown else None
        if of_ball is None or of_ball.outcome == line.outcome or not of_ball.seeds:
            yield line
        else:
            first, second = (f"{percent(mean):.1f} %" for mean in of_ball.means)
            yield replace(line, verdict=f"{line.verdict} under this attack alone: worst case {second} against {first}")


def _settled(lines: Sequence[PairTest], planned: int, margin: float) -> Iterator[PairTest]:
    """The lines of a pair; where nothing is left to find with the reason, and without any p-value."""
    clean = next((line.means for line in lines if line.what == ACCURACY.title and len(line.seeds) == planned), None)
    for line in lines:
        attacked = line.threat != CLEAN and len(line.seeds) == planned
        if why := attacked and _nothing_left(line.means, clean, max(LOST, margin)):
            untested = {seed: replace(test, p=None) for seed, test in line.seeds.items()}
            yield replace(line, settled=why, seeds=untested)
        else:
            yield line


def _nothing_left(means: tuple[float, float], clean: tuple[float, float] | None, lost: float) -> str:
    """Why two accuracies tell nothing apart, given those without an attack; empty where they may."""
    if max(means) < lost:
        return f"both under {100 * lost:g} %"
    # In floating point 0.95 - 0.94 is more than 0.01.
    if clean and all(before - after < UNHARMED + 1e-9 for before, after in zip(clean, means, strict=True)):
        return "both within 1 point of clean"
    return ""


def _resolution(results: Results) -> float:
    """The step of an accuracy: one example of the smallest evaluation."""
    sizes = [record.n for cell in results.plan.of("attack") if (record := results.attack(cell.id)) and record.n]
    return 1 / min(sizes, default=1)


def _overlap(results: Results) -> float:
    """Of folds the examples tested on over those learned from; 0 where all seeds have the same data."""
    return 1 / (results.folds - 1) if results.folds else 0.0


def _tested(lines: Sequence[PairTest], resolution: float, overlap: float, margin: float) -> list[PairTest]:
    """The lines with their tests, over seeds and over examples, adjusted family by family."""
    tested = list(lines)
    for claim in (True, False):
        family = {i: line for i, line in enumerate(lines) if line.claim is claim and line.seeds and not line.settled}
        tests = {
            i: statistics.paired_seed_test(line.differences, resolution if line.in_points else 0.0, overlap)
            for i, line in family.items()
        }
        alike = {i: statistics.equivalence_p(tests[i], margin) for i, line in family.items() if line.in_points}
        p = _holm({(i, None): test.p for i, test in tests.items()})
        p_equivalent = _holm({(i, None): value for i, value in alike.items()})
        by_seed = _holm({(i, seed): test.p for i, line in family.items() for seed, test in line.seeds.items()})
        for i, line in family.items():
            tested[i] = replace(
                line,
                seeds={seed: replace(test, p=by_seed.get((i, seed))) for seed, test in line.seeds.items()},
                over_seeds=tests[i],
                p=p.get((i, None)),
                p_equivalent=p_equivalent.get((i, None)),
                level=remaining_level(list(p.values())),
            )
    return tested


def _holm(p_values: Mapping[tuple[int, int | None], float | None]) -> dict[tuple[int, int | None], float]:
    """One family, adjusted, by line and seed (None: over seeds); what has no p-value is left out."""
    tested = {test: p for test, p in p_values.items() if p is not None}
    return dict(zip(tested, statistics.holm(list(tested.values())), strict=True))


def _outcome(line: PairTest, planned: int, margin: float) -> Outcome:
    if not line.seeds:
        return ""
    if line.flags:
        return "withdrawn"
    if len(line.seeds) < planned:  # which seeds are lost need not be chance: trainings that diverge, say
        return "no claim"
    if line.settled:
        return "not compared"
    if planned < 2:
        return "no claim"
    if _shown(line.p) and line.interval is not None and (line.interval[0] > 0 or line.interval[1] < 0):
        return "higher" if line.mean > 0 else "lower"
    return "equivalent" if _shown(line.p_equivalent) and _within(line, margin) else "undecided"


def _shown(p: float | None) -> bool:
    return p is not None and p <= LEVEL


def _within(line: PairTest, margin: float) -> bool:
    """The examples leave no difference outside the margin."""
    return line.interval is not None and -margin < line.interval[0] and line.interval[1] < margin


def names_of_pair(results: Results, first: str, second: str) -> tuple[str, str]:
    """What verdicts call the two: by their objectives, where those tell them apart."""
    names = [title_of(results.trainings[model], model) for model in (first, second)]
    return (names[0], names[1]) if names[0] != names[1] else (first, second)


def _in_words(line: PairTest, second: str, planned: int, margin: float) -> PairTest:
    """The line with its verdict in words."""
    n, near = len(line.seeds), f"within ±{100 * margin:g}"
    if line.outcome == "undecided":
        return _undecided(line, margin)
    verdict = ""
    if line.outcome == "withdrawn":
        verdict = f"withdrawn: flagged ({', '.join(line.flags)})"
    elif line.outcome == "no claim":
        verdict = f"{f'{n} of {planned} seeds' if n < planned else 'one seed'}: no claim about the method"
    elif line.outcome == "not compared":
        verdict = f"not compared: {line.settled}"
    elif line.outcome in ("higher", "lower"):
        by = f"{percent(line.mean):+.1f} points" if line.in_points else f"{line.mean:+.2g}"
        also = f", {near}" if _shown(line.p_equivalent) and _within(line, margin) else ""
        verdict = f"{second} {line.outcome} (p = {line.p:.2g}, {by}{also}, {n} seeds)"
    elif line.outcome == "equivalent":
        verdict = f"equivalent {near} points (p = {line.p_equivalent:.2g}, {n} seeds)"
    return replace(line, verdict=verdict)


def _undecided(line: PairTest, margin: float) -> PairTest:
    """The line with what it lacks: examples, spread to test with, or seeds."""
    n, points = len(line.seeds), f"{100 * margin:g}"
    if _shown(line.p):
        return replace(line, verdict=f"undecided: shown over seeds (p = {line.p:.2g}), not over examples")
    if _shown(line.p_equivalent):
        return replace(line, verdict=f"undecided: within ±{points} points over seeds, not over examples")
    test = line.over_seeds
    detectable = None if test is None else detectable_difference(test, line.level)
    if test is None or detectable is None or not test.sd:
        return replace(line, verdict="undecided: the same in every seed, no spread to test with")
    size = f"{percent(detectable):.1f} points" if line.in_points else f"{detectable:.2g}"
    text = f"{n} seeds can detect {size} or more"
    if line.in_points and detectable > 1:
        text = f"{n} seeds can detect no difference, however large"
    needed = None
    if line.in_points and detectable > margin:
        needed = seeds_to_detect(margin, test.sd, line.level)
        text += f"; {points} points would need {f'about {needed}' if needed else f'more than {MOST_SEEDS}'} seeds"
    return replace(line, verdict=f"undecided: {text}", detectable=detectable, seeds_needed=needed)
