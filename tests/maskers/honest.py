"""Honest networks of many kinds, none of which the audit may accuse of a worst case that is right."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.models.architectures import Shape, small_cnn
from tests.maskers.base import digits


class Ensemble(nn.Module):
    """The mean of the logits of three plain networks."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.nets = nn.ModuleList(small_cnn(shape, classes) for _ in range(3))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return torch.stack([net(images) for net in self.nets]).mean(0)


def linear(shape: Shape, classes: int) -> nn.Module:
    """One linear layer; robust as far as it goes when trained against PGD."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))


class LogSoftmax(nn.Module):
    """A plain network that returns the logarithms of probabilities."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.net = small_cnn(shape, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        outputs: Tensor = self.net(images).log_softmax(1)
        return outputs


def gelu(shape: Shape, classes: int) -> nn.Module:
    """A smooth convolutional network without batch normalisation."""
    return _convolutions(shape, classes, nn.GELU, (24, 48))


def sigmoid(shape: Shape, classes: int) -> nn.Module:
    """Two hidden layers of sigmoids, whose gradients are small."""
    hidden = [nn.Linear(math.prod(shape), 128), nn.Sigmoid(), nn.Linear(128, 64), nn.Sigmoid()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, classes))


def wide_and_deep(shape: Shape, classes: int) -> nn.Module:
    """Five convolutions of 48 channels with ReLU."""
    return _convolutions(shape, classes, nn.ReLU, (48, 48, 48, 48, 48))


def _convolutions(shape: Shape, classes: int, activation: type[nn.Module], widths: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    before = shape[0]
    for number, width in enumerate(widths):
        layers += [nn.Conv2d(before, width, 3, stride=2 if number == 1 else 1, padding=1), activation()]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * (shape[1] // 2) * (shape[2] // 2), classes))


class TinyViT(nn.Module):
    """Patches of 2x2, two layers of attention with four heads (Dosovitskiy et al. 2021), the mean over patches."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(shape[0], 32, 2, stride=2)
        self.places = nn.Parameter(0.02 * torch.randn(1, (shape[1] // 2) * (shape[2] // 2), 32))
        self.blocks = nn.Sequential(_Block(), _Block())
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, classes))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        logits: Tensor = self.head(self.blocks(tokens).mean(1))
        return logits


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(32), nn.LayerNorm(32)
        self.queries, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.hidden = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T, 32) -> (N, T, 32)."""
        n, t, _ = tokens.shape
        q, k, v = self.queries(self.before(tokens)).reshape(n, t, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 32)
        tokens = tokens + self.out(mixed)
        return tokens + torch.as_tensor(self.hidden(self.after(tokens)))


class NearestNeighbour(nn.Module):
    """Minus the squared distance to the nearest training image of each class; differentiable, nothing is learned."""

    known: Tensor
    labels: Tensor

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        data = digits()
        # As the layer in front of it normalises images.
        known = (torch.from_numpy(data.train.images).flatten(1) - data.moments.mean[0]) / data.moments.std[0]
        self.register_buffer("known", known)
        self.register_buffer("labels", torch.from_numpy(data.train.labels))
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        x = images.flatten(1)
        squares = x.square().sum(1, keepdim=True) - 2 * x @ self.known.T + self.known.square().sum(1)
        return torch.stack([-squares[:, self.labels == label].amin(1) for label in range(self.classes)], dim=1)
