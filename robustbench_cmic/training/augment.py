"""Random crop, flip and cutout, whole batches at once on the device; what is drawn depends on the seed only."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.suite.training import Augmentation

DRAWS = 5
"""Random numbers an image: shift down and right, flip, row and column of the cutout."""


def draw(n: int, size: tuple[int, int], augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """(n, DRAWS) int64: what happens to each of n images of this size (height, width).

    Drawn on the CPU, so that every device gets the same.
    """
    ranges = (2 * augmentation.crop + 1, 2 * augmentation.crop + 1, 2 if augmentation.flip else 1, *size)
    return torch.stack([torch.randint(upper, (n,), generator=generator) for upper in ranges], dim=1)


def augment(images: Tensor, draws: Tensor, augmentation: Augmentation, fill: Tensor) -> Tensor:
    """Crop, flip and cut out.

    Args:
        images: (N, C, H, W) floats in [0, 1]; the result is like them.
        draws: (N, DRAWS) from `draw`, on the same device.
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
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        # One gather for all; the channels come last in memory, as convolutions like them.
        images = padded[batch, :, row, column].permute(0, 3, 1, 2)
    if augmentation.cutout:
        # The square may hang over the edge, as in the paper (section 3.1).
        top, left = (draws[:, index, None] - augmentation.cutout // 2 for index in (3, 4))
        inside_rows = (rows >= top) & (rows < top + augmentation.cutout)
        inside_columns = (columns >= left) & (columns < left + augmentation.cutout)
        inside = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None]
        images = torch.where(inside, fill, images)
    return images
