"""`--set KEY=VALUE`: which value it means, what a changed suite is called, and what cannot be set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Plan
from robustbench_cmic.suite import SuiteError, load_suite
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.override import MAX_NAME, changed_name, override
from robustbench_cmic.suite.toy import toy

TEXT = """\
suite: small
dataset: {name: digits}
training: {epochs: 3, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: ce, architecture: mlp, objective: {name: ce}}
  - {id: c-0.5, architecture: mlp, objective: {name: cmic, lambda: 0.5}}
  - {id: grid, architecture: mlp, objective: {name: cmic}, matrix: {objective.beta: [0, 1]}}
pairs: [[ce, c-0.5]]
seeds: [3, 4]
attacks:
  - {name: FGSM, eps: [0.1, 0.2]}
  - {name: PGD, id: PGD-m, eps: 0.1, steps: 40, loss: margin}
"""
DATA = yaml.safe_load(TEXT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("setting", "way", "value", "text"),
    [
        ("training.epochs=2", ["training", "epochs"], 2, ""),
        ("training.optimizer.lr=5e-4", ["training", "optimizer", "lr"], 5e-4, "training.optimizer.lr=0.0005"),
        ("models.ce.architecture=small_cnn", ["models", 0, "architecture"], "small_cnn", ""),
        ("models.c-0.5.objective.lambda=0.7", ["models", 1, "objective", "lambda"], 0.7, ""),
        ("models.1.objective.beta=1", ["models", 1, "objective", "beta"], 1, "models.c-0.5.objective.beta=1"),
        ("models.grid.matrix.objective.beta=[2]", ["models", 2, "matrix", "objective.beta"], [2], ""),
        ("attacks.FGSM.eps.1=0.3", ["attacks", 0, "eps", 1], 0.3, ""),
        ("attacks.PGD-m.steps=5", ["attacks", 1, "steps"], 5, ""),
        ("attacks.1.eps=8/255", ["attacks", 1, "eps"], "8/255", "attacks.PGD-m.eps=8/255"),
        ("evaluation.limit=10", ["evaluation", "limit"], 10, ""),
        ("seeds=[0, 1]", ["seeds"], [0, 1], ""),
        ("seeds.0=7", ["seeds", 0], 7, ""),
        ("training.limit=null", ["training", "limit"], None, ""),
        ("audit=off", ["audit"], "off", ""),  # as in the file, which is of YAML 1.2
        ("training={epochs: 1, lr: no}", ["training"], {"epochs": 1, "lr": "no"}, ""),
        ("description=a=b", ["description"], "a=b", ""),
    ],
)
def test_a_key_leads_to_one_value_by_ids_or_positions(
    setting: str, way: list[str | int], value: object, text: str
) -> None:
    changed, (one,) = override(DATA, [setting])
    place = changed
    for part in way:
        place = place[part]
    assert place == value
    assert type(place) is type(value)
    assert (list(one.location), one.text) == (way, text or setting)
    assert yaml.safe_load(TEXT) == DATA, "what was read stays as it is"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.epochs"], "--set training.epochs: should be KEY=VALUE, such as training.epochs=2"),
        (["=2"], "should be KEY=VALUE"),
        (["training..epochs=2"], "should be KEY=VALUE"),
        (["training.epochs="], "--set training.epochs=: the value is missing; write null where there shall be none"),
        (["training.epochs=[1"], "--set training.epochs=[1: YAML syntax error: "),
        (["training.epochs=!!python/name:os.system x"], "is not allowed: plain YAML only"),
        (["training.epochs={a: 1, a: 2}"], "duplicate key"),
        (["training.epochs.x=2"], "--set training.epochs.x=2: training.epochs is 3, which has no 'x' in it"),
        (["models.cee.id=x"], "--set models.cee.id=x: models has no entry 'cee'; did you mean 'ce'?"),
        (["seeds.2=1"], "--set seeds.2=1: seeds has 2 entries, the first of which is 0"),
        (["models.grid.objective.beta=1"], "the matrix varies it: set models.grid.matrix.objective.beta to a list"),
        (["suite=x"], "--set suite=x: the name of a changed suite is that of --as"),
        (["seeds=[1]", "seeds.0=2"], "--set seeds.0=2: --set seeds=[1] sets this already: keep one of them"),
        (["models.0.id=x", "models.x.id=y"], "--set models.0.id=x sets this already"),
    ],
)
def test_what_cannot_be_set_is_refused_in_a_sentence_that_names_the_option(settings: list[str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        override(DATA, settings)
    assert "\n" not in str(caught.value)


def test_an_attack_s_name_that_two_have_does_not_tell_which() -> None:
    data = DATA | {"attacks": [{"name": "FGSM", "eps": 0.1}, {"name": "FGSM", "eps": 0.2}]}
    with pytest.raises(UserError, match="2 entries of attacks are called FGSM: say which by position"):
        override(data, ["attacks.FGSM.eps=0.1"])
    changed, (one,) = override(data, ["attacks.1.eps=0.3"])
    assert (changed["attacks"][1]["eps"], one.text) == (0.3, "attacks.1.eps=0.3")


def name_of(*settings: str) -> str:
    return changed_name("small", override(DATA, settings)[1])


def test_a_changed_suite_has_a_readable_name_of_its_own_whatever_the_order() -> None:
    assert name_of("training.epochs=2") == "small+training.epochs=2"
    both = "small+models.ce.architecture=small_cnn+training.epochs=2"
    assert name_of("training.epochs=2", "models.0.architecture=small_cnn") == both
    assert name_of("models.ce.architecture=small_cnn", "training.epochs= 2") == both


def test_a_name_is_that_of_a_folder_and_bounded_and_tells_values_apart() -> None:
    odd = [name_of("attacks.FGSM.eps=8/255"), name_of("attacks.FGSM.eps=8:255"), name_of("description=a/../../b")]
    long = [name_of(f"description={'x' * 500}{end}") for end in "ab"]
    names = [*odd, *long]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+=~-]*", name) for name in names)
    assert all(len(name) <= MAX_NAME for name in names)
    assert re.fullmatch(r"small\+attacks\.FGSM\.eps=8_255~[0-9a-f]{8}", odd[0])


def test_a_changed_suite_is_one_whose_file_says_so(file: Path) -> None:
    changed = load_suite(file, settings=["attacks.PGD-m.steps=5", "training.epochs=2"]).suite
    file.write_text(TEXT.replace("epochs: 3", "epochs: 2").replace("steps: 40", "steps: 5"))
    edited = load_suite(file).suite
    plan, as_edited = make_plan(changed), make_plan(edited)
    assert plan.cells == as_edited.cells
    assert (plan.suite, as_edited.suite) == ("small+attacks.PGD-m.steps=5+training.epochs=2", "small")
    assert plan.changes == ["attacks.PGD-m.steps=5", "training.epochs=2"]
    assert plan.file_name == "small"


def test_cells_that_a_change_does_not_touch_keep_their_ids(file: Path) -> None:
    before = [cell.id for cell in make_plan(load_suite(file).suite).cells]
    after = [cell.id for cell in make_plan(load_suite(file, settings=["attacks.PGD-m.steps=5"]).suite).cells]
    moved = {old for old, new in zip(before, after, strict=True) if old != new}
    assert {name.split(".")[2] for name in moved if not name.startswith("c-0.5")} <= {"PGD-m", "audit"}
    assert moved


def test_a_plan_that_nothing_changed_says_nothing_of_changes_and_one_that_did_is_read_again(file: Path) -> None:
    plain = make_plan(load_suite(file).suite).model_dump(mode="json")
    assert not {"changes", "file_name"} & plain.keys()
    plan = make_plan(toy(load_suite(file, settings=["training.epochs=2"], name="mine").suite))
    assert (plan.suite, plan.file_name, plan.changes) == ("mine-toy", "small", ["training.epochs=2"])
    assert Plan.model_validate(plan.model_dump(mode="json")) == plan


def name_of_change(file: Path, setting: str) -> list[str]:
    return make_plan(load_suite(file, settings=[setting]).suite).changes


def test_errors_of_a_changed_suite_name_the_option(file: Path) -> None:
    with pytest.raises(SuiteError) as caught:
        load_suite(file, settings=["training.epochs=-1", "models.ce.objective.lamda=1"])
    first, second = sorted(str(caught.value).splitlines())
    assert first.startswith(f"{file}: --set models.ce.objective.lamda=1: unknown key; ")
    assert second == f"{file}: --set training.epochs=-1: should be at least 1, not -1"
    with pytest.raises(SuiteError) as within:
        load_suite(file, settings=["training={epochs: 1e9, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}"])
    assert str(within.value).startswith(f"{file}: training.epochs: --set training={{")
    assert str(within.value).endswith(": should be a whole number, not 1e9")
    assert name_of_change(file, "training.optimizer.lr=1e9") == ["training.optimizer.lr=1e9"]
    with pytest.raises(SuiteError, match=r"small.yaml:8: pairs\[0\].*\(--set models\.ce\.id=x\)"):
        load_suite(file, settings=["models.ce.id=x"])
