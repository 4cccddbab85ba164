"""One attack by its declared name on some examples. Random numbers belong to fixed blocks of 256 examples.

Each block is seeded from (seed, attack with its parameters, ball, block), and sliced by the examples' places, so that
what an example meets does not depend on batch size, on the order of blocks or on what else is attacked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustbench_cmic.attacks.autoattack import autoattack
from robustbench_cmic.attacks.custom import custom_attack
from robustbench_cmic.attacks.model import CountedModel
from robustbench_cmic.attacks.noise import random_points
from robustbench_cmic.attacks.pgd import Search, pgd_search
from robustbench_cmic.attacks.threat import BLOCK, random_perturbations
from robustbench_cmic.attacks.torchattacks import torchattacks_attack
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.fields import Threat

SEARCHES = ("PGD", "Transfer")


@dataclass(frozen=True)
class AttackCall:
    """Which attack is to be run.

    Attributes:
        setting: the attack's `name` (`none`, `FGSM`, `PGD`, `AutoAttack`, `Noise`, `Transfer`, `torchattacks.X` or
            `package.module:name`) and parameters, as a cell declares.
        threat: the ball.
        seed: of the cell; with the setting, the ball and the number of the block it decides all random numbers.
        centroids: (C, C) mean softmax of each class, for the loss `cmic`.
    """

    setting: dict[str, Any]
    threat: Threat
    seed: int
    centroids: Tensor | None = None

    @property
    def whole_blocks(self) -> bool:
        """It draws from generators that know of no blocks, and has to be run on a whole one at a time."""
        name: str = self.setting["name"]
        return name.startswith("torchattacks.") or ":" in name or name == "AutoAttack"

    @property
    def stream(self) -> tuple[str | int, ...]:
        """What seeds are derived from."""
        return (canonical_json(self.setting), self.threat.norm, repr(self.threat.eps), self.seed)


def attack_block(
    order: AttackCall, target: CountedModel, images: Tensor, labels: Tensor, places: Tensor
) -> tuple[Tensor, list[Part]]:
    """What the attack returns for some examples, and what its parts did, if it has any.

    Args:
        order: which attack.
        target: what is attacked.
        images: (N, C, H, W).
        labels: (N,).
        places: (N,) ascending places of the examples among all evaluated ones, counted from 0.
    """
    setting, threat = order.setting, order.threat

    def noise(number: int) -> Tensor:
        return _block_noise(threat, images, places, (*order.stream, number))

    name = setting["name"]
    if name == "FGSM":
        search = Search(threat.eps, steps=1, loss=setting["loss"])
        return pgd_search(target, images, labels, threat, search, None, centroids=order.centroids), []
    if name in SEARCHES:
        own = ("alpha", "steps", "loss", "restarts", "targets", "schedule")
        search = Search(**{key: setting[key] for key in own}, early_stop=setting.get("early_stop", False))
        start = noise if setting["random_start"] else None
        return pgd_search(target, images, labels, threat, search, start, centroids=order.centroids), []
    if name == "Noise":
        return random_points(target, images, labels, threat, noise, setting["samples"]), []
    first = int(places[0]) // BLOCK * BLOCK
    block_seed = derive_seed(*order.stream, first // BLOCK)
    if name == "AutoAttack":
        parameters = {key: setting[key] for key in ("targets", "steps", "queries")}
        return autoattack(target, images, labels, threat, seed=block_seed, rows=places - first, **parameters)
    if ":" in name:
        return custom_attack(setting, target, images, labels, threat, block_seed), []
    with seeded(block_seed):
        attack = torchattacks_attack(name, target, threat, target.classes, block_seed, setting)
        result = attack(images.clone(), labels.clone())
    return result, []


def uses_centroids(setting: dict[str, Any]) -> bool:
    """The attack's loss needs the class centroids."""
    return setting.get("loss") == "cmic"


def _block_noise(threat: Threat, images: Tensor, places: Tensor, stream: tuple[str | int, ...]) -> Tensor:
    """Random perturbations for the examples at `places`, sliced out of the whole blocks that they lie in."""
    drawn = []
    for block in torch.unique(places // BLOCK).tolist():
        with seeded(derive_seed(*stream, block)):
            noise = random_perturbations(threat, torch.Size((BLOCK, *images.shape[1:])))
        drawn.append(noise[places[places // BLOCK == block] - block * BLOCK])
    return torch.cat(drawn).to(images)
