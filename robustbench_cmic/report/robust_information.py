"""Robust CMI, separation and NCMI: measured on the examples of each ball's strongest attack, by its name."""

from __future__ import annotations

from robustbench_cmic.report.metrics import ACCURACY, METRICS, NCMI
from robustbench_cmic.report.summary import RankedModel, Summary
from robustbench_cmic.report.tables import NOTHING, Code, Table, seeds_text
from robustbench_cmic.suite.fields import format_eps

ROBUST = tuple(metric for metric in METRICS if metric.name in ("cmi", "separation", "ncmi"))


def strongest_attack(standing: RankedModel) -> str | None:
    """The attack that leaves the fewest examples correct, the mean over seeds; of several the first of the suite.

    Of those with results of the most seeds; transfers, which are found on another model, are left out. None where
    nothing was attacked.
    """
    own = {label: number for label, number in standing.attacks.items() if ":" not in label and number.values}
    most = max((len(number.values) for number in own.values()), default=0)
    whole = {label: number.mean or 0.0 for label, number in own.items() if len(number.values) == most}
    return min(whole, key=whole.__getitem__, default=None)


def robust_information(summary: Summary) -> dict[str, Table]:
    """For each norm, at each threat and for each model, information on what the strongest attack returned."""
    rows: dict[str, list[list[str]]] = {}
    for threat, standings in summary.standings.items():
        for standing in standings:
            label = strongest_attack(standing)
            if label is None:
                continue
            measured = [summary.values(standing.model, label, threat, metric.name) for metric in ROBUST]
            texts = [seeds_text(number, summary, metric) for number, metric in zip(measured, ROBUST, strict=True)]
            clean = seeds_text(summary.clean[standing.model].measures[NCMI.name], summary, NCMI)
            told = [label, seeds_text(standing.attacks[label], summary, ACCURACY), *texts, clean, _flags(standing)]
            rows.setdefault(threat.norm, []).append([format_eps(threat.eps), Code(standing.model), *told])
    heads = ["eps", "model", "strongest attack", "accuracy %", *(f"robust {metric.head}" for metric in ROBUST)]
    return {norm: Table([*heads, "NCMI, clean", "flags in the ball"], own) for norm, own in rows.items()}


def _flags(standing: RankedModel) -> str:
    """All that were raised about the model in this ball: what saturates under one attack does so under others, too."""
    raised = {name for number in standing.attacks.values() for name in number.flags}
    return ", ".join(sorted(raised | set(standing.worst.flags))) or NOTHING
