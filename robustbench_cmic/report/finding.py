"""The finding of a pair in three sentences: clean accuracy, worst case, and what the flags took away.

They are made from the verdicts alone (see `verdicts`) and repeat no rule of theirs: what is undecided, withdrawn or
missing is called that. Every format for people puts them first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import percent
from robustbench_cmic.report.pairs import Outcome, PairTest, title_of
from robustbench_cmic.report.tables import escaped, interval_text, marked
from robustbench_cmic.suite.fields import CLEAN, NORM_NAMES, Threat, format_eps

if TYPE_CHECKING:
    from robustbench_cmic.report.summary import Summary

TOLD: tuple[Outcome, ...] = (
    "higher", "lower", "equivalent", "undecided", "no claim", "not compared", "withdrawn", "",
)  # fmt: skip
"""The order in which a sentence names outcomes."""
NO_RESULT = "missing"


def finding(summary: Summary, first: str, second: str) -> list[str]:
    """What a pair of models shows, as Markdown whose only marks are the backticks around names and options.

    Args:
        summary: of the suite.
        first: id of a model, as `pairs` of the suite names it.
        second: id of the other; differences are of this one minus the first.

    Returns:
        Three sentences: on clean accuracy, on the worst cases, on the flags. One sentence where the suite does not
        compare the two.
    """
    lines = [line for line in summary.pairs.get((first, second), ()) if line.in_points]
    if not lines:
        both = f"{marked(first)} and {marked(second)}"
        return [f"{both} are no pair of this suite, so that nothing is said of their difference."]
    sides = _named(summary, second), _named(summary, first)
    planned, margin = summary.results.seeds, summary.results.plan.claims.margin
    clean = next((line for line in lines if line.threat == CLEAN), None)
    worst = [line for line in lines if line.what == WORST]
    return [
        _clean_sentence(clean, sides, planned, margin),
        _worst_sentence(worst, sides, planned),
        _flags_sentence(summary, lines, (first, second), sides),
    ]


def _named(summary: Summary, model: str) -> str:
    """A model and what it was trained with: "`cnn-cmic` (CMIC-DL printed)"."""
    return f"{marked(model)} ({escaped(title_of(summary.results.trainings[model]))})"


def _clean_sentence(line: PairTest | None, names: tuple[str, str], planned: int, margin: float) -> str:
    second, first = names
    if line is None or not line.seeds:
        return f"Clean accuracy: no seed has a result of both {second} and {first}."
    flags = ", ".join(map(escaped, line.flags))
    said = {
        "higher": f"{second} is higher than {first}",
        "lower": f"{second} is lower than {first}",
        "equivalent": f"{second} and {first} are equivalent within ±{margin:g} points",
        "undecided": f"it is undecided which of {second} and {first} is higher",
        "withdrawn": f"nothing is said of {second} and {first}, for a number is flagged ({flags})",
    }.get(line.outcome, f"no claim is made about {second} and {first}")
    return f"Clean accuracy: {said}: {measured_text(line, planned)}."


def _worst_sentence(lines: Sequence[PairTest], names: tuple[str, str], planned: int) -> str:
    """How many radii have which verdict, then the numbers of the one where the models are most apart."""
    second, first = names
    if not lines:
        return f"Worst case: nothing attacks {second} and {first}."
    radii = "1 radius" if len(lines) == 1 else f"{len(lines)} radii"
    parts = [
        f"{outcome or NO_RESULT} at {len(own)} ({_radii(line.threat for line in own)})"
        for outcome in TOLD
        if (own := [line for line in lines if line.outcome == outcome])
    ]
    text = f"Worst case over all attacks, {second} against {first} at {radii}: {', '.join(parts)}"
    if not (told := _leading(lines)):
        return f"{text}."
    line = _most_apart(told)
    among = "" if len(told) == len(lines) else f"of those {' or '.join(dict.fromkeys(own.outcome for own in told))}, "
    about = "" if len(lines) == 1 else f"{among}most apart at {line.threat}: "
    return f"{text}; {about}{measured_text(line, planned)}."


def _leading(lines: Sequence[PairTest]) -> list[PairTest]:
    """The lines whose verdict says most; none without a result."""
    for outcomes in (("higher", "lower"), *((outcome,) for outcome in TOLD[2:-1])):
        if own := [line for line in lines if line.outcome in outcomes]:
            return own
    return []


def _most_apart(lines: Iterable[PairTest]) -> PairTest:
    return max(lines, key=lambda line: abs(line.mean))


def _flags_sentence(summary: Summary, lines: Sequence[PairTest], pair: tuple[str, str], names: tuple[str, str]) -> str:
    """How many comparisons are withdrawn, whose flags did it, and the largest difference that is no more."""
    second, first = names
    compared = sum(bool(line.seeds) for line in lines)
    withdrawn = [line for line in lines if line.withdrawn]
    if not compared:
        return f"Flags: there is no comparison of {second} and {first} that any could take away."
    if withdrawn:
        largest = _most_apart(withdrawn)
        lead = "Flags" if summary.audit.wanted else "This suite is not audited (`audit: off`): flags"
        return (
            f"{lead} took away {len(withdrawn)} of {compared} comparisons of {second} with {first} "
            f"({_flags_of(summary, withdrawn, pair)}); the largest, {_place(largest)}: "
            f"{measured_text(largest, summary.results.seeds)}{_beside(largest, lines)}."
        )
    return (
        f"Flags took away none of the {compared} comparisons of {second} with {first}, which is no proof that the "
        "attacks were strong enough."
    )


def _flags_of(summary: Summary, withdrawn: Sequence[PairTest], pair: tuple[str, str]) -> str:
    """Which model has which flags, the second model of the pair first."""
    texts = []
    for model in reversed(pair):
        groups = (("none" if line.threat == CLEAN else line.what, line.threat) for line in withdrawn)
        names = sorted({name for group in groups for name in summary.values(model, *group).flags})
        texts += [f"{marked(model)}: {', '.join(map(escaped, names))}"] if names else []
    return "; ".join(texts)


def _beside(line: PairTest, lines: Sequence[PairTest]) -> str:
    """What the worst case says where a single attack is withdrawn; nothing of a worst case or a clean accuracy."""
    worst = next((other for other in lines if other.what == WORST and other.threat == line.threat), None)
    if line is worst or worst is None or not worst.seeds:
        return ""
    if worst.withdrawn:
        return "; the worst case there is withdrawn, too"
    return f"; the worst case there is {_sides(worst)}"


def _place(line: PairTest) -> str:
    return "on clean examples" if line.threat == CLEAN else f"{escaped(line.what)} at {line.threat}"


def _sides(line: PairTest) -> str:
    first, second = line.means
    return f"{percent(second):.1f} % against {percent(first):.1f} %"


def measured_text(line: PairTest, planned: int) -> str:
    """Both means, the difference, and what it rests on: seeds, examples, and the p-value or what is lacking."""
    n = len(line.seeds)
    details = [f"{n} of {planned} seeds" if n < planned else "one seed" if n == 1 else f"{n} seeds"]
    if interval := interval_text(line, "95 % over examples ", ""):
        details.append(interval)
    if line.outcome in ("higher", "lower"):
        details.append(f"p = {line.p:.2g}")
    elif line.outcome == "equivalent":
        details.append(f"p = {line.p_equivalent:.2g}")
    elif line.outcome == "not compared":
        details.append(line.settled)
    lacking = f"; {line.verdict.removeprefix('undecided: ')}" if line.outcome == "undecided" else ""
    return f"{_sides(line)}, {percent(line.mean):+.1f} points ({', '.join(details)}{lacking})"


def _radii(threats: Iterable[Threat]) -> str:
    """`L-inf 0.1, 0.2; L2 0.5`."""
    by_norm = groupby(threats, key=lambda threat: threat.norm)
    return "; ".join(f"{NORM_NAMES[norm]} {', '.join(format_eps(own.eps) for own in of)}" for norm, of in by_norm)
