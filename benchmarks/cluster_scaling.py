"""How a run's time falls with machines: list scheduling of recorded cells on 1 to 64 workers.

    python benchmarks/cluster_scaling.py

A simulation. It takes plan and seconds of each cell from the committed results, keeps as many workers busy as there are
(first the first cell of the plan that may start, as `run` does), and writes `docs/figures/cluster.svg`. Starting
processes, carrying files and unequal machines are left out. No schedule is shorter than the plan's critical path, the
longest chain of cells that wait for each other, nor than all seconds over the number of workers; and list scheduling
takes at most the sum of both (Graham 1969, "Bounds on multiprocessing timing anomalies").
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from tabulate import tabulate

from robustbench_cmic.plan.cell import title
from robustbench_cmic.plan.schedule import critical_path, simulated
from robustbench_cmic.report import read_results

ROOT = Path(__file__).resolve().parents[1]
SUITES = {"digits-10": "#4477aa", "lambda-beta": "#228833", "mnist": "#ccbb44", "cifar100": "#ee6677"}
"""Committed suites with a colour each (Paul Tol's bright scheme)."""
WORKERS = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    """Print the table and write the figure."""
    mpl.rcParams["svg.hashsalt"] = "cluster"  # the same bytes each time
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(WORKERS, WORKERS, color="#bbbbbb", linestyle=":", label="as many times as workers")
    rows = []
    for (suite, colour), marker in zip(SUITES.items(), "os^D", strict=True):
        results = read_results(ROOT / "results" / suite)
        cells = [cell for cell in results.plan.cells if cell.id in results.records]
        seconds = {cell.id: results.records[cell.id].timing.seconds for cell in cells}
        times = [simulated(cells, seconds, workers) for workers in WORKERS]
        chain = critical_path(cells, seconds)
        length = sum(seconds[cell.id] for cell in chain)
        speedups = [times[0] / time for time in times]
        axes.plot(WORKERS, speedups, color=colour, marker=marker, markersize=4, label=suite)
        axes.axhline(times[0] / length, xmin=0.6, color=colour, linewidth=0.8, linestyle="--")
        path = " → ".join(title(cell) for cell in chain)
        rows.append([suite, len(cells), *(f"{time / 60:.1f}" for time in times), f"{length / 60:.1f}", path])
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(WORKERS, [str(workers) for workers in WORKERS])
    axes.set_yticks(WORKERS, [str(workers) for workers in WORKERS])
    axes.set_ylim(0.9, 80)
    axes.set_xlabel("cells at a time")
    axes.set_ylabel("times faster than one at a time")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, title="simulated; dashed: limit by the critical path", title_fontsize=8)
    file = ROOT / "docs" / "figures" / "cluster.svg"
    figure.savefig(file, metadata={"Date": None})
    headers = ["suite", "cells", *(f"{workers}" for workers in WORKERS), "critical path", "which is"]
    print(tabulate(rows, headers, tablefmt="pipe", disable_numparse=True), file, sep="\n\n")


if __name__ == "__main__":
    main()
