"""Plans: the right cells, ids that change when and only when the experiment does, selections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.plan.select import select
from robustbench_cmic.plan.versions import SUBSET
from robustbench_cmic.suite import find_suite, load_suite
from robustbench_cmic.suite.attacks import Transfer
from robustbench_cmic.suite.messages import UserError
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
    assert len(plan.of("train")) == 3 * 3
    (transfer,) = (attack for attack in suite.attacks if isinstance(attack, Transfer))
    others = sum(len(attack.eps or []) for attack in suite.attacks if attack is not transfer)
    # Of the three models each is attacked from itself, and the two pairs share one model: seven transfers a seed.
    assert (transfer.sources, len(transfer.eps or [])) == ("pairs", 1)
    assert len(plan.of("attack")) == 3 * (3 * (1 + others) + 3 + 2 * 2)
    assert len(plan.of("audit")) == 3 * 3
    position = {cell.id: index for index, cell in enumerate(plan.cells)}
    assert len(position) == len(plan.cells)
    assert all(position[other] < position[cell.id] for cell in plan.cells for other in cell.dependencies)


RICH = """\
suite: rich
dataset: {name: digits}
training: {epochs: 1, batch_size: 128, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: a, architecture: mlp, objective: {name: ce}}
  - {id: b, architecture: mlp, objective: {name: cmic}}
  - {id: c, architecture: mlp, objective: {name: cmic, beta: 0.1}}
pairs: [[a, b]]
seeds: [0, 1]
attacks:
  - {name: FGSM, eps: 0.1}
  - {name: PGD, eps: [0.3, 0.1, 0.2], steps: 4, ascending: true}
  - {name: Transfer, eps: 0.1, steps: 4}
