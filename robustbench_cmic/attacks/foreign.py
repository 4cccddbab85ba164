"""Attacks that others implement: those of torchattacks by name, and a user's own, named `package.module:name`."""

from __future__ import annotations

import pkgutil
from typing import Any

from torch import Tensor

from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.attacks.model import AttackError, GradientWatch
from robustbench_cmic.models.layout import row_major
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import seeded
from robustbench_cmic.suite.custom import CustomAttack
from robustbench_cmic.suite.signatures import one_line
from robustbench_cmic.suite.torchattacks import TorchattacksAttack, class_parameters


def run_torchattacks(call: AttackCall[TorchattacksAttack]) -> tuple[Tensor, list[Part]]:
    """What an instance of a torchattacks class returns for copies of the examples.

    `eps` and `norm` are passed where the class takes them. So is the number of classes, unless the suite sets it: the
    library's default is 10, whatever the model has. So is a seed: the default is one fixed seed, or the time of day.

    Raises:
        AttackError: it cannot work on such images or so many classes.
    """
    import torchattacks

    name, threat = call.attack.name, call.attack.threat
    _, channels, height, width = call.images.shape
    if problem := call.attack.misfit((channels, height, width), call.model.classes):
        raise AttackError(problem)
    ours = {
        "eps": threat.eps,
        "norm": {"linf": "Linf", "l2": "L2"}[threat.norm],
        "n_classes": call.model.classes,
        "seed": call.block_seed,
    }
    taken = {key: value for key, value in ours.items() if key in class_parameters(name)}
    call.model.watch = GradientWatch(len(call.images), call.attack.addend)
    with seeded(call.block_seed):
        attack = getattr(torchattacks, name)(call.model, **(taken | call.attack.parameters))
        return attack(row_major(call.images.clone()), call.labels.clone()), []


def run_custom(call: AttackCall[CustomAttack]) -> tuple[Any, list[Part]]:
    """What a user's function returns for copies of the examples, and that may be anything.

    The global generators of Python, numpy and torch are seeded while it runs.

    Raises:
        AttackError: it cannot be imported.
    """
    # Before seeding: what a module draws while it is imported, it draws for the first examples of a process only.
    try:
        function = pkgutil.resolve_name(call.attack.name)
    except (Exception, SystemExit) as error:  # whatever a user's own code does
        raise AttackError(f"{call.attack.name} cannot be imported: {one_line(error)}") from error
    images, labels, threat = row_major(call.images.clone()), call.labels.clone(), call.attack.threat
    call.model.watch = GradientWatch(len(images), addend=0.0)
    with seeded(call.block_seed):
        return function(call.model, images, labels, eps=threat.eps, norm=threat.norm, **call.attack.parameters), []
