"""What attacks cost and what each adds: tables to compare them at equal budget, and transfers between models."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from statistics import fmean
from typing import Any

from robustbench_cmic.report.frame import marginal_shares, survivors
from robustbench_cmic.report.metrics import ACCURACY
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import NOTHING, Code, Table, spread
from robustbench_cmic.suite.fields import Threat


def cost_sections(summary: Summary) -> dict[str, dict[str, Table]]:
    """What each section on costs shows, by its title: tables by their captions; one without rows is left out."""
    if not summary.examples:
        return {}
    sections = {
        "Transfer between models": _transfer_tables(summary),
        "What attacks cost and add": {"Costs": _cost_table(summary)},
        "Parts of attacks": {"Parts": _parts_table(summary)},
    }
    return {title: tables for title, tables in sections.items() if any(table.rows for table in tables.values())}


def _cost_table(summary: Summary) -> Table:
    """Passes and seconds of each attack, and the share of examples that it alone breaks."""
    models, frame = summary.results.models, summary.frame
    shares = marginal_shares(frame).groupby(["model", "attack", "norm", "eps"])["share"].agg(fmean)
    measured = frame[frame["counted"] & frame["accuracy"].notna()]
    measured = measured.assign(**{name: measured[name] / measured["n"] for name in ("forwards", "backwards")})
    costs = measured.groupby(["norm", "eps", "attack"])[["forwards", "backwards", "seconds"]].agg(fmean).reset_index()
    costs["passes"] = costs["forwards"] + costs["backwards"]
    order = ["norm", "eps", "passes", "forwards", "backwards", "seconds", "attack"]
    cheapest_first: Any = costs.sort_values(order).itertuples()  # whose fields are columns
    alive: dict[tuple[str, Threat], dict[int, Any]] = defaultdict(dict)
    rows = []
    for cost in cheapest_first:
        threat = Threat(cost.norm, cost.eps)
        fractions: list[float | None] = []
        for model in models:
            so_far = alive[model, threat]
            for seed, row in summary.groups.get((model, cost.attack, threat), {}).items():
                if row.counted:
                    so_far[seed] = survivors([so_far.get(seed, row.outcomes), row.outcomes])
            left = [outcomes.mean() for outcomes in so_far.values() if outcomes is not None]
            fractions += [fmean(left) if left else None, shares.get((model, cost.attack, *threat))]
        columns = [NOTHING if fraction is None else ACCURACY.text(fraction) for fraction in fractions]
        passes = (f"{value:.4g}" for value in (cost.passes, cost.forwards, cost.backwards))
        rows.append([str(threat), cost.attack, *passes, f"{cost.seconds:.3g}", *columns])
    headers = [column for model in models for column in (f"{model} so far %", f"{model} alone %")]
    return Table(["eps", "attack", "passes", "forwards", "backwards", "seconds", *headers], rows)


def _parts_table(summary: Summary) -> Table:
    """What each part of an attack that is made of several broke."""
    keys = ("attacked", "broken", "forwards", "backwards", "seconds")
    results, rows = summary.results, []
    for threat in results.threats:
        for label, model in product(summary.attacks(threat), results.models):
            found = (results.attack(row.cell) for row in summary.groups.get((model, label, threat), {}).values())
            records = [record for record in found if record is not None]
            for name in dict.fromkeys(part.name for record in records for part in record.parts):
                parts = [part for record in records for part in record.parts if part.name == name]
                # A part that had nothing left to attack in some seed counts there as none.
                means = (sum(getattr(part, key) for part in parts) / len(records) for key in keys)
                rows.append([str(threat), label, Code(model), name, *(f"{mean:.4g}" for mean in means)])
    return Table(["eps", "attack", "model", "part", *keys], rows)


def _transfer_tables(summary: Summary) -> dict[str, Table]:
    """Adversarial examples of one model on another: a matrix for each attack and threat, by their names."""
    results, tables = summary.results, {}
    transfers = [cell for cell in results.plan.of("attack") if cell.source is not None]
    for label, threat in dict.fromkeys((cell.attack.partition(":")[0], cell.threat) for cell in transfers):
        rows: list[list[str]] = []
        for source in results.models:
            numbers = [summary.values(target, f"{label}:{source}", threat) for target in results.models]
            rows.append([Code(source), *(spread(number.values.values(), results.seeds) for number in numbers)])
        tables[f"{label}, {threat}"] = Table(["examples of", *(f"on {model}" for model in results.models)], rows)
    return tables
