"""Speed and memory of `measure_information` against the double sum over pairs, in one run.

    python benchmarks/information.py

Three parts. Small sets against the sum as it is defined, a Python loop over pairs, which also checks the result. Sets
up to a million examples against the same sum as matrix products over blocks of pairs, the fastest way that still forms
every pair; beyond 20,000 examples only one block is timed and the rest is extrapolated (marked ~). And the memory of a
process that measures a million examples of a thousand classes as they come, batch by batch.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from about import machine, table
from torch import Tensor

from robustbench_cmic.information.measures import Information, InformationSums, measure_information

SMALL = [(500, 10), (2_000, 10), (2_000, 100)]
LARGE = [(n, classes) for n in (10_000, 100_000, 1_000_000) for classes in (10, 100, 1_000)]
WHOLE = 20_000
BLOCK = 1_000


def double_sum(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """CMI and separation as they are defined: one cross entropy for each ordered pair of examples, one at a time."""
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    n = len(labels)
    cmi = separation = 0.0
    for i in range(n):
        centroid = p[labels == labels[i]].mean(0)
        cmi += float((torch.special.xlogy(p[i], p[i]) - torch.special.xlogy(p[i], centroid)).sum())
        for j in range(n):
            if labels[i] != labels[j]:
                separation -= float(p[i] @ log_p[j])
    return cmi / n, separation / n**2


def pairwise(logits: Tensor, labels: Tensor, blocks: int) -> tuple[float, float, float]:
    """Separation over all pairs whose first example lies in the first `blocks` blocks, as matrix products.

    Also the seconds for softmax, taken once for every example, and for the products.
    """
    n, total = len(labels), 0.0
    began = time.perf_counter()
    p = logits[: blocks * BLOCK].double().softmax(1)
    preparing, products = time.perf_counter() - began, 0.0
    for first in range(0, n, 10 * BLOCK):
        columns = slice(first, first + 10 * BLOCK)
        began = time.perf_counter()
        log_p = logits[columns].double().log_softmax(1)
        preparing += time.perf_counter() - began
        began = time.perf_counter()
        for start in range(0, len(p), BLOCK):
            rows = slice(start, start + BLOCK)
            different = labels[rows, None] != labels[None, columns]
            total -= float(((p[rows] @ log_p.T) * different).sum())
        products += time.perf_counter() - began
    return total / n**2, preparing, products


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def example(n: int, classes: int) -> tuple[Tensor, Tensor]:
    """Random logits and labels."""
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(n, classes, generator=generator), torch.randint(classes, (n,), generator=generator)


def small_row(n: int, classes: int) -> list[str]:
    """Against the loop."""
    logits, labels = example(n, classes)
    ours: Information = measure_information(logits, labels)
    began = time.perf_counter()
    slow = double_sum(logits, labels)
    loop = time.perf_counter() - began
    worst = max(abs(ours.cmi / slow[0] - 1), abs(ours.separation / slow[1] - 1))
    fast = statistics.median(seconds(lambda: measure_information(logits, labels)) for _ in range(21))
    return [f"{n:,}", f"{classes}", f"{1e3 * fast:.2f} ms", f"{loop / fast:,.0f}", f"{worst:.0e}"]


def large_row(n: int, classes: int) -> list[str]:
    """Against matrix products over blocks of pairs; the two take turns."""
    logits, labels = example(n, classes)
    blocks = -(-n // BLOCK)
    timed = blocks if n <= WHOLE else 1
    fast, slow = [], []
    for _ in range(3):
        fast.append(seconds(lambda: measure_information(logits, labels)))
        separation, preparing, products = pairwise(logits, labels, timed)
        slow.append(preparing + products * blocks / timed)
    ratio = statistics.median(slow) / statistics.median(fast)
    whole = timed == blocks
    difference = f"{abs(measure_information(logits, labels).separation / separation - 1):.0e}" if whole else "–"
    mark = "" if whole else "~"
    return [f"{n:,}", f"{classes:,}", f"{statistics.median(fast):.3f} s", f"{mark}{ratio:,.0f}", difference]


def stream(n: int, classes: int) -> str:
    """Measure examples as they come; one line with seconds, and the memory of the process before and at its peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    drawing = 0.0
    sums = InformationSums.zeros(classes)
    batch = 10_000
    for _ in range(n // batch):
        started = time.perf_counter()
        labels = torch.randint(classes, (batch,), generator=generator)
        logits = torch.randn(batch, classes, generator=generator)
        logits[torch.arange(batch), labels] += 9
        drawing += time.perf_counter() - started
        sums = sums + InformationSums.of(logits, labels)
    measured = sums.compute()
    took = time.perf_counter() - began - drawing
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (
        f"N = {n:,}, C = {classes:,} in batches of {batch:,}: {took:.1f} s, peak memory {peak / 2**20:.2f} GiB, "
        f"of which {before / 2**20:.2f} GiB before the first batch (NCMI {measured.ncmi:.5f})"
    )


def main() -> None:
    """Print the tables and where they were made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", action="store_true", help="only the third part, in this process")
    if parser.parse_args().stream:
        print(stream(1_000_000, 1_000))
        return
    # A process of its own, and the first to be started: its peak would begin with what this one holds then.
    streamed = subprocess.run([sys.executable, __file__, "--stream"], capture_output=True, text=True, check=True).stdout
    torch.set_num_threads(1)
    rows = [small_row(n, classes) for n, classes in SMALL]
    headers = ["N", "C", "measure_information", "loop / ours", "largest rel. difference"]
    print(f"{table(rows, headers)}\n")
    rows = [large_row(n, classes) for n, classes in LARGE]
    headers = ["N", "C", "measure_information", "blocks of pairs / ours", "rel. difference of separation"]
    print(f"{table(rows, headers)}\n", flush=True)
    print(streamed)
    print(machine("cpu"))


if __name__ == "__main__":
    main()
