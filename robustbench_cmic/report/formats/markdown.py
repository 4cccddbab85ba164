"""`leaderboard.md`: the tables for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from tabulate import tabulate

from robustbench_cmic.audit import RULES
from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.costs import COSTS, PARTS, TRANSFERS, cost_table, parts_table, transfer_tables
from robustbench_cmic.report.frame import size_of
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.summary import RaisedFlag, Summary
from robustbench_cmic.report.tables import (
    Code,
    Strong,
    Table,
    clean_table,
    escaped,
    pair_table,
    percent,
    robust_tables,
    seed_table,
    spread,
    table,
)
from robustbench_cmic.suite.fields import format_eps

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


def leaderboard(board: Summary) -> str:
    """The whole file as Markdown."""
    return "\n".join(_sections(board)).rstrip() + "\n"


def _sections(board: Summary) -> Iterator[str]:
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


def reading(board: Summary) -> str:
    """How the numbers are to be read, as Markdown."""
    over = "one seed, which shows nothing about the method" if board.seeds == 1 else f"{board.seeds} seeds"
    audited = _AUDITED if board.audit.wanted else _NOT_AUDITED
    return _READING.format(n=" or ".join(map(str, board.examples)), seeds=over, audited=audited)


def _missing(board: Summary) -> Iterator[str]:
    """What is missing, before anything is shown."""
    if board.missing is None:
        return
    counts = ", ".join(f"{count} {status}" for status, count in board.missing.counts.items())
    yield f"**Incomplete:** of {len(board.results.plan.cells)} cells {counts}.\n"
    for status, cell, reason in board.missing.reasons:
        yield f"- {status}: `{cell}`: {escaped(reason)}"
    yield ""


def _limited_section(board: Summary) -> Iterator[str]:
    if not board.results.limited:
        return
    yield "## Limited evaluations: not ranked\n"
    yield "Run with `--limit` on a fixed pseudo-random subset of the test set only; for trying things out.\n"
    rows = []
    for cell in board.results.limited:
        record = board.results.attack(cell)
        if record is not None and record.accuracy is not None:
            shown = percent([record.accuracy], 1)
            rows.append([f"`{cell.model}`", cell.seed, escaped(cell.attack), format_eps(cell.eps), record.n, shown])
    yield table(rows, ["model", "seed", "attack", "eps", "examples", "accuracy %"])


def _about(board: Summary) -> Iterator[str]:
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


def cost_sections(results: Results) -> Iterator[str]:
    """The leaderboard's sections: transfers between models, what attacks cost and add, and the parts of attacks."""
    transfers = transfer_tables(results)
    if transfers:
        yield f"## Transfer between models\n\n{TRANSFERS}"
    for where, found in transfers.items():
        yield f"{escaped(where)}:\n"
        yield markdown(found)
    for heading, text, rows in (
        ("What attacks cost and add", COSTS, cost_table(results)),
        ("Parts of attacks", PARTS, parts_table(results)),
    ):
        if rows.rows:
            yield f"## {heading}\n"
            yield text
            yield markdown(rows)


HEADERS = ["model", "seed", "flag", "about", "evidence"]


def flag_section(board: Summary) -> Iterator[str]:
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


def flag_table(board: Summary) -> str:
    """The flags for the terminal, under the name of the suite."""
    suite = board.results.plan.suite
    if not board.flags:
        return f"{suite}: no flag raised"
    rows = [[flag.model, flag.seed, flag.name, about(flag), flag.evidence] for flag in board.flags]
    return f"{suite}: {len(rows)} flags\n\n{tabulate(rows, headers=HEADERS, disable_numparse=True)}\n"


def about(flag: RaisedFlag) -> str:
    """Which numbers a flag is about: `PGD at L-inf 0.1, L-inf 0.2`, attack by attack."""
    if flag.everything:
        return "everything"
    if flag.ball is not None:
        return f"worst case, {size_of(flag.ball)}"
    found: dict[str, list[tuple[str, float]]] = {}
    for cell in sorted(flag.about, key=lambda cell: (cell.attack, cell.norm, cell.eps)):
        found.setdefault(cell.attack, []).append((cell.norm, cell.eps))
    return "; ".join(f"{name} at {', '.join(size_of(ball) for ball in where)}" for name, where in found.items())


def markdown(found: Table) -> str:
    """A table with a blank line behind it."""
    return table([[_cell(cell) for cell in row] for row in found.rows], [escaped(text) for text in found.headers])


def _cell(text: str) -> str:
    if isinstance(text, Code):
        return f"`{text}`"
    return f"**{escaped(text)}**" if isinstance(text, Strong) else escaped(text)


READING = """\
The difference is `{second}` minus `{first}`, seed by seed: the mean, and the least and greatest over seeds; a row holds
only seeds that both models have. *95 % over examples*: of that mean, by the paired bootstrap; it has nothing to draw
from where no example's outcome differs in any seed. *Seeds that differ*: in how many of them the examples alone show a
difference of these two trained networks (exact McNemar, p at most 0.05). *Verdict*: whether the method differs, by a
paired t-test over seeds and by the bootstrap; both have to say so. P-values are adjusted by Holm's method over all
pairs: over the rows in bold, which are the claims, and over the others, which are single attacks.
"""


def pair_sections(board: Summary) -> Iterator[str]:
    """A section for each pair of the suite."""
    for first, second in board.pairs:
        yield f"## `{first}` against `{second}`\n"
        yield READING.format(first=first, second=second)
        yield markdown(pair_table(board, first, second))
        yield from (f"{sentence}\n" for sentence in ncmi_sentences(board, first, second))
        by_seed = seed_table(board, first, second)
        if by_seed.rows:
            yield "Claims seed by seed; in parentheses 95 % of the paired bootstrap over examples; p: McNemar's test:\n"
            yield markdown(by_seed)


def ncmi_sentences(board: Summary, first: str, second: str) -> Iterator[str]:
    """What is said of a pair's NCMI on clean examples; nothing where neither has any."""
    for line in board.pairs[first, second]:
        if line.what == "NCMI" and line.seeds:
            sides = zip(*((seed.first, seed.second) for seed in line.seeds.values()), strict=True)
            shown = [spread(list(side), "{:.3g}", board.seeds) for side in sides]
            yield f"NCMI on clean examples: `{first}` {shown[0]}, `{second}` {shown[1]}; verdict: {line.verdict}."
