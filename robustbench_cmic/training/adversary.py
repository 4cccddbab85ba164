"""Adversarial training (Madry et al. 2018, eq. 2.1): a step learns from the worst images found near its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.attacks.pgd import pgd_search
from robustbench_cmic.attacks.threat import random_perturbations
from robustbench_cmic.suite.objectives import Adversary


def find_adversarial(adversary: Adversary, model: nn.Module, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """Adversarial images, inside ball and box, found by PGD on the model as it is.

    The model is attacked in eval mode: its running statistics do not move and its dropout does not blur the gradient.
    Its modes, weights and their gradients are left as they were.

    Args:
        adversary: as a suite declares it.
        model: returns logits (N, C).
        images: (N, C, H, W) in [0, 1]; the result is like them, detached.
        labels: (N,) integers.
        seed: decides the random starts, and nothing else does.
    """
    attack = adversary.attack

    def noise(_: int) -> Tensor:
        # The CPU's generator alone: torch.manual_seed also seeds the GPU's, from which layers draw.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            drawn = random_perturbations(attack.threat, images.shape)
        # Out of pinned memory, for only such a copy does not make the host wait for the device.
        return (drawn.pin_memory() if images.is_cuda else drawn).to(images, non_blocking=True)

    with frozen(model):
        return pgd_search(model, images, labels, attack, noise if attack.random_start else None)


class AtPrecision(nn.Module):
    """A model as steps and attacks of a training see it: float32 logits, `reduced` from bfloat16 where autocast can."""

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
