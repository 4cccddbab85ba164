"""What is read from torchattacks' source equals what Python says of the imported classes."""

from __future__ import annotations

import inspect

import pytest
import torchattacks

from robustbench_cmic.suite.signatures import REQUIRED
from robustbench_cmic.suite.torchattacks import attack_modules, signature


@pytest.mark.parametrize("name", sorted(attack_modules()))
def test_signatures_are_read_right(name: str) -> None:
    parameters = inspect.signature(getattr(torchattacks, name).__init__).parameters
    ours = signature(name).defaults
    assert list(ours) == list(parameters)[1:]
    for key, value in ours.items():
        default = parameters[key].default
        if value is REQUIRED:
            assert default is inspect.Parameter.empty
        elif isinstance(default, int | float | str):
            assert value == default


def test_knows_the_attacks_and_not_the_wrappers() -> None:
    assert {"APGDT", "FAB", "Square", "AutoAttack", "CW", "PGDL2"} <= set(attack_modules())
    assert not {"MultiAttack", "LGV"} & set(attack_modules())
