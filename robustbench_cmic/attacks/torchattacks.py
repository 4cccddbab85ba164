"""Attacks of torchattacks by name."""

from __future__ import annotations

from torch import Tensor

from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import seeded
from robustbench_cmic.suite.torchattacks import TorchattacksAttack, class_parameters


def run(call: AttackCall[TorchattacksAttack]) -> tuple[Tensor, list[Part]]:
    """What an instance of a torchattacks class returns for copies of the examples.

    `eps` and `norm` are passed where the class takes them. So is the number of classes, unless the suite sets it: the
    library's default is 10, whatever the model has. So is a seed: the default is one fixed seed, or the time of day.
    """
    import torchattacks

    name = call.attack.name
    ours = {
        "eps": call.threat.eps,
        "norm": {"linf": "Linf", "l2": "L2"}[call.threat.norm],
        "n_classes": call.model.classes,
        "seed": call.block_seed,
    }
    taken = {key: value for key, value in ours.items() if key in class_parameters(name)}
    with seeded(call.block_seed):
        attack = getattr(torchattacks, name)(call.model, **(taken | call.attack.parameters))
        return attack(call.images.clone(), call.labels.clone()), []
