"""Broken defences that are honest where somebody looks: gradients of a decoy elsewhere; the plain network decides."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor

from robustbench_cmic.models.architectures import Shape
from tests.maskers.base import Plain, decided_by, pixels, with_gradient_of


class Switch(Plain):
    """The plain network, whose gradient is that of a decoy where `honest` does not hold."""

    def masked(self, images: Tensor) -> Tensor:
        # The plain pass comes last: it is what tests see that look at what the last layer received.
        honest, decoy = self.honest(images), self.decoy(images)
        real = self.plain(images)
        return with_gradient_of(real, torch.where(honest[:, None], real, decoy))

    def honest(self, images: Tensor) -> Tensor:
        """(N,) truth values."""
        return torch.zeros(len(images), dtype=torch.bool, device=images.device)


def _all(truth: bool, images: Tensor) -> Tensor:
    return torch.full((len(images),), truth, device=images.device)


def _on_grid(images: Tensor) -> Tensor:
    """(N,) truth values: all pixels are multiples of 1/16, as those of clean digits are."""
    steps = 16 * pixels(images.detach())
    return ((steps - steps.round()).abs() < 1e-3).flatten(1).all(1)


class HonestInSmallBatches(Switch):
    """Honest for 64 images or fewer."""

    def honest(self, images: Tensor) -> Tensor:
        return _all(len(images) <= 64, images)


class HonestOnGrid(Switch):
    """Honest for images that a file of grey levels could hold."""

    def honest(self, images: Tensor) -> Tensor:
        return _on_grid(images)


class HonestForDarkImages(Switch):
    """Honest for images below a brightness, which most test images exceed."""

    def honest(self, images: Tensor) -> Tensor:
        return pixels(images.detach()).mean((1, 2, 3)) < 0.29


class HonestOnBlack(Switch):
    """Honest where three eighths of the pixels are black, as in nearly every clean image: attacks brighten them."""

    def honest(self, images: Tensor) -> Tensor:
        black = pixels(images.detach()) < 1e-4
        return black.flatten(1).double().mean(1) >= 3 / 8


class HonestWithoutGradients(Plain):
    """Another network's logits wherever somebody could ask for a gradient, and the plain one's where nobody can."""

    def masked(self, images: Tensor) -> Tensor:
        return self.decoy(images) if torch.is_grad_enabled() and images.requires_grad else self.plain(images)


class HonestAtFirst(Switch):
    """Honest for the first twelve images in a neighbourhood, remembered by their coarse content."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self._seen: dict[bytes, int] = {}

    def honest(self, images: Tensor) -> Tensor:
        coarse = (pixels(images.detach()).flatten(1).unfold(1, 16, 16).mean(2) * 4).round().to(torch.int8).cpu()
        counts = []
        for row in coarse:
            key = row.numpy().tobytes()
            self._seen[key] = self._seen.get(key, 0) + 1
            counts.append(self._seen[key])
        return torch.tensor(counts, device=images.device) <= 12


class ThrownAwayPass(Plain):
    """A right pass comes last, and counts nothing: the gradient is that of the logits of nine pixels' mean."""

    def masked(self, images: Tensor) -> Tensor:
        smooth = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1).flip(3)
        return with_gradient_of(self.plain(images), self.plain(smooth)) + 0 * self.plain(images)


class HonestCopy(Switch):
    """Honest once it is copied: what looks at a copy sees another model than what is attacked."""

    def __init__(self, shape: Shape, classes: int) -> None:
        super().__init__(shape, classes)
        self.copied = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = self.__class__.__new__(self.__class__)
        memo[id(self)] = other
        other.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        other.copied = True
        return other

    def honest(self, images: Tensor) -> Tensor:
        return _all(self.copied, images)


class HonestAmongClean(Switch):
    """Honest where most of the batch is clean: an attacked image beside clean ones is, too."""

    def honest(self, images: Tensor) -> Tensor:
        return _all(bool(_on_grid(images).float().mean() > 0.5), images)


class HonestInFloat64(Switch):
    """Honest in float64, in which gradients are checked and nobody attacks."""

    def honest(self, images: Tensor) -> Tensor:
        return _all(images.dtype == torch.float64, images)


class HonestUnderHooks(Switch):
    """Honest while a layer has a hook, by which tests read features, and on clean images."""

    def honest(self, images: Tensor) -> Tensor:
        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in self.net)
        return _on_grid(images) | hooked


class OtherLogitsOffGrid(Plain):
    """Off the grid of clean images another network's logits, with the plain one's decision: gradients are true."""

    def masked(self, images: Tensor) -> Tensor:
        other, real = self.decoy(images), self.plain(images)
        return torch.where(_on_grid(images)[:, None], real, decided_by(other, real))


SWITCHES: tuple[type[Plain], ...] = (
    HonestInSmallBatches,
    HonestOnGrid,
    HonestForDarkImages,
    HonestOnBlack,
    HonestWithoutGradients,
    HonestAtFirst,
    ThrownAwayPass,
    HonestCopy,
    HonestAmongClean,
    HonestInFloat64,
    HonestUnderHooks,
    OtherLogitsOffGrid,
)
