"""Numbers as the tables print them: means over seeds with spread, and how many seeds are behind them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Sequence

from tabulate import tabulate

NOTHING = "–"


def spread(values: Sequence[float], form: str, planned: int) -> str:
    """`97.0 ± 0.5`: mean and standard deviation; `(2 of 3 seeds)` behind it where some are missing.

    Args:
        values: one a seed.
        form: such as `{:.1f}`.
        planned: how many seeds there should be.
    """
    if not values:
        return NOTHING
    text = form.format(statistics.fmean(values))
    if len(values) > 1:
        text += f" ± {form.format(statistics.stdev(values))}"
    return text if len(values) == planned else f"{text} ({len(values)} of {planned} seeds)"


def percent(fractions: Iterable[float], planned: int) -> str:
    """Fractions in [0, 1] as percentages, see `spread`."""
    return spread([100 * value for value in fractions], "{:.1f}", planned)


def difference(differences: Sequence[float]) -> str:
    """Differences of fractions in percentage points: their mean, and the least and greatest over seeds."""
    if not differences:
        return NOTHING
    points = [100 * value for value in differences]
    if len(points) == 1:
        return f"{points[0]:+.1f} (one seed)"
    return f"{statistics.fmean(points):+.1f} ({min(points):+.1f} … {max(points):+.1f})"


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """A Markdown table with a blank line behind it; nothing in it is taken for a number and changed."""
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True) + "\n"


def escaped(text: str) -> str:
    """A suite's own words as plain Markdown text in one line."""
    # An underscore inside a word is one.
    return re.sub(r"[\\`*{}\[\]<>|#&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", plain(text))


def plain(text: str) -> str:
    """A suite's own words in one line, without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
