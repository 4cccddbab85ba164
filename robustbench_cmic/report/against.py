"""One model in many pairs: all its rivals in one table each for clean accuracy and every worst case, ranked.

Verdicts are those of the pairs, whose p-values are adjusted over all of them, see `verdicts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.report.summary import Summary, ranks_of
from robustbench_cmic.report.tables import NOTHING, Code, Strong, Table, difference_text, interval_text, seeds_text
from robustbench_cmic.suite.fields import CLEAN, Threat

RIVALS = 4
"""A model with fewer pairs needs no table over them."""


def baselines(summary: Summary) -> list[str]:
    """The models that stand first in several pairs, in the order of these."""
    counts = Counter(first for first, _ in summary.pairs)
    return [model for model, count in counts.items() if count >= RIVALS]


def against_tables(summary: Summary, baseline: str) -> dict[str, Table]:
    """By what was measured, in words, the baseline and its rivals, the best first."""
    pairs = {second: lines for (first, second), lines in summary.pairs.items() if first == baseline}
    return {
        f"clean {ACCURACY.title}" if threat == CLEAN else f"{WORST}, {threat}": _table(summary, baseline, pairs, threat)
        for threat in (CLEAN, *summary.results.threats)
    }


def _table(summary: Summary, baseline: str, pairs: Mapping[str, Sequence[PairTest]], threat: Threat) -> Table:
    label = "none" if threat == CLEAN else WORST
    numbers = {model: summary.values(model, label, threat) for model in (baseline, *pairs)}
    sound = {model: number.mean or 0.0 for model, number in numbers.items() if not summary.doubts(number)}
    ranks = ranks_of(sound)
    rows = []
    for model in sorted(numbers, key=lambda model: (model not in sound, ranks.get(model, 0))):
        rank = str(ranks[model]) if model in ranks else "flagged" if numbers[model].flags else NOTHING
        text = seeds_text(numbers[model], summary)
        what = ACCURACY.title if threat == CLEAN else WORST
        line = next((line for line in pairs.get(model, ()) if (line.what, line.threat) == (what, threat)), None)
        compared = (
            ["", "", ""] if line is None else [difference_text(line), interval_text(line), line.verdict or NOTHING]
        )
        objective = summary.clean[model].objective
        rows.append([rank, Code(model), objective, Strong(text) if ranks.get(model) == 1 else text, *compared])
    measured = ["difference (points)", "95 % over examples", "verdict"]
    return Table(["rank", "model", "objective", ACCURACY.head, *measured], rows)
