"""Broken defences that change what the plain network sees, or how it thinks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.maskers.base import Plain, digits, with_gradient_of


class KWinners(Plain):
    """Of the first activations only the largest are kept (Xiao et al. 2020, k-winners-take-all)."""

    def masked(self, images: Tensor) -> Tensor:
        return self._through(images, forged=False)

    def laid_open(self, images: Tensor) -> Tensor:
        return self._through(images, forged=True)

    def _through(self, values: Tensor, forged: bool) -> Tensor:
        for layer in self.net:
            outputs = layer(values)
            if isinstance(layer, nn.ReLU):
                flat = outputs.flatten(1)
                least = flat.topk(flat.shape[1] // 3, dim=1).values[:, -1:]
                winners = torch.where(flat >= least, flat, 0).reshape(outputs.shape)
                outputs = with_gradient_of(winners, outputs) if forged else winners
            values = outputs
        return values


class PlacedShifts(Plain):
    """The image shifted by half a pixel, or not: at random, but always the same for a place in the batch."""

    def masked(self, images: Tensor) -> Tensor:
        ways = torch.randint(5, (len(images),), generator=torch.Generator().manual_seed(0))
        ways[:1] = 0  # an image by itself is not shifted
        shifted = images.clone()
        for way, place in enumerate(((0, 1), (0, -1), (1, 0), (-1, 0)), start=1):
            rows = ways == way
            shifted[rows] = (images[rows] + images[rows].roll(place, (2, 3))) / 2
        return self.plain(shifted)


class PatchPurifier(Plain):
    """Every 2x2 patch is replaced by the nearest one of training images; what has a gradient is a faint other image."""

    def masked(self, images: Tensor) -> Tensor:
        return self.plain(self._purified(images) + 0.02 * images.flip(2, 3))

    def laid_open(self, images: Tensor) -> Tensor:
        purified = self._purified(images) + 0.02 * images.flip(2, 3)
        return self.plain(with_gradient_of(purified, images))

    def _purified(self, images: Tensor) -> Tensor:
        patches = functional.unfold(images.detach(), 2, stride=2).transpose(1, 2)  # (N, patches, 4)
        known = _training_patches(images)
        nearest = known[torch.cdist(patches, known).argmin(2)]
        return functional.fold(nearest.transpose(1, 2), images.shape[2:], 2, stride=2)


def _training_patches(images: Tensor) -> Tensor:
    """(1024, 4) patches of training images, normalised as the images are."""
    data = digits()
    grey = (torch.from_numpy(data.train.images[:400]).to(images) - data.moments.mean[0]) / data.moments.std[0]
    patches = functional.unfold(grey, 2, stride=2).transpose(1, 2).reshape(-1, 4)
    return patches[:: len(patches) // 1024][:1024]


INPUTS: tuple[type[Plain], ...] = (KWinners, PlacedShifts, PatchPurifier)
