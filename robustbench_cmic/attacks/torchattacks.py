"""Attacks of torchattacks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.torchattacks import signature


def torchattacks_attack(
    name: str, model: nn.Module, threat: Threat, classes: int, seed: int, setting: dict[str, Any]
) -> Callable[[Tensor, Tensor], Tensor]:
    """An instance of a torchattacks class, ready to be called with images and labels.

    Args:
        name: `torchattacks.APGDT`, say.
        model: what to attack.
        threat: passed as `eps` and `norm` where the class takes them.
        classes: passed as `n_classes` where the class takes it and the suite does not set it: the library's default
            is 10, whatever the model has.
        seed: passed where the class takes one, because its own default is one fixed seed, or the time of day.
        setting: `name` and the parameters that the suite sets.
    """
    import torchattacks

    short = name.removeprefix("torchattacks.")
    ours = {
        "eps": threat.eps,
        "norm": {"linf": "Linf", "l2": "L2"}[threat.norm],
        "n_classes": classes,
        "seed": seed,
    }
    taken = {key: value for key, value in ours.items() if key in signature(short).defaults}
    parameters = {key: value for key, value in setting.items() if key != "name"}
    attack: Callable[[Tensor, Tensor], Tensor] = getattr(torchattacks, short)(model, **(taken | parameters))
    return attack
