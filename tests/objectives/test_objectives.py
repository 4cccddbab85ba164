"""CE and CMIC-DL against the paper's formulas, term by term and pair by pair."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives import Cmic, CrossEntropy, Focal, Objective, build_objective
from robustbench_cmic.suite.objectives import objective_of


def batch(n: int = 20, classes: int = 4, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


def cmic(classes: int = 4, **parameters: Any) -> Cmic:
    return Cmic(classes, **({"lambda_": 0.7, "beta": 0.4} | parameters))


def gradient(objective: torch.nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    objective(leaf, labels)["total"].backward()
    assert leaf.grad is not None
    return leaf.grad


def test_terms_as_defined_pair_by_pair() -> None:
    logits, labels = batch()
    objective = cmic()
    objective.centroid.copy_(torch.rand(4, 4, generator=torch.Generator().manual_seed(1)).softmax(1))
    terms = objective(logits, labels)
    p = logits.softmax(1)
    concentration = sum(float((p[i] * (p[i] / objective.centroid[labels[i]]).log()).sum()) for i in range(20)) / 20
    separation = (
        sum(float(-(p[i] * p[j].log()).sum()) for i in range(20) for j in range(20) if labels[i] != labels[j]) / 400
    )
    assert float(terms["ce"]) == pytest.approx(float(functional.cross_entropy(logits, labels)))
    assert float(terms["cmi"]) == pytest.approx(concentration, rel=1e-5)
    assert float(terms["separation"]) == pytest.approx(separation, rel=1e-5)
    expected = float(terms["ce"]) + 0.7 * concentration - 0.4 * separation
    assert float(terms["total"]) == pytest.approx(expected, rel=1e-5)


def test_gradient_as_differentiated_from_the_pairwise_formula() -> None:
    logits, labels = batch()
    leaf = logits.double().requires_grad_()
    log_p = leaf.log_softmax(1)
    p = log_p.exp()
    different = (labels[:, None] != labels[None, :]).double()
    separation = -((p @ log_p.T) * different).sum() / 400
    concentration = (p * (log_p - math.log(0.25))).sum(1).mean()
    loss = functional.cross_entropy(leaf, labels) + 0.7 * concentration - 0.4 * separation
    (expected,) = torch.autograd.grad(loss, leaf)
    assert torch.allclose(gradient(cmic(), logits, labels).double(), expected, atol=1e-7)


def test_without_weights_it_is_cross_entropy_bit_for_bit() -> None:
    logits, labels = batch(scale=50.0)
    plain = CrossEntropy(4)
    assert torch.equal(cmic(lambda_=0.0, beta=0.0)(logits, labels)["total"], plain(logits, labels)["total"])
    assert torch.equal(gradient(cmic(lambda_=0.0, beta=0.0), logits, labels), gradient(plain, logits, labels))
    assert not torch.equal(gradient(cmic(), logits, labels), gradient(plain, logits, labels))


def test_floor_bounds_the_separation_term_and_stops_its_gradient() -> None:
    labels = torch.tensor([0, 1])
    logits = torch.tensor([[40.0, 0.0], [0.0, 40.0]])
    bounded = cmic(classes=2, lambda_=0.0, beta=1.0, floor=1e-8)(logits, labels)["separation"]
    # Two ordered pairs of four, each at most -log floor.
    assert float(bounded) == pytest.approx(-math.log(1e-8) / 2, rel=1e-6)
    loose = cmic(classes=2, lambda_=0.0, beta=1.0, floor=1e-30)(logits, labels)["separation"]
    assert float(loose) == pytest.approx(20.0, rel=1e-6)
    pushed = gradient(cmic(classes=2, lambda_=0.0, beta=1.0, floor=1e-30), logits, labels)
    held = gradient(cmic(classes=2, lambda_=0.0, beta=1.0, floor=1e-8), logits, labels)
    assert float(pushed.abs().max()) > 0.1
    assert float(held.abs().max()) < 1e-6


def test_centroids_move_for_the_classes_present_only() -> None:
    logits, labels = batch()
    labels = labels.clamp(max=2)
    objective = cmic(momentum=0.9)
    assert torch.equal(objective.centroid, torch.full((4, 4), 0.25))
    objective.update(logits, labels)
    p = logits.softmax(1)
    for label in range(3):
        expected = 0.9 * 0.25 + 0.1 * p[labels == label].mean(0)
        assert torch.allclose(objective.centroid[label], expected, atol=1e-7)
    assert torch.equal(objective.centroid[3], torch.full((4,), 0.25))
    assert torch.allclose(objective.centroid.sum(1), torch.ones(4))


def test_concentration_gives_the_centroid_no_gradient() -> None:
    logits, labels = batch()
    objective = cmic()
    objective(logits.requires_grad_(), labels)["total"].backward()
    assert not objective.centroid.requires_grad
    assert not list(objective.parameters())


def test_builds_what_a_cell_declares() -> None:
    declared = {
        "name": "cmic", "lambda": 0.3, "beta": 0.2, "centroids": "class_batches", "momentum": 0.9999,
        "class_batch_size": 5, "floor": 1e-6,
    }  # fmt: skip
    objective = build_objective(objective_of(declared), 7)
    assert isinstance(objective, Cmic)
    assert (objective.lambda_, objective.beta, objective.momentum) == (0.3, 0.2, 0.9999)
    assert objective.class_examples == 5
    assert objective.centroid.shape == (7, 7)
    assert build_objective(objective_of(declared | {"centroids": "batch"}), 7).class_examples == 0
    assert isinstance(build_objective(objective_of({"name": "ce"}), 7), CrossEntropy)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: cmic(10, separation_gradient="frist"),
            "separation_gradient: should be 'both' or 'first', not 'frist'",
        ),
        (lambda: cmic(10, separation_mean="unlike"), "separation_mean: should be 'all_pairs' or 'unlike_pairs'"),
        (lambda: cmic(10, centroids="x"), "centroids: should be 'batch', 'class_batches' or 'fixed', not 'x'"),
        (lambda: cmic(10, momentum=7), "momentum: should be less than 1, not 7"),
        (lambda: cmic(10, beta=float("nan")), "beta: should be a finite number, not nan"),
        (lambda: cmic(10, floor=-1), "floor: should be greater than 0, not -1"),
        (lambda: cmic(10, lambda_="a"), "lambda: should be a number such as 0.1 or 8/255, not 'a'"),
        (lambda: cmic(1), "classes: should be a whole number of at least 2, not 1"),
        (lambda: CrossEntropy(10, 2), "label_smoothing: should be less than 1, not 2"),
    ],
)
def test_a_loop_of_one_s_own_gets_no_other_reading_by_a_slip(make: Callable[[], Objective], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make()


@pytest.mark.parametrize("objective", [cmic(10), CrossEntropy(10), Focal(10)], ids=["cmic", "ce", "focal"])
@pytest.mark.parametrize("wrong", [-1, 10])
def test_a_label_that_is_no_class_is_named(objective: Objective, wrong: int) -> None:
    labels = torch.tensor([0, wrong, 9])
    said = f"labels should be from 0 to 9, since there are 10 classes, not {wrong}"
    with pytest.raises(ValueError, match=re.escape(said)):
        objective(torch.zeros(3, 10), labels)
