"""What attacks cost and what each adds: tables to compare them at equal budget, and transfers between models."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

from robustbench_cmic.records.schema import AttackRecord
from robustbench_cmic.report.frame import marginal_shares, survivors
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import NOTHING, Code, Table, percent
from robustbench_cmic.suite.fields import Threat

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


def cost_table(summary: Summary) -> Table:
    """Passes and seconds of each attack, and the share of examples that it alone breaks."""
    models, frame = summary.results.models, summary.frame
    by_model = marginal_shares(frame).groupby(["model", "attack", "norm", "eps"])
    shares = {key: fmean(values) for key, values in by_model["share"]}
    rows = []
    for threat, costs in _costs(frame).items():
        alive: dict[str, dict[int, NDArray[np.bool_] | None]] = {model: {} for model in models}
        for *passes, seconds, label in sorted(costs):
            columns: list[str] = []
            for model in models:
                so_far = alive[model]
                for seed, row in summary.groups[model, label, threat].items():
                    if row.counted:
                        so_far[seed] = survivors([so_far.get(seed, row.outcomes), row.outcomes])
                left = [outcomes.mean() for outcomes in so_far.values() if outcomes is not None]
                columns += [_percent(fmean(left) if left else None), _percent(shares.get((model, label, *threat)))]
            rows.append([str(threat), label, *(f"{value:.4g}" for value in passes), f"{seconds:.3g}", *columns])
    headers = [column for model in models for column in (f"{model} so far %", f"{model} alone %")]
    return Table(["eps", "attack", "passes", "forwards", "backwards", "seconds", *headers], rows)


def _costs(frame: pd.DataFrame) -> dict[Threat, list[tuple[float, float, float, float, str]]]:
    """At each threat of each attack passes, forwards and backwards an example, seconds (means), and its label."""
    costs: dict[Threat, list[tuple[float, float, float, float, str]]] = {}
    measured = frame[frame["counted"] & frame["accuracy"].notna()]
    spent: Any = measured.groupby(["norm", "eps", "attack"])
    for (norm, eps, label), group in spent:
        forwards, backwards = (fmean(group[name] / group["n"]) for name in ("forwards", "backwards"))
        cost = forwards + backwards, forwards, backwards, fmean(group["seconds"]), label
        costs.setdefault(Threat(norm, eps), []).append(cost)
    return costs


def _percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else ACCURACY.text(fraction)


def parts_table(summary: Summary) -> Table:
    """What each part of an attack that is made of several broke."""
    rows: list[list[str]] = []
    for threat in summary.results.threats:
        for label in summary.attacks(threat):
            for model in summary.results.models:
                rows_by_seed = summary.groups[model, label, threat].values()
                records = [summary.results.records.get(row.cell) for row in rows_by_seed]
                parts = _parts(
                    [record for record in records if isinstance(record, AttackRecord) and record.status == "ok"]
                )
                rows += [[str(threat), label, Code(model), *part] for part in parts]
    headers = ["eps", "attack", "model", "part", "attacked", "broken", "forwards", "backwards", "seconds"]
    return Table(headers, rows)


def _parts(records: list[AttackRecord]) -> list[list[str]]:
    rows = []
    for name in dict.fromkeys(part.name for record in records for part in record.parts):
        parts = [part for record in records for part in record.parts if part.name == name]
        keys = ("attacked", "broken", "forwards", "backwards", "seconds")
        # A part that had nothing left to attack in some seed counts there as none.
        rows.append([name, *(f"{sum(getattr(part, key) for part in parts) / len(records):.4g}" for key in keys)])
    return rows


def transfer_tables(summary: Summary) -> dict[str, Table]:
    """Adversarial examples of one model on another: a matrix for each attack and threat, by their names."""
    results, tables = summary.results, {}
    transfers = [cell for cell in results.plan.of("attack") if cell.source is not None]
    for label, threat in dict.fromkeys(
        (cell.attack.partition(":")[0], Threat(cell.norm, cell.eps)) for cell in transfers
    ):
        rows: list[list[str]] = []
        for source in results.models:
            numbers = [summary.values(target, f"{label}:{source}", threat) for target in results.models]
            rows.append([Code(source), *(percent(number.values.values(), results.seeds) for number in numbers)])
        tables[f"{label}, {threat}"] = Table(["examples of", *(f"on {model}" for model in results.models)], rows)
    return tables
