"""The two readings of CMIC-DL and its other options: values by hand, gradients by autograd of the plain double sum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives import Cmic, build_objective
from robustbench_cmic.suite.objectives import CmicObjective, objective_of
from tests.objectives.test_objectives import batch, gradient

SEPARATION_GRADIENTS: tuple[Literal["both", "first"], ...] = ("both", "first")


def preset(name: str, keys: dict[str, Any] | None = None, classes: int = 4) -> Cmic:
    built = build_objective(objective_of({"name": "cmic", "preset": name} | (keys or {})), classes)
    assert isinstance(built, Cmic)
    return built


def double_sum(
    logits: Tensor, labels: Tensor, centroid: Tensor, *, stopped: bool, unlike: bool, floor: float
) -> Tensor:
    """Lambda 0.7, beta 0.4, pair by pair."""
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    total = functional.cross_entropy(logits, labels)
    pairs, separation = 0, logits.new_zeros(())
    for x in range(len(labels)):
        total = total + 0.7 / len(labels) * (p[x] * (log_p[x] - centroid[labels[x]].log())).sum()
        for u in range(len(labels)):
            if labels[x] != labels[u]:
                second = log_p[u].clamp(min=math.log(floor))
                separation = separation - (p[x] * (second.detach() if stopped else second)).sum()
                pairs += 1
    return total - 0.4 * separation / (pairs if unlike else len(labels) ** 2)


@pytest.mark.parametrize(
    ("name", "stopped", "unlike", "floor"), [("printed", False, False, 1e-8), ("authors", True, True, 1e-25)]
)
def test_value_and_gradient_of_both_readings_are_those_of_the_double_sum(
    name: str, stopped: bool, unlike: bool, floor: float
) -> None:
    logits, labels = batch()
    objective = preset(name)
    objective.centroid.copy_(torch.rand(4, 4, generator=torch.Generator().manual_seed(1)).softmax(1))
    leaf = logits.double().requires_grad_()
    expected = double_sum(leaf, labels, objective.centroid.double(), stopped=stopped, unlike=unlike, floor=floor)
    assert float(objective(logits, labels)["total"]) == pytest.approx(float(expected.detach()), rel=1e-5)
    (slope,) = torch.autograd.grad(expected, leaf)
    assert torch.allclose(gradient(objective, logits, labels).double(), slope, atol=1e-7)


def test_authors_reading_worked_by_hand() -> None:
    """Two images of two classes with P = (3/4, 1/4) and (1/3, 2/3), centroids uniform.

    CE = (log 4/3 + log 3/2) / 2. Concentration is the mean of KL(P || 1/2). There are two unlike pairs:
    separation = (H(P_1, P_2) + H(P_2, P_1)) / 2. Of P_1 . log P_2 only P_1 is differentiated: with the softmax's
    Jacobian, its gradient in z_1 is P_1 * (log P_2 - P_1 . log P_2).
    """
    p = torch.tensor([[3 / 4, 1 / 4], [1 / 3, 2 / 3]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    terms = preset("authors", classes=2)(p.log(), labels)
    first = -(3 / 4 * math.log(1 / 3) + 1 / 4 * math.log(2 / 3))
    entropies = first - (1 / 3 * math.log(3 / 4) + 2 / 3 * math.log(1 / 4))
    assert float(terms["separation"]) == pytest.approx(entropies / 2, rel=1e-12)
    concentration = (
        0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 1 / 3 * math.log(2 / 3) + 2 / 3 * math.log(4 / 3)
    ) / 2
    assert float(terms["cmi"]) == pytest.approx(concentration, rel=1e-7)
    ce = (math.log(4 / 3) + math.log(3 / 2)) / 2
    assert float(terms["total"]) == pytest.approx(ce + 0.7 * concentration - 0.4 * entropies / 2, rel=1e-7)

    only_separation = preset("authors", {"lambda": 0.0, "beta": 1.0}, classes=2)
    # CE's gradient is (P - onehot) / 2; that of -separation is half of P * (log P_other - P . log P_other).
    log_other = torch.tensor([[math.log(1 / 3), math.log(2 / 3)], [math.log(3 / 4), math.log(1 / 4)]])
    by_hand = (p - torch.eye(2)) / 2 + p * (log_other - (p * log_other).sum(1, keepdim=True)) / 2
    assert torch.allclose(gradient(only_separation, p.log(), labels), by_hand, atol=1e-9)


def test_only_the_printed_reading_pushes_a_saturated_softmax_further() -> None:
    logits, labels = torch.tensor([[30.0, 0.0], [0.0, 30.0]]), torch.tensor([0, 1])
    both, first = (
        gradient(Cmic(2, lambda_=0.0, beta=1.0, floor=1e-25, separation_gradient=which), logits, labels).abs().max()
        for which in SEPARATION_GRADIENTS
    )
    assert float(both) > 0.1
    assert float(first) < 1e-10


def test_a_batch_of_one_class_has_no_unlike_pair() -> None:
    logits, _ = batch(n=6)
    terms = preset("authors")(logits, torch.full((6,), 2))
    assert float(terms["separation"]) == 0
    assert torch.isfinite(gradient(preset("authors"), logits, torch.full((6,), 2))).all()


def test_negative_lambda_rewards_spread() -> None:
    logits, labels = batch()
    total = float(preset("printed", {"lambda": -0.5, "beta": 0.0})(logits, labels)["total"])
    terms = preset("printed")(logits, labels)
    assert total == pytest.approx(float(terms["ce"]) - 0.5 * float(terms["cmi"]), rel=1e-6)


def test_horizon_is_a_share_of_the_steps() -> None:
    objective = preset("printed", {"horizon": 0.1})
    objective.begin(500)
    assert objective.momentum == pytest.approx(1 - 1 / 50)
    objective.begin(5)  # less than one step to look back on: the centroid is the last mean
    assert objective.momentum == 0


def test_fixed_centroids_are_class_means_and_no_step_moves_them() -> None:
    logits, labels = batch(n=40)
    labels[labels == 3] = 0  # class 3 has no example
    passes = 0

    def outputs() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal passes
        passes += 1
        yield from zip(torch.split(logits, 16), torch.split(labels, 16), strict=True)

    objective = preset("printed", {"centroids": "fixed"})
    objective.begin_epoch(1, outputs)
    p = logits.softmax(1)
    for label in range(3):
        assert torch.allclose(objective.centroid[label], p[labels == label].mean(0), atol=1e-6)
    assert torch.equal(objective.centroid[3], torch.full((4,), 0.25))
    before = objective.centroid.clone()
    objective.update(-logits, labels)
    objective.begin_epoch(2, outputs)
    assert torch.equal(objective.centroid, before)
    assert passes == 1
    each = preset("printed", {"centroids": "fixed", "refresh": "epoch"})
    each.begin_epoch(1, outputs)
    each.begin_epoch(2, outputs)
    assert passes == 3


def test_a_preset_is_recorded_written_out_and_read_back() -> None:
    suite = CmicObjective.model_validate({"name": "cmic", "preset": "authors", "lambda": 0.3})
    declared = suite.declared()
    assert declared == {
        "name": "cmic", "lambda": 0.3, "beta": 0.4, "separation_gradient": "first", "separation_mean": "unlike_pairs",
        "floor": 1e-25, "centroids": "batch", "momentum": 0.99, "class_batch_size": 8, "class_batch_mode": "eval",
        "refresh": "once", "label_smoothing": 0.0,
    }  # fmt: skip
    again = objective_of(declared)
    assert again.declared() == declared
    assert again.arguments(0) == suite.arguments(0)
    written_out = {"separation_gradient": "both", "separation_mean": "all_pairs", "floor": 1e-8}
    printed = [objective_of({"name": "cmic"} | keys).declared() for keys in ({"preset": "printed"}, written_out, {})]
    assert printed[0] == printed[1] == printed[2]


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        ({"preset": "printed"}, "CMIC-DL printed"),
        ({"preset": "authors", "beta": 1.0}, "CMIC-DL authors"),
        ({}, "CMIC-DL printed"),
        ({"separation_gradient": "first"}, "CMIC-DL (first, all_pairs)"),
    ],
)
def test_a_title_names_the_reading(keys: dict[str, Any], title: str) -> None:
    assert objective_of({"name": "cmic"} | keys).title == title


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ({"preset": "printed", "floor": 1e-8}, "floor", "set by `preset: printed`"),
        ({"preset": "authors", "separation_gradient": "both"}, "separation_gradient", "set by `preset: authors`"),
        ({"horizon": 0.1, "momentum": 0.9}, "horizon", "`momentum` say the same"),
        ({"centroids": "fixed", "momentum": 0.9}, "momentum", "no effect with `centroids: fixed`"),
        ({"class_batch_mode": "train"}, "class_batch_mode", "no effect with `centroids: batch`"),
        ({"refresh": "epoch"}, "refresh", "no effect with `centroids: batch`"),
    ],
)
def test_keys_that_contradict_each_other(keys: dict[str, Any], key: str, words: str) -> None:
    ((found, sentence),) = objective_of({"name": "cmic"} | keys).problems()
    assert found == key
    assert words in sentence


def test_warnings() -> None:
    def told(keys: dict[str, Any], steps: int | None) -> list[str]:
        return [f"{key}: {text}" for key, text in objective_of({"name": "cmic"} | keys).warnings(steps)]

    assert told({}, 100) == []
    assert told({"momentum": 0.98}, 230) == []  # 0.98 ** 230 is 0.96 %
    (few,) = told({"momentum": 0.98}, 50)
    assert few.startswith("momentum: the momentum 0.98 leaves 36 % of the uniform start")
    (short,) = told({"centroids": "class_batches"}, 1876)
    assert "leaves 83 %" in short
    (given,) = told({"momentum": 0.9999}, 1876)
    assert given.startswith("momentum: ")
    assert told({"horizon": 0.1}, 1876) == []
    assert told({"momentum": 0.9999}, None) == []
    (negative,) = told({"lambda": -0.2}, None)
    assert "may collapse" in negative
