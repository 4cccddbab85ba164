"""What a page says first: the settings chosen, the smallest stable |B_c|, all rivals of a model, or the NCMI law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from robustbench_cmic.report.against import baselines
from robustbench_cmic.report.class_batches import find_size_lines, size_measures, stable_table
from robustbench_cmic.report.finding import NO_RESULT, TOLD, measured_text
from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.law_text import law_finding
from robustbench_cmic.report.metrics import ACCURACY, percent
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.report.settings import chosen_settings
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import escaped, marked
from robustbench_cmic.suite.fields import CLEAN, Threat


def lead(summary: Summary) -> list[str]:
    """Sentences as Markdown, of the one of these that a suite is for; none where it is for its pairs alone."""
    plan, seeds = summary.results.plan, summary.results.seeds
    if plan.settings:
        return [_settings_sentence(plan.settings, chosen_settings(summary), summary.examples, seeds)]
    if rows := stable_table(summary).rows:
        return [_sizes_sentence(summary, rows)]
    if summary.pairs:
        return [text for baseline in baselines(summary) for text in rivals_finding(summary, baseline)]
    return law_finding(summary)


def _settings_sentence(tried: dict[str, list[str]], chosen: dict[str, str], examples: Sequence[int], seeds: int) -> str:
    counted = sum(map(len, tried.values()))
    judged = f"{' or '.join(map(str, examples)) or 'no'} held-out training examples, {seeds} seed{'s' * (seeds > 1)}"
    if not chosen:
        return f"Settings: of {counted} settings of {len(tried)} rivals none has a result in every seed."
    names = ", ".join(map(marked, chosen.values()))
    without = [rival for rival in tried if rival not in chosen]
    rest = f"; none yet of {', '.join(map(escaped, without))}" if without else ""
    return f"Settings: of {counted} settings of {len(tried)} rivals, by clean accuracy on {judged}: {names}{rest}."


def _sizes_sentence(summary: Summary, stable: Sequence[Sequence[str]]) -> str:
    """Of the sizes at which accuracy and NCMI are both stable, and how much the means depend on the size at all."""
    lines = find_size_lines(summary.results)
    each = "; ".join(f"{escaped(row[0])}: {row[-1]}" for row in stable)
    spans = []
    for measure in size_measures(summary, lines):
        means = [
            [mean for model in line.sizes.values() if (mean := measure.numbers[model].mean) is not None]
            for line in lines.values()
        ]
        widest = max((max(own) - min(own) for own in means if own), default=None)
        if measure.decides and widest is not None:
            points = " points" if measure.metric.unit == "%" else ""
            spans.append(f"{measure.metric.text(widest)}{points} in {measure.title}")
    return (
        "Class batches: |B_c| from which clean accuracy and NCMI are stable within the spread of "
        f"{summary.results.seeds} seeds, which is no test: {each}. Over all sizes the means of one line differ by at "
        f"most {' and '.join(spans)}."
    )


def rivals_finding(summary: Summary, baseline: str) -> list[str]:
    """One on clean accuracy, and one on each worst case in which anything is compared."""
    rivals = [second for first, second in summary.pairs if first == baseline]
    sentences = []
    for threat in (CLEAN, *summary.results.threats):
        what = ACCURACY.title if threat == CLEAN else WORST
        lines = {
            rival: line
            for rival in rivals
            for line in summary.pairs[baseline, rival]
            if (line.what, line.threat) == (what, threat)
        }
        if any(line.outcome not in ("", "not compared") for line in lines.values()):
            title = "Clean accuracy" if threat == CLEAN else f"Worst case at {threat}"
            said = f"{_first(summary, baseline, rivals, threat, lines)}; {_outcomes(lines)}"
            sentences.append(f"{title}, {len(rivals)} rivals of {marked(baseline)}: {said}.")
    return sentences


def _first(
    summary: Summary, baseline: str, rivals: Sequence[str], threat: Threat, lines: Mapping[str, PairTest]
) -> str:
    """The model with the most of what may be compared, beside the baseline."""
    label = "none" if threat == CLEAN else WORST
    numbers = {model: summary.values(model, label, threat) for model in (baseline, *rivals)}
    sound = {model: number.mean or 0.0 for model, number in numbers.items() if not summary.doubts(number)}
    best = max(sound, key=lambda model: sound[model], default=None)
    if best is None:
        return "every number is flagged or incomplete"
    if best == baseline:
        return f"none is ahead of it, {percent(sound[best]):.1f} %"
    return f"{marked(best)} is first, {measured_text(lines[best], summary.results.seeds)}"


def _outcomes(lines: Mapping[str, PairTest]) -> str:
    """Whose difference is shown, by name, and how many have which other verdict."""
    parts = []
    for outcome in TOLD:
        own = [rival for rival, line in lines.items() if line.outcome == outcome]
        if outcome in ("higher", "lower"):
            parts.append(f"{', '.join(map(marked, own)) or 'none'} shown {outcome}")
        elif own:
            parts.append(f"{len(own)} {outcome or NO_RESULT}")
    return ", ".join(parts)
