"""The leaderboard's section on flags: what was raised, about which numbers, on what evidence, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from tabulate import tabulate

from robustbench_cmic.audit import RULES, Audit, audit
from robustbench_cmic.cell import Cell
from robustbench_cmic.report.numbers import escaped, table
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.selecting import balls, size_of

HEADERS = ["model", "seed", "flag", "about", "evidence"]


def flag_section(results: Results, audit: Audit) -> Iterator[str]:
    """Every flag, and the meaning of those that were raised."""
    yield "## Flags\n"
    rows = flag_rows(results, audit)
    if not rows:
        yield "No flag was raised.\n"
        return
    yield table(rows, HEADERS)
    for name in dict.fromkeys(rule for rule in RULES if any(row[2] == rule for row in rows)):
        yield f"- **{name}**: {RULES[name].meaning} ({RULES[name].source})"
    yield ""


def flag_table(results: Results) -> str:
    """The flags for the terminal, under the name of the suite."""
    audited = audit(results.plan, results.records)
    rows = flag_rows(results, audited)
    if not rows:
        return f"{results.plan.suite}: no flag raised"
    shown = [[cell.replace("\\", "").strip("`") for cell in row] for row in rows]
    return f"{results.plan.suite}: {len(rows)} flags\n\n{tabulate(shown, headers=HEADERS, disable_numparse=True)}\n"


def flag_rows(results: Results, audit: Audit) -> list[list[str]]:
    """A row for each flag, see `HEADERS`; those about a worst case alone come last for each model."""
    cells = {cell.id: cell for cell in results.plan.of("attack")}
    rows = []
    for training in results.plan.of("train"):
        own = [f"`{training.model}`", str(training.seed)]
        for flag in audit.flags.get(training.id, []):
            about = "everything" if flag.taints == "model" else _about([cells[cell] for cell in flag.cells])
            rows.append([*own, flag.name, about, escaped(flag.evidence)])
        for ball in balls(results):
            weak = [flag for flag in audit.of_worst_case(training.id, ball) if flag.name == "no-strong-attack"]
            rows += [[*own, flag.name, f"worst case, {size_of(ball)}", escaped(flag.evidence)] for flag in weak]
    return rows


def _about(cells: list[Cell]) -> str:
    """`PGD, L-inf 0.1, 0.2`: attack by attack the balls."""
    found: dict[str, list[tuple[str, float]]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.attack, cell.norm, cell.eps)):
        found.setdefault(cell.attack, []).append((cell.norm, cell.eps))
    return "; ".join(
        f"{escaped(name)} at {', '.join(size_of(ball) for ball in where)}" for name, where in found.items()
    )
