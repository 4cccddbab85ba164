"""Plans: the right cells, ids that change when and only when the experiment does, selections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.cell import Cell, Plan
from robustbench_cmic.data import DRAW
from robustbench_cmic.plan import SelectionError, make_plan, select
from robustbench_cmic.suite import find_suite, load_suite
from tests.conftest import TINY_SUITE


def plan_of(tmp_path: Path, text: str = TINY_SUITE, **options: Any) -> Plan:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return make_plan(load_suite(path).suite, **options)


def ids(plan: Plan) -> dict[tuple[Any, ...], str]:
    return {(c.model, c.seed, c.kind, c.attack, c.eps): c.id.rsplit(".", 1)[1] for c in plan.cells}


def test_digits_has_the_cells_of_its_suite() -> None:
    suite = load_suite(find_suite("digits")).suite
    plan = make_plan(suite)
    assert len(plan.of("train")) == 6
    assert len(plan.of("attack")) == 6 * (1 + sum(len(attack.eps or []) for attack in suite.attacks))
    position = {cell.id: index for index, cell in enumerate(plan.cells)}
    assert len(position) == len(plan.cells)
    assert all(position[cell.needs] < position[cell.id] for cell in plan.of("attack") if cell.needs)


def test_settings_are_resolved_to_numbers() -> None:
    plan = make_plan(load_suite(find_suite("digits")).suite)
    pgd = next(cell for cell in plan.cells if cell.attack == "PGD" and cell.eps == 0.2)
    assert pgd.declared["attack"] == {
        "name": "PGD", "alpha": 0.02, "steps": 40, "random_start": True, "restarts": 1, "targets": 0,
        "schedule": "constant", "loss": "ce", "early_stop": False,
    }  # fmt: skip
    library = next(cell for cell in plan.cells if cell.attack == "APGDT")
    assert library.declared["attack"] == {
        "name": "torchattacks.APGDT", "steps": 20, "n_restarts": 1, "eot_iter": 1, "rho": 0.75,
    }  # fmt: skip
    assert library.norm == "linf"
    cmic = next(cell for cell in plan.of("train") if cell.objective == "cmic")
    assert cmic.declared["objective"]["momentum"] == 0.99


def test_default_step_size_reaches_two_and_a_half_radii(tmp_path: Path) -> None:
    pgd = next(cell for cell in plan_of(tmp_path).cells if cell.attack == "PGD")
    assert pgd.declared["attack"]["alpha"] == pytest.approx(2.5 * 0.1 / 3)


def test_ids_are_the_same_for_the_same_experiment_however_written(tmp_path: Path) -> None:
    same = TINY_SUITE.replace("eps: 0.1", "eps: 1/10").replace("lr: 0.1", "lr: 1.0e-1, momentum: 0.9")
    same = f"# a comment\n{same}".replace("suite: tiny", "suite: tiny\ndescription: other words")
    assert ids(plan_of(tmp_path, same)) == ids(plan_of(tmp_path))


ADVERSARIAL = TINY_SUITE.replace("{name: ce}", "{name: ce, adversary: {eps: 8/255, alpha: eps/4, steps: 7}}").replace(
    "{name: cmic}", "{name: cmic, adversary: {eps: 8/255, alpha: eps/4, steps: 7}}"
)


def test_an_adversary_is_declared_in_numbers_and_only_where_there_is_one(tmp_path: Path) -> None:
    """Without one nothing is declared, so that ids from before there were adversaries hold."""
    expected = {
        "norm": "linf", "eps": 8 / 255, "alpha": 8 / 255 / 4, "steps": 7, "loss": "ce", "random_start": True
    }  # fmt: skip
    plain, adversarial = plan_of(tmp_path).of("train"), plan_of(tmp_path, ADVERSARIAL).of("train")
    for without, given in zip(plain, adversarial, strict=True):
        assert "adversary" not in without.declared["objective"]
        assert given.declared["objective"] == without.declared["objective"] | {"adversary": expected}
    default = plan_of(tmp_path, ADVERSARIAL.replace("alpha: eps/4, ", "")).of("train")[0]
    assert default.declared["objective"]["adversary"]["alpha"] == 2.5 * (8 / 255) / 7


def test_ids_follow_the_adversary_not_how_it_is_written(tmp_path: Path) -> None:
    before = ids(plan_of(tmp_path, ADVERSARIAL))
    assert not set(before.values()) & set(ids(plan_of(tmp_path)).values())
    same = ADVERSARIAL.replace("eps: 8/255, alpha: eps/4", "norm: linf, eps: 8/255, alpha: 2/255, loss: ce")
    assert ids(plan_of(tmp_path, same)) == before
    for other in ("steps: 8", "steps: 7, loss: margin", "steps: 7, norm: l2", "steps: 7, random_start: false"):
        changed = ids(plan_of(tmp_path, ADVERSARIAL.replace("steps: 7", other)))
        assert not set(before.values()) & set(changed.values())


def test_ids_of_the_example_are_frozen(tmp_path: Path) -> None:
    """Committed results are found by id: a change of the hash makes all of them void, so let it be deliberate."""
    plan = plan_of(tmp_path)
    assert [cell.id for cell in plan.cells[:3]] == [
        "ce.s0.train.dd61bbf9ab6e", "ce.s0.none.6d8f3dab0037", "ce.s0.FGSM.linf.eps0.1.0b8a250662c3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("epochs: 2", "epochs: 3", {"train", "none", "FGSM", "PGD"}),
        ("lr: 0.1", "lr: 0.2", {"train", "none", "FGSM", "PGD"}),
        ("steps: 3", "steps: 4", {"PGD"}),
        ("{name: FGSM, eps: 0.1}", "{name: FGSM, eps: 0.1, loss: margin}", {"FGSM"}),
        ("suite: tiny", "suite: tiny\nevaluation: {limit: 5}", {"none", "FGSM", "PGD"}),
    ],
)
def test_ids_change_with_what_decides_the_result(tmp_path: Path, old: str, new: str, changed: set[str]) -> None:
    before, after = ids(plan_of(tmp_path)), ids(plan_of(tmp_path, TINY_SUITE.replace(old, new)))
    assert {(key[3] or "train") for key in before if before[key] != after[key]} == changed


def test_a_limit_changes_evaluations_not_trainings(tmp_path: Path) -> None:
    before, limited = plan_of(tmp_path), plan_of(tmp_path, limit=7)
    same = {cell.id for cell in before.cells} & {cell.id for cell in limited.cells}
    assert same == {cell.id for cell in before.of("train")}
    expected = {"split": "test", "limit": 7, "per_class": False, "by_command_line": True, "draw": DRAW}
    assert all(cell.declared["evaluation"] == expected for cell in limited.of("attack"))


def test_selection_brings_the_training_along_but_does_not_ask_for_it(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    cells, asked = select(plan, only=["PGD"])
    assert [(cell.model, cell.kind) for cell in cells] == [
        ("ce", "train"), ("ce", "attack"), ("cmic", "train"), ("cmic", "attack"),
    ]  # fmt: skip
    assert asked == {cell.id for cell in cells if cell.kind == "attack"}
    assert {cell.model for cell in select(plan, only=["cmic"]).cells} == {"cmic"}
    assert [cell.attack for cell in select(plan, only=["ce.s0.FGSM*"]).cells] == ["", "FGSM"]
    assert select(plan).cells == plan.cells


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [3]}, "no seed 3; it has 0"),
        ({"only": ["PDG"]}, "nothing in the suite matches 'PDG'; did you mean 'PGD'"),
    ],
)
def test_selections_that_fit_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        select(plan_of(tmp_path), **options)


def test_seeds_and_names_that_exclude_each_other(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TINY_SUITE.replace("pairs:", "seeds: [0, 1]\npairs:"))
    with pytest.raises(SelectionError, match="leave nothing"):
        select(plan, seeds=[1], only=["ce.s0.*"])


def test_ids_are_safe_file_names(tmp_path: Path) -> None:
    cells: list[Cell] = plan_of(tmp_path).cells
    assert all("/" not in cell.id and len(cell.id) < 200 for cell in cells)
