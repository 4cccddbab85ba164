"""Losses against their definitions in float64, and where float32 saturates."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.attacks.losses import (
    LOSSES,
    class_centroids,
    make_loss,
    top_other_classes,
)
from robustbench_cmic.attacks.pgd import pgd
from robustbench_cmic.suite.fields import Loss
from tests.attacks.nets import convolutional, examples, predicted

CLASSES = 5


def case(n: int = 40, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random logits, labels, other classes, centroids."""
    generator = torch.Generator().manual_seed(2)
    logits = scale * torch.randn(n, CLASSES, generator=generator)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    targets = (labels + torch.randint(1, CLASSES, (n,), generator=generator)) % CLASSES
    centroids = (2 * torch.randn(CLASSES, CLASSES, generator=generator)).double().softmax(1)
    return logits, labels, targets, centroids


def gradient(loss: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss.sum(), logits)
    return found


def unit(vectors: Tensor) -> Tensor:
    flat = vectors.double().flatten(1)
    return flat / flat.square().sum(1, keepdim=True).sqrt()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


def test_log_odds_is_cross_entropy_seen_through_an_increasing_function() -> None:
    model = convolutional().double()
    images, labels = examples(30)
    images = images.double().requires_grad_()
    logits = model(images)
    odds, entropy = LOSSES["log_odds"](logits, labels), LOSSES["ce"](logits, labels)
    own = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(odds, ((1 - own) / own).log())
    torch.testing.assert_close(functional.softplus(odds), entropy)
    odds_gradient = torch.autograd.grad(odds.sum(), images, retain_graph=True)[0]
    entropy_gradient = gradient(entropy, images)
    torch.testing.assert_close(unit(odds_gradient), unit(entropy_gradient))
    assert torch.equal(odds_gradient.sign(), entropy_gradient.sign())


@pytest.mark.parametrize("loss", ["log_odds", "scaled_ce", "cmic"])
def test_confident_logits_keep_a_gradient(loss: str) -> None:
    logits, _, _, _ = case(scale=1e4)
    labels = logits.argmax(1)
    centroids = (6 * torch.eye(CLASSES)).double().softmax(1)
    logits.requires_grad_()
    entropy = gradient(LOSSES["ce"](logits, labels), logits)
    assert bool((entropy == 0).all()), "what float32 leaves of cross entropy"
    found = gradient(make_loss(loss, centroids)(logits, labels), logits)
    assert bool((found.gather(1, labels[:, None]) < 0).all())
    assert bool((found.amax(1) > 0).all())


def test_scaled_ce_is_cross_entropy_of_logits_over_a_range_of_ten() -> None:
    logits, labels, _, _ = case(scale=700)
    logits.requires_grad_()
    scale = 10 / (logits.amax(1) - logits.amin(1)).detach()
    loss = LOSSES["scaled_ce"](logits, labels)
    torch.testing.assert_close(loss, functional.cross_entropy(logits * scale[:, None], labels, reduction="none"))
    assert float(loss.detach().max()) < 10 + torch.tensor(CLASSES).log()
    probabilities = (logits * scale[:, None]).softmax(1) - functional.one_hot(labels, CLASSES)
    torch.testing.assert_close(gradient(loss, logits), (probabilities * scale[:, None]).detach(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1e-40, -7.5, 3e38])
def test_scaled_ce_of_equal_logits_is_finite(value: float) -> None:
    logits = torch.full((2, CLASSES), value, requires_grad=True)
    loss = LOSSES["scaled_ce"](logits, torch.tensor([0, 3]))
    torch.testing.assert_close(loss, torch.full((2,), float(CLASSES)).log())
    assert bool(torch.isfinite(gradient(loss, logits)).all())


def test_cmic_is_the_difference_of_divergences() -> None:
    logits, labels, targets, centroids = case()
    logits = logits.double().requires_grad_()
    p = logits.softmax(1)
    rows = range(len(labels))
    own = divergence(p, centroids[labels])
    others = torch.stack([
        torch.stack([divergence(p[i], centroids[j]) for j in range(CLASSES) if j != labels[i]]).min() for i in rows
    ])  # fmt: skip
    towards = divergence(p, centroids[targets])
    for found, expected in (
        (make_loss("cmic", centroids)(logits, labels), own - others),
        (make_loss("cmic", centroids)(logits, labels, targets), own - towards),
    ):
        torch.testing.assert_close(found, expected)
        slope = torch.autograd.grad(expected.sum(), logits, retain_graph=True)[0]
        largest = slope.abs().amax(1, keepdim=True)
        torch.testing.assert_close(gradient(found, logits), slope / largest)


def test_cmic_gradient_does_not_depend_on_how_far_the_own_class_leads() -> None:
    logits, labels, targets, centroids = case()
    loss = make_loss("cmic", centroids)
    own = functional.one_hot(labels, CLASSES).double()
    slopes = []
    for lead in (100.0, 300.0, 5e5):  # p of the others about 1e-43, 1e-130 and far below what float64 has
        z = (logits.double() + lead * own).requires_grad_()
        slopes.append(gradient(loss(z, labels, targets), z))
        z32 = z.detach().float().requires_grad_()
        assert float(gradient(loss(z32, labels, targets), z32).abs().amax(1).min()) == 1
    torch.testing.assert_close(slopes[1], slopes[0])
    torch.testing.assert_close(slopes[2], slopes[0], rtol=1e-9, atol=1e-9)


