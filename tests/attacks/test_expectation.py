"""Expectation over transformation: means of gradients, losses and logits over draws of a randomised model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.autoattack import autoattack
from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.losses import margin
from robustbench_cmic.attacks.model import Expectation, expectation, misclassified
from robustbench_cmic.attacks.pgd import loss_and_gradient
from robustbench_cmic.seeding import seeded
from robustbench_cmic.suite.attacks import FGSM, PGD, AutoAttack
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted
from tests.attacks.oracles import LinearClassifier, inner_images, linear_robust


class Noisy(nn.Module):
    """A linear model whose weights and logits have zero-mean noise, another in every pass."""

    def __init__(self, classes: int = 3, noise: float = 0.3, logit_noise: float = 0.0) -> None:
        super().__init__()
        self.mean = LinearClassifier(classes)
        self.noise, self.logit_noise = noise, logit_noise
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        weight = self.mean.weight + self.noise * torch.randn(self.mean.weight.shape)
        # The noise moves the gradient, not the logits: 0.5 is in the middle of the images.
        moved = (images - 0.5).flatten(1)
        exact = self.mean(images)
        logits = exact + (moved - moved.detach()) @ (weight - self.mean.weight).T
        noisy: Tensor = logits + self.logit_noise * torch.randn(logits.shape)
        return noisy


def test_n_draws_divide_the_variance_of_gradients_by_n() -> None:
    model, images = Noisy(), inner_images(4)
    labels = predicted(model, images)
    exact = loss_and_gradient(model.mean, images, labels, None, margin).gradient
    variance = {}
    with seeded(0):
        for samples in (1, 10):
            network = expectation(model, samples)
            gradients = [loss_and_gradient(network, images, labels, None, margin).gradient for _ in range(60)]
            variance[samples] = float((torch.stack(gradients) - exact).square().mean())
    assert variance[1] == pytest.approx(2 * 0.3**2, rel=0.1)
    assert variance[10] == pytest.approx(variance[1] / 10, rel=0.15)


def test_gradients_losses_and_errors_are_those_of_the_means() -> None:
    model, images = Noisy(logit_noise=1.0), inner_images(20)
    labels = predicted(model.mean, images)
    with seeded(3):
        at = loss_and_gradient(Expectation(model, 7), images, labels, None, margin)
    with seeded(3):
        logits, gradients = [], []
        for _ in range(7):
            leaf = images.clone().requires_grad_()
            logits.append(model(leaf))
            gradients.append(torch.autograd.grad(margin(logits[-1], labels).sum(), leaf)[0])
    mean = torch.stack(logits).mean(0)
    torch.testing.assert_close(at.gradient, torch.stack(gradients).mean(0))
    torch.testing.assert_close(at.losses, torch.stack([margin(each, labels) for each in logits]).mean(0).detach())
    assert torch.equal(at.misclassified, mean.argmax(1) != labels)
    with seeded(3), torch.no_grad():
        drawn = misclassified(Expectation(model, 7), images, labels)
    assert torch.equal(drawn, at.misclassified) or int((drawn != at.misclassified).sum()) < 20
    assert 0 < int(at.misclassified.sum()) < 20


def test_one_draw_is_the_model_itself() -> None:
    model = convolutional()
    assert expectation(model, 1) is model
    images, _ = examples(20)
    labels = predicted(model, images)
    for attack in (PGD(name="PGD", eps=[0.03], loss="margin"), FGSM(name="FGSM", eps=[0.03])):
        one, many = (
            evaluate_attack(model, images, labels, classes=10, attack=each, seed=0, keep_images=True)
            for each in (attack, attack.varied(samples=4))
        )
        assert one.images is not None
        assert many.images is not None
        assert many.backwards == 4 * one.backwards
        assert torch.equal(one.correct, many.correct), "a model that draws nothing has one expectation"


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.3)])
def test_draws_find_what_noise_in_the_gradient_hides(norm: Norm, eps: float) -> None:
    """The decisions are exact, so that the best attack is known; with one draw steps go astray."""
    model, images = Noisy(noise=0.15), inner_images(100)
    labels = predicted(model.mean, images)
    robust = linear_robust(model.mean, images, labels, norm, eps)
    left = {}
    for samples in (1, 100):
        attack = FGSM(name="FGSM", norm=norm, eps=[eps], loss="margin", samples=samples)
        with seeded(0):
            left[samples] = evaluate_attack(model, images, labels, classes=3, attack=attack, seed=0).correct
        assert bool((left[samples] | ~robust).all())
    assert int(left[100].sum()) - int(robust.sum()) < (int(left[1].sum()) - int(robust.sum())) / 3


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_autoattack_with_draws_is_the_version_rand(classes: int) -> None:
    model, images = Noisy(classes, noise=0.05), inner_images(60)
    labels = predicted(model.mean, images)
    threat = Threat("linf", 0.02)
    with seeded(0):
        found, parts = autoattack(model, images, labels, threat, seed_of=lambda b: b, samples=20, steps=20)
    assert [part.name for part in parts] == ["APGD-CE", "APGD-DLR"]
    # One pass says what is right at the outset; then each of 20 steps and the start, and the judgement.
    assert model.passes <= 20 * (1 + 2 * (21 + 1))
    robust = linear_robust(model.mean, images, labels, "linf", 0.02)
    survives = predicted(model.mean, found) == labels
    assert bool((survives | ~robust).all())
    assert int(survives.sum()) - int(robust.sum()) <= 2


def test_the_judge_draws_for_itself_and_parts_count_what_they_drew() -> None:
    """What the mean of many draws believes broken is broken where the judge's one pass says so."""
    model, images = Noisy(noise=0.0, logit_noise=0.3), inner_images(60)
    labels = predicted(model.mean, images)
    attack = AutoAttack(name="AutoAttack", eps=[0.01], samples=20, steps=5)
    options: dict[str, Any] = {"classes": 3, "attack": attack, "seed": 0, "keep_images": True}
    with seeded(0):
        verdict = evaluate_attack(model, images, labels, **options)
    believed = sum(part.broken for part in verdict.parts)
    assert believed > 0
    assert verdict.images is not None
    assert torch.equal(verdict.correct & (verdict.logits.argmax(1) != labels), torch.zeros(60, dtype=torch.bool))
    assert sum(part.backwards for part in verdict.parts) == verdict.backwards
    assert verdict.backwards % 20 == 0
    with seeded(1):
        again = evaluate_attack(model, verdict.images, labels, classes=3, attack=None, seed=0)
    assert not torch.equal(again.correct, verdict.correct), "another draw, another verdict"
