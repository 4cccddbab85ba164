"""Small classifiers with known properties, to attack."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """Logits (0, w . x + b): class 1 where w . x + b > 0."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], dim=1)


def convolutional(seed: int = 0, scale: float = 1.0) -> nn.Module:
    """A random 10-class network for (N, 1, 8, 8) images, its logits multiplied by `scale`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    final = network[-1]
    assert isinstance(final, nn.Linear)
    with torch.no_grad():
        final.weight.mul_(scale)
        final.bias.mul_(scale)
    return network.eval()


def examples(n: int, seed: int = 0, levels: int = 16) -> tuple[Tensor, Tensor]:
    """Random images (n, 1, 8, 8) of `levels` + 1 grey levels, 0 and 1 among them, and random labels of 10 classes."""
    generator = torch.Generator().manual_seed(seed)
    images = (torch.rand(n, 1, 8, 8, generator=generator) * levels).round() / levels
    return images, torch.randint(10, (n,), generator=generator)


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """Labels (N,) that the model itself gives."""
    with torch.no_grad():
        labels: Tensor = model(images).argmax(1)
    return labels
