"""What the classes of attacks say of themselves: declared and read back, computed by whom, their kind, how varied."""

from __future__ import annotations

import inspect
import json
import pkgutil
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.suite.attack_base import Attack, AttackKind
from robustbench_cmic.suite.attacks import (
    FGSM,
    NATIVE_ATTACKS,
    PGD,
    AutoAttack,
    GradientFree,
    Noise,
    RayS,
    Transfer,
    Walk,
)
from robustbench_cmic.suite.custom import CustomAttack
from robustbench_cmic.suite.fields import CLEAN, Threat
from robustbench_cmic.suite.schema import attack_of
from robustbench_cmic.suite.torchattacks import TorchattacksAttack, attack_modules, class_parameters
from tests.conftest import ROOT

EVERY: list[type[Attack]] = [*NATIVE_ATTACKS.values(), CustomAttack, TorchattacksAttack]
BALL = Threat("linf", 0.2)


def declared_attacks(plan: Path) -> list[tuple[dict[str, Any], Threat]]:
    """Of every attack cell and of every check of an audit."""
    found = []
    for cell in json.loads(plan.read_text())["cells"]:
        declared = cell["declared"]
        if cell["kind"] == "attack":
            found.append((declared["attack"], Threat(cell["norm"], cell["eps"])))
        elif cell["kind"] == "audit":
            checks = declared["audit"]["checks"] + declared["audit"]["active"]
            found += [(check["attack"], Threat(check["norm"], check["eps"])) for check in checks]
    return found


@pytest.mark.parametrize("plan", sorted((ROOT / "results").glob("*/plan.json")), ids=lambda plan: plan.parent.name)
def test_what_committed_cells_declare_is_read_back_as_it_was(plan: Path) -> None:
    pairs = declared_attacks(plan)
    assert len(pairs) > 10
    for declared, threat in pairs:
        attack = attack_of(declared, threat)
        if attack is None:
            assert (declared, threat) == ({"name": "none"}, CLEAN)
        else:
            assert attack.declared() == declared
            assert attack.threat == threat
            assert attack.at(threat).declared() == declared, "at its own threat it is what it is"


def test_the_order_of_keys_is_that_of_committed_plans() -> None:
    pgd = PGD(name="PGD", eps=[0.1, 0.2], alpha="eps/10", ascending=True).at(BALL)
    assert list(pgd.declared()) == [
        "name", "alpha", "steps", "random_start", "restarts", "targets", "schedule", "loss", "early_stop", "ascending",
    ]  # fmt: skip
    assert pgd.declared()["alpha"] == pytest.approx(0.02)
    assert list(Transfer(name="Transfer", eps=[0.2]).at(BALL).declared())[-1] == "loss"
    assert list(AutoAttack(name="AutoAttack", eps=[0.2]).at(BALL).declared()) == ["name", "targets", "steps", "queries"]


def test_one_draw_of_a_model_is_not_declared_and_more_are() -> None:
    for kind, name in ((FGSM, "FGSM"), (PGD, "PGD"), (AutoAttack, "AutoAttack")):
        one, many = (kind.model_validate({"name": name, "eps": [0.2], "samples": n}).at(BALL) for n in (1, 8))
        assert "samples" not in one.declared()
        assert many.declared() == one.declared() | {"samples": 8}
        for attack in (one, many):
            again = attack_of(attack.declared(), BALL)
            assert again == attack
        assert not one.same_but_for_loss(many)
        assert not many.same_but_for_loss(one)
    assert Noise(name="Noise", eps=[0.2], samples=1).at(BALL).declared()["samples"] == 1
    assert FGSM(name="FGSM", eps=[0.2], samples=3).search.samples == 3


def test_attacks_of_other_people_are_read_back_though_their_code_is_gone() -> None:
    custom = {"name": "torchattacks.gone:attack", "code_sha256": "0", "parameters": {"name": "x", "steps": 3}}
    library = {"name": "torchattacks.Gone", "steps": 7, "loss": "dlr"}
    for declared, parameters in ((custom, custom["parameters"]), (library, {"steps": 7, "loss": "dlr"})):
        attack = attack_of(declared, BALL)
        assert isinstance(attack, CustomAttack | TorchattacksAttack)
        assert attack.declared() == declared
        assert attack.parameters == parameters
        assert attack.threat == BALL
    assert attack_of(custom, BALL).name == "torchattacks.gone:attack"  # type: ignore[union-attr]


def test_a_parameter_ascending_of_other_peoples_attacks_is_theirs() -> None:
    """Only the package's own attacks take over what they broke in a smaller ball."""
    radii: dict[str, Any] = {"eps": [0.2, 0.1], "ascending": True}
    custom = CustomAttack.model_validate({"name": "ours:attack", "norm": "linf"} | radii)
    assert not custom.carries_over
    assert [threat.eps for threat in custom.threats()] == [0.2, 0.1]
    assert PGD.model_validate({"name": "PGD"} | radii).carries_over


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.__name__)
def test_who_computes_an_attack_takes_it(attack: type[Attack]) -> None:
    function = pkgutil.resolve_name(attack.implementation)
    assert list(inspect.signature(function).parameters) == ["call"]
    taken = get_type_hints(function, localns={"Part": Any})["call"]
    assert taken.__origin__ is AttackCall
    (classes,) = get_args(taken)
    assert attack in (get_args(classes) or (classes,))
    assert attack.family in get_args(AttackKind)


