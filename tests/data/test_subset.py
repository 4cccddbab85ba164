"""Evaluation subsets: balanced where asked for, nested, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest

from robustbench_cmic.data.subset import choose, subset_sha256

SORTED = np.repeat(np.arange(10), 50)


@pytest.mark.parametrize("limit", [10, 25, 100, 495])
def test_per_class_takes_as_many_of_every_class_up_to_one(limit: int) -> None:
    counts = np.bincount(SORTED[choose(SORTED, limit, per_class=True)], minlength=10)
    assert counts.sum() == limit
    assert counts.max() - counts.min() <= 1


def test_a_class_that_is_too_small_gives_all_it_has() -> None:
    labels = np.array([0] * 3 + [1] * 40)
    chosen = labels[choose(labels, 20, per_class=True)]
    assert np.bincount(chosen).tolist() == [3, 17]


@pytest.mark.parametrize("per_class", [False, True])
def test_smaller_subsets_lie_in_larger_ones(per_class: bool) -> None:
    small, large = (set(choose(SORTED, n, per_class=per_class).tolist()) for n in (60, 200))
    assert small < large


def test_a_sorted_file_gives_no_subset_of_few_classes() -> None:
    chosen = choose(SORTED, 50, per_class=False)
    assert len(set(SORTED[chosen])) == 10
    assert (np.diff(chosen) > 0).all()


def test_without_a_limit_all_are_taken() -> None:
    for limit, per_class in ((None, False), (None, True), (500, False), (9999, True)):
        assert choose(SORTED, limit, per_class).tolist() == list(range(500))


def test_the_choice_is_frozen() -> None:
    """Committed results rest on it: a change must be deliberate, and raise the version of the rule."""
    assert choose(np.zeros(100, int), 8).tolist() == [2, 32, 33, 42, 43, 53, 94, 95]
    assert subset_sha256(np.arange(3)).startswith("ab25350e")
