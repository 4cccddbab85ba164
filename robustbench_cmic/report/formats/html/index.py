"""The page over all suites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from robustbench_cmic.report.about import objectives_text
from robustbench_cmic.report.formats.html.render import render
from robustbench_cmic.report.metrics import NCMI
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.suite.fields import CLEAN


def index_page(summaries: Sequence[tuple[str, Summary]]) -> str:
    """An HTML file that leads to the pages of suites.

    Args:
        summaries: name of a suite's folder beside the file, and its results.
    """
    cards = [
        {
            "folder": folder,
            "summary": summary,
            "plan": summary.results.plan,
            "verdicts": verdicts(summary),
            "flags": sorted(Counter(flag.name for flag in summary.flags).items()),
        }
        for folder, summary in summaries
    ]
    objectives = objectives_text(summary.results for _, summary in summaries)
    return render("index.html", ["page.js"], cards=cards, objectives=objectives)


def verdicts(summary: Summary) -> list[tuple[str, str, str, str]]:
    """Both models of a pair, what is claimed of them on clean examples or in the worst case, and the verdict."""
    return [
        (first, second, "clean accuracy" if line.threat == CLEAN else f"{line.what}, {line.threat}", line.verdict)
        for (first, second), lines in summary.pairs.items()
        for line in lines
        if line.claim and line.what != NCMI.title and line.verdict
    ]
