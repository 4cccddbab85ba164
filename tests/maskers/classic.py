"""Defences that are none, well known ones, each around the same plain network."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.maskers.base import Plain, with_gradient_of


class LogitsTimes10000(Plain):
    """Softmax saturates in float32: cross entropy has no gradient left."""

    def masked(self, images: Tensor) -> Tensor:
        return 1e4 * self.plain(images)


class SoftmaxAsLogits(Plain):
    """Probabilities, of which the loss takes the softmax again."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(images).softmax(1)


class QuantisedInputs(Plain):
    """Rounding has gradient zero almost everywhere (Buckman et al. 2018 round, too)."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(self._rounded(images))

    def laid_open(self, images: Tensor) -> Tensor:
        return self.plain(with_gradient_of(self._rounded(images), images))

    def _rounded(self, images: Tensor) -> Tensor:
        return (images * 4).round() / 4


class NoisyInputs(Plain):
    """Gaussian noise on the image, another each time."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(images + 0.3 * torch.randn_like(images))


class RandomShift(Plain):
    """The image shifted at random by up to a pixel (Xie et al. 2018 resize and pad at random)."""

    def masked(self, images: Tensor) -> Tensor:
        down, right = (int(torch.randint(-1, 2, ())) for _ in range(2))
        return self.plain(images.roll((down, right), (2, 3)))


class Detached(Plain):
    """There is no gradient in the image at all."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(images.detach())


class ZeroedGradients(Plain):
    """The gradient in the image is zero."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(images.detach() + 0 * images)


class _Negation(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class NegatedGradients(Plain):
    """The gradient points the wrong way."""

    def masked(self, images: Tensor) -> Tensor:
        negated: Tensor = _Negation.apply(images)
        return self.plain(negated)


class ShatteredGradients(Plain):
    """A ripple too small to see, and steeper than anything else (Athalye et al. 2018: shattered gradients)."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(images + 0.01 * torch.sin(2000 * images))


class TanhLogits(Plain):
    """Logits squashed into [-1, 1], where they are flat."""

    def masked(self, images: Tensor) -> Tensor:
        return torch.tanh(self.plain(images))


class DropoutLeftOn(Plain):
    """Dropout at evaluation (Dhillon et al. 2018 prune activations at random)."""

    def masked(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net[-1](functional.dropout(self.net[:-1](images), 0.3, training=True))
        return logits


class BatchNormInTrainMode(Plain):
    """Batch normalisation by the statistics of the batch that is evaluated."""

    def masked(self, images: Tensor) -> Tensor:
        values = images
        for layer in self.net:
            if isinstance(layer, nn.BatchNorm2d):
                values = functional.batch_norm(values, None, None, layer.weight, layer.bias, training=True)
            else:
                values = layer(values)
        return values


class JpegLike(Plain):
    """Coefficients of the discrete cosine transform, rounded (Guo et al. 2018)."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(self._compressed(images))

    def laid_open(self, images: Tensor) -> Tensor:
        return self.plain(with_gradient_of(self._compressed(images), images))

    def _compressed(self, images: Tensor) -> Tensor:
        rows, columns = (_cosines(size, images) for size in images.shape[2:])
        coefficients = rows @ images @ columns.T
        return rows.T @ ((coefficients * 2).round() / 2) @ columns


def _cosines(size: int, like: Tensor) -> Tensor:
    """The orthonormal matrix (size, size) of the discrete cosine transform."""
    steps = torch.arange(size, device=like.device, dtype=like.dtype)
    matrix = torch.cos(math.pi / size * steps[:, None] * (steps + 0.5)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


class NearestCorner(Plain):
    """Ten for the class whose corner of the simplex is nearest to the output, nothing else: a decision, no logits."""

    def masked(self, images: Tensor) -> Tensor:
        outputs = self.plain(images).softmax(1)
        corners = torch.eye(outputs.shape[1], device=outputs.device)
        nearest = torch.cdist(outputs, corners).argmin(1)
        return 10 * corners[nearest]


CLASSIC: tuple[type[Plain], ...] = (
    LogitsTimes10000,
    SoftmaxAsLogits,
    QuantisedInputs,
    NoisyInputs,
    RandomShift,
    Detached,
    ZeroedGradients,
    NegatedGradients,
    ShatteredGradients,
    TanhLogits,
    DropoutLeftOn,
    BatchNormInTrainMode,
    JpegLike,
    NearestCorner,
)
