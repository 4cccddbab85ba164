"""What is known exactly: how a linear classifier fares against the strongest perturbation of a ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearClassifier(nn.Module):
    """Random logits w_c . x + b_c for (N, 1, 8, 8) images, times `scale`."""

    def __init__(self, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = scale * torch.empty(classes, 64).uniform_(-1 / 8, 1 / 8, generator=generator)
        self.bias = scale * torch.empty(classes).uniform_(-1 / 8, 1 / 8, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def inner_images(n: int, seed: int = 0) -> Tensor:
    """Random images (n, 1, 8, 8) of pixels in [0.35, 0.65]: small balls around them lie inside the box."""
    return 0.35 + 0.3 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def linear_robust(model: LinearClassifier, images: Tensor, labels: Tensor, norm: str, eps: float) -> Tensor:
    """(N,) truth values: no perturbation of a ball that lies inside the box changes the class. Brute force, float64.

    For each other class j the lead z_y - z_j falls by at most eps |w_y - w_j|, in the dual norm.
    """
    weight, bias = model.weight.double(), model.bias.double()
    logits = images.flatten(1).double() @ weight.T + bias
    robust = []
    for z, y in zip(logits, labels.tolist(), strict=True):
        others = [j for j in range(len(bias)) if j != y]
        order = 1 if norm == "linf" else 2
        robust.append(all(z[y] - z[j] > eps * torch.linalg.vector_norm(weight[y] - weight[j], order) for j in others))
    return torch.tensor(robust)
