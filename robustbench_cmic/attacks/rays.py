"""RayS, native: a search over rays that sees the predicted class alone (Chen & Gu 2020); L-inf and L2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import AttackCall, SeedOf, Uniform, checked_places
from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.model import seems_misclassified
from robustbench_cmic.attacks.threat import BLOCK, check_threat
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.attacks import RayS
from robustbench_cmic.suite.fields import Threat

SHRINK = 0.01
"""By this share of the best radius a direction has to be better to be taken; halved with every pass over all blocks."""


def run(call: AttackCall[RayS]) -> tuple[Tensor, list[Part]]:
    """`rays`, as a suite's `RayS` asks for it."""
    threat, queries = call.attack.threat, call.attack.queries
    places, seed_of = call.places, call.seed_of
    return rays(call.model, call.images, call.labels, threat, places=places, seed_of=seed_of, queries=queries), []


@called_directly
def rays(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    places: Tensor,
    seed_of: SeedOf,
    queries: int = 200,
) -> Tensor:
    """RayS (Chen & Gu 2020, Algorithm 3), until a misclassified point lies in the ball.

    A direction is a vector of signs, at first all +, tried at eps and then at the radius of the whole box. Blocks of
    its entries change their signs in turn: all, halves, quarters, down to single entries, in the order of the flattened
    image. A direction is tried a little below the smallest radius at which any was misclassified so far, and dropped
    after this one query if it is not (the paper's fast check). Else it is the best one, and followed inwards in steps
    that double, up to half of the radius; the paper bisects, which at 200 queries breaks an eighth to a third fewer of
    the digits. No radius below eps is tried: a misclassified point there ends the search. After single entries it
    begins anew with blocks of entries chosen at random, and smaller steps.

    For L2 a ray goes in the direction of the signs and along the faces of the box where it meets them; its radius is
    the length of what is left of the perturbation. Of signs alone that is no shortest way.

    Model, images and labels are as for `pgd.pgd`, the examples' places and the seeds of blocks as for `square.square`.
    Of the model's output the argmax alone is used. An example is queried `queries` times at most, and at least once.

    Returns:
        An example's first misclassified point in the ball, or the point of the ball along the best direction.
    """
    check_threat(threat)
    if queries < 1:
        raise ValueError(f"queries should be at least 1, not {queries}")
    places = checked_places(places, labels)
    images = images.detach()
    if len(images) == 0:
        return images.clone()
    ranks = _Ranks(images, Uniform(places, seed_of))
    search = _Search.begin(images, labels, threat)
    result = images.clone()
    for query in range(queries):
        trial = search.trial if query > 0 else search.trial.new_full(search.trial.shape, threat.eps)
        points = along(threat.norm, search.images, search.attempt, trial)
        wrong = seems_misclassified(model, points, search.labels)
        broken = wrong & (trial <= threat.eps)
        left = (~broken).nonzero()[:, 0]
        if len(left) < len(broken):
            # The points of those that stay are overwritten in the end.
            result[search.index] = points
            search.keep(left)
            trial, wrong = trial[left], wrong[left]
            if len(left) == 0:
                return result
        if query > 0:
            search.move(trial, wrong, ranks)
    at_eps = torch.full_like(search.radius, threat.eps)
    result[search.index] = along(threat.norm, search.images, search.best, at_eps)
    return result


def along(norm: str, images: Tensor, signs: Tensor, radius: Tensor) -> Tensor:
    """The points at a radius, (N,), along rays of signs, (N, D), from images (N, C, H, W), in the box.

    L-inf: every entry moves by the radius. L2: all entries move equally far, each until it meets the box, so that the
    perturbation has the radius as its length, or ends in a corner of the box.
    """
    flat = images.flatten(1)
    if norm == "l2":
        room = torch.where(signs > 0, 1 - flat, flat).double()
        radius = _step_of_length(room.sort(dim=1).values, radius)
    return (flat + radius[:, None].to(flat) * signs).clamp(0, 1).reshape(images.shape)


