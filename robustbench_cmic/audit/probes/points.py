"""Where a model is probed: where attacks begin, pass by and end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustbench_cmic.attacks.losses import margin
from robustbench_cmic.attacks.model import CountedModel, is_out_of_memory
from robustbench_cmic.attacks.pgd import loss_and_gradient, steepest_ascent
from robustbench_cmic.attacks.threat import BLOCK, project, random_perturbations
from robustbench_cmic.suite.fields import Threat

STEPS = 10


Place = Literal["clean", "random", "attacked"]


class Places(NamedTuple):
    """Images (N, C, H, W) in [0, 1] at three places.

    Attributes:
        clean: the images as they are.
        random: random points of the balls around them, which lie on no grid of pixel values.
        attacked: what PGD on the margin makes of these within the balls.
    """

    clean: Tensor
    random: Tensor
    attacked: Tensor

    def named(self) -> list[tuple[Place, Tensor]]:
        """Each with its name."""
        return [("clean", self.clean), ("random", self.random), ("attacked", self.attacked)]


def probed_places(target: CountedModel, images: Tensor, labels: Tensor, threats: Sequence[Threat]) -> Places:
    """The places of images (N, C, H, W); each image has one of the balls, in turn, so that all balls are looked at.

    The points are drawn from the global generator of the CPU. A gradient that is not finite or not there moves nothing.

    Raises:
        AttackError: the model returned no logits.
    """
    random, attacked = images.clone(), images.clone()
    for number, threat in enumerate(threats):
        own = slice(number, None, len(threats))
        if len(images[own]):
            noise = random_perturbations(threat, images[own].shape).to(images)
            random[own] = (images[own] + noise).clamp(0, 1)
            attacked[own] = _ascended(target, images[own], labels[own], random[own], threat)
    return Places(images, random, attacked)


def _ascended(target: CountedModel, images: Tensor, labels: Tensor, starts: Tensor, threat: Threat) -> Tensor:
    points = starts
    for _ in range(STEPS):
        parts = zip(torch.split(points, BLOCK), torch.split(labels, BLOCK), strict=True)
        try:
            gradients = [loss_and_gradient(target, part, classes, None, margin).gradient for part, classes in parts]
        except Exception as error:  # without a gradient, which is for other probes to say
            if is_out_of_memory(error):
                raise
            return points
        points = project(threat, images, points + threat.eps / 4 * steepest_ascent(torch.cat(gradients), threat.norm))
    return points
