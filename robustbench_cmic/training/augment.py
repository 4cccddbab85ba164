"""Random changes of training images, whole batches at once on the device; what is drawn depends on the seed only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.suite.training import Augmentation

DRAWS = 5
"""Random numbers of every image: shift down and right, flip, row and column of the cutout.

After them come one for the angle, where images are rotated, and three for brightness, contrast and saturation, where
colours are jittered.
"""
DRAW_LEVELS = 2**24
"""Angles and factors are drawn as whole numbers from 0 to this one, which stand for the least and the largest."""


def draw(n: int, size: tuple[int, int], augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """(n, DRAWS or more) int64: what happens to each of n images of this size (height, width).

    Drawn on the CPU, so that every device gets the same. What is rarely asked for comes last, so that without it
    everything else stays as it was drawn before it existed.
    """
    ranges = [2 * augmentation.crop + 1, 2 * augmentation.crop + 1, 2 if augmentation.flip else 1, *size]
    ranges += [DRAW_LEVELS + 1] * (bool(augmentation.rotation) + 3 * bool(augmentation.jitter))
    return torch.stack([torch.randint(upper, (n,), generator=generator) for upper in ranges], dim=1)


def augment(images: Tensor, draws: Tensor, augmentation: Augmentation, fill: Tensor) -> Tensor:
    """Crop and flip, then rotate, jitter the colours, and cut out.

    Args:
        images: (N, C, H, W) floats in [0, 1]; the result is like them.
        draws: from `draw`, on the same device.
        augmentation: as a suite declares it.
        fill: (C, 1, 1) colour of the cutout, the mean of the training images.
    """
    height, width = images.shape[2:]
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    if augmentation.crop or augmentation.flip:
        flipped = torch.where(draws[:, 2, None] == 1, columns.flip(0), columns)
        padded = functional.pad(images, [augmentation.crop] * 4)
        row = (rows + draws[:, 0, None])[:, :, None]
        column = (flipped + draws[:, 1, None])[:, None, :]
        images = _gather(padded, row, column)
    further = draws[:, DRAWS:].double() / DRAW_LEVELS
    if augmentation.rotation:
        images = rotate(images, augmentation.rotation * (2 * further[:, 0] - 1))
    if augmentation.jitter:
        least = max(0.0, 1 - augmentation.jitter)
        images = jitter(images, least + (1 + augmentation.jitter - least) * further[:, -3:])
    if augmentation.cutout:
        # The square may hang over the edge, as in the paper (section 3.1).
        top, left = (draws[:, index, None] - augmentation.cutout // 2 for index in (3, 4))
        inside_rows = (rows >= top) & (rows < top + augmentation.cutout)
        inside_columns = (columns >= left) & (columns < left + augmentation.cutout)
        inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
        images = torch.where(inside, fill, images)
    return images


def rotate(images: Tensor, angles: Tensor) -> Tensor:
    """Images turned counter-clockwise about their centres, bilinear between pixels, black where they were not.

    As torchvision's `rotate` except within a pixel of the images' edges, which it darkens twice.

    Args:
        images: (N, C, H, W) floats in [0, 1]; the result is like them.
        angles: (N,) degrees, float64: a quarter turn of a square is then one of its pixels, bit for bit.
    """
    height, width = images.shape[2:]
    cosine, sine = (f(torch.deg2rad(angles))[:, None, None] for f in (torch.cos, torch.sin))
    down, right = (
        torch.arange(side, dtype=torch.float64, device=images.device) - (side - 1) / 2 for side in (height, width)
    )
    row = sine * right + cosine * down[:, None] + (height - 1) / 2
    column = cosine * right - sine * down[:, None] + (width - 1) / 2
    top, left = row.floor(), column.floor()
    below, beside = ((exact - whole).float()[:, None] for exact, whole in ((row, top), (column, left)))
    padded = functional.pad(images, [1] * 4)
    edge = [
        _gather(padded, _within(top + first, height), _within(left + second, width))
        for first in (1, 2)
        for second in (1, 2)
    ]
    upper, lower = (torch.lerp(edge[index], edge[index + 1], beside) for index in (0, 2))
    return torch.lerp(upper, lower, below).clamp(0, 1)


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation changed, each clamped to [0, 1]; the hue is left alone.

    As torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation`. Saturation is without effect on
    images of other than three channels, whose grey is the mean over the channels.

    Args:
        images: (N, C, H, W) floats in [0, 1]; the result is like them.
        factors: (N, 3), one for each change; at 1 nothing changes.
    """
    brightness, contrast, saturation = factors.to(images.dtype)[:, :, None, None, None].unbind(1)
    images = (brightness * images).clamp(0, 1)
    images = _blend(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True), contrast)
    return _blend(images, _grey(images), saturation) if images.shape[1] == 3 else images


def _gather(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """(N, C, H, W) pixels of images (N, C, ., .) at rows and columns that broadcast to (N, H, W)."""
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # One gather for all; the channels come last in memory, as convolutions like them.
    return images[batch, :, row, column].permute(0, 3, 1, 2)


def _within(places: Tensor, side: int) -> Tensor:
    """Whole places in images of this side, counted from 1, as indices into their padding where they are outside."""
    return places.clamp(0, side + 1).long()


def _grey(images: Tensor) -> Tensor:
    """(N, 1, H, W) luma of ITU-R BT.601, rounded as torchvision has it; other than three channels: their mean."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]


def _blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    return (factor * images + (1 - factor) * others).clamp(0, 1)