def _step_of_length(room: Tensor, radius: Tensor) -> Tensor:
    """The t, (N,), at which the minima of t and each of D ascending rooms, (N, D), have `radius`, (N,), as length.

    Between the k-th room and the next the square of the length is the sum of the first k squares and (D - k) t^2.
    """
    squares = room.square()
    stopped = squares.cumsum(1) - squares
    moving = torch.arange(room.shape[1], 0, -1, device=room.device)
    target = radius.square()[:, None]
    piece = ((stopped + moving * squares) < target).sum(1, keepdim=True).clamp(max=room.shape[1] - 1)
    square = (target - stopped.gather(1, piece)) / moving[piece]
    return square.clamp(min=0).sqrt()[:, 0]


class _Ranks:
    """Where an example's entries stand in each pass over all blocks: in the image's order, then in random ones."""

    def __init__(self, images: Tensor, uniform: Uniform) -> None:
        self.entries = images[0].numel()
        self._uniform = uniform
        first = torch.arange(self.entries, device=images.device).expand(len(images), -1)
        self._passes = [first]
        # Blocks in each level, and how many there are in the levels before it.
        levels = range(math.ceil(math.log2(self.entries)) + 1)
        blocks = torch.tensor([min(2**level, self.entries) for level in levels], device=images.device)
        self._blocks, self._until = blocks, blocks.cumsum(0)
        self.flips = int(blocks.sum())

    def block(self, index: Tensor, number: Tensor) -> Tensor:
        """Whether an entry belongs to the block that is flipped then: (M, D) truth values for M of the examples."""
        passes = number // self.flips
        while len(self._passes) <= int(passes.max()):
            drawn = self._uniform.draw(BLOCK, self.entries).argsort(1)
            self._passes.append(drawn.to(self._until.device))
        ranks = torch.stack([order[index] for order in self._passes]) if len(self._passes) > 1 else None
        rank = self._passes[0][index] if ranks is None else ranks[passes, torch.arange(len(index), device=index.device)]
        number = number % self.flips
        level = torch.searchsorted(self._until, number, right=True)
        blocks = self._blocks[level]
        block = number - (self._until[level] - blocks)
        return rank * blocks[:, None] // self.entries == block[:, None]


@dataclass
class _Search:
    """Where the search stands, for the N examples not broken yet."""

    index: Tensor  # (N,) which of all examples they are
    images: Tensor  # (N, C, H, W)
    labels: Tensor  # (N,)
    best: Tensor  # (N, D) signs, as is the next one
    attempt: Tensor
    radius: Tensor  # (N,) the smallest radius at which `best` was misclassified; at first that of the whole box
    shrink: Tensor  # (N,) the share of the radius by which the next trial is below it
    number: Tensor  # (N,) of the next flip
    eps: float

    @classmethod
    def begin(cls, images: Tensor, labels: Tensor, threat: Threat) -> _Search:
        index = torch.arange(len(images), device=images.device)
        signs = torch.ones_like(images.flatten(1))
        whole = 1.0 if threat.norm == "linf" else math.sqrt(signs.shape[1])
        radius = torch.full_like(index, max(whole, threat.eps), dtype=torch.float64)
        shrink = torch.full_like(radius, SHRINK)
        return cls(index, images, labels, signs, signs, radius, shrink, torch.zeros_like(index), threat.eps)

    @property
    def trial(self) -> Tensor:
        """(N,) the radius of the next query."""
        return (self.radius * (1 - self.shrink)).clamp(min=self.eps)

    def keep(self, kept: Tensor) -> None:
        """Only the examples at these positions, (M,), from here on."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[kept])

    def move(self, trial: Tensor, wrong: Tensor, ranks: _Ranks) -> None:
        """Take the attempts that were misclassified, (N,), at their radius, (N,), and flip a block of the others."""
        self.radius = torch.where(wrong, trial, self.radius)
        self.best = torch.where(wrong[:, None], self.attempt, self.best)
        inside = ranks.block(self.index, self.number)
        self.attempt = torch.where(~wrong[:, None] & inside, -self.best, self.best)
        first = SHRINK * 0.5 ** (self.number // ranks.flips)
        self.shrink = torch.where(wrong, (2 * self.shrink).clamp(max=0.5), first)
        self.number = self.number + (~wrong).long()
