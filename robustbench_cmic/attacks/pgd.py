"""Projected gradient descent, native: L-inf and L2, several losses, restarts, early stop. FGSM is its one-step case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.losses import LOSSES
from robustbench_cmic.attacks.threat import Threat, l2_lengths

Noise = Callable[[int], Tensor]
"""Number of a restart -> random perturbations of the ball for all images."""


@dataclass(frozen=True)
class Search:
    """How the ball is searched.

    Attributes:
        alpha: step size, in units of images; at least 0.
        steps: gradient steps of one restart, at least 1.
        loss: what is raised, a key of `LOSSES`.
        restarts: starts, at least 1; later ones attack only what the earlier ones left.
        early_stop: drop an example as soon as any iterate is misclassified, and return that iterate.

    Raises:
        ValueError: a value out of range; the message says which.
    """

    alpha: float
    steps: int
    loss: str = "ce"
    restarts: int = 1
    early_stop: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(f"steps and restarts should be at least 1, not {self.steps} and {self.restarts}")
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha should be at least 0 and finite, not {self.alpha}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss should be one of {', '.join(LOSSES)}, not {self.loss!r}")


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    alpha: float,
    steps: int,
    norm: str = "linf",
    loss: str = "ce",
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = False,
) -> Tensor:
    """Untargeted PGD (Madry et al. 2018, eq. 2.2): x <- project(x + alpha * step(grad loss)).

    The step is the sign of the gradient for L-inf and the gradient over its length for L2. Random numbers come from
    torch's global generator on the CPU. With `random_start=False` and `early_stop=False` the L-inf result equals
    torchattacks' PGD bit for bit; one step of `alpha=eps` is FGSM.

    Args:
        model: returns logits (N, C); call it in eval mode.
        images: (N, C, H, W) floats in [0, 1].
        labels: (N,) integers.
        eps: radius of the ball; the images are in [0, 1].
        alpha: step size.
        steps: gradient steps of one restart.
        norm: `linf` or `l2`.
        loss: `ce`, `margin` or `dlr`, see `attacks.losses`.
        random_start: start at a random point of the ball instead of at the image.
        restarts: how often to start. Without `early_stop` the last iterate of the first restart that is misclassified
            is returned, or that of the last restart where none is.
        early_stop: drop an example as soon as any iterate is misclassified, and return that iterate.

    Returns:
        (N, C, H, W) images inside ball and box, detached.

    Raises:
        ValueError: a parameter out of range, or images outside [0, 1].
    """
    if len(images) > 0 and not (float(images.min()) >= 0 and float(images.max()) <= 1):
        raise ValueError("images should be in [0, 1]")
    threat = Threat(norm, eps)
    search = Search(alpha, steps, loss, restarts, early_stop)
    noise = (lambda _: threat.noise(images.shape).to(images)) if random_start else None
    # torchattacks and most others average the loss over the batch. Signs survive that; the last bit of the gradient
    # does not, hence the same factor here.
    return search_ball(model, images, labels, threat, search, noise, weight=1 / max(1, len(images)))


def search_ball(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    search: Search,
    noise: Noise | None,
    weight: float = 1.0,
) -> Tensor:
    """`pgd` with explicit random starts (None: start at the images) and weight of each example's loss."""
    images = images.detach()
    result = images.clone()
    active = torch.arange(len(images), device=images.device)
    for restart in range(search.restarts):
        starts = images if noise is None else (images + noise(restart)).clamp(0, 1)
        found = _descend(model, images[active], labels[active], starts[active], threat, search, weight)
        result[active] = found
        if restart + 1 < search.restarts:
            with torch.no_grad():
                active = active[model(found).argmax(1) == labels[active]]
            if len(active) == 0:
                break
    return result


def _descend(
    model: nn.Module, images: Tensor, labels: Tensor, starts: Tensor, threat: Threat, search: Search, weight: float
) -> Tensor:
    """One restart from `starts`: the images found, (N, C, H, W)."""
    result = starts.clone()
    active = torch.arange(len(images), device=images.device)
    current = starts
    for _ in range(search.steps):
        gradient, wrong = _gradient(model, current, labels, search.loss, weight)
        if search.early_stop and bool(wrong.any()):
            result[active[wrong]] = current[wrong]
            keep = ~wrong
            active, images, labels = active[keep], images[keep], labels[keep]
            current, gradient = current[keep], gradient[keep]
            if len(active) == 0:
                return result
        current = threat.project(images, current + search.alpha * _direction(gradient, threat.norm))
    result[active] = current
    return result


def _gradient(model: nn.Module, images: Tensor, labels: Tensor, loss: str, weight: float) -> tuple[Tensor, Tensor]:
    """Gradient of the loss at the images, (N, C, H, W), and which of them are misclassified, (N,)."""
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        losses = LOSSES[loss](logits, labels)
        (gradient,) = torch.autograd.grad(losses, leaf, grad_outputs=torch.full_like(losses, weight))
    return gradient, logits.detach().argmax(1) != labels


def _direction(gradient: Tensor, norm: str) -> Tensor:
    """The unit step of steepest ascent; zero where the gradient is zero."""
    if norm == "linf":
        return gradient.sign()
    lengths = l2_lengths(gradient)
    return gradient / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
