"""Broken defences whose logits mislead while the decision is the plain network's. Most gradients are true."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.maskers.base import Plain, content_noise, direction, lead, top, with_gradient_of


class ReversedLogits(Plain):
    """Behind the decision the least likely class comes second: attacks run towards it."""

    def masked(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        least = logits.amin(1, keepdim=True)
        return torch.where(top(logits), 40 + 0.5 * least, -logits)


class FlattenedByTemperature(Plain):
    """A temperature that depends on the image: the lead is nearly the same everywhere, and rises one way."""

    def masked(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        along = torch.tanh((images * direction(images)).mean((1, 2, 3))[:, None])
        return logits / lead(logits).clamp(min=1e-3) * (3 + along)


class ScrambledOthers(Plain):
    """The logits of all classes but the first trade places, others after the least change of the image.

    Which class comes second is noise, and each class has the gradient of its own logit: exchanged with it, it would
    be as good as before.
    """

    def masked(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        decided = top(logits)
        others = logits.argsort(dim=1, descending=True)[:, 1:]
        mixed = others.gather(1, content_noise(images, others.shape[1]).argsort(dim=1))
        scrambled = logits.scatter(1, others, logits.gather(1, mixed))
        return torch.where(decided, logits, with_gradient_of(scrambled, logits))


class SteepMargin(Plain):
    """A very steep function of the lead, which is flat where the network is sure, and a little of another network."""

    def masked(self, images: Tensor) -> Tensor:
        aside, logits = torch.tanh(self.decoy(images)), self.plain(images)
        return top(logits) * (1 + torch.tanh(20 * lead(logits))) * 5 + 0.3 * aside


class Ranks(Plain):
    """Of the logits only their order is kept, and told with a gradient of the image's mean."""

    def masked(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        ranks = logits.argsort(dim=1).argsort(dim=1).to(logits.dtype)
        return ranks * (1 + 0.1 * torch.tanh(images.mean((1, 2, 3))[:, None]))


class DrownedMargin(Plain):
    """A margin flattened to a ten-thousandth beside a large smooth function of the image that decides nothing."""

    def masked(self, images: Tensor) -> Tensor:
        logits = self.plain(images)
        waves = 1 + torch.sin((images * direction(images)).sum((1, 2, 3)))[:, None]
        return top(logits) * (2 + 2 * waves) + 1e-4 * torch.log1p(logits - logits.amin(1, keepdim=True))


LOGITS: tuple[type[Plain], ...] = (
    ReversedLogits,
    FlattenedByTemperature,
    ScrambledOthers,
    SteepMargin,
    Ranks,
    DrownedMargin,
)
