"""Adversarial training (Madry et al. 2018, eq. 2.1): a step learns from the worst images found near its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.attacks.pgd import Search, pgd_search
from robustbench_cmic.attacks.threat import random_perturbations
from robustbench_cmic.suite.fields import Threat


@dataclass(frozen=True)
class Adversary:
    """Who changes the images of every training step, by PGD on the model as it is before the step.

    Attributes:
        threat: the ball around each image.
        search: how it is searched.
        random_start: start at a random point of the ball instead of at the image.
    """

    threat: Threat
    search: Search
    random_start: bool = True

    def find(self, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Adversarial images, inside ball and box.

        The model is attacked in eval mode: its running statistics do not move and its dropout does not blur the
        gradient. Its modes, weights and their gradients are left as they were.

        Args:
            model: returns logits (N, C).
            images: (N, C, H, W) in [0, 1].
            labels: (N,) integers.
            seed: decides the random starts, and nothing else does.

        Returns:
            (N, C, H, W), detached.
        """

        def noise(_: int) -> Tensor:
            # The CPU's generator alone: torch.manual_seed also seeds the GPU's, from which layers draw.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                drawn = random_perturbations(self.threat, images.shape)
            # Out of pinned memory, for only such a copy does not make the host wait for the device.
            return (drawn.pin_memory() if images.is_cuda else drawn).to(images, non_blocking=True)

        with frozen(model):
            return pgd_search(model, images, labels, self.threat, self.search, noise if self.random_start else None)


def build_adversary(declared: dict[str, Any] | None) -> Adversary | None:
    """The adversary that an objective declares: `norm`, `eps`, `alpha` (a number), `steps`, `loss`, `random_start`."""
    if declared is None:
        return None
    search = Search(**{key: declared[key] for key in ("alpha", "steps", "loss")})
    return Adversary(Threat(declared["norm"], declared["eps"]), search, declared["random_start"])


class AtPrecision(nn.Module):
    """A model as steps and attacks of a training see it: float32 logits, whatever it computes them in.

    Args:
        model: on the device it computes on.
        reduced: bfloat16 where autocast allows it.
    """

    def __init__(self, model: nn.Module, reduced: bool) -> None:
        super().__init__()
        self.model = model
        self.reduced = reduced

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images -> (N, classes) logits."""
        # Cached casts of weights would outlive the step that a graph records.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.reduced, cache_enabled=False):
            logits: Tensor = self.model(images)
        return logits.float()
