"""Square Attack, native: random search with squares, by the logits alone (Andriushchenko et al. 2020); L-inf and L2."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import SeedOf, Uniform, checked_places
from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.losses import margin
from robustbench_cmic.attacks.threat import BLOCK, check_threat, normalized
from robustbench_cmic.suite.fields import Threat

QUERIES_AT_ONCE = 100
"""Queries for which random numbers are drawn, and copied to a GPU, together."""
LOOK_EVERY = 10
"""On a GPU, queries after which the host looks which examples are broken; it waits for the GPU each time."""
P_SCHEDULE = ((10, 1), (50, 2), (200, 4), (500, 8), (1000, 16), (2000, 32), (4000, 64), (6000, 128), (8000, 256))
"""Up to this query of 10,000, the share of the image that a square takes is divided by this."""


@called_directly
def square(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    places: Tensor,
    seed_of: SeedOf,
    queries: int = 5000,
    p_init: float = 0.8,
) -> Tensor:
    """Square Attack with the margin loss (Andriushchenko et al. 2020, Algorithms 1 to 3), rescaled to `queries`.

    A query changes the best perturbation so far inside one square and is kept if the margin rises. Unlike
    torchattacks', each image has a square of its own, and squares reach the last row and column.

    Model, images and labels are as for `pgd.pgd`; the examples' places, (N,) ascending, and the seeds of blocks decide
    all random numbers. There is at least one query, after the first point. The first squares take the share `p_init`
    of the pixels. On a GPU broken examples are asked about, in vain, until the host looks (`LOOK_EVERY`).

    Returns:
        An example's first misclassified point, or the one with the largest margin.
    """
    check_threat(threat)
    if queries < 1:
        raise ValueError(f"queries should be at least 1, not {queries}")
    places = checked_places(places, labels)
    images = images.detach()
    if len(images) == 0:
        return images.clone()
    first, propose = (_stripes, _linf_query) if threat.norm == "linf" else (_bumps, _l2_query)
    uniform = Uniform(places, seed_of)
    look_every = _look_every(images.device)
    best = point = first(images, threat.eps, uniform)
    result = best.clone()
    index = torch.arange(len(images), device=images.device)
    highest = torch.full((len(images),), -torch.inf, device=images.device)
    done = torch.zeros_like(highest, dtype=torch.bool)
    for query, numbers in enumerate(_numbers(queries + 1, 5 + images.shape[1], uniform, images)):
        if query > 0:
            side = _side(query - 1, queries, p_init, images.shape[-2:])
            point = propose(images, best, threat.eps, side, numbers[index])
        with torch.no_grad():
            logits = model(point)
        margins, broken = margin(logits, labels).to(highest), logits.argmax(1) != labels
        better = ((margins > highest) | broken) & ~done
        highest = torch.where(better, margins, highest)
        best = torch.where(better.reshape(-1, 1, 1, 1), point, best)
        done = done | broken
        if query % look_every == 0 and len(left := (~done).nonzero()[:, 0]) < len(done):
            result[index] = best
            state = (index, images, labels, best, highest, done)
            index, images, labels, best, highest, done = (each[left] for each in state)
            if len(index) == 0:
                break
    result[index] = best
    return result


def _numbers(queries: int, each: int, uniform: Uniform, like: Tensor) -> Iterator[Tensor]:
    """Query after query, `each` uniform numbers of [0, 1) for every example: (N, each)."""
    for start in range(0, queries, QUERIES_AT_ONCE):
        drawn = uniform.draw(QUERIES_AT_ONCE, BLOCK, each, dim=1).to(like.device)
        yield from drawn[: queries - start]


def _look_every(device: torch.device) -> int:
    return LOOK_EVERY if device.type == "cuda" else 1


def _side(query: int, queries: int, p_init: float, size: tuple[int, ...]) -> int:
    """Side of the squares of a query, in pixels, at least 1 and no longer than the image's shorter side."""
    at = int(query / queries * 10_000)
    divisor = next((divisor for until, divisor in P_SCHEDULE if at <= until), 512)
    return min(max(round(math.sqrt(p_init / divisor * math.prod(size))), 1), *size)


def _signs(numbers: Tensor) -> Tensor:
    return (numbers >= 0.5).float() * 2 - 1  # a choice between two numbers of the host's would wait for the device


def _stripes(images: Tensor, eps: float, uniform: Uniform) -> Tensor:
    """The first point of L-inf: each column of each channel wholly up or wholly down by eps."""
    signs = _signs(uniform.draw(BLOCK, images.shape[1], 1, images.shape[3])).to(images)
    return (images + eps * signs).clamp(0, 1)


