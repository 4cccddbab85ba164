"""`leaderboard.md`: the tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from robustbench_cmic.plan import Cell
from robustbench_cmic.report.about import provenance, what_was_run
from robustbench_cmic.report.numbers import bold, difference, escaped, percent, spread
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.worst_case import worst_case

Ball = tuple[str, float]
BySeed = dict[int, float]

CLEAN: Ball = ("", 0.0)
_NORM_NAMES = {"linf": "L-inf", "l2": "L2"}

_READING = """\
Accuracies are percentages of the {n} test examples, mean ± standard deviation over {seeds}. **Worst case** counts an
example only if it survives every attack run at that norm and eps (the mean of the minimum over attacks, example by
example); an attack that was not run there (–) is not in it. An attack that fails proves nothing: it may be the attack
that is weak. Once a logit leads by about 17, float32 rounds its probability to 1, and cross entropy loses the part of
its gradient that belongs to the true class: CMIC-DL's widely separated logits are often beyond that, and attacks on
cross entropy then step in a wrong direction. Compare models by their worst case, and only where strong attacks on
another loss are in it; even that is an upper bound on robustness.
"""


def leaderboard(results: Results) -> str:
    """The whole file as Markdown."""
    return "\n".join(_sections(results)).rstrip() + "\n"


def _sections(results: Results) -> Iterator[str]:
    plan = results.plan
    yield f"# {plan.suite}\n"
    if plan.description:
        yield f"{escaped(plan.description)}\n"
    yield from _standing(results)
    measured = [record for cell in plan.of("attack") if (record := results.attack(cell))]
    if measured:
        counts = sorted({record.n or 0 for record in measured})
        seeds = _planned_seeds(results)
        over = "one seed, which shows nothing about the method" if seeds == 1 else f"{seeds} seeds"
        yield _READING.format(n=" or ".join(map(str, counts)), seeds=over)
        yield from _clean_section(results)
        yield from _robust_section(results)
        yield from _pair_sections(results)
    yield from _limited_section(results)
    yield from what_was_run(results)
    yield from provenance(results)


def _standing(results: Results) -> Iterator[str]:
    """What is missing, before anything is shown."""
    cells = results.plan.cells
    by_status: dict[str, list[Cell]] = {}
    for cell in cells:
        record = results.records.get(cell.id)
        training = results.records.get(cell.needs or "")
        lost = training is not None and training.status != "ok"
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


def _planned_seeds(results: Results) -> int:
    return len({cell.seed for cell in results.plan.cells})


def _models(results: Results) -> list[str]:
    return list(dict.fromkeys(cell.model for cell in results.plan.cells))


def _balls(results: Results) -> list[Ball]:
    """The norms and radii attacked, ascending within a norm."""
    return sorted({(cell.norm, cell.eps) for cell in results.plan.of("attack") if cell.norm})


def _cells(results: Results, model: str, attack: str, ball: Ball) -> list[Cell]:
    wanted = (model, attack, *ball)
    return [cell for cell in results.plan.of("attack") if (cell.model, cell.attack, cell.norm, cell.eps) == wanted]


def _attacks(results: Results, ball: Ball) -> list[str]:
    cells = results.plan.of("attack")
    return list(dict.fromkeys(cell.attack for cell in cells if (cell.norm, cell.eps) == ball))


def _by_seed(results: Results, model: str, attack: str, ball: Ball) -> BySeed:
    """Accuracy for each seed."""
    found = {}
    for cell in _cells(results, model, attack, ball):
        record = results.attack(cell)
        if record is not None and record.accuracy is not None:
            found[cell.seed] = record.accuracy
    return found


def _clean_section(results: Results) -> Iterator[str]:
    yield "## Clean test examples\n"
    planned = _planned_seeds(results)
    objectives = {cell.model: cell.objective for cell in results.plan.cells}
    table = []
    for model in _models(results):
        cells = _cells(results, model, "none", CLEAN)
        measures = [record.information for cell in cells if (record := results.attack(cell)) and record.information]
        columns = [
            [measure.ncmi for measure in measures if measure.ncmi is not None],
            [measure.cmi for measure in measures],
            [measure.separation for measure in measures],
        ]
        accuracy = percent(_by_seed(results, model, "none", CLEAN).values(), planned)
        shown = [spread(values, "{:.3g}", planned) for values in columns]
        table.append([f"`{model}`", objectives[model], accuracy, *shown])
    yield _table(table, ["model", "objective", "accuracy %", "NCMI", "CMI (nats)", "separation (nats)"])


def _robust_section(results: Results) -> Iterator[str]:
    planned = _planned_seeds(results)
    for norm, grouped in groupby(_balls(results), key=lambda ball: ball[0]):
        balls = list(grouped)
        attacks = list(dict.fromkeys(name for ball in balls for name in _attacks(results, ball)))
        yield f"## Accuracy under attack, {_NORM_NAMES[norm]}\n"
        table = []
        for ball in balls:
            for model in _models(results):
                columns = [percent(_by_seed(results, model, name, ball).values(), planned) for name in attacks]
                worst = bold(percent(worst_case(results, model, ball).values(), planned))
                table.append([f"{ball[1]:.4g}", f"`{model}`", *columns, worst])
        yield _table(table, ["eps", "model", *(f"{escaped(name)} %" for name in attacks), "worst case %"])


def _pair_sections(results: Results) -> Iterator[str]:
    for first, second in results.plan.pairs:
        yield f"## `{first}` against `{second}`\n"
        yield (
            f"The difference is `{second}` minus `{first}` in percentage points, seed by seed: the mean, and the least "
            "and greatest over seeds. A row holds only seeds that both models have.\n"
        )
        yield _pair_table(results, first, second)


def _pair_table(results: Results, first: str, second: str) -> str:
    """Two models side by side: clean, attack by attack, worst case."""
    models = (first, second)
    lines = [("clean", "", [_by_seed(results, model, "none", CLEAN) for model in models])]
    for ball in _balls(results):
        size = f"{_NORM_NAMES[ball[0]]} {ball[1]:.4g}"
        names = _attacks(results, ball)
        lines += [(escaped(name), size, [_by_seed(results, model, name, ball) for model in models]) for name in names]
        label = f"**worst case** of {', '.join(map(escaped, names))}"
        lines.append((label, size, [worst_case(results, model, ball) for model in models]))
    planned = _planned_seeds(results)
    table = []
    for label, size, (left, right) in lines:
        seeds = sorted(left.keys() & right.keys())
        columns = [percent([side[seed] for seed in seeds], planned) for side in (left, right)]
        table.append([label, size, *columns, difference([right[seed] - left[seed] for seed in seeds])])
    return _table(table, ["attack", "eps", f"`{first}` %", f"`{second}` %", "difference (points)"])


def _limited_section(results: Results) -> Iterator[str]:
    if not results.limited:
        return
    yield "## Limited evaluations: not ranked\n"
    yield "Run with `--limit` on the first examples of the test set only; for trying things out.\n"
    table = []
    for cell in results.limited:
        record = results.attack(cell)
        if record is not None and record.accuracy is not None:
            shown = percent([record.accuracy], 1)
            table.append([f"`{cell.model}`", cell.seed, escaped(cell.attack), f"{cell.eps:.4g}", record.n, shown])
    yield _table(table, ["model", "seed", "attack", "eps", "examples", "accuracy %"])


def _table(table: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return tabulate(table, headers=headers, tablefmt="pipe", disable_numparse=True) + "\n"
