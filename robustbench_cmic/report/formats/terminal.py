"""The core of a board for the terminal: what a run, and a report on one suite, ends with."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from robustbench_cmic.report.finding import finding
from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.lead import lead
from robustbench_cmic.report.metrics import ACCURACY, percent
from robustbench_cmic.report.pairs import PairTest, title_of
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import NOTHING, plain, rank_of, seeds_text
from robustbench_cmic.report.verdicts import names_of_pair
from robustbench_cmic.suite.fields import CLEAN

MOST = 10
"""Models that standings and flags name; the leaderboard has all."""
NARROWEST = 80
"""Columns of text that no terminal shows."""


def print_board(summary: Summary, console: Console) -> None:
    """Print the core of a board: as tables on a terminal, as plain text elsewhere."""
    if console.is_terminal:
        console.print(terminal_board(summary, box.SIMPLE_HEAD), soft_wrap=False)
    else:
        console.print(board_text(summary, console.width), markup=False, highlight=False, soft_wrap=True, end="")


def board_text(summary: Summary, width: int = NARROWEST) -> str:
    """The core of a board as lines of at most `width` columns, 80 at least; nothing but letters."""
    file = io.StringIO()
    console = Console(file=file, width=max(width, NARROWEST), color_system=None, force_terminal=False)
    console.print(terminal_board(summary, None))
    return "".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines())


def model_text(summary: Summary, width: int) -> str:
    """The one model of a suite of one seed, as `terminal_board` shows it, in lines of at most so many columns."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False)
    head = _text(f"accuracy in % of {summary.examples[0]} examples; † flagged")
    console.print(Group(head, *_model_board(summary, None)))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _model_board(summary: Summary, lines: box.Box | None) -> Iterator[RenderableType]:
    """Of one model of one seed what every attack leaves in every ball, and each flag with its numbers."""
    model, clean = next(iter(summary.clean.items()))
    yield _text(f"without an attack: {seeds_text(clean.measures[ACCURACY.name], summary)}")
    found = {threat: entries[0] for threat, entries in summary.standings.items()}
    table = _table(lines, ["", *map(str, found)])
    for label in dict.fromkeys(label for entry in found.values() for label in entry.attacks):
        table.add_row(*map(_text, (label, *(seeds_text(each.attacks.get(label), summary) for each in found.values()))))
    table.add_row(*map(_text, (WORST, *(seeds_text(each.worst, summary) for each in found.values()))), style="bold")
    intervals = [
        summary.interval_over_examples(model, WORST, threat) if entry.worst.values else None
        for threat, entry in found.items()
    ]
    shown = (NOTHING if ends is None else " … ".join(f"{percent(each):.1f}" for each in ends) for ends in intervals)
    table.add_row(*map(_text, ("95 %", *shown)))
    yield table
    for flag in summary.flags:
        if summary.audit.wanted or flag.name != "not-audited":
            yield _text(f"† {flag.name} ({flag.about}){f': {flag.evidence}' if flag.evidence else ''}")
    if not summary.audit.wanted:
        yield _text(f"{model} is not audited: nothing says whether the attacks were able to succeed")
    elif not summary.flags:
        yield _text("no flag was raised, which is no proof: a worst case is an upper bound")


def terminal_board(summary: Summary, lines: box.Box | None) -> RenderableType:
    """What was compared, a table a pair (standings where there is none), the flags of the models, what these took away.

    Args:
        summary: of the suite.
        lines: those that the tables are drawn with; None for plain text.
    """
    results = summary.results
    parts: list[RenderableType] = [_head(summary)]
    if not summary.examples:
        return Group(*parts)
    if len(results.models) == results.seeds == 1:
        return Group(*parts, _text(), *_model_board(summary, lines), _text())
    for first, second in summary.pairs:
        named = (f"{model} ({title_of(results.trainings[model])})" for model in (second, first))
        parts += [_text(), _text(" against ".join(named), "bold"), _pair_table(summary, first, second, lines)]
        if any(len(line.seeds) < results.seeds for line in summary.pairs[first, second] if line.seeds):
            parts.append(_text("diff.: over the seeds that both models have a result for"))
        parts += [_flags_of(summary, model) for model in (first, second)]
        if any(line.withdrawn for line in summary.pairs[first, second]):
            parts.append(_text(finding(summary, first, second)[-1].replace("`", "")))
    parts += [_text(sentence.replace("\\", "")) for sentence in lead(summary)]
    if not summary.pairs:
        models = list(summary.clean)
        parts += [_text(), _standings(summary, lines), *(_flags_of(summary, model) for model in models[:MOST])]
        if len(models) > MOST:
            flagged = len({flag.model for flag in summary.flags} - set(models[:MOST]))
            parts.append(_text(f"of {len(models) - MOST} more models {flagged} have flags"))
    return Group(*parts, _text())


