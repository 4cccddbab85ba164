"""One attack on some examples. Random numbers belong to fixed blocks of 256 examples.

Each block is seeded from (seed, attack with its parameters, ball, block), and sliced by the examples' places, so that
what an example meets does not depend on batch size, on the order of blocks or on what else is attacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from robustbench_cmic.attacks.model import CountedModel
from robustbench_cmic.attacks.threat import BLOCK, random_perturbations
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.attack_base import Attack

AttackT = TypeVar("AttackT", bound=Attack, covariant=True)


@dataclass(frozen=True, kw_only=True)
class AttackCall(Generic[AttackT]):
    """What the function gets that implements an attack; it returns images like these, and what its parts did.

    Attributes:
        attack: at one threat.
        seed: of the cell; with the attack, its ball and the number of the block it decides all random numbers.
        centroids: (C, C) mean softmax of each class, for the loss `cmic`.
        model: what is attacked.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        places: (N,) ascending places of the examples among all evaluated ones, counted from 0.
    """

    attack: AttackT
    seed: int
    centroids: Tensor | None
    model: CountedModel
    images: Tensor
    labels: Tensor
    places: Tensor

    def _seed(self, *parts: int) -> int:
        norm, eps = self.attack.threat
        return derive_seed(canonical_json(self.attack.declared()), norm, repr(eps), self.seed, *parts)

    def noise(self, number: int) -> Tensor:
        """The random perturbations of that number, (N, C, H, W), sliced out of the whole blocks they are drawn for."""
        drawn = []
        for block in torch.unique(self.places // BLOCK).tolist():
            with seeded(self._seed(number, block)):
                noise = random_perturbations(self.attack.threat, torch.Size((BLOCK, *self.images.shape[1:])))
            drawn.append(noise[self.places[self.places // BLOCK == block] - block * BLOCK])
        return torch.cat(drawn).to(self.images)

    @property
    def block_seed(self) -> int:
        """For attacks that run on whole blocks: the seed of theirs."""
        return self._seed(int(self.places[0]) // BLOCK)
