"""Attacks of a user's own, named `package.module:name`."""

from __future__ import annotations

import pkgutil
from typing import Any

from torch import Tensor, nn

from robustbench_cmic.seeding import seeded
from robustbench_cmic.suite.fields import Threat


def custom_attack(
    setting: dict[str, Any], model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, seed: int
) -> Any:
    """What a user's function returns for some examples, and that may be anything.

    Args:
        setting: `name`, and `parameters` to call it with.
        model: returns logits.
        images: (N, C, H, W) in [0, 1]; the function gets a copy.
        labels: (N,); likewise.
        threat: passed as `eps` and `norm`.
        seed: of the global generators of Python, numpy and torch while it runs.
    """
    # Before seeding: what a module draws while it is imported, it draws for the first examples of a process only.
    function = pkgutil.resolve_name(setting["name"])
    with seeded(seed):
        return function(
            model, images.clone(), labels.clone(), eps=threat.eps, norm=threat.norm, **setting["parameters"]
        )
