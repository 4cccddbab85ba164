"""The page over all suites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.formats.html.suite import verdicts
from robustbench_cmic.report.frame import models
from robustbench_cmic.report.summary import Summary


def index_page(boards: Sequence[tuple[str, Summary]]) -> str:
    """An HTML file that leads to the pages of suites.

    Args:
        boards: name of a suite's folder beside the file, and its board.
    """
    cards = [
        {
            "folder": folder,
            "board": board,
            "plan": board.results.plan,
            "models": models(board.results),
            "verdicts": verdicts(board),
            "flags": sorted(Counter(flag.name for flag in board.flags).items()),
        }
        for folder, board in boards
    ]
    return render("index.html", ["page.js"], cards=cards)