def test_cmic_survives_centroids_of_zero() -> None:
    logits, labels, targets, _ = case()
    logits.requires_grad_()
    loss = make_loss("cmic", torch.eye(CLASSES, dtype=torch.float64))(logits, labels, targets)
    assert bool(torch.isfinite(loss).all())
    assert bool(torch.isfinite(gradient(loss, logits)).all())


def test_targeted_losses_as_defined() -> None:
    logits, labels, targets, _ = case()
    rows = torch.arange(len(labels))
    lead = logits[rows, targets] - logits[rows, labels]
    assert torch.equal(LOSSES["margin"](logits, labels, targets), lead)
    assert torch.equal(LOSSES["ce"](logits, labels, targets), -LOSSES["ce"](logits, targets))
    assert torch.equal(LOSSES["scaled_ce"](logits, labels, targets), -LOSSES["scaled_ce"](logits, targets))
    probability = logits.softmax(1)[rows, targets]
    odds = (probability / (1 - probability)).log()
    torch.testing.assert_close(LOSSES["log_odds"](logits, labels, targets), odds, rtol=1e-3, atol=1e-4)
    reference = torchattacks.APGDT(convolutional())
    theirs = reference.dlr_loss_targeted(logits, labels, targets)
    torch.testing.assert_close(LOSSES["dlr"](logits, labels, targets), theirs)
    assert list(LOSSES) == list(get_args(Loss)), "what a suite may name"


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "dlr"])  # its divisor pulls as well
def test_raising_a_targeted_loss_moves_from_the_label_to_the_target(loss: str) -> None:
    logits, labels, targets, _ = case(scale=1.0)
    centroids = (4 * torch.eye(CLASSES)).double().softmax(1)
    logits.requires_grad_()
    slope = gradient(make_loss(loss, centroids)(logits, labels, targets), logits)
    difference = slope.gather(1, targets[:, None]) - slope.gather(1, labels[:, None])
    assert bool((difference > 0).all())


@pytest.mark.parametrize("loss", ["log_odds", "scaled_ce", "cmic"])
def test_pgd_is_not_stopped_by_saturated_logits(loss: str) -> None:
    model = convolutional(scale=1e4)
    images, _ = examples(50)
    labels = predicted(model, images)
    with torch.no_grad():
        centroids = class_centroids(model(images), labels, 10)
    found = pgd(
        model, images, labels, eps=0.1, alpha=0.02, steps=20, loss=loss, random_start=False, centroids=centroids
    )
    assert int((predicted(model, found) == labels).sum()) < 5


def test_centroids_are_means_by_class() -> None:
    logits, labels, _, _ = case()
    labels[labels == 3] = 0
    found = class_centroids(logits, labels, CLASSES)
    assert found.dtype == torch.float64
    for y in (0, 1, 2, 4):
        torch.testing.assert_close(found[y], logits[labels == y].double().softmax(1).mean(0))
    torch.testing.assert_close(found[3], torch.full((CLASSES,), 1 / CLASSES).double())


def test_likeliest_others_come_in_order_and_without_the_label() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0], [1.0, 4.0, 3.0, 2.0]])
    labels = torch.tensor([1, 3])
    assert top_other_classes(logits, labels, 2).tolist() == [[2, 3], [1, 2]]
    assert top_other_classes(logits, labels, 9).tolist() == [[2, 3, 0], [1, 2, 0]]


def test_what_a_loss_needs_and_does_not_get_is_said() -> None:
    logits, labels, targets, centroids = case()
    with pytest.raises(ValueError, match="'cmic' needs the class centroids"):
        make_loss("cmic")
    for aims in (None, targets):
        with pytest.raises(ValueError, match="'cmic' needs the class centroids"):
            LOSSES["cmic"](logits, labels, aims)
    with pytest.raises(ValueError, match="sum to one"):
        make_loss("cmic", centroids * 2)
    with pytest.raises(ValueError, match=r"shape \(4, 4\) for logits of 4 classes, not \(5, 5\)"):
        make_loss("cmic", centroids)(logits[:, :4], labels)
    with pytest.raises(ValueError, match="at least 2 classes"):
        make_loss("cmic", torch.ones(1, 1))(logits[:, :1], labels * 0)
    with pytest.raises(ValueError, match="at least 4 classes"):
        make_loss("dlr")(logits[:, :3], labels % 3, targets % 3)
    assert make_loss("dlr")(logits[:, :3], labels % 3).shape == labels.shape
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(ValueError, match="'cmic' needs the class centroids"):
        pgd(model, examples(2)[0], labels[:2], eps=0.1, alpha=0.1, steps=1, loss="cmic")
