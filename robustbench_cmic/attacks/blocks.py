"""One attack on some examples. Random numbers belong to fixed blocks of 256 examples.

Each block is seeded from (seed, attack with its parameters, ball, block), and sliced by the examples' places, so that
what an example meets does not depend on batch size, on the order of blocks or on what else is attacked.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from robustbench_cmic.attacks.model import CountedModel
from robustbench_cmic.attacks.threat import BLOCK, random_perturbations
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.fields import Threat

AttackT = TypeVar("AttackT", bound=Attack, covariant=True)


@dataclass(frozen=True, kw_only=True)
class SeededAttack(Generic[AttackT]):
    """An attack, and what decides its random numbers.

    Attributes:
        attack: at one threat.
        seed: of the cell; with the attack, its ball and the number of the block it decides all random numbers.
        centroids: (C, C) mean softmax of each class, for the loss `cmic`.
    """

    attack: AttackT
    seed: int
    centroids: Tensor | None = None

    @property
    def threat(self) -> Threat:
        """The ball."""
        return self.attack.threat

    @property
    def stream(self) -> tuple[str | int, ...]:
        """What seeds are derived from."""
        return (canonical_json(self.attack.declared()), self.threat.norm, repr(self.threat.eps), self.seed)


@dataclass(frozen=True, kw_only=True)
class AttackCall(SeededAttack[AttackT]):
    """What the function gets that implements an attack; it returns images like these, and what its parts did.

    Attributes:
        model: what is attacked.
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        places: (N,) ascending places of the examples among all evaluated ones, counted from 0.
    """

    model: CountedModel
    images: Tensor
    labels: Tensor
    places: Tensor

    def noise(self, number: int) -> Tensor:
        """The random perturbations of that number, (N, C, H, W), sliced out of the whole blocks they are drawn for."""
        drawn = []
        for block in torch.unique(self.places // BLOCK).tolist():
            with seeded(derive_seed(*self.stream, number, block)):
                noise = random_perturbations(self.threat, torch.Size((BLOCK, *self.images.shape[1:])))
            drawn.append(noise[self.places[self.places // BLOCK == block] - block * BLOCK])
        return torch.cat(drawn).to(self.images)

    @property
    def block_seed(self) -> int:
        """For attacks that run on whole blocks: the seed of theirs."""
        return derive_seed(*self.stream, int(self.places[0]) // BLOCK)

    @property
    def rows(self) -> Tensor:
        """(N,) positions of the examples in the block of the first of them."""
        return self.places % BLOCK


def attack_block(
    order: SeededAttack[Attack], target: CountedModel, images: Tensor, labels: Tensor, places: Tensor
) -> tuple[Any, list[Part]]:
    """What the attack returns for some examples, and what its parts did, if it has any; see `AttackCall`."""
    call = AttackCall(**vars(order), model=target, images=images, labels=labels, places=places)
    result: tuple[Any, list[Part]] = pkgutil.resolve_name(order.attack.implementation)(call)
    return result
