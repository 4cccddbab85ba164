"""Evaluation subsets: balanced where asked for, nested, and the same for ever."""

from __future__ import annotations

import numpy as np
import pytest

from robustbench_cmic.data.base import DataError
from robustbench_cmic.data.subset import choose, hold_out, subset_sha256

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


@pytest.mark.parametrize("count", [1, 10, 50, 123, 498])
def test_of_every_class_its_share_is_held_out_up_to_one(count: int) -> None:
    random = np.random.default_rng(0)
    uneven = random.permutation(np.repeat(np.arange(5), [300, 120, 60, 19, 1]))
    for labels in (SORTED, uneven):
        kept, held = hold_out(labels, count)
        assert sorted([*kept, *held]) == list(range(500))
        assert (np.diff(kept) > 0).all()
        assert (np.diff(held) > 0).all()
        assert len(held) == count
        shares = count * np.bincount(labels) / 500
        assert (np.abs(np.bincount(labels[held], minlength=len(shares)) - shares) < 1).all()


def test_what_is_held_out_of_a_class_is_drawn_and_not_what_is_evaluated_first() -> None:
    labels = np.zeros(10_000, int)
    _, held = hold_out(labels, 1000)
    parts = np.bincount(held // 1000, minlength=10)
    assert float(((parts - 100) ** 2 / 100).sum()) < 40  # chi-squared; beyond 40 at p < 1e-5
    assert len(set(held.tolist()) & set(choose(labels, 1000).tolist())) < 200  # 100 by chance


def test_nothing_held_out_leaves_everything() -> None:
    kept, held = hold_out(SORTED, 0)
    assert kept.tolist() == list(range(500))
    assert len(held) == 0


@pytest.mark.parametrize("count", [499, 500, 50_000])
def test_two_images_are_left_to_learn_from(count: int) -> None:
    with pytest.raises(DataError, match=f"takes {count} of 500 training images"):
        hold_out(SORTED, count)
