"""The threat model: a ball around each image, within the box [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NORMS = ("linf", "l2")


@dataclass(frozen=True)
class Threat:
    """Perturbations of norm at most `eps`, of images that stay in [0, 1].

    Attributes:
        norm: `linf` or `l2`.
        eps: radius, in units of images in [0, 1]; at least 0.

    Raises:
        ValueError: another norm, or an eps that is negative or not finite.
    """

    norm: str
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm should be 'linf' or 'l2', not {self.norm!r}")
        if not 0 <= self.eps < float("inf"):
            raise ValueError(f"eps should be at least 0 and finite, not {self.eps}")

    def project(self, images: Tensor, candidates: Tensor) -> Tensor:
        """The candidates (N, C, H, W) moved into the ball around `images` (same shape) and into the box.

        The box is last: clamping to [0, 1], where the images are, only shortens a perturbation. Candidates that are
        inside already come back unchanged up to one rounding.
        """
        delta = candidates - images
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            lengths = l2_norms(delta)
            delta = torch.where(lengths > self.eps, delta * (self.eps / lengths.clamp(min=1e-45)), delta)
        return (images + delta).clamp(0, 1)

    def outside(self, images: Tensor, candidates: Tensor, tolerance: float = 1e-5) -> Tensor:
        """(N,) truth values: the candidate lies outside the ball or the box by more than rounding explains."""
        delta = (candidates - images).flatten(1)
        length = delta.abs().amax(1) if self.norm == "linf" else l2_norms(candidates - images).flatten()
        beyond_box = ((candidates < -tolerance) | (candidates > 1 + tolerance)).flatten(1).any(1)
        return (length > self.eps + tolerance * max(1.0, self.eps)) | beyond_box

    def noise(self, shape: torch.Size) -> Tensor:
        """Random perturbations of the ball for `shape` (N, C, H, W), drawn from the global generator of the CPU.

        L-inf: uniform in the cube. L2: a uniform direction, its length uniform in [0, eps] (as torchattacks' PGDL2).
        """
        if self.norm == "linf":
            return torch.empty(shape).uniform_(-self.eps, self.eps)
        direction = torch.empty(shape).normal_()
        radius = torch.empty(shape[0], *[1] * (len(shape) - 1)).uniform_(0, self.eps)
        return direction * (radius / l2_norms(direction).clamp(min=1e-45))


def l2_norms(values: Tensor) -> Tensor:
    """Euclidean length of each example, shaped (N, 1, 1, 1) for values (N, C, H, W).

    Scaled by the largest entry first: the squares of a vanishing gradient (1e-25, say) would underflow to zero.
    """
    flat = values.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
    lengths = largest * scaled.square().sum(1, keepdim=True).sqrt()
    return lengths.reshape(-1, *[1] * (values.ndim - 1))
