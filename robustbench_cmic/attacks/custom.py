"""Attacks of a user's own, named `package.module:name`."""

from __future__ import annotations

import pkgutil
from typing import Any

from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.attacks.model import AttackError
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import seeded
from robustbench_cmic.suite.custom import CustomAttack
from robustbench_cmic.suite.signatures import one_line


def run(call: AttackCall[CustomAttack]) -> tuple[Any, list[Part]]:
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
    images, labels = call.images.clone(), call.labels.clone()
    with seeded(call.block_seed):
        found = function(
            call.model, images, labels, eps=call.threat.eps, norm=call.threat.norm, **call.attack.parameters
        )
    return found, []
