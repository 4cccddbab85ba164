"""`leaderboard.md`: the tables for people."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator

from robustbench_cmic.audit import Audit
from robustbench_cmic.cell import Cell
from robustbench_cmic.report.about import provenance, what_was_run
from robustbench_cmic.report.costs import cost_section, parts_section, transfer_section
from robustbench_cmic.report.flagged import flag_section
from robustbench_cmic.report.numbers import NOTHING, bold, escaped, percent, spread, table
from robustbench_cmic.report.pairs import pair_sections
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.selecting import (
    CLEAN,
    NORM_NAMES,
    attacks,
    balls_by_norm,
    by_seed,
    cells_of,
    models,
    planned_seeds,
)
from robustbench_cmic.report.worst_case import Ball, worst_case
from robustbench_cmic.suite.numbers import radius

_READING = """\
Accuracies are percentages of the {n} test examples, mean ± standard deviation over {seeds}. **Worst case** counts an
example only if it survives every attack run at that norm and eps, and at any smaller eps (the mean of the minimum over
attacks, example by example); an attack that was not run there (–) is not in it. An attack that fails proves nothing:
it may be the attack that is weak. {audited} Compare models by their worst case; even an unflagged one is an upper bound
on robustness, and no flag is no proof.
"""
_AUDITED = """\
The audit checks whether the attacks were able to succeed: a number marked † is flagged, and so is a model without a
rank; the flags are listed below with their reasons."""
_NOT_AUDITED = (
    "**This suite is not audited** (`audit: off`): nothing was checked for masked gradients, and nothing is ranked."
)


def leaderboard(results: Results, audit: Audit) -> str:
    """The whole file as Markdown."""
    return "\n".join(_sections(results, audit)).rstrip() + "\n"


def _sections(results: Results, audit: Audit) -> Iterator[str]:
    plan = results.plan
    yield f"# {plan.suite}\n"
    if plan.description:
        yield f"{escaped(plan.description)}\n"
    yield from _standing(results)
    measured = [record for cell in plan.of("attack") if (record := results.attack(cell))]
    if measured:
        counts = sorted({record.n or 0 for record in measured})
        seeds = planned_seeds(results)
        over = "one seed, which shows nothing about the method" if seeds == 1 else f"{seeds} seeds"
        audited = _AUDITED if audit.wanted else _NOT_AUDITED
        reading = _READING.format(n=" or ".join(map(str, counts)), seeds=over, audited=audited)
        yield textwrap.fill(reading, 120) + "\n"
        yield from _clean_section(results, audit)
        yield from _robust_section(results, audit)
        yield from pair_sections(results, audit)
        yield from flag_section(results, audit)
        yield from transfer_section(results)
        yield from cost_section(results)
        yield from parts_section(results)
    yield from _limited_section(results)
    yield from what_was_run(results)
    yield from provenance(results)


def _standing(results: Results) -> Iterator[str]:
    """What is missing, before anything is shown."""
    cells = results.plan.cells
    by_status: dict[str, list[Cell]] = {}
    for cell in cells:
        record = results.records.get(cell.id)
        trainings = [results.records.get(other or "") for other in (cell.needs, cell.source)]
        lost = any(training is not None and training.status != "ok" for training in trainings)
        status = "skipped" if lost else record.status if record is not None else "not run"
        by_status.setdefault(status, []).append(cell)
    if len(by_status.get("ok", ())) == len(cells):
        return
    counts = ", ".join(f"{len(found)} {status}" for status, found in sorted(by_status.items()))
    yield f"**Incomplete:** of {len(cells)} cells {counts}.\n"
    for status in ("diverged", "failed"):
        for cell in by_status.get(status, ()):
            yield f"- {status}: `{cell.id}`: {escaped(results.records[cell.id].reason)}"
    yield ""


def _clean_section(results: Results, audit: Audit) -> Iterator[str]:
    yield "## Clean test examples\n"
    planned = planned_seeds(results)
    objectives = {cell.model: cell.objective for cell in results.plan.cells}
    rows = []
    for model in models(results):
        cells = cells_of(results, model, "none", CLEAN)
        measures = [record.information for cell in cells if (record := results.attack(cell)) and record.information]
        columns = [
            [measure.ncmi for measure in measures if measure.ncmi is not None],
            [measure.cmi for measure in measures],
            [measure.separation for measure in measures],
        ]
        shown = [spread(values, "{:.3g}", planned) for values in columns]
        rows.append([f"`{model}`", objectives[model], _accuracy(results, audit, model, "none", CLEAN), *shown])
    yield table(rows, ["model", "objective", "accuracy %", "NCMI", "CMI (nats)", "separation (nats)"])


def _accuracy(results: Results, audit: Audit, model: str, attack: str, ball: Ball) -> str:
    """Accuracy in percent over seeds, with a mark where any of them is flagged."""
    found = by_seed(results, model, attack, ball)
    text = percent([outcome.accuracy for outcome in found.values()], planned_seeds(results))
    marked = any(audit.of_cell(cell) for cell in cells_of(results, model, attack, ball))
    return f"{text} †" if marked and text != NOTHING else text


def _robust_section(results: Results, audit: Audit) -> Iterator[str]:
    for norm, balls in balls_by_norm(results).items():
        names = list(dict.fromkeys(name for ball in balls for name in attacks(results, ball)))
        own = [name for name in names if ":" not in name]  # transfers have a table of their own
        yield f"## Accuracy under attack, {NORM_NAMES[norm]}\n"
        rows = []
        for ball in balls:
            for rank, model, worst in ranking(results, audit, ball):
                columns = [_accuracy(results, audit, model, name, ball) for name in own]
                shown = bold(worst) if rank == "1" else worst
                rows.append([radius(ball[1]), rank, f"`{model}`", *columns, shown])
        yield table(rows, ["eps", "rank", "model", *(f"{escaped(name)} %" for name in own), "worst case %"])


def ranking(results: Results, audit: Audit, ball: Ball) -> list[tuple[str, str, str]]:
    """(rank, model, worst case in percent) in a ball: the best first; what is flagged or incomplete last, unranked.

    Equal worst cases share a rank.
    """
    planned = planned_seeds(results)
    ranked, apart = [], []
    for model in models(results):
        found = worst_case(results, model, ball)
        values = [outcome.accuracy for outcome in found.values()]
        text = percent(values, planned)
        trainings = [cell.id for cell in results.plan.of("train") if cell.model == model]
        if any(audit.of_worst_case(training, ball) for training in trainings) and values:
            apart.append(("flagged", model, f"{text} †"))
        elif len(values) < planned:
            apart.append((NOTHING, model, text))
        else:
            ranked.append((statistics.fmean(values), model, text))
    best = sorted(ranked, key=lambda entry: -entry[0])
    places = [str(1 + sum(other > mean for other, _, _ in best)) for mean, _, _ in best]
    return [(place, model, text) for place, (_, model, text) in zip(places, best, strict=True)] + apart


def _limited_section(results: Results) -> Iterator[str]:
    if not results.limited:
        return
    yield "## Limited evaluations: not ranked\n"
    yield "Run with `--limit` on the first examples of the test set only; for trying things out.\n"
    rows = []
    for cell in results.limited:
        record = results.attack(cell)
        if record is not None and record.accuracy is not None:
            shown = percent([record.accuracy], 1)
            rows.append([f"`{cell.model}`", cell.seed, escaped(cell.attack), radius(cell.eps), record.n, shown])
    yield table(rows, ["model", "seed", "attack", "eps", "examples", "accuracy %"])
