"""Standard AutoAttack, native: four attacks in turn, each on what the earlier ones left (Croce & Hein 2020)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.apgd import apgd
from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.attacks.fab import fab
from robustbench_cmic.attacks.square import BLOCK, square
from robustbench_cmic.attacks.threat import Threat
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.attacks import AutoAttack

PartName = Literal["APGD-CE", "APGD-T", "FAB-T", "Square"]


@runtime_checkable
class Counting(Protocol):
    """A model that counts the examples that went through it."""

    forwards: int
    backwards: int


@dataclass(frozen=True)
class Part:
    """What one of the four attacks did.

    Attributes:
        name: which.
        attacked: examples that the earlier ones left to it.
        broken: of these, examples whose returned image is misclassified and in ball and box.
        forwards, backwards: examples through the network, this judgement included; 0 where the model does not count.
        seconds: wall clock.
    """

    name: PartName
    attacked: int
    broken: int
    forwards: int
    backwards: int
    seconds: float


def run(call: AttackCall[AutoAttack]) -> tuple[Tensor, list[Part]]:
    """`autoattack`, as a suite's `AutoAttack` asks for it."""
    budget = call.attack.model_dump(include={"targets", "steps", "queries"})
    return autoattack(call.model, call.images, call.labels, call.threat, seed=call.block_seed, rows=call.rows, **budget)


def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    seed: int,
    rows: Tensor | None = None,
    queries: int = 5000,
    steps: int = 100,
    targets: int = 9,
) -> tuple[Tensor, list[Part]]:
    """APGD-CE, APGD-T, FAB-T and Square, the standard version of AutoAttack (Croce & Hein 2020, section 5).

    All of these are untargeted in what counts as success. Targets are the likeliest other classes at the image, at
    most all of them. APGD-CE climbs the log-odds, which order points as cross entropy does but cannot saturate.

    Args:
        model: returns logits (N, C); call it in eval mode. Where it has `forwards` and `backwards`, parts report
            their growth.
        images: (N, C, H, W) floats in [0, 1] of one block, at most 256.
        labels: (N,) integers.
        threat: the ball, in units of images.
        seed: of the block: with `rows` it decides all random numbers, and an example's own do not depend on which
            others are attacked with it. The global generators are left alone.
        rows: (N,) positions of the examples in their block, below 256; None: 0, 1, 2, ...
        queries: of Square.
        steps: of each run of APGD and FAB.
        targets: of APGD-T and FAB-T.

    Returns:
        Images (N, C, H, W) in ball and box, detached, and the parts in order. Examples misclassified from the outset
        are returned as they are, broken ones misclassified, and those that survive all as the point with the highest
        cross entropy that APGD-CE found.

    Raises:
        ValueError: a parameter out of range, or rows that are not (N,) numbers below 256.
        Exception: whatever the model raises.
    """
    if min(queries, steps, targets) < 1:
        raise ValueError(f"queries, steps and targets should be at least 1, not {queries}, {steps} and {targets}")
    if rows is None:
        rows = torch.arange(len(images))
    rows = rows.cpu()
    if rows.shape != labels.shape or (len(rows) > 0 and not 0 <= int(rows.min()) <= int(rows.max()) < BLOCK):
        raise ValueError(f"rows should be one number in [0, {BLOCK}) for each of {len(labels)} examples")
    images = images.detach()
    result = images.clone()
    left = torch.arange(len(images), device=images.device)[_correct(model, images, labels)]
    budget = _Budget(seed, steps, targets, queries)
    parts = []
    for name in get_args(PartName):
        forwards, backwards = _counts(model)
        began = time.perf_counter()
        x, y = images[left], labels[left]
        found = _attack(name, model, x, y, threat, rows[left.cpu()], budget)
        survives = _correct(model, found, y) | threat.outside(x, found)
        # Broken ones, and from the first part all: what later parts return of survivors says less than that.
        shown = torch.ones_like(survives) if name == "APGD-CE" else ~survives
        result[left[shown]] = found[shown]
        spent = [after - before for after, before in zip(_counts(model), (forwards, backwards), strict=True)]
        seconds = time.perf_counter() - began
        parts.append(Part(name, len(left), int((~survives).sum()), spent[0], spent[1], seconds))
        left = left[survives]
    return result, parts


@dataclass(frozen=True)
class _Budget:
    seed: int
    steps: int
    targets: int
    queries: int


def _attack(
    name: PartName, model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, rows: Tensor, budget: _Budget
) -> Tensor:
    """The images that one part returns for the examples left to it; `rows` are their positions in the block."""

    def noise(run: int) -> Tensor:
        with seeded(derive_seed(name, budget.seed, run)):
            return threat.noise(torch.Size((BLOCK, *images.shape[1:])))[rows].to(images)

    if name == "APGD-CE":
        return apgd(model, images, labels, threat, noise, steps=budget.steps)
    if name == "APGD-T":
        return apgd(model, images, labels, threat, noise, steps=budget.steps, loss="dlr", targets=budget.targets)
    if name == "FAB-T":
        return fab(model, images, labels, threat, steps=budget.steps, targets=budget.targets)
    generator = torch.Generator().manual_seed(derive_seed(name, budget.seed))
    return square(model, images, labels, threat, rows=rows, generator=generator, queries=budget.queries)


def _correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) truth values: classified correctly."""
    if len(images) == 0:
        return torch.zeros_like(labels, dtype=torch.bool)
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1) == labels)


def _counts(model: nn.Module) -> tuple[int, int]:
    """Examples that went forward and backward so far."""
    return (model.forwards, model.backwards) if isinstance(model, Counting) else (0, 0)
