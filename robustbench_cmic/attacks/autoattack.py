"""AutoAttack, native: attacks in turn, each on what the earlier ones left (Croce & Hein 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.apgd import apgd
from robustbench_cmic.attacks.blocks import AttackCall, SeedOf, checked_places, perturbations
from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.fab import fab
from robustbench_cmic.attacks.model import expectation
from robustbench_cmic.attacks.parts import PartAttack, run_parts
from robustbench_cmic.attacks.pgd import DrawNoise
from robustbench_cmic.attacks.square import square
from robustbench_cmic.attacks.threat import check_threat
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import derive_seed
from robustbench_cmic.suite.attacks import AutoAttack
from robustbench_cmic.suite.fields import Threat


def run(call: AttackCall[AutoAttack]) -> tuple[Tensor, list[Part]]:
    """`autoattack`, as a suite's `AutoAttack` asks for it."""
    budget = call.attack.model_dump(include={"targets", "steps", "queries", "samples"})
    threat, places = call.attack.threat, call.places
    return autoattack(call.model, call.images, call.labels, threat, seed_of=call.seed_of, places=places, **budget)


@called_directly
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
    samples: int = 1,
) -> tuple[Tensor, list[Part]]:
    """APGD-CE, APGD-T, FAB-T and Square, the standard version of AutoAttack (Croce & Hein 2020, section 5).

    With more than one of `samples` it is the authors' version `rand`, for randomised models: APGD-CE and APGD-DLR,
    untargeted, whose losses, gradients and logits are means over so many draws (the authors take 20); `queries` and
    `targets` play no part.

    All of these are untargeted in what counts as success. Targets are the likeliest other classes at the image, at
    most all of them. APGD-CE raises the log-odds, which order points as cross entropy does but cannot saturate.

    Model, images and labels are as for `pgd.pgd`; `queries`, `steps` and `targets` as for `suite.attacks.AutoAttack`.
    The seeds of blocks of 256 and the examples' places, (N,) ascending (None: from 0 on), decide all random numbers,
    and an example's own do not depend on which others are attacked with it. The global generators are left alone.

    Returns:
        As `parts.run_parts`; those that survive all as the point with the highest cross entropy that APGD-CE found.
    """
    check_threat(threat)
    if min(queries, steps, targets, samples) < 1:
        counts = f"{queries}, {steps}, {targets} and {samples}"
        raise ValueError(f"queries, steps, targets and samples should be at least 1, not {counts}")
    places = checked_places(torch.arange(len(images)) if places is None else places, labels)
    model = expectation(model, samples)
    if samples > 1:
        attacks = _randomised(model, threat, seed_of, steps)
    else:
        attacks = _standard(model, threat, seed_of, steps, targets, queries)
    # What later parts return of survivors says less than the cross entropy of the first.
    return run_parts(model, images, labels, threat, places, attacks, survivors_of="APGD-CE")


def _noise(threat: Threat, seed_of: SeedOf, name: str, images: Tensor, places: Tensor) -> DrawNoise:
    def draw(run: int) -> Tensor:
        return perturbations(threat, places, images, lambda block: derive_seed(name, seed_of(block), run))

    return draw


def _randomised(model: nn.Module, threat: Threat, seed_of: SeedOf, steps: int) -> dict[str, PartAttack]:
    """The two of the version `rand` by name; on the margin where there are too few classes for DLR."""

    def part(name: str, loss: str) -> PartAttack:
        def attack(x: Tensor, y: Tensor, places: Tensor) -> Tensor:
            return apgd(model, x, y, threat, _noise(threat, seed_of, name, x, places), steps=steps, loss=loss)

        return attack

    return {"APGD-CE": part("APGD-CE", "log_odds"), "APGD-DLR": part("APGD-DLR", "dlr")}


def _standard(
    model: nn.Module, threat: Threat, seed_of: SeedOf, steps: int, targets: int, queries: int
) -> dict[str, PartAttack]:
    """The four of the standard version by name."""

    def noise(name: str, images: Tensor, places: Tensor) -> DrawNoise:
        return _noise(threat, seed_of, name, images, places)

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
