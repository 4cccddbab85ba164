"""One attack on some examples. Random numbers belong to fixed blocks of 256 examples.

Each block is seeded from (seed, attack with its parameters, ball, block), and sliced by the examples' places, so that
what an example meets does not depend on batch size, on the order of blocks or on what else is attacked. Examples of
any number of blocks are attacked together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from robustbench_cmic.attacks.model import CountedModel
from robustbench_cmic.attacks.threat import BLOCK, random_perturbations
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.fields import Threat

AttackT = TypeVar("AttackT", bound=Attack, covariant=True)
SeedOf = Callable[[int], int]
"""Number of a block -> the seed of all its random numbers."""


class OtherImages(NamedTuple):
    """Clean images of the evaluated ones, chosen evenly, whatever is attacked together.

    Attributes:
        images: (M, C, H, W) in [0, 1].
        labels: (M,).
    """

    images: Tensor
    labels: Tensor


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
        others: what attacks walk towards that say so (`Attack.wants_others`); None for all other attacks.
    """

    attack: AttackT
    seed: int
    centroids: Tensor | None
    model: CountedModel
    images: Tensor
    labels: Tensor
    places: Tensor
    others: OtherImages | None = None

    def _seed(self, *parts: int) -> int:
        norm, eps = self.attack.threat
        return derive_seed(canonical_json(self.attack.declared()), norm, repr(eps), self.seed, *parts)

    def noise(self, number: int) -> Tensor:
        """The random perturbations of that number, (N, C, H, W)."""
        return perturbations(self.attack.threat, self.places, self.images, lambda block: self._seed(number, block))

    def seed_of(self, block: int) -> int:
        """The seed of a block, for attacks that draw their own numbers, see `Uniform` and `perturbations`."""
        return self._seed(block)

    @property
    def block_seed(self) -> int:
        """For attacks that run on whole blocks: the seed of theirs."""
        return self.seed_of(int(self.places[0]) // BLOCK)


def checked_places(places: Tensor, labels: Tensor) -> Tensor:
    """The places of examples, on the CPU; a `ValueError` where they are not (N,) ascending numbers from 0 on."""
    places = places.cpu()
    if places.shape != labels.shape or bool((places.diff(prepend=places.new_zeros(1)) < 0).any()):
        raise ValueError(f"places should be ascending numbers of at least 0, one for each of {len(labels)} examples")
    return places


def perturbations(threat: Threat, places: Tensor, like: Tensor, seed_of: SeedOf) -> Tensor:
    """Random perturbations of the ball for the examples at these places, (N,) ascending: (N, C, H, W), as `like`."""

    def draw(block: int) -> Tensor:
        with seeded(seed_of(block)):
            return random_perturbations(threat, torch.Size((BLOCK, *like.shape[1:])))

    return _sliced(places, draw, 0).to(like)


class Uniform:
    """Uniform numbers of [0, 1) for the examples at these places, (N,) ascending, of a generator for each block.

    The generators are on the CPU, and so are the numbers.
    """

    def __init__(self, places: Tensor, seed_of: SeedOf) -> None:
        self.places = places
        blocks = torch.unique(places // BLOCK).tolist()
        self.generators = {block: torch.Generator().manual_seed(seed_of(block)) for block in blocks}

    def draw(self, *size: int, dim: int = 0) -> Tensor:
        """The next numbers, of that size for each block, with 256 at `dim`, where now the N examples are."""
        return _sliced(self.places, lambda block: torch.rand(*size, generator=self.generators[block]), dim)


def _sliced(places: Tensor, draw: Callable[[int], Tensor], dim: int) -> Tensor:
    """What is drawn for each block, 256 along `dim`, at the examples' places."""
    blocks, rows = places // BLOCK, places % BLOCK
    parts = [draw(block).index_select(dim, rows[blocks == block]) for block in torch.unique(blocks).tolist()]
    return torch.cat(parts, dim)
