"""`report.json`: everything that a report says, for programs. Its layout is versioned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from robustbench_cmic.audit import RULES
from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.formats.csv import rows
from robustbench_cmic.report.formats.markdown import about
from robustbench_cmic.report.frame import Ball
from robustbench_cmic.report.pairs import PairTest
from robustbench_cmic.report.summary import RaisedFlag, RankedModel, SeedValues, Summary

SCHEMA = "robustbench_cmic/report/1"
Json = dict[str, Any]


def document(board: Summary) -> str:
    """The file's text. Accuracies, their differences and intervals are fractions; radii are in units of [0, 1]."""
    plan = board.results.plan
    missing = board.missing
    found: Json = {
        "schema": SCHEMA,
        "suite": plan.suite,
        "description": plan.description,
        "dataset": plan.dataset,
        "seeds": board.seeds,
        "examples": board.examples,
        "audited": board.audit.wanted,
        "missing": None if missing is None else {"cells": missing.counts, "reasons": missing.reasons},
        "clean": [
            {"model": entry.model, "objective": entry.objective, "architecture": entry.architecture}
            | {name: _number(getattr(entry, name)) for name in ("accuracy", "ncmi", "cmi", "separation")}
            for entry in board.clean
        ],
        "standings": [_standing(entry) for entries in board.standings.values() for entry in entries],
        "pairs": [
            {"first": first, "second": second, "lines": [_line(line) for line in lines]}
            for (first, second), lines in board.pairs.items()
        ],
        "flags": [_flag(flag) for flag in board.flags],
        "rules": {
            name: {"meaning": rule.meaning, "source": rule.source}
            for name, rule in RULES.items()
            if any(flag.name == name for flag in board.flags)
        },
        "rows": list(rows(board)),
        "models": dict(what_was_run(board.results)),
        "settings": dict(evaluation_facts(board.results)),
        "origin": dict(origin(board.results)),
    }
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _number(number: SeedValues) -> Json:
    return {"mean": number.mean, "by_seed": number.values, "flags": number.flags}


def _ball(ball: Ball) -> Json:
    return {"norm": ball[0], "eps": ball[1]}


def _standing(entry: RankedModel) -> Json:
    own = {label: _number(number) for label, number in entry.attacks.items()}
    names = {"model": entry.model, "rank": entry.rank, "why_not_ranked": entry.why}
    return _ball(entry.ball) | names | {"worst_case": _number(entry.worst), "attacks": own}


def _line(line: PairTest) -> Json:
    seeds = {
        number: {"first": seed.first, "second": seed.second, "interval": seed.interval, "p": seed.p}
        for number, seed in line.seeds.items()
    }
    said: Json = {"interval": line.interval, "p": line.p, "flags": line.flags, "verdict": line.verdict}
    return {"what": line.what, **_ball(line.ball), "claim": line.claim, "by_seed": seeds, **said}


def _flag(flag: RaisedFlag) -> Json:
    cells: Sequence[str] = [cell.id for cell in flag.about]
    whose = {"model": flag.model, "seed": flag.seed, "flag": flag.name}
    return whose | {"about": about(flag), "cells": cells, "evidence": flag.evidence}
