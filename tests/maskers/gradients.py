"""Broken defences whose gradients are right in part, true but useless, or forged; the plain network decides."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.maskers.base import (
    Plain,
    changed_backward,
    content_noise,
    decided_by,
    direction,
    lead,
    top,
    with_gradient_of,
)


class TenthOfGradients(Plain):
    """The gradient of every tenth pixel; the others have none."""

    def masked(self, images: Tensor) -> Tensor:
        def every_tenth(gradient: Tensor) -> Tensor:
            flat = gradient.flatten(1).clone()
            kept = torch.arange(flat.shape[1], device=flat.device) % 10 == 5
            return (flat * kept).reshape(gradient.shape)

        return self.plain(changed_backward(images, every_tenth))


class Checkerboard(Plain):
    """The gradient of every second pixel, in rows and columns."""

    def masked(self, images: Tensor) -> Tensor:
        rows, columns = (torch.arange(size, device=images.device) for size in images.shape[2:])
        white = (rows[:, None] + columns) % 2 == 0
        return self.plain(torch.where(white, images, images.detach()))


class LeftHalf(Plain):
    """The gradient of the left half; the right half is decided on, too, behind the back of autograd."""

    def masked(self, images: Tensor) -> Tensor:
        left, right = images.tensor_split(2, dim=3)
        return self.plain(torch.cat([left, right.detach()], dim=3))


class DecoyWhileSure(Plain):
    """Where the network is sure, another one's logits, two of them exchanged so that the decision stays.

    The gradient is true everywhere: it is that of a network that decides nothing.
    """

    def masked(self, images: Tensor) -> Tensor:
        other, real = self.decoy(images), self.plain(images)
        return torch.where(lead(real) > 2, decided_by(other, real), real)


class RotatedGradients(Plain):
    """The gradient turned until it is nearly orthogonal: it still raises the loss, a little."""

    def masked(self, images: Tensor) -> Tensor:
        aside = direction(images)

        def turn(gradient: Tensor) -> Tensor:
            size = gradient.flatten(1).norm(dim=1).clamp(min=1e-20).reshape(-1, 1, 1, 1)
            unit = gradient / size
            across = aside - (aside * unit).sum((1, 2, 3), keepdim=True) * unit
            turned: Tensor = size * (0.3 * unit + across / across.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1))
            return turned

        return self.plain(changed_backward(images, turn))


class SmallEntriesOnly(Plain):
    """The gradient without its larger entries: clipped, the wrong way round."""

    def masked(self, images: Tensor) -> Tensor:
        def small(gradient: Tensor) -> Tensor:
            sizes = gradient.flatten(1).abs()
            limit = sizes.median(dim=1, keepdim=True).values
            return torch.where(sizes <= limit, gradient.flatten(1), 0).reshape(gradient.shape)

        return self.plain(changed_backward(images, small))


class BlurredImageGradients(Plain):
    """The gradient at a blurred image, which the network decides on otherwise."""

    def masked(self, images: Tensor) -> Tensor:
        blurred = functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
        return with_gradient_of(self.plain(images), self.plain(blurred))


class NoisyGradients(Plain):
    """Noise on the gradient, larger than it, and the same whenever the image is the same."""

    def masked(self, images: Tensor) -> Tensor:
        noise = content_noise(images, images[0].numel()).reshape(images.shape)

        def add_noise(gradient: Tensor) -> Tensor:
            return gradient + 2 * noise * gradient.abs().amax((1, 2, 3), keepdim=True)

        return self.plain(changed_backward(images, add_noise))


class FlippedNearBoundary(Plain):
    """The gradient is right until the decision is near, and then points back."""

    def masked(self, images: Tensor) -> Tensor:
        leads: list[Tensor] = []

        def turn_back(gradient: Tensor) -> Tensor:
            return torch.where(leads[0].reshape(-1, 1, 1, 1) < 4, -gradient, gradient)

        logits = self.plain(changed_backward(images, turn_back))
        leads.append(lead(logits.detach()))
        return logits


class SteppedLogits(Plain):
    """Logits rounded in steps, with the gradient of a smooth function of the image that decides nothing."""

    def masked(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        stepped = 3 * (logits / 3).round() + top(logits)
        return stepped.detach() + 0.2 * torch.tanh(self.decoy(images))


class SteppedStraightThrough(Plain):
    """Logits rounded in steps, with the gradient of the logits of a network whose last layer saturates."""

    def masked(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        stepped = 3 * (logits / 3).round() + top(logits)
        return with_gradient_of(stepped, 3 * torch.sigmoid(logits))


GRADIENTS: tuple[type[Plain], ...] = (
    TenthOfGradients,
    Checkerboard,
    LeftHalf,
    DecoyWhileSure,
    RotatedGradients,
    SmallEntriesOnly,
    BlurredImageGradients,
    NoisyGradients,
    FlippedNearBoundary,
    SteppedLogits,
    SteppedStraightThrough,
)
