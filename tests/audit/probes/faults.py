"""Small models that hide what they are from one probe or another, each around a network that computes logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Defence = Callable[[nn.Module, Tensor], Tensor]
"""The network and images (N, 1, 8, 8) -> logits."""

CHECKERBOARD = (torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0
LEFT = torch.arange(8).expand(8, 8) < 4
ROW = torch.arange(8)[:, None].expand(8, 8) == 3


class Defended(nn.Module):
    """A network behind a defence."""

    def __init__(self, net: nn.Module, defence: Defence) -> None:
        super().__init__()
        self.net = net
        self.defence = defence
        self.passes = 0
        self.original = id(self)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> (N, 10)."""
        self.passes += 1
        return self.defence(self.net, images)


def blind(images: Tensor, where: Tensor) -> Tensor:
    """The images, without a gradient in some pixels."""
    return torch.where(where, images.detach(), images)


def negated(images: Tensor) -> Tensor:
    """The images, with a gradient the wrong way round."""
    return 2 * images.detach() - images


def on_grid(images: Tensor) -> Tensor:
    """(N, 1, 1, 1) truth values: all pixels are multiples of 1/16."""
    return ((images * 16 - (images * 16).round()).abs().flatten(1).amax(1) < 1e-4)[:, None, None, None]


def dark(images: Tensor) -> Tensor:
    """(N, 1, 1, 1) truth values: the mean is below a half."""
    return (images.flatten(1).mean(1) < 0.5)[:, None, None, None]


def stairs(values: Tensor, steps: float) -> Tensor:
    """Rounded values that have the gradient of the exact ones."""
    return values + ((values * steps).round() / steps - values).detach()


def by_batch(net: nn.Module, images: Tensor) -> Tensor:
    """Honest for small batches, without gradients for large ones."""
    logits: Tensor = net(images if len(images) < 64 else images.detach() + 0 * images)
    return logits


def thrown_away(net: nn.Module, images: Tensor) -> Tensor:
    """The logits have no gradient; a second pass, whose result does not count, has one."""
    hidden: Tensor = net(images.detach()) + 0 * net(images)
    return hidden


WRONG: dict[str, Defence] = {
    "checkerboard": lambda net, images: net(blind(images, CHECKERBOARD)),
    "half": lambda net, images: net(blind(images, LEFT)),
    "row": lambda net, images: net(blind(images, ROW)),
    "negated": lambda net, images: net(negated(images)),
    "grid": lambda net, images: net(torch.where(on_grid(images), images, negated(images))),
    "dark": lambda net, images: net(torch.where(dark(images), negated(images), images)),
    "by-batch": by_batch,
    "thrown-away": thrown_away,
    "float32": lambda net, images: net.float()(blind(images.float(), LEFT)),
}
"""Whose gradients are not the slopes."""
STAIRS: dict[str, Defence] = {
    "rounded": lambda net, images: net((images * 4).round() / 4 + 0 * images),
    "straight-through": lambda net, images: net(stairs(images, 4)),
}
USELESS: dict[str, Defence] = {
    "rounded-logits": lambda net, images: (net(images) * 50).round() / 50 + 1e-4 * net(images).flip(1),
    "ripple": lambda net, images: net(images + 0.01 * torch.sin(2000 * images)),
}
"""Whose gradients are the slopes, and lead nowhere."""
