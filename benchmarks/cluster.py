"""What a cluster costs: `digits` on two nodes of Ray on this machine, of one CPU each, beside `--jobs 2`.

    python benchmarks/cluster.py

Both run once to warm up the caches of files (the smoke suite), then in turns, from scratch each time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from about import machine, table

from tests.conftest import command
from tests.run.executors.cluster import Cluster


def seconds(folder: Path, suite: str, *words: str) -> float:
    """Wall time of a run into a folder of its own, from command line to report."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as results:
        done = subprocess.run(
            command("run", suite, "--results", results, "--jobs", 2, "--device", "cpu", *words),
            cwd=folder, env=os.environ | {"RAY_AUTH_MODE": "disabled"}, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="digits")
    parser.add_argument("--turns", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Cluster("one", "two") as cluster:
        ways = {"--jobs 2": [], "Ray, two nodes of one CPU": ["--executor", "ray", "--address", cluster.address]}
        for words in ways.values():
            seconds(Path(folder), "smoke", *words)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.turns):
            for way, words in ways.items():
                times[way].append(seconds(Path(folder), options.suite, *words))
    first = statistics.median(times["--jobs 2"])
    rows = [
        [way, f"{statistics.median(own):.1f}", f"{statistics.median(own) / first:.2f}"] for way, own in times.items()
    ]
    print(table(rows, [options.suite, "seconds", "time / first"]), machine("cpu", "ray"), sep="\n\n")


if __name__ == "__main__":
    main()
