"""The NCMI law for people: a table for each set of networks, and a finding of three sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustbench_cmic.report.law import DOUBT_AT_T, NCMI_AT_T, NLL_AT_T, LawLine, LawScope
from robustbench_cmic.report.tables import NOTHING, Table, escaped

if TYPE_CHECKING:
    from robustbench_cmic.report.correlation import Interval
    from robustbench_cmic.report.summary import Summary

_HEADS = (
    "predictor of error", "networks", "Pearson", "95 % networks and images", "networks alone", "images alone",
    "Spearman", "95 % networks and images",
)  # fmt: skip


def law_tables(summary: Summary) -> dict[str, Table]:
    """A table for each scope, by its title; none where the suite has too few models."""
    return {_capital(scope.title): Table(_HEADS, [_row(line) for line in scope.lines]) for scope in summary.law}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _row(line: LawLine) -> list[str]:
    networks = str(line.networks) if line.networks == line.models else f"{line.networks} ({line.models} models)"
    return [
        line.predictor,
        networks,
        _number(line.pearson),
        *(_ends(own) or NOTHING for own in (line.both, line.of_networks, line.of_images)),
        _number(line.spearman),
        _ends(line.spearman_both) or NOTHING,
    ]


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} … {interval[1]:.3f}"


def law_finding(summary: Summary) -> list[str]:
    """Three sentences, as Markdown: on networks of one objective, on objectives of one network, on rival predictors.

    None where the suite has too few models.
    """
    if not summary.law:
        return []
    networks, objectives = (next((own for own in summary.law if own.kind == kind), None) for kind in _KINDS)
    return [
        _networks_sentence(summary, networks),
        _objectives_sentence(objectives),
        _rivals_sentence(networks or objectives or summary.law[-1]),
    ]


_KINDS = ("networks", "objectives")


def _networks_sentence(summary: Summary, scope: LawScope | None) -> str:
    if scope is None:
        return "Networks: no objective has networks of several kinds here, over which the law could hold."
    at_t = scope.line(NCMI_AT_T)
    lead = f"Networks: over {_counted(scope)}, {_direction(at_t)}: {_both(scope)}"
    parts = [
        f"{escaped(own.name)} {line.pearson:.3f}"
        for own in summary.law
        if own.kind == "family" and (line := own.line(NCMI_AT_T)) is not None and line.pearson is not None
    ]
    within = f"; within families, at T: {', '.join(parts)}" if parts else ""
    flagged = {flag.model for flag in summary.flags} & {own.cell.model for own in scope.networks}
    doubt = f"; {len(flagged)} of the models are flagged" if flagged else ""
    return f"{lead}{within}{doubt}."


def _objectives_sentence(scope: LawScope | None) -> str:
    if scope is None:
        return "Objectives: no network is trained with several objectives here, over which the law could hold."
    return f"Objectives: over {_counted(scope)}, {_direction(scope.line(NCMI_AT_T))}: {_both(scope)}."


def _rivals_sentence(scope: LawScope) -> str:
    """How NCMI at T compares with each rival, over the same networks."""
    parts, verdicts = [], []
    for rival in (NLL_AT_T, DOUBT_AT_T):
        line, found = scope.line(rival), scope.difference(NCMI_AT_T, rival)
        if line is None or found is None:
            continue
        difference, interval = found
        ends = f" ({interval[0]:+.3f} … {interval[1]:+.3f})" if interval else ""
        parts.append(
            f"{rival} has {_measured(line, scope)}; the Pearson of NCMI at T less that is {difference:+.3f}{ends}"
        )
        verdicts.append(_against(rival, interval))
    where = f"over {_counted(scope)}"
    if not parts:
        return f"Rivals: no record {where} holds NLL and confidence at T."
    return f"Rivals: {where}, {' and '.join(verdicts)}: {'; '.join(parts)}."


def _against(rival: str, interval: Interval | None) -> str:
    if interval is None:
        return f"there is no interval for NCMI at T against {rival}, so no comparison"
    if interval[0] > 0:
        return f"NCMI at T goes with error more closely than {rival}"
    return (
        f"{rival} goes with error more closely than NCMI at T"
        if interval[1] < 0
        else f"it is undecided which of NCMI at T and {rival} goes with error more closely"
    )


def _direction(line: LawLine | None) -> str:
    """What the interval over networks and images, or else over networks, says of the sign."""
    if line is None:
        return "NCMI at T is defined for too few"
    interval = line.both or line.of_networks
    if interval is None:
        return "there is no interval over networks, so no claim"
    if interval[0] > 0:
        return "error rises with NCMI at T"
    return "error falls as NCMI at T rises" if interval[1] < 0 else "it is undecided whether error rises with NCMI at T"


def _both(scope: LawScope) -> str:
    lines = [(name, line) for name in ("NCMI", NCMI_AT_T) if (line := scope.line(name)) is not None]
    return "; ".join(f"{name} has {_measured(line, scope)}" for name, line in lines)


def _measured(line: LawLine, scope: LawScope) -> str:
    """`Pearson 0.970 (95 % over networks and images 0.950 … 0.985) and Spearman 0.912`."""
    if line.pearson is None:
        return "no correlation, for it or error does not vary"
    over = "networks and images" if line.both else "networks" if line.of_networks else "images"
    ends = _ends(line.both or line.of_networks or line.of_images)
    within = f" (95 % over {over} {ends})" if ends else ""
    few = f" over the {line.networks} networks that have it" if line.networks < len(scope.networks) else ""
    return f"Pearson {line.pearson:.3f}{within} and Spearman {_number(line.spearman)}{few}"


def _counted(scope: LawScope) -> str:
    """`30 networks trained with CE (10 models)`."""
    n, models = len(scope.networks), len({own.cell.model for own in scope.networks})
    told = "" if n == models or scope.kind == "objectives" else f" ({models} models)"
    return f"{n} {escaped(scope.title)}{told}"
