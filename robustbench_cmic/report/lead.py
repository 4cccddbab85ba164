"""What a page says before anything of pairs: the settings chosen, the smallest stable |B_c|, or the NCMI law."""

from __future__ import annotations

from collections.abc import Sequence

from robustbench_cmic.report.class_batches import stable_table
from robustbench_cmic.report.law_text import law_finding
from robustbench_cmic.report.settings import chosen_settings
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import NOTHING, escaped, marked


def lead(summary: Summary) -> list[str]:
    """Sentences as Markdown, of the one of these that a suite is for; none where it is for its pairs alone."""
    plan, seeds = summary.results.plan, summary.results.seeds
    if plan.settings:
        return [_settings_sentence(plan.settings, chosen_settings(summary), summary.examples, seeds)]
    if rows := stable_table(summary).rows:
        return [_sizes_sentence(rows, seeds)]
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


def _sizes_sentence(rows: Sequence[Sequence[str]], seeds: int) -> str:
    """Of the sizes at which accuracy and NCMI are both stable."""
    sizes = {row[0]: row[-1] for row in rows}
    found = [int(size) for size in sizes.values() if size != NOTHING]
    if not found:
        return "Class batches: no size is complete over all seeds."
    span = f"{min(found)}" if min(found) == max(found) else f"{min(found)} to {max(found)}"
    each = "; ".join(f"{escaped(title)}: {size}" for title, size in sizes.items())
    return (
        f"Class batches: clean accuracy and NCMI are stable from |B_c| = {span} on ({each}), within the spread of "
        f"{seeds} seeds, which is no test."
    )
