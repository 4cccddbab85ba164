"""`report.json`: everything that a report says, for programs. Its layout is versioned."""

from __future__ import annotations

import json
from typing import Any

from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.frame import plain_rows
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.report.settings import chosen_settings
from robustbench_cmic.report.summary import RankedModel, SeedValues, Summary

REPORT_SCHEMA = "robustbench_cmic/report/1"
Json = dict[str, Any]


def document(summary: Summary) -> str:
    """The file's text. Accuracies, their differences and intervals are fractions; radii are in units of [0, 1]."""
    missing, chosen = summary.missing, chosen_settings(summary)
    content: Json = {
        "schema": REPORT_SCHEMA,
        **_fields(summary.results.plan, "suite", "description", "dataset"),
        "seeds": summary.results.seeds,
        "margin": summary.results.plan.claims.margin / 100,
        "examples": summary.examples,
        "audited": summary.audit.wanted,
        "missing": None if missing is None else {"cells": missing.counts, "reasons": missing.reasons},
        "clean": [
            {"model": model, **_fields(entry, "objective", "architecture")}
            | {name: _number(values) for name, values in entry.measures.items()}
            for model, entry in summary.clean.items()
        ],
        "standings": [_standing(entry) for entries in summary.standings.values() for entry in entries],
        "pairs": [
            {"first": first, "second": second, "lines": [_line(line) for line in lines]}
            for (first, second), lines in summary.pairs.items()
        ],
        "law": [
            _fields(scope, "kind", "title", "name") | {"lines": [line._asdict() for line in scope.lines]}
            for scope in summary.law
        ],
        "flags": [
            _fields(flag, "model", "seed") | {"flag": flag.name} | _fields(flag, "about", "cells", "evidence")
            for flag in summary.flags
        ],
        "tuning": {
            rival: {"settings": models, "chosen": chosen.get(rival)}
            for rival, models in summary.results.plan.settings.items()
        },
        "rules": {name: _fields(rule, "meaning", "source") for name, rule in summary.rules.items()},
        "rows": plain_rows(summary.frame),
        "models": dict(what_was_run(summary.results)),
        "settings": dict(evaluation_facts(summary.results)),
        "origin": dict(origin(summary.results)),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _fields(thing: object, *names: str) -> Json:
    return {name: getattr(thing, name) for name in names}


def _number(number: SeedValues) -> Json:
    return {"mean": number.mean, "by_seed": number.values, "flags": number.flags}


def _standing(entry: RankedModel) -> Json:
    single = {label: _number(number) for label, number in entry.attacks.items()}
    names = {"model": entry.model, "rank": entry.rank, "why_not_ranked": entry.why}
    return entry.threat._asdict() | names | {"worst_case": _number(entry.worst), "attacks": single}


def _line(line: PairTest) -> Json:
    seeds = {number: _fields(seed, "first", "second", "interval", "p") for number, seed in line.seeds.items()}
    tested = {"claim": line.claim, "by_seed": seeds} | _fields(line, "interval", "p", "p_equivalent", "flags")
    tested |= _fields(line, "outcome", "verdict", "detectable", "seeds_needed")
    return {"what": line.what} | line.threat._asdict() | tested