"""


def attacks_of(plan: Plan, family: str) -> list[Cell]:
    return [cell for cell in plan.of("attack") if cell.attack.partition(":")[0] == family]


def test_transfers_come_last_from_every_model_to_every_model_of_a_seed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RICH)
    transfers = attacks_of(plan, "Transfer")
    assert plan.cells[-len(transfers) :] == transfers
    trainings = {(cell.model, cell.seed): cell for cell in plan.of("train")}
    keys = [(cell.seed, cell.attack, cell.model) for cell in transfers]
    assert sorted(keys) == sorted((s, f"Transfer:{x}", y) for s in (0, 1) for x in "abc" for y in "abc")
    for cell in transfers:
        source = trainings[cell.attack.partition(":")[2], cell.seed]
        assert (cell.needs, cell.source) == (trainings[cell.model, cell.seed].id, source.id)
        assert cell.declared["source"] == source.declared
        assert set(cell.dependencies) == {cell.needs, cell.source}
    assert transfers[0].declared["attack"] == {
        "name": "Transfer", "alpha": 2.5 * 0.1 / 4, "steps": 4, "random_start": True, "restarts": 1, "targets": 0,
        "schedule": "constant", "loss": "margin",
    }  # fmt: skip


def test_transfers_between_partners_only(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RICH.replace("eps: 0.1, steps: 4}\n", "eps: 0.1, steps: 4, sources: pairs}\n"))
    found = {(cell.attack.partition(":")[2], cell.model) for cell in attacks_of(plan, "Transfer")}
    assert found == {("a", "a"), ("b", "b"), ("c", "c"), ("a", "b"), ("b", "a")}


def test_an_ascending_attack_goes_from_ball_to_larger_ball(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RICH)
    for model in "abc":
        for seed in (0, 1):
            chain = [cell for cell in attacks_of(plan, "PGD") if (cell.model, cell.seed) == (model, seed)]
            assert [cell.eps for cell in chain] == [0.1, 0.2, 0.3]
            assert [cell.after for cell in chain] == [None, chain[0].id, chain[1].id]
            assert [cell.declared.get("after") for cell in chain] == [cell.after for cell in chain]
            assert all(cell.declared["attack"]["ascending"] for cell in chain)
            assert set(chain[1].dependencies) == {chain[1].needs, chain[0].id}
    plain = plan_of(tmp_path, RICH.replace(", ascending: true", ""))
    assert [cell.eps for cell in attacks_of(plain, "PGD")[:3]] == [0.3, 0.1, 0.2]
    assert not any(cell.after or "ascending" in cell.declared["attack"] for cell in plain.of("attack"))
    autoattack = plan_of(tmp_path, RICH.replace("PGD, eps: [0.3, 0.1, 0.2], steps: 4", "AutoAttack, eps: [0.3, 0.1]"))
    chain = attacks_of(autoattack, "AutoAttack")[:2]
    assert [(cell.eps, cell.after) for cell in chain] == [(0.1, None), (0.3, chain[0].id)]


def test_a_larger_ball_is_another_experiment_after_another_smaller_one(tmp_path: Path) -> None:
    before, after = ids(plan_of(tmp_path, RICH)), ids(plan_of(tmp_path, RICH.replace("[0.3, 0.1, 0.2]", "[0.3, 0.2]")))
    changed = {key[3:] for key in after if before[key] != after[key]}
    assert changed == {("PGD", 0.2), ("PGD", 0.3), ("", 0.0)}, "and the audit, which names the balls"
    assert {key[2] for key in after if before[key] != after[key]} == {"attack", "audit"}


def audits(tmp_path: Path, attacks: str, level: str = "standard") -> list[Cell]:
    head = RICH.split("attacks:")[0]
    return plan_of(tmp_path, f"{head}attacks:\n{attacks}audit: {level}\n").of("audit")


IN_TURN = ("reference", "reference", "gradient-free", "confirm", "confirm")


def in_turn(*radii: float) -> list[tuple[str, str, float]]:
    return [(check, "", eps) for eps in radii for check in IN_TURN]


def checks(tmp_path: Path, attacks: str, level: str = "standard") -> list[tuple[str, str, float]]:
    declared = audits(tmp_path, attacks, level)[0].declared["audit"]
    return [(check["check"], check["of"], check["eps"]) for check in declared["checks"] + declared["active"]]


ON_CE = "  - {name: FGSM, eps: [0.1, 0.2]}\n  - {name: PGD, eps: [0.1, 0.2, 0.3], steps: 4}\n"
TWINS = (
    "  - {name: FGSM, id: F, eps: [0.1, 0.2], loss: margin}\n"
    "  - {name: PGD, id: P, eps: [0.1, 0.2, 0.3], steps: 4, loss: margin, early_stop: true}\n"
)


def test_every_training_has_an_audit_that_mirrors_the_attacks(tmp_path: Path) -> None:
    found = audits(tmp_path, ON_CE)
    assert [(cell.model, cell.seed) for cell in found] == [(m, s) for m in "abc" for s in (0, 1)]
    assert all(cell.id.startswith(f"{cell.model}.s{cell.seed}.audit.") for cell in found)
    assert all(cell.dependencies == (cell.needs,) for cell in found)
    assert checks(tmp_path, ON_CE) == [
        *in_turn(0.1, 0.2, 0.3),
        ("other-loss", "FGSM", 0.1), ("other-loss", "FGSM", 0.2),
        ("other-loss", "PGD", 0.1), ("other-loss", "PGD", 0.2), ("other-loss", "PGD", 0.3),
        ("longer", "PGD", 0.1), ("longer", "PGD", 0.2), ("noise", "", 0.3), ("huge", "", 1.0), ("huge", "", 1.0),
        ("active", "PGD", 0.1),
    ]  # fmt: skip
    by_name = {(c["check"], c["eps"]): c["attack"] for c in found[0].declared["audit"]["checks"]}
    pgd = {
        "name": "PGD", "alpha": 0.3 / 4, "random_start": True, "targets": 0, "schedule": "linear", "early_stop": True,
    }  # fmt: skip
    largest = [c["attack"] for c in found[0].declared["audit"]["checks"] if c["check"] in IN_TURN and c["eps"] == 0.3]
    assert largest == [
        pgd | {"loss": "margin", "steps": 40, "restarts": 2}, pgd | {"loss": "scaled_ce", "steps": 40, "restarts": 2},
        {"name": "GradientFree", "images": 40, "queries": 200},
        pgd | {"loss": "margin", "steps": 100, "restarts": 5}, pgd | {"loss": "scaled_ce", "steps": 100, "restarts": 5},
    ]  # fmt: skip
    assert by_name["other-loss", 0.3]["loss"] == "margin"
    assert by_name["other-loss", 0.3]["steps"] == 4
    longer = by_name["longer", 0.2]
    assert (longer["steps"], longer["restarts"], longer["early_stop"], longer["loss"]) == (8, 2, True, "ce")
    assert by_name["noise", 0.3] == {"name": "Noise", "samples": 20}
    huge = [c["attack"]["loss"] for c in found[0].declared["audit"]["checks"] if c["check"] == "huge"]
    assert huge == ["ce", "margin"]
    assert found[0].declared["audit"]["step"] == pytest.approx(8 / 255 / 10)


def test_what_the_suite_has_itself_is_not_checked_again(tmp_path: Path) -> None:
    own = checks(tmp_path, ON_CE + TWINS + "  - {name: Noise, eps: 0.3}\n")
    assert not {name for name, _, _ in own} & {"other-loss", "noise"}
    others = checks(tmp_path, ON_CE + TWINS.replace("[0.1, 0.2, 0.3]", "[0.1, 0.3]"))
    assert [check for check in others if check[0] == "other-loss"] == [("other-loss", "PGD", 0.2)]
    alpha = checks(tmp_path, ON_CE + TWINS.replace("steps: 4", "steps: 5"))
    assert [check for check in alpha if check[0] == "other-loss"] == [("other-loss", "PGD", e) for e in (0.1, 0.2, 0.3)]
    only = checks(tmp_path, "  - {name: AutoAttack, eps: [0.2, 0.1]}\n")
    assert only == [
        *in_turn(0.1, 0.2), ("noise", "", 0.2), ("huge", "", 1.0), ("active", "AutoAttack", 0.1),
    ]  # fmt: skip


def test_a_strict_audit_is_longer_and_none_is_none(tmp_path: Path) -> None:
    strict = checks(tmp_path, ON_CE, "strict")
    assert [check for check in strict if check[0] == "longer"] == [("longer", "PGD", eps) for eps in (0.1, 0.2, 0.3)]
    queries = [
        {c["attack"]["queries"] for c in cell.declared["audit"]["checks"] if c["check"] == "gradient-free"}
        for level in ("standard", "strict")
        for cell in audits(tmp_path, ON_CE, level)[:1]
    ]
    assert queries == [{200}, {1000}]
    assert [check for check in strict if check[0] == "noise"] == [("noise", "", eps) for eps in (0.1, 0.2, 0.3)]
    standard, levels = audits(tmp_path, ON_CE), audits(tmp_path, ON_CE, "strict")
    assert not {cell.id for cell in standard} & {cell.id for cell in levels}
    assert [cell.declared["audit"]["examples"] for cell in (standard[0], levels[0])] == [128, 512]
    assert audits(tmp_path, ON_CE, "off") == []
    plans = [plan_of(tmp_path, f"{RICH}audit: {level}\n") for level in ("off", "standard", "strict")]
    rest = [[cell.id for cell in plan.cells if cell.kind != "audit"] for plan in plans]
    assert rest[0] == rest[1] == rest[2], "the level of the audit decides nothing but the audit"


def test_there_is_no_audit_without_attacks_nor_of_limited_ones(tmp_path: Path) -> None:
    head = RICH.split("attacks:")[0]
    assert plan_of(tmp_path, head).of("audit") == []
    assert plan_of(tmp_path, RICH, limit=10).of("audit") == []
    assert len(attacks_of(plan_of(tmp_path, RICH, limit=10), "Transfer")) == 18


def test_selections_bring_everything_that_they_depend_on(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, RICH)
    cells, asked = select(plan, only=["Transfer"])
    assert asked == {cell.id for cell in attacks_of(plan, "Transfer")}
    assert {cell.kind for cell in cells if cell.id not in asked} == {"train"}
    one = select(plan, seeds=[1], only=["Transfer:b"])
    assert [(cell.model, cell.seed) for cell in one.cells if cell.kind == "train"] == [("a", 1), ("b", 1), ("c", 1)]
    across = select(plan, only=["c.s0.Transfer_a.*"]).cells
    assert [(cell.model, cell.attack) for cell in across] == [("a", ""), ("c", ""), ("c", "Transfer:a")]
    large = select(plan, only=["a.s0.PGD.linf.eps0.3.*"])
    assert [(cell.attack, cell.eps) for cell in large.cells] == [("", 0), ("PGD", 0.1), ("PGD", 0.2), ("PGD", 0.3)]
    assert len(large.asked) == 1
    audited = select(plan, only=["audit"])
    assert [cell.kind for cell in audited.cells] == ["train", "audit"] * 6
    assert len(audited.asked) == 6
    pair = select(plan, seeds=[0], only=["a", "b"])
    assert {cell.model for cell in pair.cells} == {"a", "b"}, "nobody asked for the training of c"
    transfers = {(cell.model, cell.attack) for cell in pair.cells if cell.source}
    assert transfers == {(to, f"Transfer:{by}") for to in "ab" for by in "ab"}
    for selection in (select(plan, only=["Transfer"]), one, large, audited, pair):
        place = {cell.id: index for index, cell in enumerate(selection.cells)}
        assert all(place[other] < place[cell.id] for cell in selection.cells for other in cell.dependencies)


def test_settings_are_resolved_to_numbers(tmp_path: Path) -> None:
    plan = make_plan(load_suite(find_suite("digits")).suite)
    pgd = next(cell for cell in plan.cells if cell.attack == "PGD" and cell.eps == 0.2)
    assert pgd.declared["attack"] == {
        "name": "PGD", "alpha": 0.02, "steps": 40, "random_start": True, "restarts": 1, "targets": 0,
        "schedule": "constant", "loss": "ce", "early_stop": True,
    }  # fmt: skip
    suite = TINY_SUITE.replace("{name: FGSM, eps: 0.1}", "{name: APGDT, eps: 0.1, steps: 20}")
    library = next(cell for cell in plan_of(tmp_path, suite).cells if cell.attack == "APGDT")
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
        "ce.s0.train.7a2d2a2041ce", "ce.s0.none.c8f56c64684b", "ce.s0.FGSM.linf.eps0.1.49c374c663c3",
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


def test_no_cell_depends_on_what_reports_claim(tmp_path: Path) -> None:
    plan, before = plan_of(tmp_path, f"{TINY_SUITE}claims: {{margin: 3/2}}\n"), plan_of(tmp_path)
    assert (plan.claims.margin, before.claims.margin) == (1.5, 2)
    assert plan.cells == before.cells


def test_a_limit_changes_evaluations_not_trainings(tmp_path: Path) -> None:
    before, limited = plan_of(tmp_path), plan_of(tmp_path, limit=7)
    same = {cell.id for cell in before.cells} & {cell.id for cell in limited.cells}
    assert same == {cell.id for cell in before.of("train")}
    expected = {"split": "test", "limit": 7, "per_class": False, "by_command_line": True, "draw": SUBSET}
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
    with pytest.raises(UserError, match=message):
        select(plan_of(tmp_path), **options)


def test_seeds_and_names_that_exclude_each_other(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TINY_SUITE.replace("pairs:", "seeds: [0, 1]\npairs:"))
    with pytest.raises(UserError, match="leave nothing"):
        select(plan, seeds=[1], only=["ce.s0.*"])


def test_ids_are_safe_file_names(tmp_path: Path) -> None:
    cells: list[Cell] = plan_of(tmp_path).cells
    assert all("/" not in cell.id and len(cell.id) < 200 for cell in cells)
