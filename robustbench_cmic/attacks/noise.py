"""Random points of the ball: what any attack should beat, and the bound below which a robust accuracy is noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.attacks.pgd import DrawNoise
from robustbench_cmic.attacks.threat import check_threat, normalized, project
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite import attacks as suite
from robustbench_cmic.suite.fields import Threat


def run(call: AttackCall[suite.Noise]) -> tuple[Tensor, list[Part]]:
    """`random_points`, as a suite's `Noise` asks for it."""
    return random_points(call.model, call.images, call.labels, call.threat, call.noise, call.attack.samples), []


def random_points(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, noise: DrawNoise, samples: int
) -> Tensor:
    """The best of `samples` random points of the ball.

    L-inf: every other point, from the first on, is uniform in the cube, and those between at its corners. L2: all
    lie on the sphere, which in many dimensions is where a ball's volume is, and the best that a random point can do.

    Args:
        model: returns logits (N, C); call it in eval mode.
        images: (N, C, H, W) floats in [0, 1].
        labels: (N,) integers.
        threat: the ball, in units of images.
        noise: k -> the k-th random perturbation of the ball for all images, (N, C, H, W), as drawn by
            `threat.random_perturbations`.
        samples: points an example, at least 1; an example is done once misclassified.

    Returns:
        An example's first misclassified point, or the last one tried.
    """
    check_threat(threat)
    if samples < 1:
        raise ValueError(f"samples should be at least 1, not {samples}")
    images = images.detach()
    result = images.clone()
    surviving = torch.arange(len(images), device=images.device)
    for sample in range(samples):
        if len(surviving) == 0:
            break
        delta = noise(sample)[surviving]
        if threat.norm == "l2":
            delta = normalized(delta, "l2") * threat.eps
        elif sample % 2 == 1:
            delta = torch.where(delta < 0, -threat.eps, threat.eps)
        points = project(threat, images[surviving], images[surviving] + delta)
        result[surviving] = points
        with torch.no_grad():
            surviving = surviving[model(points).argmax(1) == labels[surviving]]
    return result