def _text(words: str = "", style: str = "") -> Text:
    """Words of a suite's own neither steer the terminal nor are read as markup."""
    return Text(plain(words), style)


def _head(summary: Summary) -> Text:
    results, parts = summary.results, []
    if summary.examples:
        seeds = "one seed" if results.seeds == 1 else f"mean ± standard deviation of {results.seeds} seeds"
        examples = " or ".join(map(str, summary.examples))
        parts.append(f"accuracy in % of {examples} {results.judged_on}, {seeds}; † flagged")
    else:
        parts.append("nothing is measured in full yet")
    if (missing := summary.missing) is not None:
        counts = ", ".join(f"{count} {status}" for status, count in missing.counts.items())
        parts.append(f"incomplete: of {len(results.plan.cells)} cells {counts}")
    if results.plan.changes:
        parts.append(f"changed by --set: {', '.join(results.plan.changes)}")
    return _text(f"{results.plan.suite}: {'; '.join(parts)}")


def _table(lines: box.Box | None, columns: Iterable[str]) -> RichTable:
    """A table whose last column takes what room there is; the others are as wide as what is in them."""
    table = RichTable(box=lines, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    *narrow, last = columns
    for head in narrow:
        table.add_column(_text(head))
    table.add_column(_text(last), overflow="fold")
    return table


def _pair_table(summary: Summary, first: str, second: str, lines: box.Box | None) -> RichTable:
    """Clean accuracy and the worst case at each radius of both models, their difference and its verdict."""
    names = names_of_pair(summary.results, first, second)
    table = _table(lines, [WORST, *names, "diff.", "verdict"])
    for line in summary.pairs[first, second]:
        if line.claim and line.in_points:
            table.add_row(*map(_text, _row(summary, line, (first, second))), style=_style(line))
    return table


def _row(summary: Summary, line: PairTest, pair: Sequence[str]) -> list[str]:
    attack, label = ("none", "clean") if line.threat == CLEAN else (WORST, str(line.threat))
    sides = (seeds_text(summary.values(model, attack, line.threat), summary) for model in pair)
    difference = f"{percent(line.mean):+.1f}" if line.seeds else NOTHING
    return [label, *sides, difference, line.verdict or NOTHING]


def _style(line: PairTest) -> str:
    """What is shown stands out; what is not to be believed stands back."""
    return "bold" if line.outcome in ("higher", "lower") else "dim" if line.withdrawn else ""


def _standings(summary: Summary, lines: box.Box | None) -> RichTable:
    """Clean accuracies in the suite's order, then who stands where at each threat."""
    table = _table(lines, [WORST, "rank", "accuracy", "model"])
    models = list(summary.clean.items())
    for model, clean in models[:MOST]:
        table.add_row(*map(_text, ("clean", "", seeds_text(clean.measures[ACCURACY.name], summary), model)))
    _more(table, len(models))
    for threat, entries in summary.standings.items():
        for entry in entries[:MOST]:
            row = str(threat), rank_of(entry), seeds_text(entry.worst, summary), entry.model
            table.add_row(*map(_text, row), style="bold" if entry.rank == 1 else "")
        _more(table, len(entries))
    return table


def _more(table: RichTable, models: int) -> None:
    if models > MOST:
        table.add_row("", "", "", _text(f"and {models - MOST} more"))


def _flags_of(summary: Summary, model: str) -> Text:
    """`flags of cnn-ce: none`; a flag that not every seed has with the seeds that have it."""
    if not any(summary.results.attack(cell.id) for cell in summary.results.plan.of("attack") if cell.model == model):
        return _text(f"flags of {model}: nothing of it is measured")
    seeds: dict[str, set[int]] = {}
    for flag in summary.flags:
        if flag.model == model:
            seeds.setdefault(flag.name, set()).add(flag.seed)
    texts = [name + _some(own, summary.results.seeds) for name, own in sorted(seeds.items())]
    return _text(f"flags of {model}: {', '.join(texts) or 'none'}")


def _some(seeds: set[int], planned: int) -> str:
    if len(seeds) == planned:
        return ""
    return f" ({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, sorted(seeds)))})"
