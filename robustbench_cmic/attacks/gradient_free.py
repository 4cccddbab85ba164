"""Attacks without gradients in turn: a walk towards other images, RayS and Square, each on what is left."""

from __future__ import annotations

from torch import Tensor

from robustbench_cmic.attacks.blocks import AttackCall, SeedOf
from robustbench_cmic.attacks.parts import PartAttack, run_parts
from robustbench_cmic.attacks.rays import rays
from robustbench_cmic.attacks.square import square
from robustbench_cmic.attacks.walk import walk
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import derive_seed
from robustbench_cmic.suite.attacks import GradientFree


def run(call: AttackCall[GradientFree]) -> tuple[Tensor, list[Part]]:
    """The three as a suite's `GradientFree` asks for them.

    Returns:
        As `parts.run_parts`; those that survive all as the point of the largest margin that Square found.
    """
    model, threat, queries, others = call.model, call.attack.threat, call.attack.queries, call.others
    assert others is not None

    def seeds(name: str) -> SeedOf:
        return lambda block: derive_seed(name, call.seed_of(block))

    attacks: dict[str, PartAttack] = {
        "Walk": lambda x, y, _: walk(model, x, y, threat, others, call.attack.images),
        "RayS": lambda x, y, places: rays(model, x, y, threat, places=places, seed_of=seeds("RayS"), queries=queries),
        "Square": lambda x, y, places: square(
            model, x, y, threat, places=places, seed_of=seeds("Square"), queries=queries
        ),
    }
    return run_parts(model, call.images, call.labels, threat, call.places, attacks, survivors_of="Square")
