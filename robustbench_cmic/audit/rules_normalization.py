"""Given weights that seem to normalise images by themselves, behind a normalisation put in front of them."""

from __future__ import annotations

from collections.abc import Iterator

from robustbench_cmic.audit.case import AuditedModel, Finding, Rule, ids
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.statistics import mcnemar

_ALPHA = 0.01
_POINTS = 0.01


def better_as_it_is(record: AttackRecord) -> str | None:
    """Both figures, where a clean evaluation is clearly better without the normalisation in front; None elsewhere.

    Clearly: by `_POINTS` of the examples at least, with an exact one-sided p (McNemar) of at most `_ALPHA`.
    """
    without, n = record.without_normalization, record.n or 0
    if without is None or record.accuracy is None or (without.gained - without.lost) < _POINTS * n:
        return None
    if mcnemar(without.gained, without.lost, "greater") > _ALPHA:
        return None
    percent = f"{100 * record.accuracy:.1f} %", f"{100 * without.accuracy:.1f} %"
    return f"{percent[0]} of {n} clean images are right behind it, {percent[1]} without"


def _normalized_twice(model: AuditedModel) -> Iterator[Finding]:
    """Given weights classify clean images clearly better without the normalisation that is put in front of them, as a
    model does that normalises by itself; for such a model `normalization: none` is right.
    """
    for row in model.evaluations:
        if evidence := better_as_it_is(row.record):
            yield ids([row]), "rows", evidence


NORMALIZATION_RULES = (Rule("normalized-twice", _normalized_twice, "this project"),)
"""On the layer in front of given weights."""
