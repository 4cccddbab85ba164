"""Speed of `measure_information` against the double sum over pairs, in one run.

    python benchmarks/information.py

Prints a Markdown table; each time is the median of repeated runs, alternating between the two.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import torch
from tabulate import tabulate
from torch import Tensor

from robustbench_cmic.information import Information, measure_information

SIZES = [(500, 10), (2_000, 10), (2_000, 100)]


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


def pairwise_matrix(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """The same double sum as one (N, N) matrix product: the fastest way that still forms every pair."""
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    n = len(labels)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1]).double()
    centroids = (one_hot.T @ p) / one_hot.sum(0).clamp(min=1)[:, None]
    cmi = (torch.special.xlogy(p, p) - torch.special.xlogy(p, centroids[labels])).sum() / n
    separation = -((p @ log_p.T) * (labels[:, None] != labels[None, :])).sum() / n**2
    return float(cmi), float(separation)


def seconds(function: Callable[[Tensor, Tensor], object], logits: Tensor, labels: Tensor) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    function(logits, labels)
    return time.perf_counter() - began


def compare(n: int, classes: int) -> list[str]:
    """One row of the table."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, classes, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    ours: Information = measure_information(logits, labels)
    slow = double_sum(logits, labels)
    worst = max(abs(ours.cmi / slow[0] - 1), abs(ours.separation / slow[1] - 1))
    loop = seconds(double_sum, logits, labels)
    rounds = [
        (seconds(measure_information, logits, labels), seconds(pairwise_matrix, logits, labels)) for _ in range(21)
    ]
    fast, matrix = (statistics.median(times) for times in zip(*rounds, strict=True))
    return [
        f"{n:,}", f"{classes}", f"{1e3 * fast:.2f} ms", f"{loop / fast:,.0f}", f"{matrix / fast:,.1f}", f"{worst:.0e}",
    ]  # fmt: skip


def main() -> None:
    """Print the table and where it was made."""
    torch.set_num_threads(1)
    table = [compare(n, classes) for n, classes in SIZES]
    headers = [
        "N",
        "C",
        "measure_information",
        "double sum / ours",
        "pairwise matrix / ours",
        "largest rel. difference",
    ]
    print(tabulate(table, headers, tablefmt="pipe", disable_numparse=True))
    print(f"\nPython {platform.python_version()}, torch {torch.__version__}, 1 thread, {platform.platform()}")


if __name__ == "__main__":
    main()
