"""What is read from torchattacks' source equals what Python says of the imported classes."""

from __future__ import annotations

import inspect

import pytest
import torchattacks

from robustbench_cmic.suite.torchattacks import attack_modules, class_parameters


@pytest.mark.parametrize("name", sorted(attack_modules()))
def test_signatures_are_read_right(name: str) -> None:
    parameters = inspect.signature(getattr(torchattacks, name).__init__).parameters
    ours = class_parameters(name)
    assert list(ours) == list(parameters)[1:]
    for key, parameter in ours.items():
        default = parameters[key].default
        if parameter.default is inspect.Parameter.empty:
            assert default is inspect.Parameter.empty
        elif isinstance(default, int | float | str):
            assert parameter.default == default


def test_knows_the_attacks_and_not_the_wrappers() -> None:
    assert {"APGDT", "FAB", "Square", "AutoAttack", "CW", "PGDL2"} <= set(attack_modules())
    assert not {"MultiAttack", "LGV"} & set(attack_modules())
