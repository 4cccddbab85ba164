"""The walk towards other images against brute force."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import OtherImages
from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.threat import violations
from robustbench_cmic.attacks.walk import nearest_others, walk
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.suite.attacks import OTHERS, Walk
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted
from tests.attacks.test_rays import OneHot

BALLS: list[tuple[Norm, float]] = [("linf", 0.08), ("l2", 0.5), ("linf", 1.0), ("l2", 9.0)]


def brute_force(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, others: OtherImages, count: int
) -> tuple[Tensor, int]:
    """Image by image, and in how many passes."""
    result, passes = [], 0
    for image, label in zip(images, labels.tolist(), strict=True):
        candidates = [(float((o - image).norm()), i) for i, o in enumerate(others.images) if others.labels[i] != label]
        point = image
        for _, i in sorted(candidates)[:count]:
            way = others.images[i] - image
            if threat.norm == "linf":
                inside, step = float(way.abs().max()) <= threat.eps, threat.eps * way.sign()
            else:
                inside, step = float(way.norm()) <= threat.eps, threat.eps * way / way.norm()
            point = others.images[i] if inside else (image + step).clamp(0, 1)
            passes += 1
            if int(predicted(model, point[None])) != label:
                break
        result.append(point)
    return torch.stack(result), passes


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.passes += len(images)
        logits: Tensor = self.model(images)
        return logits


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize("count", [1, 7, 200])
def test_steps_are_those_of_brute_force(norm: Norm, eps: float, count: int) -> None:
    model = convolutional()
    images, _ = examples(30)
    generator = torch.Generator().manual_seed(7)
    images = images + 0.001 * torch.rand(images.shape, generator=generator) * (1 - images)  # no two equally near
    labels = predicted(model, images)
    others = OtherImages(images[5:], labels[5:])
    threat = Threat(norm, eps)
    expected, passes = brute_force(model, images, labels, threat, others, count)
    counted = Counted(model)
    found = walk(counted, images, labels, threat, others, count)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert counted.passes == passes <= count * len(images)
    assert not bool(violations(threat, images, found, tolerance=2e-6).any())
    broken = predicted(model, found) != labels
    assert int(broken.sum()) > 0 if eps < 1 else bool(broken.all()), "another image in the ball is one of another class"


@pytest.mark.parametrize(("norm", "eps"), BALLS[:2])
def test_only_decisions_are_used(norm: Norm, eps: float) -> None:
    images, _ = examples(30)
    labels = predicted(convolutional(), images)
    others = OtherImages(images, labels)
    found = walk(OneHot(convolutional()), images, labels, Threat(norm, eps), others)
    assert torch.equal(found, walk(convolutional(), images, labels, Threat(norm, eps), others))


def test_without_others_of_another_class_nothing_moves() -> None:
    model = convolutional()
    images, _ = examples(4)
    labels = torch.zeros(4, dtype=torch.long)
    for others in (OtherImages(images, labels), OtherImages(images[:0], labels[:0])):
        assert torch.equal(walk(model, images, labels, Threat("linf", 0.1), others), images)
    mixed = OtherImages(images, torch.tensor([0, 1, 0, 0]))
    assert nearest_others(images, labels, mixed).tolist() == [[1, -1, -1, -1]] * 4
    with pytest.raises(ValueError, match="count should be at least 1, not 0"):
        walk(model, images, labels, Threat("linf", 0.1), mixed, 0)


def test_others_are_of_all_evaluated_examples_whatever_the_batch() -> None:
    model = convolutional()
    images, _ = examples(300)
    labels = predicted(model, images)
    attack = Walk(name="Walk", norm="linf", eps=[0.08], images=12)
    verdicts = [
        evaluate_attack(model, x, labels, classes=10, attack=attack, seed=0, batch_size=size, keep_images=True)
        for x, size in ((images, 300), (images, 7), (Examples(images.numpy(), torch.arange(300).numpy(), "cpu"), 64))
    ]
    rows = [number * 300 // OTHERS for number in range(OTHERS)]
    expected = walk(model, images, labels, Threat("linf", 0.08), OtherImages(images[rows], labels[rows]), 12)
    for verdict in verdicts:
        assert verdict.images is not None
        torch.testing.assert_close(verdict.images, expected, rtol=0, atol=1e-6)
        assert verdict.backwards == 0
    assert 10 < int((~verdicts[0].correct).sum()) < 290
