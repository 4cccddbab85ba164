"""`leaderboard.md`: the tables for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.board import Board
from robustbench_cmic.report.costs import cost_sections
from robustbench_cmic.report.flagged import flag_section
from robustbench_cmic.report.markdown import markdown
from robustbench_cmic.report.numbers import escaped, percent, table
from robustbench_cmic.report.pairs import pair_sections
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.tables import clean_table, robust_tables
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


def leaderboard(board: Board) -> str:
    """The whole file as Markdown."""
    return "\n".join(_sections(board)).rstrip() + "\n"


def _sections(board: Board) -> Iterator[str]:
    plan = board.results.plan
    yield f"# {plan.suite}\n"
    if plan.description:
        yield f"{escaped(plan.description)}\n"
    yield from _missing(board)
    if board.examples:
        yield textwrap.fill(reading(board), 120) + "\n"
        yield "## Clean test examples\n"
        yield markdown(clean_table(board))
        for norm, found in robust_tables(board).items():
            yield f"## Accuracy under attack, {norm}\n"
            yield markdown(found)
        yield from pair_sections(board)
        yield from flag_section(board)
        yield from cost_sections(board.results)
    yield from _limited_section(board)
    yield from _about(board)


def reading(board: Board) -> str:
    """How the numbers are to be read, as Markdown."""
    over = "one seed, which shows nothing about the method" if board.seeds == 1 else f"{board.seeds} seeds"
    audited = _AUDITED if board.audit.wanted else _NOT_AUDITED
    return _READING.format(n=" or ".join(map(str, board.examples)), seeds=over, audited=audited)


def _missing(board: Board) -> Iterator[str]:
    """What is missing, before anything is shown."""
    if board.missing is None:
        return
    counts = ", ".join(f"{count} {status}" for status, count in board.missing.counts.items())
    yield f"**Incomplete:** of {len(board.results.plan.cells)} cells {counts}.\n"
    for status, cell, reason in board.missing.reasons:
        yield f"- {status}: `{cell}`: {escaped(reason)}"
    yield ""


def _limited_section(board: Board) -> Iterator[str]:
    if not board.results.limited:
        return
    yield "## Limited evaluations: not ranked\n"
    yield "Run with `--limit` on a fixed pseudo-random subset of the test set only; for trying things out.\n"
    rows = []
    for cell in board.results.limited:
        record = board.results.attack(cell)
        if record is not None and record.accuracy is not None:
            shown = percent([record.accuracy], 1)
            rows.append([f"`{cell.model}`", cell.seed, escaped(cell.attack), radius(cell.eps), record.n, shown])
    yield table(rows, ["model", "seed", "attack", "eps", "examples", "accuracy %"])


def _about(board: Board) -> Iterator[str]:
    yield "## What was run\n"
    for name, text in what_was_run(board.results):
        yield f"- `{name}`: {escaped(text)}"
    for name, text in evaluation_facts(board.results):
        yield f"- {escaped(name)}: {escaped(text)}"
    yield ""
    yield from origin_section(board.results)


def origin_section(results: Results) -> Iterator[str]:
    """Code, versions and machines behind the records."""
    facts = origin(results)
    if facts:
        yield "## Where the numbers come from\n"
        for label, text in facts:
            yield f"- {label}: {escaped(text)}"
