"""What a page says before anything of pairs: the settings chosen, the smallest stable |B_c|, or the NCMI law."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_cmic.report.class_batches import find_size_lines, size_measures, stable_table
from robustbench_cmic.report.law_text import law_finding
from robustbench_cmic.report.settings import chosen_settings
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import escaped, marked


def lead(summary: Summary) -> list[str]:
    """Sentences as Markdown, of the one of these that a suite is for; none where it is for its pairs alone."""
    plan, seeds = summary.results.plan, summary.results.seeds
    if plan.settings:
        return [_settings_sentence(plan.settings, chosen_settings(summary), summary.examples, seeds)]
    if stable_table(summary).rows:
        return [_sizes_sentence(summary)]
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


def _sizes_sentence(summary: Summary) -> str:
    """Of the sizes at which accuracy and NCMI are both stable, and how much the means depend on the size at all."""
    lines = find_size_lines(summary.results)
    each = "; ".join(f"{escaped(row[0])}: {row[-1]}" for row in stable_table(summary).rows)
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
