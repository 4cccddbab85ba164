"""Builds a classifier: the architecture behind a normalisation layer, initialised from a seed."""

from __future__ import annotations

import pkgutil

import torch
from torch import Tensor, nn

from robustbench_cmic.data.base import Data
from robustbench_cmic.models import ARCHITECTURES


class Normalize(nn.Module):
    """(x - mean) / std per channel; the first layer of every model, so that attacks see images in [0, 1].

    Args:
        mean: (C,) mean of the training images.
        std: (C,) standard deviation of the training images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("std", std.reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images in [0, 1] -> normalised images of the same shape."""
        return (images - self.mean) / self.std


def normalization(data: Data) -> Normalize:
    """The normalisation layer for a data set: per-channel moments of the training images, computed in float64."""
    images = torch.from_numpy(data.x_train).double()
    std, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0)
    # A channel without variation carries nothing to scale.
    return Normalize(mean.float(), torch.where(std > 0, std, torch.ones_like(std)).float())


def build_model(architecture: str, data: Data, seed: int) -> nn.Module:
    """An untrained classifier, its weights drawn from `seed`; the global random state is left as it was.

    Args:
        architecture: one of `ARCHITECTURES`.
        data: decides the shape of the input, the number of classes and the normalisation.
        seed: two models of one architecture and seed start from equal weights, whatever their objectives.
    """
    shape = tuple(data.x_train.shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = pkgutil.resolve_name(ARCHITECTURES[architecture])(shape, data.classes)
    return nn.Sequential(normalization(data), network)
