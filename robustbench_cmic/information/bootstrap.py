"""Bootstrap replicates of NCMI, paired between models by construction (Efron 1979; NCMI: arXiv 2309.09123).

A bootstrap sample of N examples is N draws with replacement, so example x is in it w_x times and the w_x sum to N.
NCMI of the sample is the closed form of `information` with weighted sums; for class y, over its examples,

    n_y = sum w,   S_y = sum w P,   T_y = sum w log P,   h_y = sum w P . log P

    CMI   = (1/N)   sum_y (h_y - S_y . log(S_y / n_y))
    Gamma = (1/N^2) sum_{y != v} -S_y . T_v

For many samples at once each sum is a product of a matrix of weights (replicates, examples) with one of outputs
(examples, classes). The weights depend on N and on the replicate's number alone: replicate k of two models evaluated
on the same examples, in the same order, is the same sample of them, so that differences of two records' replicates
are replicates of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robustbench_cmic.information.measures import centroid_terms, log_probabilities, measure_information
from robustbench_cmic.seeding import resample_weights

_WEIGHTS = 10**8
"""Bytes of weights held at once."""
_SUMS = 2**20
"""Replicates x classes summed at once: 8 MiB for each of half a dozen arrays of float64."""
_BLOCK = 2**20
"""Values of a block of examples (its weights, and its outputs): 8 MiB for each of half a dozen arrays of float64."""


def bootstrap_means(values: Tensor, resamples: int = 1000) -> Tensor:
    """Means of values of the examples over the samples of `bootstrap_ncmi`: (N, K) -> (resamples, K) float64."""
    held = values.double().cpu().numpy()
    weights = resample_weights(len(held), resamples)
    return torch.from_numpy(np.stack([drawn @ held for drawn in weights]) / len(held))


def bootstrap_ncmi(logits: Tensor, labels: Tensor, resamples: int = 1000) -> Tensor:
    """NCMI of bootstrap samples of the examples; float64, log_softmax without clamp or epsilon, as when measuring.

    Takes O(resamples N C) time, and O(resamples C^2) for the logarithms of the centroids; some 200 MB besides the
    arguments, for N up to 100,000 and C up to 1,000.

    Args:
        logits: (N, C) finite floats, the classifier's outputs before softmax, on any device.
        labels: (N,) integers in [0, C).
        resamples: number of bootstrap samples, at least 1.

    Returns:
        (resamples,) float64 on the CPU; NaN where a sample has no separation (examples of one class only).

    Raises:
        ValueError: what `measure_information` refuses, or no resamples.
    """
    if resamples < 1:
        raise ValueError(f"there should be at least one resample, not {resamples}")
    # It refuses what does not fit; one pass more is nothing beside `resamples` of them.
    measure_information(logits, labels)
    labels = labels.long()
    n, classes = logits.shape
    # Sorted by class, the examples of a class are a slice of the weights.
    order = labels.argsort(stable=True)
    members = torch.split(order, labels.bincount(minlength=classes).tolist())
    at_once = min(resamples, max(1, _WEIGHTS // n), max(1, _SUMS // classes))
    weights = resample_weights(n, resamples)
    parts = []
    for start in range(0, resamples, at_once):
        drawn = _collect(weights, min(at_once, resamples - start), order.cpu().numpy())
        parts.append(_ncmi(logits.detach(), members, drawn.to(logits.device)))
    return torch.cat(parts).cpu()


def _collect(weights: Iterator[NDArray[np.intp]], replicates: int, order: NDArray[np.int64]) -> Tensor:
    """The next weights, with their examples in the given order: (replicates, N) uint8."""
    # A byte is enough: 256 draws of one example out of N >= 256 have a probability below 1 / 256!.
    collected = np.empty((replicates, len(order)), np.uint8)
    for row in collected:
        row[:] = next(weights)[order]
    return torch.from_numpy(collected)


def _ncmi(logits: Tensor, members: Sequence[Tensor], weights: Tensor) -> Tensor:
    """NCMI for each row of weights, (K,) float64; weights (K, N) are in the order of `members`, indices by class."""
    replicates, n = weights.shape
    p_before = logits.new_zeros(replicates, logits.shape[1], dtype=torch.float64)
    log_before = p_before.clone()
    divergence, separation = p_before.new_zeros(replicates), p_before.new_zeros(replicates)
    for of_class, drawn in zip(members, torch.split(weights, [len(m) for m in members], dim=1), strict=True):
        if len(of_class) == 0:
            continue
        count, p, log_p, p_log_p = _class_sums(logits, of_class, drawn)
        # KL divergences are at least 0; rounding may say -1e-17.
        divergence += (p_log_p - centroid_terms(p, count).sum(1)).clamp(min=0)
        # Each pair of classes in both orders, as sums of terms of one sign: the sum over all pairs less that within
        # classes would cancel, and would leave rounding where one class alone should leave 0.
        separation -= (p * log_before).sum(1) + (p_before * log_p).sum(1)
        p_before += p
        log_before += log_p
    return torch.where(separation > 0, divergence / n / (separation / n**2), torch.nan)


def _class_sums(logits: Tensor, members: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """n_y (K,), S_y (K, C), T_y (K, C) and h_y (K,) over the rows `members` of the logits, for weights (K, n_y)."""
    replicates, classes = len(weights), logits.shape[1]
    p_sum = logits.new_zeros(replicates, classes, dtype=torch.float64)
    log_sum, p_log_sum = p_sum.clone(), p_sum.new_zeros(replicates)
    count = p_log_sum.clone()
    rows = max(1, _BLOCK // max(replicates, classes))
    for some, drawn in zip(torch.split(members, rows), torch.split(weights, rows, dim=1), strict=True):
        weight = drawn.double()
        log_p, p = log_probabilities(logits[some])
        count += weight.sum(1)
        p_sum.addmm_(weight, p)
        log_sum.addmm_(weight, log_p)
        p_log_sum.addmv_(weight, (p * log_p).sum(1))
    return count, p_sum, log_sum, p_log_sum
