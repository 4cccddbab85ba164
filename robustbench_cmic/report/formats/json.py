"""`report.json`: everything that a report says, for programs. Its layout is versioned."""

from __future__ import annotations

import json
from typing import Any

from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.frame import plain_rows
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.report.summary import RaisedFlag, RankedModel, SeedValues, Summary

REPORT_SCHEMA = "robustbench_cmic/report/1"
Json = dict[str, Any]


def document(summary: Summary) -> str:
    """The file's text. Accuracies, their differences and intervals are fractions; radii are in units of [0, 1]."""
    plan = summary.results.plan
    missing = summary.missing
    content: Json = {
        "schema": REPORT_SCHEMA,
        "suite": plan.suite,
        "description": plan.description,
        "dataset": plan.dataset,
        "seeds": summary.results.seeds,
        "examples": summary.examples,
        "audited": summary.audit.wanted,
        "missing": None if missing is None else {"cells": missing.counts, "reasons": missing.reasons},
        "clean": [
            {"model": entry.model, "objective": entry.objective, "architecture": entry.architecture}
            | {name: _number(values) for name, values in entry.measures.items()}
            for entry in summary.clean
        ],
        "standings": [_standing(entry) for entries in summary.standings.values() for entry in entries],
        "pairs": [
            {"first": first, "second": second, "lines": [_line(line) for line in lines]}
            for (first, second), lines in summary.pairs.items()
        ],
        "flags": [_flag(flag) for flag in summary.flags],
        "rules": {name: {"meaning": rule.meaning, "source": rule.source} for name, rule in summary.rules.items()},
        "rows": plain_rows(summary.frame),
        "models": dict(what_was_run(summary.results)),
        "settings": dict(evaluation_facts(summary.results)),
        "origin": dict(origin(summary.results)),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _number(number: SeedValues) -> Json:
    return {"mean": number.mean, "by_seed": number.values, "flags": number.flags}


def _standing(entry: RankedModel) -> Json:
    single = {label: _number(number) for label, number in entry.attacks.items()}
    names = {"model": entry.model, "rank": entry.rank, "why_not_ranked": entry.why}
    return entry.threat._asdict() | names | {"worst_case": _number(entry.worst), "attacks": single}


def _line(line: PairTest) -> Json:
    seeds = {
        number: {"first": seed.first, "second": seed.second, "interval": seed.interval, "p": seed.p}
        for number, seed in line.seeds.items()
    }
    return {
        "what": line.what,
        **line.threat._asdict(),
        "claim": line.claim,
        "by_seed": seeds,
        "interval": line.interval,
        "p": line.p,
        "flags": line.flags,
        "verdict": line.verdict,
    }


def _flag(flag: RaisedFlag) -> Json:
    names = {"model": flag.model, "seed": flag.seed, "flag": flag.name}
    return names | {"about": flag.about, "cells": flag.cells, "evidence": flag.evidence}
