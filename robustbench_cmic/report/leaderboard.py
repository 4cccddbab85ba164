"""`leaderboard.md`: the tables for people."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from robustbench_cmic.plan import Cell
from robustbench_cmic.record import AttackRecord
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.worst_case import worst_case

Ball = tuple[str, float]
BySeed = dict[int, float]

_READING = """\
Accuracies are percentages of the {n} test examples, mean ± standard deviation over {seeds}. **Worst case** counts an
example only if it survives every attack run at that norm and eps (the mean of the minimum over attacks, example by
example). An attack that fails proves nothing: it may be the attack that is weak, and CMIC-DL's widely separated
logits stall gradient steps on cross entropy. Compare models by their worst case; even that is an upper bound on
robustness, the tighter the more strong attacks stand in it.
"""


def leaderboard(results: Results) -> str:
    """The whole file as Markdown."""
    return "\n".join(_sections(results)).rstrip() + "\n"


def _sections(results: Results) -> Iterator[str]:
    plan = results.plan
    yield f"# {plan.suite}\n"
    if plan.description:
        yield f"{_escaped(plan.description)}\n"
    yield from _standing(results)
    measured = [record for cell in plan.of("attack") if (record := results.attack(cell))]
    if measured:
        counts = sorted({record.n or 0 for record in measured})
        seeds = len({record.cell.seed for record in measured})
        over = "one seed, which shows nothing about the method" if seeds == 1 else f"{seeds} seeds"
        yield _READING.format(n=" or ".join(map(str, counts)), seeds=over)
        yield from _clean_section(results)
        yield from _robust_section(results)
        yield from _pair_sections(results)
    yield from _limited_section(results)
    yield from _provenance_section(results)


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
            yield f"- {status}: `{cell.id}`: {_escaped(results.records[cell.id].reason)}"
    yield ""


def _models(results: Results) -> list[str]:
    return list(dict.fromkeys(cell.model for cell in results.plan.cells))


def _balls(results: Results) -> list[Ball]:
    """The norms and radii attacked, ascending within a norm."""
    return sorted(
        {(cell.norm, cell.eps) for cell in results.plan.of("attack") if cell.norm}, key=lambda b: (b[0], b[1])
    )


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
    table = []
    for model in _models(results):
        cells = _cells(results, model, "none", ("", 0.0))
        records = [record for cell in cells if (record := results.attack(cell))]
        accuracies = [record.accuracy or 0.0 for record in records]
        measures = [
            _spread([value for record in records if (value := get(record)) is not None], "{:.3g}")
            for get in (_ncmi, _cmi, _separation)
        ]
        table.append([f"`{model}`", cells[0].objective, _percent(accuracies), *measures])
    headers = ["model", "objective", "accuracy %", "NCMI", "CMI (nats)", "separation (nats)"]
    yield _table(table, headers)


def _ncmi(record: AttackRecord) -> float | None:
    return record.information.ncmi if record.information else None


def _cmi(record: AttackRecord) -> float | None:
    return record.information.cmi if record.information else None


def _separation(record: AttackRecord) -> float | None:
    return record.information.separation if record.information else None


def _robust_section(results: Results) -> Iterator[str]:
    for norm, grouped in groupby(_balls(results), key=lambda ball: ball[0]):
        balls = list(grouped)
        attacks = list(dict.fromkeys(name for ball in balls for name in _attacks(results, ball)))
        yield f"## Accuracy under attack, {_NORM_NAMES[norm]}\n"
        table = []
        for ball in balls:
            for model in _models(results):
                columns = [_percent(list(_by_seed(results, model, name, ball).values())) for name in attacks]
                worst = list(worst_case(results, model, ball).values())
                table.append([f"{ball[1]:.4g}", f"`{model}`", *columns, _bold(_percent(worst))])
        yield _table(table, ["eps", "model", *(f"{_escaped(name)} %" for name in attacks), "worst case %"])


_NORM_NAMES = {"linf": "L-inf", "l2": "L2"}


def _pair_sections(results: Results) -> Iterator[str]:
    for first, second in results.plan.pairs:
        yield f"## `{first}` against `{second}`\n"
        yield (
            f"The difference is `{second}` minus `{first}` in percentage points, seed by seed: the mean, and the least "
            "and greatest over seeds.\n"
        )
        yield pair_table(results, first, second)


def pair_table(results: Results, first: str, second: str) -> str:
    """Markdown table of two models side by side: clean, attack by attack, worst case."""
    models = (first, second)
    lines = [("clean", "", [_by_seed(results, model, "none", ("", 0.0)) for model in models])]
    for ball in _balls(results):
        size = f"{_NORM_NAMES[ball[0]]} {ball[1]:.4g}"
        names = _attacks(results, ball)
        lines += [(_escaped(name), size, [_by_seed(results, model, name, ball) for model in models]) for name in names]
        lines.append((f"**worst case of {len(names)}**", size, [worst_case(results, model, ball) for model in models]))
    table = []
    for label, size, (left, right) in lines:
        differences = [right[seed] - left[seed] for seed in left if seed in right]
        table.append([label, size, _percent(left.values()), _percent(right.values()), _difference(differences)])
    return _table(table, ["attack", "eps", f"`{first}` %", f"`{second}` %", "difference (points)"])


def _limited_section(results: Results) -> Iterator[str]:
    if not results.limited:
        return
    yield "## Limited evaluations: not ranked\n"
    yield "Run with `--limit` on the first examples of the test set only; for trying things out.\n"
    table = []
    for cell in results.limited:
        record = results.attack(cell)
        if record is not None:
            accuracy = _percent([record.accuracy or 0.0])
            table.append([f"`{cell.model}`", cell.seed, _escaped(cell.attack), f"{cell.eps:.4g}", record.n, accuracy])
    yield _table(table, ["model", "seed", "attack", "eps", "examples", "accuracy %"])


def _provenance_section(results: Results) -> Iterator[str]:
    if not results.records:
        return
    yield "## Where the numbers come from\n"
    records = list(results.records.values())
    for label, get in _FACTS:
        values = sorted({str(value) for record in records if (value := get(record.provenance)) is not None})
        if values:
            yield f"- {label}: {_escaped('; '.join(values))}"
    failed = [cell for cell in results.plan.cells if cell.id in results.records]
    yield f"- records: {len(failed)} of {len(results.plan.cells)} planned; each row of `results.csv` names its own"


def _code(provenance: dict[str, object]) -> str | None:
    if provenance.get("commit") is None:
        return None
    return f"{str(provenance['commit'])[:12]}{' with uncommitted changes' if provenance.get('dirty') else ''}"


def _versions(provenance: dict[str, object]) -> str:
    versions = provenance.get("versions")
    known = versions.items() if isinstance(versions, dict) else ()
    return ", ".join(f"{name} {version}" for name, version in known if version)


_FACTS: tuple[tuple[str, Callable[[dict[str, object]], object]], ...] = (
    ("code", _code),
    ("versions", _versions),
    ("platform", lambda provenance: provenance.get("platform")),
    ("processor", lambda provenance: provenance.get("processor")),
    ("device", lambda provenance: provenance.get("device")),
)


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    mean = form.format(statistics.fmean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def _percent(values: Iterable[float]) -> str:
    return _spread([100 * value for value in values], "{:.1f}")


def _difference(differences: Sequence[float]) -> str:
    if not differences:
        return "–"
    points = [100 * difference for difference in differences]
    if len(points) == 1:
        return f"{points[0]:+.1f} (one seed)"
    return f"{statistics.fmean(points):+.1f} ({min(points):+.1f} … {max(points):+.1f})"


def _bold(text: str) -> str:
    return text if text == "–" else f"**{text}**"


def _escaped(text: str) -> str:
    """A suite's own words as plain Markdown text in one line."""
    for special in "\\`*_{}[]<>|#":
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())


def _table(table: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    return tabulate(table, headers=headers, tablefmt="pipe", disable_numparse=True) + "\n"
