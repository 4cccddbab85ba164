"""Suites judged on held-out training examples: every setting that was tried, and the one that a rule chooses.

**The rule.** Of the settings of one rival, which are the models of one entry of the suite's file, the one with the
highest mean over seeds of the clean accuracy on the held-out examples. Of equal ones that with the higher mean worst
case in the suite's smallest ball, and of equal ones still the one that the file lists first. A setting without a result
in every seed is not chosen. No test example has a part in it.
"""

from __future__ import annotations

from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import Code, Strong, Table, seeds_text
from robustbench_cmic.suite.fields import CLEAN

CHOSEN = "chosen"


def chosen_settings(summary: Summary) -> dict[str, str]:
    """By the name of a rival the model that the rule chooses; a rival without any complete setting is left out."""
    chosen = {}
    for rival, models in summary.results.plan.settings.items():
        merits = {model: merit for model in models if (merit := _merit(summary, model)) is not None}
        if merits:
            chosen[rival] = max(merits, key=lambda model: merits[model])  # of equal ones the first
    return chosen


def _merit(summary: Summary, model: str) -> tuple[float, float] | None:
    """What settings are compared by, the greater the better; None of one that is not to be chosen."""
    clean = summary.values(model, "none", CLEAN)
    if clean.mean is None or len(clean.values) < summary.results.seeds:
        return None
    threats = summary.results.threats
    worst = summary.values(model, WORST, threats[0]).mean if threats else None
    return clean.mean, worst or 0.0


def settings_table(summary: Summary) -> Table:
    """Every setting of every rival, in the order of the file; without rows where the suite chooses none."""
    chosen, threats = chosen_settings(summary), summary.results.threats
    rows = []
    for rival, models in summary.results.plan.settings.items():
        for model in models:
            mark = Strong(CHOSEN) if chosen.get(rival) == model else ""
            measured = [seeds_text(summary.values(model, "none", CLEAN), summary)]
            measured += [seeds_text(summary.values(model, WORST, threat), summary) for threat in threats[:1]]
            rows.append([rival, Code(model), *measured, mark])
    worst = [f"{WORST} %, {threat}" for threat in threats[:1]]
    return Table(["rival", "setting", f"clean {ACCURACY.head}", *worst, ""], rows)
