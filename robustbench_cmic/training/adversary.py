"""Adversarial training (Madry et al. 2018, eq. 2.1): a step learns from the worst images found near its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.attacks.pgd import pgd_search
from robustbench_cmic.attacks.threat import Threat
from robustbench_cmic.suite import fields as suite
from robustbench_cmic.suite.attacks import PGD


@dataclass(frozen=True)
class Adversary:
    """Who changes the images of every training step, by PGD on the model as it is before the step.

    Attributes:
        attack: at one threat.
    """

    attack: PGD

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
                drawn = Threat(*self.attack.threat).noise(images.shape)
            # Out of pinned memory, for only such a copy does not make the host wait for the device.
            return (drawn.pin_memory() if images.is_cuda else drawn).to(images, non_blocking=True)

        with frozen(model):
            return pgd_search(model, images, labels, self.attack, noise if self.attack.random_start else None)


def build_adversary(declared: dict[str, Any] | None) -> Adversary | None:
    """The adversary that an objective declares: `norm`, `eps`, `alpha` (a number), `steps`, `loss`, `random_start`."""
    if declared is None:
        return None
    return Adversary(PGD.from_declared({"name": "PGD"} | declared, suite.Threat(declared["norm"], declared["eps"])))


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
