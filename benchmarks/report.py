"""What a report of a large results folder takes: 2,000 rows, every format, beside only reading the records.

    python benchmarks/report.py

The folder is made up: ten models with five seeds, five attacks in eight balls, outcomes of 1,000 examples drawn at
random.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from about import machine, table

from robustbench_cmic.report import FORMATS, STANDARD, read_results, write_report
from tests.report.folders import fill, planned

MODELS = "".join(
    f"  - {{id: m{number}, architecture: mlp, objective: {{name: {('ce', 'cmic')[number % 2]}}}}}\n"
    for number in range(10)
)
RADII = "[0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.3]"
SUITE = f"""\
suite: made
dataset: {{name: digits}}
training: {{epochs: 1, batch_size: 8, optimizer: {{name: sgd, lr: 0.1}}}}
models:
{MODELS}pairs: [[m0, m1], [m2, m3], [m4, m5], [m6, m7], [m8, m9]]
seeds: [0, 1, 2, 3, 4]
attacks:
  - {{name: FGSM, eps: {RADII}}}
  - {{name: PGD, eps: {RADII}}}
  - {{name: PGD, id: PGD-margin, eps: {RADII}, loss: margin}}
  - {{name: PGD, id: PGD-T, eps: {RADII}, loss: margin, targets: 9}}
  - {{name: AutoAttack, eps: {RADII}}}
"""


def made(folder: Path) -> Path:
    """A results folder of 2,050 rows."""
    generator = random.Random(0)
    return fill(folder / "made", planned(folder, SUITE), lambda _: [generator.random() < 0.6 for _ in range(1000)])


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one go, the least of three."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Print a row for what is written by default, and for each format."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = made(Path(temporary))
        count = len(read_results(folder).plan.of("attack"))
        reading = seconds(lambda: read_results(folder))
        rows = [["reading the records", f"{reading:.2f}", "1.0"]]
        for forms in (STANDARD, *((form,) for form in FORMATS)):
            took = seconds(lambda forms=forms: write_report(folder, forms))  # type: ignore[misc]
            rows.append([" and ".join(forms), f"{took:.2f}", f"{took / reading:.1f}"])
    print(table(rows, [f"{count} rows", "seconds", "time / reading"]))
    print(f"\n{machine('cpu')}")


if __name__ == "__main__":
    main()
