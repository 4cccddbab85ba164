"""Augmentation against slices written out one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_cmic.suite.training import Augmentation
from robustbench_cmic.training.augment import augment, draw

FILL = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1)


def one_by_one(images: Tensor, draws: Tensor, crop: int, cutout: int) -> Tensor:
    height, width = images.shape[2:]
    results = []
    for image, (down, right, flip, row, column) in zip(images, draws.tolist(), strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (crop, crop), (crop, crop)))
        cropped = padded[:, down : down + height, right : right + width]
        if flip:
            cropped = cropped[:, :, ::-1]
        result = torch.from_numpy(cropped.copy())
        if cutout:
            top, left = row - cutout // 2, column - cutout // 2
            result[:, max(0, top) : max(0, top + cutout), max(0, left) : max(0, left + cutout)] = FILL
        results.append(result)
    return torch.stack(results)


@pytest.mark.parametrize("augmentation", [
    Augmentation(crop=0, flip=False, cutout=0),
    Augmentation(crop=2, flip=False, cutout=0),
    Augmentation(crop=0, flip=True, cutout=0),
    Augmentation(crop=4, flip=True, cutout=5),
    Augmentation(crop=0, flip=False, cutout=40),
])  # fmt: skip
def test_equals_slicing_image_by_image(augmentation: Augmentation) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(64, 3, 9, 12, generator=generator)
    draws = draw(64, (9, 12), augmentation, generator)
    expected = one_by_one(images, draws, augmentation.crop, augmentation.cutout)
    assert torch.equal(augment(images, draws, augmentation, FILL), expected)
    assert torch.equal(images, expected) == (augmentation == Augmentation())


def test_every_shift_flip_and_place_is_drawn_about_equally_often() -> None:
    draws = draw(60_000, (9, 12), Augmentation(crop=2, flip=True, cutout=3), torch.Generator().manual_seed(1))
    for column, values in enumerate((5, 5, 2, 9, 12)):
        counts = torch.bincount(draws[:, column], minlength=values)
        assert len(counts) == values
        expected = 60_000 / values
        assert float(((counts - expected) ** 2 / expected).sum()) < 40  # chi-squared; beyond 40 at p < 1e-4


def test_what_is_drawn_depends_on_the_generator_only() -> None:
    augmentation = Augmentation(crop=4, flip=True, cutout=8)
    same = [draw(10, (32, 32), augmentation, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
