"""The page of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robustbench_cmic.audit import RULES
from robustbench_cmic.report.about import evaluation_facts, origin, what_was_run
from robustbench_cmic.report.board import Board
from robustbench_cmic.report.costs import COSTS, PARTS, TRANSFERS, cost_table, parts_table, transfer_tables
from robustbench_cmic.report.flagged import about
from robustbench_cmic.report.leaderboard import reading
from robustbench_cmic.report.page.charts import Chart, curves
from robustbench_cmic.report.page.every_number import AGAIN, RECORD, every_number
from robustbench_cmic.report.page.pair_views import pair_views
from robustbench_cmic.report.page.pictures import gallery
from robustbench_cmic.report.page.render import render
from robustbench_cmic.report.page.standing_rows import places
from robustbench_cmic.report.selecting import NORM_NAMES
from robustbench_cmic.report.tables import Table, clean_table, robust_tables


def suite_page(board: Board, folder: Path) -> str:
    """An HTML file on a suite: standings, curves, pairs, flags, examples, every number and where it came from.

    Args:
        board: a suite's results, judged.
        folder: the suite's results folder, where its pictures lie; the page is to be written there, for it leads to
            the records beside it.
    """
    results = board.results
    measured = bool(board.examples)
    charts = {norm: curves(board, norm) for norm in dict.fromkeys(norm for norm, _ in board.standings)}
    pairs = pair_views(board)
    everything = every_number(board)
    shown = [chart for chart in (*charts.values(), *(pair.chart for pair in pairs)) if chart] if measured else []
    return render(
        "suite.html",
        ["page.js", "plotly", "charts.js"] if shown else ["page.js"],
        board=board,
        plan=results.plan,
        reading=reading(board) if measured else "",
        places=places(board) if measured else [],
        clean=clean_table(board),
        norms=_norms(board, charts) if measured else [],
        pairs=pairs if measured else [],
        gallery=gallery(board, folder),
        rules=_rules(board),
        entries=everything.entries,
        provenance={"facts": everything.facts, "rows": [entry.facts for entry in everything.entries],
                    "record": RECORD, "again": AGAIN},
        costs=_costs(board) if measured else [],
        models=what_was_run(results),
        settings=evaluation_facts(results),
        origin=origin(results),
        figures={chart.id: {"figure": chart.figure, "series": chart.series} for chart in shown},
    )  # fmt: skip


def _norms(board: Board, charts: dict[str, Chart]) -> list[dict[str, Any]]:
    """For each norm its name, its chart and the chart's numbers."""
    tables = robust_tables(board)
    return [
        {"name": NORM_NAMES[norm], "chart": chart, "table": tables[NORM_NAMES[norm]]} for norm, chart in charts.items()
    ]


def _rules(board: Board) -> list[dict[str, Any]]:
    """Each rule that raised a flag, with what it raised."""
    return [
        {
            "name": name,
            "rule": rule,
            "raised": [(flag, about(flag)) for flag in board.flags if flag.name == name],
        }
        for name, rule in RULES.items()
        if any(flag.name == name for flag in board.flags)
    ]


def _costs(board: Board) -> list[tuple[str, str, dict[str, Table]]]:
    """Headings, what is said under them, and their tables by caption."""
    found = [
        ("Transfer between models", TRANSFERS, transfer_tables(board.results)),
        ("What attacks cost and add", COSTS, {"Costs": cost_table(board.results)}),
        ("Parts of attacks", PARTS, {"Parts": parts_table(board.results)}),
    ]
    return [part for part in found if any(table.rows for table in part[2].values())]
