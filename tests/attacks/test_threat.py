"""The ball: what is inside, what is moved there, and what is no ball at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from robustbench_cmic.attacks.apgd import apgd
from robustbench_cmic.attacks.autoattack import autoattack
from robustbench_cmic.attacks.fab import fab
from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.noise import random_points
from robustbench_cmic.attacks.pgd import pgd
from robustbench_cmic.attacks.square import square
from robustbench_cmic.attacks.threat import check_threat, normalized, norms, project, violations
from robustbench_cmic.suite.attacks import PGD
from robustbench_cmic.suite.fields import CLEAN, Norm, Threat
from tests.attacks.nets import convolutional, examples

SETTING: dict[str, Any] = {
    "name": "PGD", "alpha": 0.01, "steps": 1, "loss": "ce", "restarts": 1, "early_stop": False, "random_start": True,
    "targets": 0, "schedule": "constant",
}  # fmt: skip


def unchecked(threat: Threat) -> PGD:
    """An attack that no suite would let through."""
    parameters: dict[str, Any] = SETTING | {"norm": threat.norm, "eps": [threat.eps]}
    return PGD.model_construct(**parameters)


ATTACKS: dict[str, Callable[[Tensor, Tensor, Threat], object]] = {
    "pgd": lambda x, y, threat: pgd(convolutional(), x, y, eps=threat.eps, norm=threat.norm, alpha=0.1, steps=1),
    "apgd": lambda x, y, threat: apgd(convolutional(), x, y, threat, lambda _: torch.ones_like(x), steps=1),
    "fab": lambda x, y, threat: fab(convolutional(), x, y, threat, steps=1),
    "square": lambda x, y, threat: square(
        convolutional(), x, y, threat, places=torch.arange(len(x)), seed_of=int, queries=1
    ),
    "noise": lambda x, y, threat: random_points(convolutional(), x, y, threat, lambda _: torch.ones_like(x), 1),
    "autoattack": lambda x, y, threat: autoattack(convolutional(), x, y, threat, seed_of=int, queries=1, steps=1),
    "harness": lambda x, y, threat: evaluate_attack(
        convolutional(), x, y, classes=10, attack=unchecked(threat), seed=0
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_every_attack_refuses_a_ball_that_there_is_not(attack: Callable[[Tensor, Tensor, Threat], object]) -> None:
    images, labels = examples(2)
    attack(images, labels, Threat("linf", 0.1))
    for eps in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="eps should be at least 0 and finite"):
            attack(images, labels, Threat("linf", eps))
    for norm in ("l1", ""):
        with pytest.raises(ValueError, match="norm should be 'linf' or 'l2', not"):
            attack(images, labels, Threat(norm, 0.1))  # type: ignore[arg-type]


def test_clean_images_are_no_ball_and_a_ball_of_one_point_is() -> None:
    with pytest.raises(ValueError, match="not ''"):
        check_threat(CLEAN)
    check_threat(Threat("l2", 0.0))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_lengths_and_unit_vectors_are_those_of_the_norm(norm: Norm) -> None:
    values = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    values[2] = 0
    values[3] *= 1e-30  # its squares underflow
    order = torch.inf if norm == "linf" else 2
    expected = torch.linalg.vector_norm(values.double().flatten(1), order, dim=1)
    found = norms(values, norm)
    assert found.shape == (5, 1, 1, 1)
    torch.testing.assert_close(found.flatten().double(), expected, rtol=1e-6, atol=0)
    lengths = norms(normalized(values, norm), norm).flatten()
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projected_points_violate_nothing_and_others_do(norm: Norm) -> None:
    images, _ = examples(50)
    threat = Threat(norm, 0.1)
    far = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    assert bool(violations(threat, images, far).all())
    assert not bool(violations(threat, images, project(threat, images, far), tolerance=1e-6).any())
    inner = torch.full_like(images, 0.5)
    for share, outside in ((0.999, False), (1.001, True)):
        points = inner + share * 0.1 * normalized(far - images, norm)
        assert bool((violations(threat, inner, points) == outside).all())
