"""Random numbers of blocks: an example meets the same ones whatever else is attacked with it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from robustbench_cmic.attacks.blocks import Uniform, checked_places, perturbations
from robustbench_cmic.attacks.threat import random_perturbations
from robustbench_cmic.seeding import derive_seed
from robustbench_cmic.suite.fields import Norm, Threat

PLACES = torch.tensor([0, 3, 255, 256, 700, 701, 1100])
SEED_OF = partial(derive_seed, "here")


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_perturbations_are_those_of_whole_blocks(norm: Norm) -> None:
    threat, like = Threat(norm, 0.3), torch.zeros(len(PLACES), 2, 3, 4)
    state = torch.get_rng_state()
    found = perturbations(threat, PLACES, like, SEED_OF)
    assert torch.equal(torch.get_rng_state(), state)
    for row, place in enumerate(PLACES.tolist()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED_OF(place // 256))
            expected = random_perturbations(threat, torch.Size((256, 2, 3, 4)))[place % 256]
        assert torch.equal(found[row], expected)


def test_uniform_numbers_come_from_one_generator_a_block() -> None:
    uniform = Uniform(PLACES, SEED_OF)
    first, second = uniform.draw(256, 5), uniform.draw(3, 256, 2, dim=1)
    assert (first.shape, second.shape) == ((7, 5), (3, 7, 2))
    for row, place in enumerate(PLACES.tolist()):
        generator = torch.Generator().manual_seed(SEED_OF(place // 256))
        assert torch.equal(first[row], torch.rand(256, 5, generator=generator)[place % 256])
        assert torch.equal(second[:, row], torch.rand(3, 256, 2, generator=generator)[:, place % 256])


def test_places_are_checked() -> None:
    labels = torch.zeros(2, dtype=torch.long)
    assert checked_places(torch.tensor([4, 1000]), labels).tolist() == [4, 1000]
    assert checked_places(torch.empty(0, dtype=torch.long), labels[:0]).tolist() == []
    for places in ([4], [4, 3], [-1, 3], [[1, 2]]):
        with pytest.raises(
            ValueError, match="places should be ascending numbers of at least 0, one for each of 2 exam"
        ):
            checked_places(torch.tensor(places), labels)
