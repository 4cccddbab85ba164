"""Random points of the ball: what any attack should beat, and the bound below which a robust accuracy is noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.model import seems_misclassified
from robustbench_cmic.attacks.pgd import DrawNoise, run_in_turn
from robustbench_cmic.attacks.threat import check_threat, normalized, project
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite import attacks as suite
from robustbench_cmic.suite.fields import Threat


def run(call: AttackCall[suite.Noise]) -> tuple[Tensor, list[Part]]:
    """`random_points`, as a suite's `Noise` asks for it."""
    attack = call.attack
    return random_points(call.model, call.images, call.labels, attack.threat, call.noise, attack.samples), []


@called_directly
def random_points(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, noise: DrawNoise, samples: int
) -> Tensor:
    """The best of `samples` random points of the ball.

    L-inf: every other point, from the first on, is uniform in the cube, and those between at its corners. L2: all
    lie on the sphere, which in many dimensions is where a ball's volume is, and the best that a random point can do.

    Model, images and labels are as for `pgd.pgd`. The noise is as drawn by `threat.random_perturbations`. There is at
    least one sample, and an example is done once misclassified.

    Returns:
        An example's first misclassified point, or the last one tried.
    """
    check_threat(threat)
    if samples < 1:
        raise ValueError(f"samples should be at least 1, not {samples}")
    images = images.detach()

    def one_run(number: int, active: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
        delta = noise(number)[active]
        if threat.norm == "l2":
            delta = normalized(delta, "l2") * threat.eps
        elif number % 2 == 1:
            delta = torch.where(delta < 0, -threat.eps, threat.eps)
        points = project(threat, images[active], images[active] + delta)
        return points, seems_misclassified(model, points, labels[active])

    return run_in_turn(model, images, labels, one_run, restarts=samples)
