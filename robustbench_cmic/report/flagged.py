"""Flags as text: what was raised, about which numbers, on what evidence, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from tabulate import tabulate

from robustbench_cmic.audit import RULES
from robustbench_cmic.report.board import Board, Raised
from robustbench_cmic.report.numbers import escaped, table
from robustbench_cmic.report.selecting import size_of

HEADERS = ["model", "seed", "flag", "about", "evidence"]


def flag_section(board: Board) -> Iterator[str]:
    """The leaderboard's section: every flag, and the meaning of those that were raised."""
    yield "## Flags\n"
    if not board.flags:
        yield "No flag was raised.\n"
        return
    rows = [
        [f"`{flag.model}`", flag.seed, flag.name, escaped(about(flag)), escaped(flag.evidence)] for flag in board.flags
    ]
    yield table(rows, HEADERS)
    raised = {flag.name for flag in board.flags}
    for name in [rule for rule in RULES if rule in raised]:
        yield f"- **{name}**: {RULES[name].meaning} ({RULES[name].source})"
    yield ""


def flag_table(board: Board) -> str:
    """The flags for the terminal, under the name of the suite."""
    suite = board.results.plan.suite
    if not board.flags:
        return f"{suite}: no flag raised"
    rows = [[flag.model, flag.seed, flag.name, about(flag), flag.evidence] for flag in board.flags]
    return f"{suite}: {len(rows)} flags\n\n{tabulate(rows, headers=HEADERS, disable_numparse=True)}\n"


def about(flag: Raised) -> str:
    """Which numbers a flag is about: `PGD at L-inf 0.1, L-inf 0.2`, attack by attack."""
    if flag.everything:
        return "everything"
    if flag.ball is not None:
        return f"worst case, {size_of(flag.ball)}"
    found: dict[str, list[tuple[str, float]]] = {}
    for cell in sorted(flag.about, key=lambda cell: (cell.attack, cell.norm, cell.eps)):
        found.setdefault(cell.attack, []).append((cell.norm, cell.eps))
    return "; ".join(f"{name} at {', '.join(size_of(ball) for ball in where)}" for name, where in found.items())
