"""Walk, RayS and Square in turn, as the harness runs them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import BrokenBefore, evaluate_attack
from robustbench_cmic.attacks.judge import AttackEvaluation
from robustbench_cmic.attacks.losses import margin
from robustbench_cmic.suite.attacks import GradientFree, RayS
from robustbench_cmic.suite.fields import Norm
from tests.attacks.nets import convolutional, examples, predicted

BALLS: list[tuple[Norm, float]] = [("linf", 0.03), ("l2", 0.2)]


def judged(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, **others: Any) -> AttackEvaluation:
    attack = GradientFree(name="GradientFree", norm=norm, eps=[eps], images=10, queries=40)
    return evaluate_attack(model, images, labels, classes=10, attack=attack, seed=0, keep_images=True, **others)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_each_part_attacks_what_the_earlier_ones_left(norm: Norm, eps: float) -> None:
    model = convolutional()
    images, labels = examples(60)
    labels = torch.where(torch.arange(60) < 50, predicted(model, images), labels)
    clean = predicted(model, images) == labels
    verdict = judged(model, images, labels, norm, eps)
    assert [part.name for part in verdict.parts] == ["Walk", "RayS", "Square"]
    assert verdict.parts[0].attacked == int(clean.sum())
    assert [part.attacked for part in verdict.parts[1:]] == [part.attacked - part.broken for part in verdict.parts[:-1]]
    assert verdict.parts[-1].attacked - verdict.parts[-1].broken == int(verdict.correct.sum())
    assert all(part.broken > 0 for part in verdict.parts[:2])
    for part, queries in zip(verdict.parts, (10, 40, 41), strict=True):
        assert part.backwards == 0
        assert part.forwards <= part.attacked * (queries + 1), "its queries and the judgement"
    assert verdict.backwards == verdict.outside == 0
    assert verdict.images is not None
    assert torch.equal(verdict.images[~clean], images[~clean])
    # What survives is where Square left it.
    survivors = verdict.correct
    before, after = (margin(model(x[survivors]), labels[survivors]) for x in (images, verdict.images))
    assert bool((after > before).all())


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_no_batch_size_changes_the_result(norm: Norm, eps: float) -> None:
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    whole, small = (judged(model, images, labels, norm, eps, batch_size=size) for size in (256, 7))
    assert torch.equal(whole.correct, small.correct)
    assert whole.images is not None
    assert small.images is not None
    torch.testing.assert_close(whole.images, small.images, rtol=0, atol=1e-6)
    assert [(part.name, part.broken) for part in whole.parts] == [(part.name, part.broken) for part in small.parts]
    assert 0 < int(whole.correct.sum()) < 40


def test_what_a_smaller_ball_broke_is_not_attacked() -> None:
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    small = judged(model, images, labels, "linf", 0.03)
    assert small.images is not None
    broken = (~small.correct).nonzero()[:, 0]
    large = judged(model, images, labels, "linf", 0.04, kept=BrokenBefore(broken, small.images[broken]))
    assert large.parts[0].attacked == int(small.correct.sum())
    assert not bool(large.correct[broken].any())


class Masked(nn.Module):
    """Gradients of noise, and logits that fall inside the decision: of the network only the decision is left."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convolutional()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images.detach())
        return nn.functional.one_hot(logits.argmax(1), 10).float() + 0 * images.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_a_network_that_shows_its_decisions_alone_gains_nothing(norm: Norm, eps: float) -> None:
    images, _ = examples(40)
    labels = predicted(convolutional(), images)
    attack = RayS(name="RayS", norm=norm, eps=[eps])
    masked, plain = (
        evaluate_attack(model, images, labels, classes=10, attack=attack, seed=0).correct
        for model in (Masked(), convolutional())
    )
    assert torch.equal(masked, plain)
    hidden = judged(Masked(), images, labels, norm, eps).correct
    assert int(hidden.sum()) <= int(judged(convolutional(), images, labels, norm, eps).correct.sum()) + 4
