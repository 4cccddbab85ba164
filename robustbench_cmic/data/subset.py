"""Which examples of a split are evaluated or held out: draws that depend on the split and what is asked for only."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from robustbench_cmic.data.base import DataError, Labels


def choose(labels: Labels, limit: int | None, per_class: bool = False) -> npt.NDArray[np.int64]:
    """Indices of the chosen examples, ascending.

    Examples are taken in a fixed pseudo-random order, so that a subset holds every smaller one of the same kind, and a
    file sorted by class gives no subset of few classes.

    Args:
        labels: of the whole split.
        limit: how many examples; None: all.
        per_class: as many of every class, up to one.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    order = np.argsort(_splitmix64(np.arange(len(labels), dtype=np.uint64)), kind="stable")
    if per_class:
        order = order[np.argsort(_turn(labels[order]), kind="stable")]
    return np.sort(order[:limit])


def hold_out(labels: Labels, count: int, key: str = "held_out") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of a split without `count` of its examples, and of these, both ascending; `key` is what asks for it.

    Of every class its share is held out, up to one (the method of the largest remainders; the lower labels win ties).
    The order within a class is as fixed as that of `choose`, but another.

    Raises:
        DataError: fewer than two examples would be left, as batch normalisation needs.
    """
    n = len(labels)
    if n - count < 2:
        raise DataError(f"`{key}` takes {count} of {n} training images: two should be left at least")
    order = np.argsort(_splitmix64(np.arange(n, dtype=np.uint64) + np.uint64(2**32)), kind="stable")
    taken, remainders = np.divmod(count * np.bincount(labels), n)
    taken[np.argsort(-remainders, kind="stable")[: count - taken.sum()]] += 1
    is_held = np.zeros(n, bool)
    is_held[order[_turn(labels[order]) < taken[labels[order]]]] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def deal(labels: Labels, folds: int) -> npt.NDArray[np.int64]:
    """For each example the fold, 0 ... folds - 1, that it is dealt to, or -1: (N,).

    Folds are of equal size, N // folds; what is over is in none. They have of every class as many, up to one; the
    order within a class is as fixed as that of `choose`, but another.
    """
    order = np.argsort(_splitmix64(np.arange(len(labels), dtype=np.uint64) + np.uint64(2**33)), kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]
    whole = len(labels) // folds * folds
    dealt = np.full(len(labels), -1)
    dealt[order[:whole]] = np.arange(whole) % folds
    return dealt


def _turn(labels: Labels) -> npt.NDArray[np.int64]:
    """For each example the number of examples of its class before it: one of every class comes first."""
    by_class = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    turn = np.empty(len(labels), np.int64)
    turn[by_class] = np.arange(len(labels)) - starts
    return turn


def _splitmix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Steele et al. 2014: a mixing of 64 bits that will be the same on every machine and in every version."""
    mixed = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def subset_sha256(indices: npt.NDArray[np.int64]) -> str:
    """SHA-256 (hex) over the chosen indices, as 64-bit little-endian integers."""
    return hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()
