"""Adversaries of training: what a step learns from, found near its images.

PGD-AT (Madry et al. 2018, eq. 2.1), TRADES, MART and FGSM-RS, see `suite.objectives.Adversary`, and the second
adversary of robust CMI. What they enter the loss as is in `training.robust`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.attacks.pgd import pgd_search
from robustbench_cmic.attacks.threat import random_perturbations
from robustbench_cmic.objectives.robust import RobustCmi, divergences
from robustbench_cmic.suite.objectives import Adversary

NEAR = 0.001
"""Standard deviation of the starts of TRADES and MART: at the image itself KL(P_x || P_x') has no gradient."""


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
    draw = _near if adversary.two_outputs else partial(random_perturbations, attack.threat)
    noise = partial(_drawn, draw, images, seed) if attack.random_start else None
    with frozen(model):
        raised = None
        if adversary.raised_loss == "kl":
            with torch.no_grad():
                clean = model(images)

            def raised(logits: Tensor, _: Tensor, __: Tensor | None = None, /) -> Tensor:
                return divergences(clean, logits)

        return pgd_search(model, images, labels, attack, noise, raised=raised)


def find_for_robust_cmi(
    adversary: Adversary, term: RobustCmi, model: nn.Module, images: Tensor, labels: Tensor, seed: int
) -> Tensor:
    """What the second adversary makes of a batch, which is one block: its separation depends on all images.

    As `find_adversarial`, but for the loss: KL(P || Q_y) - (beta / lambda) * separation, from a uniform start.
    """
    attack = adversary.second.attack
    noise = partial(_drawn, partial(random_perturbations, attack.threat), images, seed)

    def raised(logits: Tensor, labels: Tensor, _: Tensor | None = None, /) -> Tensor:
        return term.ascended(logits, labels)

    with frozen(model):
        return pgd_search(model, images, labels, attack, noise, raised=raised)


def _near(shape: torch.Size) -> Tensor:
    return NEAR * torch.randn(shape)


def _drawn(draw: Callable[[torch.Size], Tensor], images: Tensor, seed: int, _: int) -> Tensor:
    """Random perturbations of images; the last argument is the number of a run, of which there is one."""
    # The CPU's generator alone: torch.manual_seed also seeds the GPU's, from which layers draw.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        drawn = draw(images.shape)
    # Out of pinned memory, for only such a copy does not make the host wait for the device.
    return (drawn.pin_memory() if images.is_cuda else drawn).to(images, non_blocking=True)


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
