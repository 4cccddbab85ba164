"""How far the audit's numbers are over the truth, and which flags say so: honest models and broken defences, on digits.

    python -m tests.maskers.table --output docs/maskers.md

trains the honest models, wraps the maskers around the plain one, attacks and audits all through the command line of
the package, and fails where a masker's worst case is too high and not flagged, or an honest one is right and flagged.
For a few of them, fast: `--quick --seeds 0 --only ReversedLogits vit --folder table`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from robustbench_cmic.audit import RULES
from robustbench_cmic.plan.cell import Cell, title
from robustbench_cmic.records.schema import AuditRecord
from robustbench_cmic.report import Results, summarize
from robustbench_cmic.report.about import origin
from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.tables import escaped, table
from robustbench_cmic.suite.fields import Threat
from tests.maskers.suites import AUTOATTACK, Found, honest_suite, quick, run_all, with_autoattack
from tests.maskers.truth import truths
from tests.maskers.zoo import MASKERS

TOLERATED = 0.03
"""By how much a worst case may be over the truth before somebody has to say so."""
OF_THE_TABLE = {"few-examples", "not-audited"}
"""Flags that say nothing of the model."""


class Row(NamedTuple):
    """The worst case of a trained model in a ball.

    Attributes:
        broken: a masker, not an honest model.
        reported: accuracy (fraction) as reports give it; None where an attack has no result, so that there is none.
        truth: true robust accuracy, or what is nearest to it; None of a model without weights.
        flags: names of the flags of the worst case, sorted.
        elsewhere: names of the model's further flags.
    """

    model: str
    seed: int
    threat: Threat
    broken: bool
    reported: float | None
    truth: float | None
    flags: tuple[str, ...]
    elsewhere: tuple[str, ...]

    @property
    def over(self) -> float | None:
        """How far the reported accuracy is over the truth."""
        return None if self.reported is None or self.truth is None else self.reported - self.truth

    @property
    def problem(self) -> str | None:
        """What the audit does wrong here, as a sentence; None where it is right."""
        where = f"{self.model} with seed {self.seed} at {self.threat}"
        if self.over is None:  # there is no worst case, and so no rank
            return None
        points = f"{100 * self.over:+.1f} points over the truth of {100 * (self.truth or 0):.1f} %"
        if self.broken and self.over > TOLERATED and not self.flags:
            return f"{where} is not flagged: {points}"
        if not self.broken and self.over <= TOLERATED and self.flags:
            return f"{where} is honest, right ({points}), and flagged: {', '.join(self.flags)}"
        return None


def rows_of(found: Found, folder: Path) -> list[Row]:
    """The worst cases of all models in all balls, by the order of suites, models, radii and seeds."""
    rows = []
    for suite, results in found.items():
        known = truths(results, folder / "truth.json")
        summary = summarize(results)
        raised = raised_flags(results)
        for cell in results.plan.of("train"):
            for threat in results.threats:
                flags = {flag.name for flag in summary.audit.of_worst_case(cell.id, threat)} - OF_THE_TABLE
                reported = summary.values(cell.model, WORST, threat).values.get(cell.seed)
                elsewhere = raised[cell.model][cell.seed] - flags - OF_THE_TABLE
                named = tuple(sorted(flags)), tuple(sorted(elsewhere))
                about = cell.model, cell.seed, threat, suite == "maskers"
                rows.append(Row(*about, reported, known.get((cell.id, threat)), *named))
    return rows


def raised_flags(results: Results) -> dict[str, dict[int, set[str]]]:
    """Model -> seed -> names of its flags, those of worst cases among them."""
    trainings = results.plan.of("train")
    found: dict[str, dict[int, set[str]]] = {cell.model: {} for cell in trainings}
    for cell in trainings:
        found[cell.model][cell.seed] = set()
    for flag in summarize(results).flags:
        found[flag.model][flag.seed].add(flag.name)
    return found


def wrong(rows: Sequence[Row], found: Found) -> list[str]:
    """Sentences about worst cases that should have been flagged, or should not, and about audits that crashed."""
    problems = [problem for row in rows if (problem := row.problem)]
    for results in found.values():
        records = [results.records.get(cell.id) for cell in results.plan.of("audit")]
        problems += [f"{title(record.cell)}: {record.reason}" for record in records if record and record.status != "ok"]
    return problems


def page(runs: dict[str, tuple[list[Row], Found]]) -> str:
    """The tables as Markdown; `runs` by their heading."""
    seeds = ", ".join(map(str, sorted({row.seed for rows, _ in runs.values() for row in rows})))
    lines = [
        "# What the audit catches\n",
        "Defences that are none, around one plain network, and honest models, on digits. The truth is what survives "
        "attacks by somebody who knows the defence, judged by its own decision, one image at a time (for two-class "
        f"linear models a closed form). A worst case that is more than {100 * TOLERATED:.0f} points over it has to be "
        "flagged, and one of an honest model that is right must not be. Numbers are means over the seeds "
        f"{seeds}; behind a flag stands for how many seeds and radii it was raised. Made by "
        "`python -m tests.maskers.table` from `tests/maskers`.\n",
    ]
    for heading, (rows, _) in runs.items():
        for title_, broken in (("Maskers", True), ("Honest models", False)):
            chosen = [row for row in rows if row.broken == broken]
            if chosen:
                lines += [f"## {title_}, {heading}\n", _table(chosen)]
    last = next(iter(runs.values()))[1]
    origins = [f"- {label}: {escaped(text)}" for label, text in origin(next(reversed(last.values())))]
    return "\n".join([*lines, "## Where the numbers come from\n", *origins]) + "\n"


def _table(rows: Sequence[Row]) -> str:
    threats = sorted({row.threat for row in rows})
    shown = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        entry = [f"`{model}`"]
        for threat in threats:
            here = [row for row in own if row.threat == threat]
            entry += [_percent(row.truth for row in here), _points(here)]
        entry += [_counted([row.flags for row in own]), _counted([row.elsewhere for row in own])]
        wrongs = sum(row.problem is not None for row in own)
        shown.append([*entry, "right" if not wrongs else f"**wrong {wrongs}/{len(own)}**"])
    columns = [name for threat in threats for name in (f"truth, % at {threat}", "over the truth, points")]
    return table(shown, ["model", *columns, "flags of worst cases", "other flags", "the audit is"])


def _percent(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * sum(known) / len(known):.1f}" if known else "–"


def _points(rows: Sequence[Row]) -> str:
    known = [row.over for row in rows if row.over is not None]
    return f"{100 * sum(known) / len(known):+.1f}" if known else "no result"


def _counted(names: Sequence[tuple[str, ...]]) -> str:
    counts = {name: sum(name in each for each in names) for name in RULES}
    return ", ".join(f"{name} {count}/{len(names)}" for name, count in counts.items() if count) or "none"


def run_table(arguments: argparse.Namespace, folder: Path) -> dict[str, tuple[list[Row], Found]]:
    """Run the suites; where AutoAttack is asked for, what they give without it and with it; results by heading."""
    honest = honest_suite()
    if arguments.seeds:
        honest |= {"seeds": arguments.seeds}
    if arguments.quick:
        honest = quick(honest)
    unknown = set(arguments.only) - {name.__name__ for name in MASKERS} - {model["id"] for model in honest["models"]}
    if unknown - {"two-class-linear"}:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}")
    if not arguments.autoattack:
        found = run_all(honest, folder, MASKERS, arguments.only)
        return {"without AutoAttack": (rows_of(found, folder), found)}
    found = run_all(with_autoattack(honest), folder, MASKERS, arguments.only)
    left_out = {suite: without_autoattack(results) for suite, results in found.items()}
    threats = {cell.threat for results in found.values() for cell in results.plan.of("attack") if _is_autoattack(cell)}
    with_it = [row for row in rows_of(found, folder) if row.threat in threats]
    return {
        "without AutoAttack": (rows_of(left_out, folder), left_out),
        f"with AutoAttack at {', '.join(map(str, sorted(threats)))}": (with_it, found),
    }


def without_autoattack(results: Results) -> Results:
    """What the suite would have given without AutoAttack: no other attack, and no other part of an audit, sees it."""
    cells = [cell for cell in results.plan.cells if not _is_autoattack(cell)]
    records = {
        name: record.model_copy(update={"active": [test for test in record.active if test.of != AUTOATTACK]})
        if isinstance(record, AuditRecord)
        else record
        for name, record in results.records.items()
    }
    return replace(results, plan=results.plan.model_copy(update={"cells": cells}), records=records)


def _is_autoattack(cell: Cell) -> bool:
    return cell.attack == AUTOATTACK


def main() -> int:
    """Run, print, write; 1 where the audit is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--folder", type=Path, help="keep the results here, and go on from them")
    parser.add_argument("--only", nargs="+", default=[], help="maskers or honest models, by name")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of 0 1 2")
    parser.add_argument("--quick", action="store_true", help="at 0.1 alone, without PGD-T and PGD-cmic")
    parser.add_argument("--autoattack", action="store_true", help="with AutoAttack in the largest ball, and without it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs = run_table(arguments, (arguments.folder or Path(temporary)).absolute())
    text = page(runs)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text)
    problems = [f"{heading}: {problem}" for heading, (rows, found) in runs.items() for problem in wrong(rows, found)]
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