def _linf_query(images: Tensor, best: Tensor, eps: float, side: int, numbers: Tensor) -> Tensor:
    """Algorithm 2: inside a square the perturbation becomes +eps or -eps, one sign a channel.

    As in the authors' first code a query is never the best point itself: where the square would change nothing, its
    signs are inverted.
    """
    height, width = images.shape[-2:]
    inside = torch.zeros(len(images), 1, height * width, dtype=torch.bool, device=images.device)
    inside = inside.scatter(2, _window(numbers, side, images[:, :1]), True).reshape(-1, 1, height, width)
    signs = _signs(numbers[:, 5:]).to(images)[:, :, None, None]
    point = torch.where(inside, (images + eps * signs).clamp(0, 1), best)
    same = (point == best).flatten(1).all(1)
    signs = torch.where(same.reshape(-1, 1, 1, 1), -signs, signs)
    return torch.where(inside, (images + eps * signs).clamp(0, 1), best)


@functools.lru_cache(maxsize=64)
def _bump(side: int, device: torch.device) -> Tensor:
    """The update of Algorithm 3, (side, side), of length 1: two pyramids of opposite sign above each other."""
    upper = side // 2
    values = torch.cat([_pyramid(upper, side), -_pyramid(side - upper, side)])
    return (values / values.square().sum().sqrt()).to(device)


def _pyramid(height: int, width: int) -> Tensor:
    """Eq. 2: sums of nested rectangles around the centre, the k-th of weight 1 / (n + 1 - k)^2; of length 1."""
    values = torch.zeros(height, width)
    row, column = height // 2, width // 2
    for k in range(max(row, column) + 1):
        reach = 2 * k + 1
        top, left = row - k, column - k
        values[max(top, 0) : top + reach, max(left, 0) : left + reach] += 1 / (k + 1) ** 2
    return values / values.square().sum().sqrt().clamp(min=1e-30)


def _bumps(images: Tensor, eps: float, uniform: Uniform) -> Tensor:
    """The first point of L2: bumps on a grid of about 5 by 5 tiles, each turned and signed at random."""
    channels, height, width = images.shape[1:]
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    numbers = uniform.draw(BLOCK, down, across, 1 + channels).to(images.device)
    bump = _bump(side, images.device).to(images)
    tiles = torch.where((numbers[..., :1] < 0.5)[..., None, None], bump, bump.T)  # (N, down, across, 1, side, side)
    tiles = tiles * _signs(numbers[..., 1:]).to(images)[..., None, None]
    grid = tiles.permute(0, 3, 1, 4, 2, 5).reshape(len(images), channels, down * side, across * side)
    delta = torch.zeros_like(images)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta[:, :, top : top + down * side, left : left + across * side] = grid
    return (images + normalized(delta, "l2") * eps).clamp(0, 1)


def _l2_query(images: Tensor, best: Tensor, eps: float, side: int, numbers: Tensor) -> Tensor:
    """Algorithm 3: empty a second window, and spend its length, and what is unused, on a bump in the first."""
    channels, height, width = images.shape[1:]
    side = max(side, 3)
    side = min(side + 1 - side % 2, height - 1 + height % 2, width - 1 + width % 2)  # odd, and within the image
    first, second = (_window(numbers[:, i : i + 2], side, images) for i in (0, 2))
    delta = (best - images).flatten(2)
    unused = (eps**2 - delta.square().sum((1, 2), keepdim=True)).clamp(min=0)
    emptied = delta.scatter(2, first, 0.0).scatter(2, second, 0.0)
    # The length of both windows together, each channel's own.
    windows = (delta - emptied).square().sum(2, keepdim=True)
    old = delta.gather(2, first)
    old = old / old.square().sum(2, keepdim=True).sqrt().clamp(min=1e-12)
    signs = _signs(numbers[:, 5:]).to(images)[:, :, None]
    bump = _bump(side, images.device).to(images)
    new = old + signs * torch.where(numbers[:, 4, None, None] < 0.5, bump, bump.T).flatten(1)[:, None]
    new = new / new.square().sum(2, keepdim=True).sqrt().clamp(min=1e-12)
    new = new * (windows + unused / channels).sqrt()
    delta = delta.scatter(2, second, 0.0).scatter(2, first, new).reshape(images.shape)
    return (images + normalized(delta, "l2") * eps).clamp(0, 1)


def _window(numbers: Tensor, side: int, images: Tensor) -> Tensor:
    """Positions of a square's pixels in a flattened channel: (N, channels, side * side).

    Of the numbers (N, 2 or more) the first two place it, each row and column where it fits equally likely.
    """
    size = images.shape[-2:]
    # A float32 number just below 1 may be rounded up by the product.
    row, column = ((numbers[:, i] * (size[i] - side + 1)).long().clamp(max=size[i] - side) for i in (0, 1))
    along = torch.arange(side, device=images.device)
    flat = (row[:, None] + along)[:, :, None] * size[1] + (column[:, None] + along)[:, None, :]
    return flat.reshape(-1, 1, side * side).expand(-1, images.shape[1], -1)
