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
from typing import NamedTuple

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


class Simulation(NamedTuple):
    """Cells of a suite with their recorded seconds: how many, the seconds on each of `WORKERS`, the critical path."""

    cells: int
    times: list[float]
    length: float
    path: str

    @property
    def minutes(self) -> list[str]:
        """As a row of the table."""
        return [str(self.cells), *(f"{seconds / 60:.1f}" for seconds in (*self.times, self.length))]


def simulate(suite: str) -> Simulation:
    """Of what is recorded of a suite."""
    results = read_results(ROOT / "results" / suite)
    cells = [cell for cell in results.plan.cells if cell.id in results.records]
    seconds = {cell.id: results.records[cell.id].timing.seconds for cell in cells}
    chain = critical_path(cells, seconds)
    length = sum(seconds[cell.id] for cell in chain)
    times = [simulated(cells, seconds, workers) for workers in WORKERS]
    return Simulation(len(cells), times, length, " → ".join(title(cell) for cell in chain))


def main() -> None:
    """Print the table and write the figure."""
    mpl.rcParams["svg.hashsalt"] = "cluster"  # the same bytes each time
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(WORKERS, WORKERS, color="#bbbbbb", linestyle=":", label="as many times as workers")
    rows = []
    for (suite, colour), marker in zip(SUITES.items(), "os^D", strict=True):
        simulation = simulate(suite)
        alone = simulation.times[0]
        speedups = [alone / time for time in simulation.times]
        axes.plot(WORKERS, speedups, color=colour, marker=marker, markersize=4, label=suite)
        axes.axhline(alone / simulation.length, xmin=0.6, color=colour, linewidth=0.8, linestyle="--")
        rows.append([suite, *simulation.minutes, simulation.path])
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
