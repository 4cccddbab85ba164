"""Standard AutoAttack, native: four attacks in turn, each on what the earlier ones left (Croce & Hein 2020)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.apgd import apgd
from robustbench_cmic.attacks.fab import fab
from robustbench_cmic.attacks.square import check_rows, square
from robustbench_cmic.attacks.threat import BLOCK, check_threat, random_perturbations, violations
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.fields import Threat

PartName = Literal["APGD-CE", "APGD-T", "FAB-T", "Square"]


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
    most all of them. APGD-CE raises the log-odds, which order points as cross entropy does but cannot saturate.

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
        Images (N, C, H, W) in ball and box, detached: examples misclassified from the outset as they are, broken ones
        misclassified, and those that survive all as the point with the highest cross entropy that APGD-CE found. And
        what the four did, in order: a part has broken those whose returned image is misclassified and in ball and box;
        this judgement's passes and seconds are the part's, too.

    Raises:
        ValueError: a parameter out of range, rows that are not (N,) numbers below 256, or a ball that there is not.
        Exception: whatever the model raises.
    """
    check_threat(threat)
    if min(queries, steps, targets) < 1:
        raise ValueError(f"queries, steps and targets should be at least 1, not {queries}, {steps} and {targets}")
    rows = torch.arange(len(images)) if rows is None else rows.cpu()
    check_rows(rows, labels)
    images = images.detach()
    result = images.clone()
    surviving = torch.arange(len(images), device=images.device)[_correct(model, images, labels)]
    budget = _Budget(seed, steps, targets, queries)
    parts = []
    for name in get_args(PartName):
        forwards, backwards = _passes(model)
        began = time.perf_counter()
        x, y = images[surviving], labels[surviving]
        points = _attack(name, model, x, y, threat, rows[surviving.cpu()], budget)
        survives = _correct(model, points, y) | violations(threat, x, points)
        # Broken ones, and from the first part all: what later parts return of survivors says less than that.
        returned = torch.ones_like(survives) if name == "APGD-CE" else ~survives
        result[surviving[returned]] = points[returned]
        forwards, backwards = (now - before for now, before in zip(_passes(model), (forwards, backwards), strict=True))
        parts.append(
            Part(
                name=name,
                attacked=len(x),
                broken=int((~survives).sum()),
                forwards=forwards,
                backwards=backwards,
                seconds=time.perf_counter() - began,
            )
        )
        surviving = surviving[survives]
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
            return random_perturbations(threat, torch.Size((BLOCK, *images.shape[1:])))[rows].to(images)

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


def _passes(model: nn.Module) -> tuple[int, int]:
    """Examples that went forward and backward so far; 0 where the model does not count them."""
    return getattr(model, "forwards", 0), getattr(model, "backwards", 0)
