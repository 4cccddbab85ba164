"""What attacks cost and what each adds: tables to compare them at equal budget, and transfers between models."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.frame import (
    Ball,
    attacks,
    attacks_in,
    balls,
    by_seed,
    cells_of,
    marginal_shares,
    models,
    planned_seeds,
    size_of,
    survivors,
)
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.tables import NOTHING, Code, Table, percent

COSTS = """\
Sorted by passes through the network an example, mean over models and seeds; compare attacks and models at an equal
budget by the columns *so far*: what survives this attack and all cheaper ones in the ball. *Alone*: examples that no
other attack in the ball breaks. Seconds are of this machine, for all examples. An attack that is `ascending` attacks
only what smaller balls left, and its cost here is for that.
"""
PARTS = "Each part attacks what the parts before it left; examples and passes are means over seeds.\n"
TRANSFERS = "Accuracy in percent of the model of the column on adversarial examples of the model of the row.\n"


def cost_table(results: Results) -> Table:
    """Passes and seconds of each attack, and the share of examples that it alone breaks."""
    names = models(results)
    rows = []
    for ball in balls(results):
        shares = {model: marginal_shares(results, model, ball) for model in names}
        costs = [(_cost(results, names, label, ball), label) for label in attacks(results, ball)]
        known = sorted((cost, label) for cost, label in costs if cost is not None)
        done: list[str] = []
        for (passes, forwards, backwards, seconds), label in known:
            done.append(label)
            columns: list[str] = []
            for model in names:
                columns += [_so_far(results, model, done, ball), _mean_percent(shares[model].get(label, []))]
            size = [size_of(ball), label, f"{passes:.4g}", f"{forwards:.4g}", f"{backwards:.4g}"]
            rows.append([*size, f"{seconds:.3g}", *columns])
    headers = [column for model in names for column in (f"{model} so far %", f"{model} alone %")]
    return Table(["eps", "attack", "passes", "forwards", "backwards", "seconds", *headers], rows)


def _cost(results: Results, names: Sequence[str], label: str, ball: Ball) -> tuple[float, float, float, float] | None:
    """Passes, forwards, backwards an example, and seconds."""
    records = [
        record for model in names for cell in cells_of(results, model, label, ball)
        if (record := results.attack(cell))
    ]  # fmt: skip
    if not records:
        return None
    forwards = statistics.fmean((record.forwards or 0) / (record.n or 1) for record in records)
    backwards = statistics.fmean((record.backwards or 0) / (record.n or 1) for record in records)
    seconds = statistics.fmean(record.timing.seconds for record in records)
    return forwards + backwards, forwards, backwards, seconds


def _so_far(results: Results, model: str, labels: Sequence[str], ball: Ball) -> str:
    """The worst case over some attacks in a ball."""
    alive = survivors(results, [cell for cell in attacks_in(results, model, ball) if cell.attack in labels])
    return _mean_percent([found.accuracy for found in alive.values()])


def _mean_percent(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):.1f}" if values else NOTHING


def parts_table(results: Results) -> Table:
    """What each part of an attack that is made of several broke."""
    rows: list[list[str]] = []
    names = models(results)
    for ball in balls(results):
        for label in attacks(results, ball):
            for model in names:
                records = [results.attack(cell) for cell in cells_of(results, model, label, ball)]
                rows += _parts([record for record in records if record is not None], label, ball, model)
    headers = ["eps", "attack", "model", "part", "attacked", "broken", "forwards", "backwards", "seconds"]
    return Table(headers, rows)


def _parts(records: list[AttackRecord], label: str, ball: Ball, model: str) -> list[list[str]]:
    rows = []
    names = dict.fromkeys(part.name for record in records for part in record.parts)
    for name in names:
        parts = [part for record in records for part in record.parts if part.name == name]
        keys = ("attacked", "broken", "forwards", "backwards", "seconds")
        # A part that had nothing left to attack in some seed counts there as none.
        means = [f"{sum(getattr(part, key) for part in parts) / len(records):.4g}" for key in keys]
        rows.append([size_of(ball), label, Code(model), name, *means])
    return rows


def transfer_tables(results: Results) -> dict[str, Table]:
    """Adversarial examples of one model on another: a matrix for each attack and ball, by their names."""
    names, tables = models(results), {}
    transfers = [cell for cell in results.plan.of("attack") if cell.source is not None]
    for label, ball in dict.fromkeys((_family(cell), (cell.norm, cell.eps)) for cell in transfers):
        rows: list[list[str]] = []
        for source in names:
            columns = []
            for target in names:
                found = by_seed(results, target, f"{label}:{source}", ball)
                columns.append(percent([outcome.accuracy for outcome in found.values()], planned_seeds(results)))
            rows.append([Code(source), *columns])
        tables[f"{label}, {size_of(ball)}"] = Table(["examples of", *(f"on {model}" for model in names)], rows)
    return tables


def _family(cell: Cell) -> str:
    """The label of a transfer without its source."""
    return cell.attack.partition(":")[0]
