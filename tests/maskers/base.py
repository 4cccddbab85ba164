"""What broken defences are made of: the plain network, its images as attacks see them, and gradients that are not its.

Every masker is an `architecture` of a suite file: from the shape of images (C, H, W) and the number of classes to a
module that returns logits. In training mode all of them are the plain network, whose weights they can load.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_cmic.data.base import Data
from robustbench_cmic.data.digits import load_digits
from robustbench_cmic.models.architectures import Shape, small_cnn


class Plain(nn.Module):
    """The network behind every masker, as it is."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__()
        net = small_cnn(shape, classes)
        assert isinstance(net, nn.Sequential)
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, classes)."""
        return self.plain(images) if self.training else self.masked(images)

    def plain(self, images: Tensor) -> Tensor:
        """The network's logits."""
        logits: Tensor = self.net(images)
        return logits

    def masked(self, images: Tensor) -> Tensor:
        """What is evaluated."""
        return self.plain(images)

    def laid_open(self, images: Tensor) -> Tensor:
        """What somebody attacks who knows the defence: differentiable logits (N, classes) that decide as it does, or
        nearly so. Its own decision is what counts.
        """
        return self.plain(images)

    def decoy(self, images: Tensor) -> Tensor:
        """The logits (N, classes) of another network: the plain one that sees the image turned by 180 degrees."""
        return self.plain(images.flip(2, 3))


@functools.cache
def digits() -> Data:
    """The digits that all maskers are tried on."""
    return load_digits()


def pixels(images: Tensor) -> Tensor:
    """The images (N, 1, H, W) in [0, 1] that were normalised by the moments of digits."""
    moments = digits().moments
    return images * moments.std[0] + moments.mean[0]


def with_gradient_of(values: Tensor, source: Tensor) -> Tensor:
    """The values, bit for bit, with the gradient of `source`, of the same shape."""
    return values.detach() + (source - source.detach())


def changed_backward(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images, whose gradient (N, C, H, W) goes through `change` on its way back."""
    copy = images.clone()
    if copy.requires_grad:
        copy.register_hook(change)  # type: ignore[no-untyped-call]
    return copy


def content_noise(images: Tensor, count: int) -> Tensor:
    """(N, count) numbers in [-1, 1] for images (N, C, H, W): others after the least change, the same for the same."""
    flat = images.detach().double().flatten(1)
    ramp = torch.arange(1, flat.shape[1] + 1, device=flat.device, dtype=flat.dtype)
    key = (flat * torch.sin(12.9898 * ramp)).sum(1, keepdim=True)
    columns = torch.arange(1, count + 1, device=flat.device, dtype=flat.dtype)
    return torch.sin(43758.5453 * key * (1 + columns * 0.618)).to(images.dtype)


def direction(images: Tensor) -> Tensor:
    """One image (1, C, H, W) of fixed random numbers, for images (N, C, H, W) of any batch."""
    generator = torch.Generator().manual_seed(14)
    return torch.randn(1, *images.shape[1:], generator=generator).to(images)


def top(logits: Tensor) -> Tensor:
    """(N, C) truth values: the class that is decided for, alone."""
    return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).bool()


def lead(logits: Tensor) -> Tensor:
    """(N, 1) how far the largest logit of (N, C) is above the second."""
    largest = logits.topk(2, dim=1).values
    return (largest[:, :1] - largest[:, 1:]).clamp(min=0)


def decided_by(logits: Tensor, real: Tensor) -> Tensor:
    """Logits (N, C), two of them exchanged so that the largest is where that of `real` is; differentiable."""
    order = torch.arange(logits.shape[1], device=logits.device).repeat(len(logits), 1)
    first, wanted = logits.argmax(1, keepdim=True), real.argmax(1, keepdim=True)
    order = order.scatter(1, wanted, first).scatter(1, first, wanted)
    return logits.gather(1, order)
