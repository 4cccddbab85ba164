"""Standard AutoAttack, native: four attacks in turn, each on what the earlier ones left (Croce & Hein 2020)."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.apgd import apgd
from robustbench_cmic.attacks.blocks import AttackCall, SeedOf, checked_places, perturbations
from robustbench_cmic.attacks.fab import fab
from robustbench_cmic.attacks.model import misclassified
from robustbench_cmic.attacks.pgd import DrawNoise
from robustbench_cmic.attacks.square import square
from robustbench_cmic.attacks.threat import check_threat, violations
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import derive_seed
from robustbench_cmic.suite.attacks import AutoAttack
from robustbench_cmic.suite.fields import Threat


def run(call: AttackCall[AutoAttack]) -> tuple[Tensor, list[Part]]:
    """`autoattack`, as a suite's `AutoAttack` asks for it."""
    budget = call.attack.model_dump(include={"targets", "steps", "queries"})
    threat, places = call.attack.threat, call.places
    return autoattack(call.model, call.images, call.labels, threat, seed_of=call.seed_of, places=places, **budget)


def autoattack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    seed_of: SeedOf,
    places: Tensor | None = None,
    queries: int = 5000,
    steps: int = 100,
    targets: int = 9,
) -> tuple[Tensor, list[Part]]:
    """APGD-CE, APGD-T, FAB-T and Square, the standard version of AutoAttack (Croce & Hein 2020, section 5).

    All of these are untargeted in what counts as success. Targets are the likeliest other classes at the image, at
    most all of them. APGD-CE raises the log-odds, which order points as cross entropy does but cannot saturate.

    Model, images and labels are as for `pgd.pgd`; `queries`, `steps` and `targets` as for `suite.attacks.AutoAttack`.
    The seeds of blocks of 256 and the examples' places, (N,) ascending (None: from 0 on), decide all random numbers,
    and an example's own do not depend on which others are attacked with it. The global generators are left alone.
    Where the model has `forwards` and `backwards`, parts report their growth. What each part left is decided in
    float32, however precisely it searched.

    Returns:
        Images (N, C, H, W) in ball and box, detached: examples misclassified from the outset as they are, broken ones
        misclassified, and those that survive all as the point with the highest cross entropy that APGD-CE found. And
        what the four did, in order: a part has broken those whose returned image is misclassified and in ball and box;
        this judgement's passes and seconds are the part's, too.
    """
    check_threat(threat)
    if min(queries, steps, targets) < 1:
        raise ValueError(f"queries, steps and targets should be at least 1, not {queries}, {steps} and {targets}")
    places = checked_places(torch.arange(len(images)) if places is None else places, labels)
    images = images.detach()
    result = images.clone()
    surviving = torch.arange(len(images), device=images.device)[~misclassified(model, images, labels)]
    parts = []
    for name, attack in _attacks(model, threat, seed_of, steps, targets, queries).items():
        passes, began = _passes(model), time.perf_counter()
        x, y = images[surviving], labels[surviving]
        points = attack(x, y, places[surviving.cpu()])
        survives = ~misclassified(model, points, y) | violations(threat, x, points)
        # Broken ones, and from the first part all: what later parts return of survivors says less than that.
        returned = torch.ones_like(survives) if name == "APGD-CE" else ~survives
        result[surviving[returned]] = points[returned]
        broken, seconds = int((~survives).sum()), time.perf_counter() - began
        spent = {kind: after - passes[kind] for kind, after in _passes(model).items()}
        parts.append(Part(name=name, attacked=len(x), broken=broken, seconds=seconds, **spent))
        surviving = surviving[survives]
    return result, parts


def _attacks(
    model: nn.Module, threat: Threat, seed_of: SeedOf, steps: int, targets: int, queries: int
) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """The four by name: functions of images, labels and places."""

    def noise(name: str, images: Tensor, places: Tensor) -> DrawNoise:
        def draw(run: int) -> Tensor:
            return perturbations(threat, places, images, lambda block: derive_seed(name, seed_of(block), run))

        return draw

    def square_with_numbers(x: Tensor, y: Tensor, places: Tensor) -> Tensor:
        def seed_of_square(block: int) -> int:
            return derive_seed("Square", seed_of(block))

        return square(model, x, y, threat, places=places, seed_of=seed_of_square, queries=queries)

    def apgd_t(x: Tensor, y: Tensor, places: Tensor) -> Tensor:
        return apgd(model, x, y, threat, noise("APGD-T", x, places), steps=steps, loss="dlr", targets=targets)

    return {
        "APGD-CE": lambda x, y, places: apgd(model, x, y, threat, noise("APGD-CE", x, places), steps=steps),
        "APGD-T": apgd_t,
        "FAB-T": lambda x, y, _: fab(model, x, y, threat, steps=steps, targets=targets),
        "Square": square_with_numbers,
    }


def _passes(model: nn.Module) -> dict[str, int]:
    """Examples that went forward and backward so far; 0 where the model does not count them."""
    return {kind: getattr(model, kind, 0) for kind in ("forwards", "backwards")}