def test_an_attack_that_says_nothing_of_its_kind_is_not_strong() -> None:
    class Silent(Attack):
        name: str = "Silent"

    with pytest.raises(AttributeError, match="family"):
        assert not Silent(norm="linf", eps=[0.1]).strong


def test_native_attacks_are_those_of_the_union_by_the_names_that_they_allow() -> None:
    assert list(NATIVE_ATTACKS) == [
        "FGSM", "PGD", "AutoAttack", "Noise", "Walk", "RayS", "GradientFree", "Transfer",
    ]  # fmt: skip
    for name, attack in NATIVE_ATTACKS.items():
        assert get_args(attack.model_fields["name"].annotation) == (name,)


@pytest.mark.parametrize("name", sorted(set(attack_modules()) - set(NATIVE_ATTACKS)))
def test_every_class_of_torchattacks_can_be_declared(name: str) -> None:
    attack = TorchattacksAttack(name=name, norm="l2" if "L2" in name else "linf", eps=[0.2])
    assert list(attack.problems()) == []
    declared = attack.at(Threat(attack.threat_norm(), 0.2)).declared()
    assert declared["name"] == f"torchattacks.{name}"
    assert not {"model", "seed", "eps", "norm", "n_classes", "verbose"} & set(declared)
    assert set(declared) - {"name"} <= set(class_parameters(name))


def test_what_attacks_cost_and_what_they_are_worth() -> None:
    """Passes an example, and whether a worst case may rest on it."""

    def at(attack: Attack) -> tuple[float, bool, bool]:
        one = attack.at(BALL)
        return one.work, one.strong, one.raises_cross_entropy

    assert at(FGSM(name="FGSM", eps=[0.2], loss="margin")) == (3.0, False, False)
    assert at(PGD(name="PGD", eps=[0.2], steps=40)) == (120.0, False, True)
    assert at(PGD(name="PGD", eps=[0.2], steps=40, loss="dlr", early_stop=True, targets=3)) == (
        0.25 * (360 + 3),
        True,
        False,
    )
    assert at(PGD(name="PGD", eps=[0.2], steps=9, loss="margin", restarts=2)) == (54.0 + 1, False, False)
    assert at(PGD(name="PGD", eps=[0.2], steps=10, loss="margin", alpha=0.019)) == (30.0, False, False)
    assert at(PGD(name="PGD", eps=[0.2], steps=10, loss="margin", alpha=0.02)) == (30.0, True, False)
    assert at(AutoAttack(name="AutoAttack", eps=[0.2])) == ((3 * (10 * 101 + 900) + 900 + 5001 + 7) / 50, True, False)
    assert at(AutoAttack(name="AutoAttack", eps=[0.2], samples=20)) == (20 * (3 * 202 + 3) / 4, True, False)
    assert at(PGD(name="PGD", eps=[0.2], steps=40, samples=5)) == (600.0, False, True)
    assert at(FGSM(name="FGSM", eps=[0.2], samples=5)) == (15.0, False, True)
    assert at(Noise(name="Noise", eps=[0.2], samples=20)) == (20.0, False, False)
    assert at(Walk(name="Walk", eps=[0.2])) == (40.0, False, False)
    assert at(RayS(name="RayS", eps=[0.2])) == (200.0, False, False)
    assert at(GradientFree(name="GradientFree", eps=[0.2])) == (445.0, False, False)
    assert at(Transfer(name="Transfer", eps=[0.2])) == (120.0, True, False)
    assert at(TorchattacksAttack(name="APGDT", eps=[0.2], steps=20, n_restarts=2)) == (120.0, True, False)
    assert at(TorchattacksAttack(name="DeepFool", norm="linf", eps=[0.2])) == (150.0, False, False)


def test_how_an_audit_varies_attacks() -> None:
    pgd = PGD(name="PGD", eps=[0.1, 0.2], steps=10).at(BALL)
    margin, longer, tested = pgd.audited().values()
    assert list(pgd.audited()) == ["other-loss", "longer", "active"]
    assert margin.loss == "margin"
    assert margin.same_but_for_loss(pgd)
    assert pgd.same_but_for_loss(margin)
    assert "other-loss" not in margin.audited()
    assert (longer.steps, longer.restarts, longer.early_stop, longer.alpha) == (20, 2, True, pgd.alpha)
    assert tested.declared() == pgd.declared() | {"early_stop": True}
    assert not longer.same_but_for_loss(pgd)
    for other in (Noise(name="Noise", eps=[0.2]), Transfer(name="Transfer", eps=[0.2], loss="ce")):
        assert other.audited() == {}
    autoattack = AutoAttack(name="AutoAttack", eps=[0.2])
    assert autoattack.audited() == {"active": autoattack}
    assert not autoattack.same_but_for_loss(autoattack), "it has no loss to choose"
    assert [attack.search.steps for attack in (FGSM(name="FGSM", eps=[0.2]), pgd)] == [1, 10]
    assert FGSM(name="FGSM", eps=[0.2]).search.step_size(0) == 0.2
