"""Augmentation against slices written out one image at a time, and against torchvision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as reference
from torch import Tensor

from robustbench_cmic.suite.training import Augmentation
from robustbench_cmic.training.augment import DRAW_LEVELS, DRAWS, augment, draw, jitter, rotate

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


NEW: list[dict[str, Any]] = [{"rotation": 15}, {"jitter": 0.4}, {"rotation": 15, "jitter": 0.4}]


@pytest.mark.parametrize("new", NEW)
def test_what_was_drawn_before_rotation_and_jitter_existed_stays_as_it_was(new: dict[str, Any]) -> None:
    old: dict[str, Any] = {"crop": 4, "flip": True, "cutout": 8}
    first = draw(50, (32, 32), Augmentation(**old), torch.Generator().manual_seed(3))
    second = draw(50, (32, 32), Augmentation(**old, **new), torch.Generator().manual_seed(3))
    assert first.shape == (50, DRAWS)
    assert second.shape == (50, DRAWS + ("rotation" in new) + 3 * ("jitter" in new))
    assert torch.equal(second[:, :DRAWS], first)
    generator = torch.Generator().manual_seed(3)
    written_out = [torch.randint(upper, (50,), generator=generator) for upper in (9, 9, 2, 32, 32)]
    assert torch.equal(first, torch.stack(written_out, dim=1))


def interior(height: int, width: int) -> Tensor:
    """(height, width): whether a pixel comes from inside the image, however it is turned."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = torch.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2)
    return distance <= (min(height, width) - 1) / 2 - 1e-6


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (2, 9, 12)])
def test_rotates_as_torchvision_does_inside(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(40, *shape, generator=generator)
    angles = torch.rand(40, generator=generator, dtype=torch.float64) * 360 - 180
    ours = rotate(images, angles)
    bilinear = reference.InterpolationMode.BILINEAR
    theirs = torch.stack([
        reference.rotate(image, angle, bilinear) for image, angle in zip(images, angles.tolist(), strict=True)
    ])  # fmt: skip
    inside = interior(*shape[1:])
    assert int(inside.sum()) > shape[1] * shape[2] / 3
    assert float((ours - theirs)[..., inside].abs().max()) < 1e-5
    assert float(ours.min()) >= 0
    assert float(ours.max()) <= 1


def test_rotates_bilinearly_over_black() -> None:
    """Of a white square turned by 45 degrees, each pixel is the share of its weights that lies inside."""
    side = 7
    turned = rotate(torch.ones(1, 1, side, side), torch.tensor([45.0], dtype=torch.float64))[0, 0]
    centred = torch.arange(side) - (side - 1) / 2
    half = 2**0.5 / 2
    row = half * (centred[None, :] + centred[:, None]) + (side - 1) / 2
    column = half * (centred[None, :] - centred[:, None]) + (side - 1) / 2
    weight = [(1 - (place - (side - 1) / 2).abs() + (side - 1) / 2).clamp(0, 1) for place in (row, column)]
    assert torch.allclose(turned, weight[0] * weight[1], atol=1e-6)


def test_quarter_turns_and_none_move_pixels_without_changing_them() -> None:
    images = torch.rand(5, 3, 10, 10)
    for quarters, angle in enumerate((0.0, 90.0, 180.0)):
        turned = rotate(images, torch.full((5,), angle, dtype=torch.float64))
        assert torch.equal(turned, images.rot90(quarters, (2, 3)))
        assert torch.equal(turned, reference.rotate(images, angle))  # which takes the nearest pixel
    oblong = torch.rand(5, 1, 9, 12)
    assert torch.equal(rotate(oblong, torch.zeros(5, dtype=torch.float64)), oblong)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitters_as_torchvision_does(channels: int) -> None:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(40, channels, 9, 12, generator=generator)
    factors = torch.rand(40, 3, generator=generator, dtype=torch.float64) * 2
    changed = jitter(images, factors)
    for image, result, (brightness, contrast, saturation) in zip(images, changed, factors.tolist(), strict=True):
        expected = reference.adjust_brightness(image, brightness)
        expected = reference.adjust_contrast(expected, contrast)
        expected = reference.adjust_saturation(expected, saturation)
        assert torch.allclose(result, expected, atol=1e-6)
    assert torch.equal(jitter(images, torch.ones(40, 3)), images)


def test_other_than_three_channels_have_no_saturation() -> None:
    images = torch.rand(4, 2, 6, 6)
    factors = torch.tensor([[1.0, 1.0, 0.0]] * 4)
    assert torch.equal(jitter(images, factors), images)
    grey = images.mean(dim=(1, 2, 3), keepdim=True).expand_as(images)
    assert torch.allclose(jitter(images, torch.tensor([[1.0, 0.0, 1.0]] * 4)), grey)


def test_angles_and_factors_are_uniform_between_their_bounds() -> None:
    """The least and the largest number stand for the bounds, and all thirds of the range are as likely."""
    augmentation = Augmentation(rotation=15, jitter=0.4)
    draws = draw(3000, (1, 1), augmentation, torch.Generator().manual_seed(6))
    ends = draws[:2].clone()
    ends[0, DRAWS:], ends[1, DRAWS:] = 0, DRAW_LEVELS
    images = torch.full((2, 3, 1, 1), 0.5)
    assert augment(images, ends, augmentation, FILL)[:, 0, 0, 0].tolist() == pytest.approx([0.3, 0.7], abs=1e-3)
    large = torch.rand(2, 3, 16, 16) / 2
    turned = augment(large, ends, Augmentation(rotation=15), FILL)
    bounds = torch.tensor([-15.0, 15.0], dtype=torch.float64)
    assert torch.equal(turned, rotate(large, bounds))
    for column in range(DRAWS, DRAWS + 4):
        counts = torch.histc(draws[:, column].double(), bins=3, min=0, max=DRAW_LEVELS)
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 25  # chi-squared; beyond 25 at p < 1e-5


def test_strong_jitter_has_no_negative_factors() -> None:
    """Contrast at its least takes all contrast away, and turns nothing round."""
    augmentation = Augmentation(jitter=3)
    unchanged = DRAW_LEVELS // 4  # of factors from 0 to 4
    draws = torch.tensor([[0] * DRAWS + [unchanged, 0, unchanged]])
    images = torch.rand(1, 3, 4, 4)
    grey = reference.rgb_to_grayscale(images).mean()
    assert torch.allclose(augment(images, draws, augmentation, FILL), grey.expand(1, 3, 4, 4), atol=1e-3)


def test_changes_of_one_image_do_not_depend_on_the_others() -> None:
    augmentation = Augmentation(crop=2, flip=True, rotation=15, jitter=0.4, cutout=3)
    images = torch.rand(8, 3, 9, 12)
    draws = draw(8, (9, 12), augmentation, torch.Generator().manual_seed(7))
    whole = augment(images, draws, augmentation, FILL)
    alone = torch.cat([augment(images[i : i + 1], draws[i : i + 1], augmentation, FILL) for i in range(8)])
    assert torch.equal(whole, alone)


def test_cuts_out_last_so_that_its_colour_is_the_mean() -> None:
    augmentation = Augmentation(rotation=15, jitter=0.4, cutout=40)
    draws = draw(4, (9, 12), augmentation, torch.Generator().manual_seed(8))
    assert torch.equal(augment(torch.rand(4, 3, 9, 12), draws, augmentation, FILL), FILL.expand(4, 3, 9, 12))
