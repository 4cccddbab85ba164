"""Models of several sizes and trainings in one suite: what differs, what is taken over, and where mistakes stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.suite import SuiteError, load_suite
from robustbench_cmic.suite.schema import Suite
from robustbench_cmic.suite.toy import toy

HEAD = """\
suite: sizes
dataset: {name: digits}
training:
  epochs: 2
  batch_size: 64
  optimizer: {name: sgd, lr: 0.1, nesterov: true}
  schedule: {name: onecycle}
models:
"""
PLAIN = "  - {id: plain, architecture: mlp, objective: {name: ce}}\n"


def load(tmp_path: Path, models: str, head: str = HEAD) -> Suite:
    file = tmp_path / "sizes.yaml"
    file.write_text(head + models)
    return load_suite(file).suite


def refused(tmp_path: Path, models: str, head: str = HEAD) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, models, head)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


def test_a_model_trains_by_its_own_keys_and_the_suites_others(tmp_path: Path) -> None:
    changes = "{epochs: 5, optimizer: {lr: 0.2}, schedule: {name: constant}}"
    model = f"  - {{id: own, architecture: mlp, objective: {{name: ce}}, training: {changes}}}\n"
    plain, own = (cell.declared["training"] for cell in make_plan(load(tmp_path, PLAIN + model)).of("train"))
    assert own["epochs"] == 5
    assert own["optimizer"] == plain["optimizer"] | {"lr": 0.2}
    assert own["schedule"] == {"name": "constant", "warmup_epochs": 0.0}, "another schedule stands alone"
    assert {key: own[key] for key in ("batch_size", "augmentation")} == {
        "batch_size": 64,
        "augmentation": plain["augmentation"],
    }
    assert plain["epochs"] == 2


def test_cells_of_models_without_either_key_are_as_before(tmp_path: Path) -> None:
    (cell,) = make_plan(load(tmp_path, PLAIN)).of("train")
    assert cell.declared["model"].keys() == {"architecture", "stem", "pretrained", "normalization", "code_sha256"}
    assert cell.id == "plain.s0.train.3d1b289817f6"


def test_a_matrix_varies_width_depth_and_training(tmp_path: Path) -> None:
    varied = "matrix: {width: [8, 16], depth: [1], training.epochs: [1, 3]}"
    suite = load(tmp_path, f"  - {{id: a, architecture: mlp, objective: {{name: ce}}, {varied}}}\n")
    assert [model.id for model in suite.models] == [
        f"a-width{width}-depth1-epochs{epochs}" for width in (8, 16) for epochs in (1, 3)
    ]
    assert [model.training and model.training.epochs for model in suite.models] == [1, 3, 1, 3]
    assert [model.width for model in suite.models] == [8, 8, 16, 16]
    assert {model.training and model.training.batch_size for model in suite.models} == {64}


def test_a_matrix_varies_what_is_in_a_mapping_of_training(tmp_path: Path) -> None:
    varied = (
        "training: {epochs: 3}, matrix: {training.optimizer.lr: [0.05, 0.2], training.optimizer.weight_decay: [1e-3]}"
    )
    plan = make_plan(load(tmp_path, f"{PLAIN}  - {{id: a, architecture: mlp, objective: {{name: ce}}, {varied}}}\n"))
    plain, *own = plan.of("train")
    assert [cell.model for cell in own] == ["a-lr0.05-weight_decay0.001", "a-lr0.2-weight_decay0.001"]
    shared = plain.declared["training"] | {"epochs": 3}
    for lr, cell in zip((0.05, 0.2), own, strict=True):
        optimizer = plain.declared["training"]["optimizer"] | {"lr": lr, "weight_decay": 1e-3}
        assert cell.declared["training"] == shared | {"optimizer": optimizer}


@pytest.mark.parametrize("path", ["training.optimizer.lr.x", "training.optimizer.", "objective.lambda.x", "training"])
def test_a_matrix_varies_nothing_else(tmp_path: Path, path: str) -> None:
    (line,) = refused(tmp_path, f"  - {{id: a, architecture: mlp, objective: {{name: ce}}, matrix: {{{path}: [1]}}}}\n")
    assert "a matrix varies `architecture`, `width`, `depth` or a parameter such as `objective.lambda`" in line


def test_a_mistake_in_a_matrix_of_training_is_told_where_it_stands(tmp_path: Path) -> None:
    varied = "matrix: {training.optimizer.lr: [0.1, -1]}"
    assert refused(tmp_path, f"  - {{id: a, architecture: mlp, objective: {{name: ce}}, {varied}}}\n") == [
        "sizes.yaml:9: models[0].matrix.training.optimizer.lr[1]: should be greater than 0, not -1"
    ]


def test_toy_size_shortens_every_training(tmp_path: Path) -> None:
    model = "  - {id: own, architecture: mlp, objective: {name: ce}, training: {epochs: 50, batch_size: 32}}\n"
    plain, own = (cell.declared["training"] for cell in make_plan(toy(load(tmp_path, PLAIN + model))).of("train"))
    assert [(each["epochs"], each["limit"]) for each in (plain, own)] == [(1, 128), (1, 64)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            "architecture: small_cnn, depth: 2",
            "models[1].depth: small_cnn has no `depth`, which small_resnet, mlp take",
        ),
        ("architecture: resnet18, width: 8", "resnet18 has no `width`, which small_cnn, small_resnet, mlp, lenet take"),
        ("architecture: mlp, width: 0", "models[1].width: should be at least 1, not 0"),
        ("architecture: mlp, training: {epoch: 5}", "models[1].training.epoch: unknown key; did you mean 'epochs'?"),
        ("architecture: mlp, training: {epochs: 0}", "models[1].training.epochs: should be at least 1, not 0"),
        ("architecture: mlp, training: 5", "models[1].training: should be a mapping of keys to values, not 5"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path: Path, changes: str, sentence: str) -> None:
    (line,) = refused(tmp_path, f"{PLAIN}  - {{id: own, objective: {{name: ce}}, {changes}}}\n")
    assert line.startswith("sizes.yaml:10: ")
    assert sentence in line


def test_a_mistake_of_the_suite_is_told_once_where_it_stands(tmp_path: Path) -> None:
    model = "  - {id: own, architecture: mlp, objective: {name: ce}, training: {epochs: 5}}\n"
    head = HEAD.replace("lr: 0.1", "lr: 0")
    assert refused(tmp_path, PLAIN + model, head) == [
        "sizes.yaml:6: training.optimizer.lr: should be greater than 0, not 0"
    ]


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("optimizer: {lr: 0.2}", "optimizer: {momentum: 0.5}", "training.optimizer.momentum (0.9, 0.5)"),
        ("epochs: 3", "epochs: 5, batch_size: 32", "training.epochs (3, 5), training.batch_size (64, 32)"),
        ("limit: 600", "augmentation: {flip: true}",
         "training.augmentation.flip (false, true), training.limit (600, not given)"),
        ("optimizer: {name: adamw, lr: 0.1}", "epochs: 5",
         "training.epochs (2, 5), training.optimizer.name (adamw, sgd)"),
        ("schedule: {name: multistep, milestones: [1]}", "schedule: {name: multistep, milestones: [1, 2], gamma: 1e-5}",
         "training.schedule.milestones ([1], [1, 2]), training.schedule.gamma (0.1, 1e-5)"),
        ("select: best, held_out: 0.1", "select: best, held_out: 0.2", "training.held_out (0.1, 0.2)"),
    ],
)  # fmt: skip
def test_of_two_trainings_of_their_own_the_keys_that_differ_are_named(
    tmp_path: Path, first: str, second: str, told: str
) -> None:
    models = [
        f"  - {{id: {name}, architecture: mlp, objective: {{name: {name}}}, training: {{{own}}}}}\n"
        for name, own in (("ce", first), ("cmic", second))
    ]
    (line,) = refused(tmp_path, f"{''.join(models)}pairs: [[ce, cmic]]\n")
    assert line.endswith(f"'ce' and 'cmic' differ in {told}; only the objective may, or its adversary")


def test_a_training_of_which_there_is_no_other_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "given.pt").touch()
    training = "{epochs: 2, batch_size: 64, optimizer: {name: sgd, lr: 0.1}}"
    models = "  - {id: given, architecture: mlp, weights: given.pt}\n"
    models += (
        f"  - {{id: own, architecture: mlp, objective: {{name: ce}}, training: {training}}}\npairs: [[given, own]]\n"
    )
    (line,) = refused(tmp_path, models, "suite: sizes\ndataset: {name: digits}\nmodels:\n")
    assert "'given' and 'own' differ in training (none, its own); " in line


def test_trainings_of_a_pair_are_alike_and_given_weights_have_none(tmp_path: Path) -> None:
    model = "  - {id: own, architecture: mlp, objective: {name: cmic}, training: {epochs: 5}}\npairs: [[plain, own]]\n"
    (line,) = refused(tmp_path, PLAIN + model)
    assert (
        "unfair: 'plain' and 'own' differ in training.epochs (2, 5); only the objective may, or its adversary" in line
    )
    tuned = "optimizer: {lr: 0.2, weight_decay: 0.01}, outputs: {}"
    assert load(tmp_path, PLAIN + model.replace("epochs: 5", tuned)).pairs == [["plain", "own"]]
    given = "  - {id: own, architecture: resnet18, pretrained: true, training: {epochs: 5}}\n"
    (line,) = refused(tmp_path, given)
    assert line.endswith("models[0].training: has no effect on given weights: leave it out")
