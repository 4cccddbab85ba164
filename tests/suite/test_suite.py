"""Suites: what is valid, and one clear sentence with line and key for everything that is not."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.suite import LoadedSuite, SuiteError, find_suite, load_suite, shipped_suites
from robustbench_cmic.suite.attacks import PGD, AutoAttack, Noise, Transfer
from robustbench_cmic.suite.data import DATASETS
from robustbench_cmic.suite.fields import parse_number, resolve_relative
from robustbench_cmic.suite.models import ARCHITECTURES
from robustbench_cmic.suite.objectives import OBJECTIVES, CmicObjective
from robustbench_cmic.suite.reader import read_document
from robustbench_cmic.suite.schema import suite_json_schema
from tests.conftest import ROOT

GOOD = """\
suite: good
dataset: {name: digits}
training: {epochs: 2, batch_size: 8, optimizer: {name: sgd, lr: 0.1}}
models:
  - {id: a, architecture: mlp, objective: {name: ce}}
  - {id: b, architecture: mlp, objective: {name: cmic}}
pairs: [[a, b]]
seeds: [0, 1]
attacks:
  - {name: FGSM, eps: 0.1}
"""


def load(tmp_path: Path, text: str) -> LoadedSuite:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return load_suite(path)


def errors(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, text)
    return [line.removeprefix(f"{tmp_path}/") for line in str(caught.value).splitlines()]


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_shipped_suites_are_valid_and_embed_the_design() -> None:
    assert set(shipped_suites()) == {path.stem for path in (ROOT / "suites").glob("*.yaml")}
    assert {"cifar100", "digits", "mnist", "smoke"} <= set(shipped_suites())
    for path in shipped_suites().values():
        loaded = load_suite(path)
        assert loaded.warnings == []
        assert loaded.suite.suite == path.stem
        # What only chooses settings makes no claim that an audit could take away.
        assert loaded.suite.audit == ("standard" if loaded.suite.dataset.holdout is None else "off")
    suite = load_suite(find_suite("digits")).suite
    assert [model.objective and model.objective.title for model in suite.models] == [
        "CE", "CMIC-DL printed", "CMIC-DL authors",
    ]  # fmt: skip
    assert [attack.label for attack in suite.attacks] == [
        "FGSM", "FGSM-margin", "PGD", "PGD-margin", "PGD-T", "PGD-cmic", "AutoAttack", "Transfer",
    ]  # fmt: skip
    assert all(0.2 in (attack.eps or []) for attack in suite.attacks if attack.label not in ("PGD-T", "PGD-cmic"))


def test_a_good_suite(tmp_path: Path) -> None:
    suite = load(tmp_path, GOOD).suite
    assert suite.pairs == [["a", "b"]]
    assert suite.training is not None
    assert suite.training.optimizer.name == "sgd"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("objective: {name: cmic}", "objective: {name: cmic, lamda: 1}",
         "x.yaml:6: models[1].objective.lamda: unknown key; did you mean 'lambda'?"),
        ("objective: {name: cmic}", "objective: {name: cmix}",
         "x.yaml:6: models[1].objective: unknown name 'cmix'; did you mean 'cmic'?"),
        ("objective: {name: cmic}", "objective: {lambda: 1}",
         "x.yaml:6: models[1].objective: the key 'name' is missing"),
        ("objective: {name: cmic}", "objective: {name: cmic, beta: .nan}",
         "x.yaml:6: models[1].objective.beta: should be a finite number, not nan"),
        ("objective: {name: cmic}", "objective: {name: cmic, centroids: batches}",
         "x.yaml:6: models[1].objective.centroids: should be 'batch', 'class_batches' or 'fixed', not 'batches'"),
        ("objective: {name: cmic}", "objective: {name: cmic, class_batch_size: 4}",
         "x.yaml:6: models[1].objective.class_batch_size: has no effect with `centroids: batch`: leave it out"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1, stepz: 3}}",
         "x.yaml:5: models[0].objective.adversary.stepz: unknown key; did you mean 'steps'?"),
        ("{name: ce}", "{name: ce, adversary: {name: PGD, eps: 0.1}}",
         "x.yaml:5: models[0].objective.adversary.name: unknown key; known here: method, weight, norm, eps, alpha, "
         "steps, loss, random_start, robust_cmi"),
        ("{name: ce}", "{name: ce, adversary: {method: trades, weight: 6}}",
         "x.yaml:5: models[0].objective.adversary.eps: this key is missing"),
        ("{name: ce}", "{name: ce, adversary: {method: trade, eps: 0.1}}",
         "x.yaml:5: models[0].objective.adversary.method: should be 'pgd_at', 'trades', 'mart' or 'fgsm_rs', not "
         "'trade'"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1, weight: 6}}",
         "x.yaml:5: models[0].objective.adversary: `weight` has no effect with `method: pgd_at`: leave it out"),
        ("{name: ce}", "{name: ce, adversary: {method: fgsm_rs, eps: 0.1, weight: 6}}",
         "x.yaml:5: models[0].objective.adversary: `weight` has no effect with `method: fgsm_rs`: leave it out"),
        ("{name: ce}", "{name: ce, adversary: {method: mart, eps: 0.1, weight: 0}}",
         "x.yaml:5: models[0].objective.adversary.weight: should be greater than 0, not 0"),
        ("{name: ce}", "{name: ce, adversary: {method: mart, eps: 0.1, weight: null}}",
         "x.yaml:5: models[0].objective.adversary: `method: mart` needs a `weight`: leave it out for the default, not "
         "null"),
        ("{name: ce}", "{name: ce, adversary: {method: fgsm_rs, eps: 0.1, steps: 7}}",
         "x.yaml:5: models[0].objective.adversary: `method: fgsm_rs` takes one step: leave `steps` out, or choose "
         "`pgd_at`"),
        ("{name: ce}", "{name: ce, adversary: {method: trades, eps: 0.1, loss: margin}}",
         "x.yaml:5: models[0].objective.adversary: `loss` has no effect with `method: trades`, whose attack raises KL: "
         "leave it out"),
        ("{name: ce}", "{name: ce, adversary: {method: mart, eps: 0.1, random_start: false}}",
         "x.yaml:5: models[0].objective.adversary: `method: mart` has a random start of its own: leave `random_start` "
         "out"),
        ("{name: ce}", "{name: ncmi_alone, adversary: {method: mart, eps: 0.1}}",
         "x.yaml:5: models[0].objective.adversary.method: mart boosts a cross entropy, and ncmi_alone lowers none: "
         "choose pgd_at or trades"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1, robust_cmi: {lambda: 0}}}",
         "x.yaml:5: models[0].objective.adversary.robust_cmi.lambda: should be above 0, not 0: the second adversary "
         "divides beta by it"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1, robust_cmi: {horizon: 0.1, momentum: 0.9}}}",
         "x.yaml:5: models[0].objective.adversary.robust_cmi: `horizon` and `momentum` say the same in two ways: leave "
         "out one of the two"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1, robust_cmi: {weight: 1}}}",
         "x.yaml:5: models[0].objective.adversary.robust_cmi.weight: unknown key; known here: lambda, beta, momentum, "
         "horizon, alpha, steps"),
        ("{name: cmic}", "{name: cmic, adversary: {steps: 3}}",
         "x.yaml:6: models[1].objective.adversary.eps: this key is missing"),
        ("{name: cmic}", "{name: cmic, adversary: pgd}",
         "x.yaml:6: models[1].objective.adversary: should be a mapping of keys to values, not 'pgd'"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0}}",
         "x.yaml:5: models[0].objective.adversary.eps: should be greater than 0, not 0"),
        ("{name: ce}", "{name: ce, adversary: {eps: 8}}",
         "x.yaml:5: models[0].objective.adversary.eps: 8 is outside [0, 1], the range of the images; in pixel units? "
         "then write 8/255"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1, alpha: eps/0}}",
         "x.yaml:5: models[0].objective.adversary.alpha: divides by zero"),
        ("{name: ce}", "{name: ce, adversary: {norm: l2, eps: 1e300, alpha: 1e300*eps}}",
         "x.yaml:5: models[0].objective.adversary: should be a finite number, not 1e300*eps"),
        ("{name: ce}", "{name: ce, adversary: {norm: l2, eps: 1e308}}",
         "x.yaml:5: models[0].objective.adversary: should be a finite number, not 2.5*eps/10"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1, loss: cmic}}",
         "x.yaml:5: models[0].objective.adversary.loss: should be 'ce', 'margin' or 'dlr', not 'cmic'"),
        ("{name: cmic}", "{name: cmic, adversary: {norm: l2, eps: 0.5}}",
         "x.yaml:7: pairs[0]: unfair: 'a' and 'b' differ in adversary (none, {norm: l2, eps: 0.5, steps: 10, "
         "loss: ce, random_start: True}); only the objective may, or its adversary"),
        ("{name: ce}", "{name: ce, adversary: {eps: 0.1}}",
         "x.yaml:7: pairs[0]: unfair: 'a' and 'b' differ in adversary ({norm: linf, eps: 0.1, steps: 10, "
         "loss: ce, random_start: True}, none); only the objective may, or its adversary"),
        ("architecture: mlp, objective: {name: ce}",
         "architecture: mlp, normalization: {means: [0], std: [1]}, objective: {name: ce}",
         "x.yaml:5: models[0].normalization.means: unknown key; did you mean 'mean'?"),
        ("{name: digits}", "{name: digitz}",
         "x.yaml:2: dataset: unknown name 'digitz'; did you mean 'digits'?"),
        ("dataset: {name: digits}", "dataset: [digits]",
         "x.yaml:2: dataset: should be a mapping of keys to values, not a list"),
        ("epochs: 2", "epochs: 0", "x.yaml:3: training.epochs: should be at least 1, not 0"),
        ("epochs: 2", "epochs: 2.5", "x.yaml:3: training.epochs: should be a whole number, not 2.5"),
        ("epochs: 2", "epochs: yes", "x.yaml:3: training.epochs: should be a whole number, not 'yes'"),
        ("epochs: 2, ", "", "x.yaml:3: training.epochs: this key is missing"),
        ("lr: 0.1", "lr: -1/2", "x.yaml:3: training.optimizer.lr: should be greater than 0, not '-1/2'"),
        ("lr: 0.1", "lr: 0.1, momentum: 1", "x.yaml:3: training.optimizer.momentum: should be less than 1, not 1"),
        ("lr: 0.1", "lr: 1/0", "x.yaml:3: training.optimizer.lr: divides by zero"),
        ("lr: 0.1", "lr: true", "x.yaml:3: training.optimizer.lr: should be a number such as 0.1 or 8/255, not true"),
        ("architecture: mlp, objective: {name: ce}", "architecture: mpl, objective: {name: ce}",
         "x.yaml:5: models[0].architecture: unknown architecture 'mpl'; did you mean 'mlp'?"),
        ("architecture: mlp, objective: {name: ce}",
         "architecture: mlp, zero_init_residual: false, objective: {name: ce}",
         "x.yaml:5: models[0].architecture: `zero_init_residual: false` is for timm's ResNets (resnet18, say); mlp has "
         "no such option"),
        ("architecture: mlp, objective: {name: ce}",
         "architecture: resnet18, weights: '{seed}', zero_init_residual: false, objective: {name: ce}",
         "x.yaml:5: models[0].zero_init_residual: has no effect on given weights: leave it out"),
        ("architecture: mlp, objective: {name: ce}",
         "architecture: resnet18, zero_init_residual: false, objective: {name: ce}",
         "x.yaml:7: pairs[0]: unfair: 'a' and 'b' differ in architecture (resnet18, mlp), zero_init_residual (False, "
         "True); only the objective may, or its adversary"),
        ("epochs: 2", "augmentation: {rotation: 200}, epochs: 2",
         "x.yaml:3: training.augmentation.rotation: should be at most 180, not 200"),
        ("epochs: 2", "augmentation: {jitter: -1}, epochs: 2",
         "x.yaml:3: training.augmentation.jitter: should be at least 0, not -1"),
        ("epochs: 2", "select: best, epochs: 2",
         "x.yaml:3: training: `select: best` needs `held_out`, a share of the training images such as 0.1, or a "
         "number"),
        ("epochs: 2", "held_out: 0.1, epochs: 2",
         "x.yaml:3: training: `held_out` has no effect without `select: best`: leave it out"),
        ("epochs: 2", "select: best, held_out: 2.5, epochs: 2",
         "x.yaml:3: training: `held_out` should be a share below 1 or a number of images, not 2.5"),
        ("epochs: 2", "select: best, held_out: 99, limit: 100, epochs: 2",
         "x.yaml:3: training: `held_out` leaves fewer than two of the 100 images of `limit` to learn from"),
        ("epochs: 2", "select: best, held_out: 0, epochs: 2",
         "x.yaml:3: training.held_out: should be greater than 0, not 0"),
        ("epochs: 2", "select: first, epochs: 2",
         "x.yaml:3: training.select: should be 'last' or 'best', not 'first'"),
        ("id: b", "id: a", "x.yaml:6: models[1].id: the id 'a' is taken by models[0]: ids are unique"),
        ("id: b", "id: 7", "x.yaml:6: models[1].id: should be text (quote it if it looks like a number), not 7"),
        ("id: b", "id: ../b", "x.yaml:6: models[1].id: should be letters, digits, '_', '.', '+', '-', the first a "
         "letter or digit, not '../b'"),
        ("[[a, b]]", "[[a, c]]", "x.yaml:7: pairs[0][1]: no model has the id 'c'; known here: a, b"),
        ("[[a, b]]", "[[a, a]]", "x.yaml:7: pairs[0]: pairs 'a' with itself"),
        ("[[a, b]]", "[[a, b], [a, b]]", "x.yaml:7: pairs[1]: the pair of 'a' and 'b' is listed twice"),
        ("[[a, b]]", "[[a]]", "x.yaml:7: pairs[0]: should have at least 2 entries, not 1"),
        ("id: b, architecture: mlp", "id: b, architecture: small_cnn",
         "x.yaml:7: pairs[0]: unfair: 'a' and 'b' differ in architecture (mlp, small_cnn); "
         "only the objective may, or its adversary"),
        ("[0, 1]", "[0, 0]", "x.yaml:8: seeds[1]: the seed 0 is listed twice"),
        ("[0, 1]", "[]", "x.yaml:8: seeds: should have at least 1 entries, not 0"),
        ("[0, 1]", "3", "x.yaml:8: seeds: should be a list, not 3"),
        ("eps: 0.1", "eps: 8", "x.yaml:10: attacks[0].eps: 8 is outside [0, 1], the range of the images; in pixel "
         "units? then write 8/255"),
        ("eps: 0.1", "eps: -0.1", "x.yaml:10: attacks[0].eps: should be at least 0, not -0.1"),
        ("eps: 0.1", "eps: [0.1, .nan]", "x.yaml:10: attacks[0].eps[1]: should be a finite number, not nan"),
        ("eps: 0.1", "eps: [0.1, 1/10]", "x.yaml:10: attacks[0].eps[1]: eps 0.1 is listed twice"),
        ("{name: FGSM, eps: 0.1}", "{name: FGSM}", "x.yaml:10: attacks[0].eps: this key is missing"),
        ("{name: FGSM, eps: 0.1}", "{name: FGMS, eps: 0.1}",
         "x.yaml:10: attacks[0].name: unknown attack 'FGMS'; did you mean 'FGSM'?"),
        ("{name: FGSM, eps: 0.1}", "{name: [FGSM], eps: 0.1}",
         "x.yaml:10: attacks[0].name: should be text (quote it if it looks like a number), not a list"),
        ("{name: FGSM, eps: 0.1}", "{name: FGSM, eps: 0.1, step: 3}",
         "x.yaml:10: attacks[0].step: unknown key; known here: name, id, norm, eps, samples, loss"),
        ("{name: FGSM, eps: 0.1}", "{name: PGD, eps: 0.1, alpha: eps/0}",
         "x.yaml:10: attacks[0].alpha: divides by zero"),
        ("{name: FGSM, eps: 0.1}", "{name: PGD, eps: 0.1, alpha: epsilon}",
         "x.yaml:10: attacks[0].alpha: should be a number such as 0.01 or eps/10, not 'epsilon'"),
        ("{name: FGSM, eps: 0.1}", "{name: APGDT, eps: 0.1, n_restart: 2}",
         "x.yaml:10: attacks[0].n_restart: APGDT has no such parameter; did you mean 'n_restarts'?"),
        ("{name: FGSM, eps: 0.1}", "{name: APGDT, eps: 0.1, steps: many}",
         "x.yaml:10: attacks[0].steps: should be a number, not 'many'"),
        ("{name: FGSM, eps: 0.1}", "{name: APGDT, eps: 0.1, steps: 2.5}",
         "x.yaml:10: attacks[0].steps: should be a whole number of at least 1, not 2.5"),
        ("{name: FGSM, eps: 0.1}", "{name: APGD, eps: 0.1, loss: banana}",
         "x.yaml:10: attacks[0].loss: should be ce or dlr, not 'banana'"),
        ("{name: FGSM, eps: 0.1}", "{name: PGD, eps: 0.1, alpha: -0.1}",
         "x.yaml:10: attacks[0].alpha: should be at least 0, not -0.1"),
        ("{name: FGSM, eps: 0.1}", "{name: PGD, eps: 0.1, alpha: -1*eps}",
         "x.yaml:10: attacks[0].alpha: should be at least 0, not -1*eps"),
        ("lr: 0.1", "lr: 0.1, momentum: 0, nesterov: true",
         "x.yaml:3: training.optimizer: `nesterov` needs a `momentum` above 0"),
        ("architecture: mlp, objective: {name: ce}", "architecture: mpl, objective: {name: cee}",
         "x.yaml:5: models[0].architecture: unknown architecture 'mpl'; did you mean 'mlp'?"),
        ("{name: FGSM, eps: 0.1}", "{name: APGDT, eps: 0.1, seed: 3}",
         "x.yaml:10: attacks[0].seed: cannot be set: the harness seeds every block of examples"),
        ("{name: FGSM, eps: 0.1}", "{name: APGDT}", "x.yaml:10: attacks[0]: APGDT needs `eps`, the radius of the ball"),
        ("{name: FGSM, eps: 0.1}", "{name: CW, c: 1}",
         "x.yaml:10: attacks[0]: CW has no eps of its own: give `norm` and `eps`, the ball to judge it in"),
        ("{name: FGSM, eps: 0.1}", "{name: CW, norm: l2, eps: 0.5, c: .inf}",
         "x.yaml:10: attacks[0].c: should be a finite number, not inf"),
        ("[0, 1]", "[0, 1]\naudit: lax", "x.yaml:9: audit: should be 'strict', 'standard' or 'off', not 'lax'"),
        ("[0, 1]", "[0, 1]\nclaims: {margin: 0}", "x.yaml:9: claims.margin: should be greater than 0, not 0"),
        ("[0, 1]", "[0, 1]\nclaims: {margin: 101}", "x.yaml:9: claims.margin: should be at most 100, not 101"),
        ("[0, 1]", "[0, 1]\nclaims: {margn: 1}", "x.yaml:9: claims.margn: unknown key; did you mean 'margin'?"),
        ("[0, 1]", "[0, 1]\nclaims: 2", "x.yaml:9: claims: should be a mapping of keys to values, not 2"),
        ("[0, 1]", "[0, 1]\naudit: true", "x.yaml:9: audit: should be 'strict', 'standard' or 'off', not true"),
        ("{name: FGSM, eps: 0.1}", "{name: PGD, eps: 0.1, targets: -1}",
         "x.yaml:10: attacks[0].targets: should be at least 0, not -1"),
        ("{name: FGSM, eps: 0.1}", "{name: PGD, eps: 0.1, schedule: exponential}",
         "x.yaml:10: attacks[0].schedule: should be 'constant', 'linear' or 'cosine', not 'exponential'"),
        ("{name: FGSM, eps: 0.1}", "{name: Transfer, eps: 0.1, sources: nobody}",
         "x.yaml:10: attacks[0].sources: should be 'all' or 'pairs', not 'nobody'"),
        ("{name: FGSM, eps: 0.1}", "{name: AutoAttack, eps: 0.1, queries: 0}",
         "x.yaml:10: attacks[0].queries: should be at least 1, not 0"),
        ("{name: FGSM, eps: 0.1}", "{name: AutoAttack, eps: 0.1, n_classes: 10}",
         "x.yaml:10: attacks[0].n_classes: unknown key; known here: name, id, norm, eps, samples, targets, steps, "
         "queries, ascending"),
        ("{name: FGSM, eps: 0.1}", "{name: Noise, eps: 0.1, samples: 0}",
         "x.yaml:10: attacks[0].samples: should be at least 1, not 0"),
        ("{name: FGSM, eps: 0.1}", "{name: PGDL2, norm: linf, eps: 0.1}",
         "x.yaml:10: attacks[0]: PGDL2 is an l2 attack; leave `norm` out"),
        ("{name: FGSM, eps: 0.1}", "{name: MultiAttack, eps: 0.1}", "x.yaml:10: attacks[0].name: unknown attack "
         "'MultiAttack'; did you mean 'AutoAttack'?"),
        ("  - {name: FGSM, eps: 0.1}", "  - {name: FGSM, eps: 0.1}\n  - {name: FGSM, eps: 0.2}",
         "x.yaml:11: attacks[1]: attacks[0] is named 'FGSM' too: give one of them another `id`"),
        ("{name: FGSM, eps: 0.1}", "{name: FGSM, id: none, eps: 0.1}",
         "x.yaml:10: attacks[0]: 'none' is the name of the clean evaluation: choose another id"),
        ("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [2]",
         "x.yaml:9: seeds: duplicate key; the first is on line 8: keep one"),
        ("seeds: [0, 1]", "sedes: [0, 1]", "x.yaml:8: sedes: unknown key; did you mean 'seeds'?"),
        ("{name: digits}", "!!python/object/new:os.system [true]",
         "x.yaml:2: dataset: the tag tag:yaml.org,2002:python/object/new:os.system is not allowed: plain YAML only"),
    ],
)  # fmt: skip
def test_every_mistake_gets_its_sentence(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert expected in errors(tmp_path, replaced(old, new))


def adversaries(first: str, second: str) -> str:
    """The good suite, both models trained adversarially."""
    text = replaced("{name: ce}", f"{{name: ce, adversary: {{{first}}}}}")
    return text.replace("{name: cmic}", f"{{name: cmic, adversary: {{{second}}}}}")


def test_adversarial_training_of_a_pair(tmp_path: Path) -> None:
    """The same adversary, however it is written, makes a fair pair; another one does not."""
    loaded = load(tmp_path, adversaries("eps: 8/255, alpha: eps/4", "eps: 8/255, norm: linf, alpha: 2/255"))
    assert loaded.warnings == []
    assert load(tmp_path, adversaries("eps: 0.1", "eps: 0.1, alpha: 2.5*eps/10")).warnings == []
    for other in ("eps: 0.2", "eps: 0.1, norm: l2", "eps: 0.1, steps: 5", "eps: 0.1, alpha: eps/3",
                  "eps: 0.1, loss: margin", "eps: 0.1, random_start: false", "eps: 0.1, method: mart"):  # fmt: skip
        assert (
            "pairs[0]: unfair: 'a' and 'b' differ in adversary" in errors(tmp_path, adversaries("eps: 0.1", other))[0]
        )


def test_a_pair_may_differ_in_the_adversary_of_one_objective(tmp_path: Path) -> None:
    against = "id: b, architecture: mlp, objective: {name: ce, adversary: {eps: 0.1}}"
    fair = replaced("id: b, architecture: mlp, objective: {name: cmic}", against)
    assert [list(pair) for pair in load(tmp_path, fair).suite.pairs] == [["a", "b"]]
    assert "unfair" in errors(tmp_path, fair.replace("{name: ce}", "{name: ce, label_smoothing: 0.1}"))[0]


def test_a_pair_may_differ_in_robust_cmi(tmp_path: Path) -> None:
    """It adds to the loss, as an objective does; it is not another adversary of the method."""
    with_it = "method: trades, eps: 0.1, robust_cmi: {horizon: 0.1}"
    assert load(tmp_path, adversaries("method: trades, eps: 0.1", with_it)).warnings == []
    assert "unfair" in errors(tmp_path, adversaries("eps: 0.1", with_it))[0]
    (warning,) = load(tmp_path, adversaries("method: trades, eps: 0.1", with_it.replace("horizon: 0.1", ""))).warnings
    assert warning.text("x.yaml") == (
        "x.yaml:6: models[1].objective.adversary.robust_cmi.momentum: the momentum 0.9999 leaves 97 % of the untrained "
        "network in the centroids after 270 steps: lower it, or give a `horizon` (0.1, say) in its place"
    )


def test_robust_training_keeps_the_best_epoch_unless_told_otherwise(tmp_path: Path) -> None:
    def trainings(changes: str, text: str) -> list[dict[str, Any]]:
        text = text.replace("epochs: 2", f"epochs: 2{changes}")
        return [cell.declared["training"] for cell in make_plan(load(tmp_path, text).suite).of("train")]

    robust = adversaries("eps: 0.1", "eps: 0.1")
    for text, changes, kept in (
        (replaced("", ""), "", None),
        (robust, "", 0.1),
        (replaced("{name: ce}", "{name: ce, adversary: {eps: 0.1}}").replace("pairs: [[a, b]]\n", ""), "", 0.1),
        (robust, ", held_out: 0.2", 0.2),
        (robust, ", select: best, held_out: 0.3", 0.3),
        (robust, ", select: last", None),
    ):
        for declared in trainings(changes, text):
            assert (declared.get("select"), declared.get("held_out")) == ("best" if kept else None, kept)


def test_adversaries_of_given_weights(tmp_path: Path) -> None:
    """Weights carry the objective that they were trained with; where it is not told, nothing is held against them."""
    (tmp_path / "a-0.safetensors").touch()
    (tmp_path / "a-1.safetensors").touch()
    text = replaced("{name: cmic}", "{name: cmic, adversary: {eps: 0.1}}")
    unknown = text.replace("objective: {name: ce}", "weights: 'a-{seed}.safetensors'")
    assert load(tmp_path, unknown).suite.pairs == [["a", "b"]]
    known = text.replace("objective: {name: ce}", "weights: 'a-{seed}.safetensors', objective: {name: ce}")
    assert "unfair" in errors(tmp_path, known)[0]


def test_an_adversary_that_cannot_reach_the_edge_is_warned_of(tmp_path: Path) -> None:
    text = adversaries("eps: 0.1, alpha: eps/10, steps: 7", "eps: 0.1, alpha: 0.01, steps: 7")
    assert [problem.text("x.yaml") for problem in load(tmp_path, text).warnings] == [
        f"x.yaml:{line}: models[{index}].objective.adversary.alpha: alpha * steps is 0.07: cannot reach the edge "
        "of the ball at eps 0.1"
        for index, line in enumerate((5, 6))
    ]


def test_a_warm_up_that_fills_the_training_is_warned_of(tmp_path: Path) -> None:
    text = replaced("objective: {name: ce}", "objective: {name: cmi_over_gamma, warmup_epochs: 2}")
    assert [problem.text("x.yaml") for problem in load(tmp_path, text).warnings] == [
        "x.yaml:5: models[0].objective.warmup_epochs: 2 of 2 epochs: all of the training is cross entropy"
    ]
    assert load(tmp_path, text.replace("warmup_epochs: 2", "warmup_epochs: 1")).warnings == []


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = replaced("epochs: 2", "epochs: 0").replace("id: b", "id: a").replace("eps: 0.1", "eps: 8, step: 1")
    text = text.replace("[[a, b]]", "[[a, zz]]").replace("seeds: [0, 1]", "seeds: [1, 1]\nseeds: [1]")
    found = errors(tmp_path, text)
    assert [int(line.split(":")[1]) for line in found] == [3, 6, 7, 8, 9, 11]


def test_every_radius_that_is_wrong_is_told(tmp_path: Path) -> None:
    text = replaced("{name: FGSM, eps: 0.1}", "{name: FGSM, eps: [-0.05, 8/0, 8]}")
    assert [line.partition(": attacks[0].")[2] for line in errors(tmp_path, text)] == [
        "eps[1]: divides by zero",
        "eps[0]: should be at least 0, not -0.05",
        "eps[2]: 8 is outside [0, 1], the range of the images; in pixel units? then write 8/255",
    ]


def test_a_large_number_is_told_as_it_was_written(tmp_path: Path) -> None:
    (line,) = errors(tmp_path, replaced("epochs: 2", "epochs: 1e9"))
    assert line.endswith("training.epochs: should be a whole number, not 1e9")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n"])
def test_no_mapping_no_suite(tmp_path: Path, text: str) -> None:
    assert errors(tmp_path, text) == [
        "x.yaml:1: a suite is a mapping that begins with the line `suite: NAME`, not a list or a single value"
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seeds: [0, 1]", f"seeds: {list(range(1000))}", "x.yaml:1: asks for 606000 trainings and evaluations"),
        ("[[a, b]]", f"[{', '.join(['[a, b]'] * 300)}]", "pairs: asks for 30000 pairs; more than 10000 are no suite"),
        ("epochs: 2", f"epochs: 1{'0' * 400}", "training.epochs: should be at most 10000000, not 1000000"),
        ("epochs: 2", "epochs: !!int ''", "training.epochs: '' does not fit its tag"),
        ("  - {name: FGSM, eps: 0.1}", "  !!seq PGD", "attacks: the tag tag:yaml.org,2002:seq is not allowed"),
    ],
)
def test_suites_that_would_exhaust_the_machine_are_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    text = replaced(old, new)
    if "asks for" in expected:
        grid = f"matrix: {{objective.lambda: {list(range(10))}, objective.beta: {list(range(10))}}}"
        text = text.replace("objective: {name: cmic}", f"objective: {{name: cmic}}, {grid}")
        text = text.replace("eps: 0.1", f"eps: {[i / 100 for i in range(4)]}") if "seeds" in old else text
    found = errors(tmp_path, text)
    assert any(expected in line for line in found), found
    assert all(len(line) < 1000 for line in found)


def test_words_of_a_suite_cannot_steer_the_terminal(tmp_path: Path) -> None:
    found = errors(tmp_path, replaced("[[a, b]]", '[[a, "\\e[31mx\\nAll is valid"]]'))
    assert found == ["x.yaml:7: pairs[0][1]: no model has the id '\\x1b[31mx\\nAll is valid'; known here: a, b"]


def test_warnings(tmp_path: Path) -> None:
    text = replaced("{name: FGSM, eps: 0.1}", "{name: PGD, eps: [0.1, 0.2], alpha: 0.01, steps: 12}")
    text = text.replace("lr: 0.1}", "lr: 0.1}, schedule: {name: multistep, milestones: [1, 2]}")
    messages = [problem.text("x.yaml") for problem in load(tmp_path, text).warnings]
    assert messages == [
        "x.yaml:10: attacks[0].alpha: alpha * steps is 0.12: cannot reach the edge of the ball at eps 0.2",
        "x.yaml:3: training.schedule.milestones[1]: epoch 2 is never reached: training has 2",
    ]


def test_autoattack_is_the_standard_one(tmp_path: Path) -> None:
    loaded = load(tmp_path, replaced("{name: FGSM, eps: 0.1}", "{name: AutoAttack, eps: 0.1}"))
    attack = loaded.suite.attacks[0]
    assert isinstance(attack, AutoAttack)
    assert (attack.label, attack.norm, attack.targets, attack.steps, attack.queries) == (
        "AutoAttack", "linf", 9, 100, 5000,
    )  # fmt: skip
    assert loaded.warnings == []


def test_transfers_and_noise_have_defaults(tmp_path: Path) -> None:
    text = replaced("{name: FGSM, eps: 0.1}", "{name: Transfer, eps: 0.1}\n  - {name: Noise, eps: 0.1}")
    transfer, noise = load(tmp_path, text).suite.attacks
    assert isinstance(transfer, Transfer)
    assert isinstance(noise, Noise)
    assert (transfer.sources, transfer.steps, transfer.loss, noise.samples) == ("all", 40, "margin", 100)
    assert load(tmp_path, text).suite.audit == "standard"


@pytest.mark.parametrize("level", ["strict", "standard", '"off"', "off"])
def test_levels_of_the_audit(tmp_path: Path, level: str) -> None:
    """Unquoted, too: `off` is a truth value to YAML 1.1, and a word here."""
    assert load(tmp_path, f"{GOOD}audit: {level}\n").suite.audit == level.strip('"')


def test_class_batches_have_the_momentum_of_the_paper(tmp_path: Path) -> None:
    for text, momentum in (
        ("name: cmic", 0.99),
        ("name: cmic, centroids: class_batches", 0.9999),
        ("name: cmic, centroids: class_batches, momentum: 0.5", 0.5),
    ):
        objective = load(tmp_path, replaced("name: cmic", text)).suite.models[1].objective
        assert isinstance(objective, CmicObjective)
        assert objective.declared()["momentum"] == momentum


def test_matrix_expands_into_models_and_pairs(tmp_path: Path) -> None:
    text = replaced(
        "objective: {name: cmic}}",
        "objective: {name: cmic}, matrix: {objective.lambda: [1/2, 1], objective.beta: [0]}}",
    )
    suite = load(tmp_path, text).suite
    assert [model.id for model in suite.models] == ["a", "b-lambda0.5-beta0", "b-lambda1-beta0"]
    assert suite.pairs == [["a", "b-lambda0.5-beta0"], ["a", "b-lambda1-beta0"]]
    weights = [model.objective.lambda_ for model in suite.models if isinstance(model.objective, CmicObjective)]
    assert weights == [0.5, 1.0]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ("{objective.lamda: [1]}", "models[1].matrix.objective.lamda[0]: unknown key; did you mean 'lambda'?"),
        ("{objective.beta: [1, -1]}", "models[1].matrix.objective.beta[1]: should be at least 0, not -1"),
        ("{objective.lambda: 1}", "models[1].matrix.objective.lambda: should be a list of values, not 1"),
        ("{objective.lambda: [1, 1]}", "models[1].matrix.objective.lambda: a value is listed twice"),
        ("{epochs: [1]}", "models[1].matrix.epochs: a matrix varies `architecture`, `width`, `depth` or a parameter "
         "such as `objective.lambda`"),
        ("[1]", "models[1].matrix: should be a mapping such as {objective.lambda: [0.1, 0.7]}"),
        ("{objective.lambda: [" + ", ".join(map(str, range(1001))) + "]}", "models[1].matrix: expands to more than "
         "1000 models"),
    ],
)  # fmt: skip
def test_mistakes_in_a_matrix_are_found_where_they_stand(tmp_path: Path, matrix: str, expected: str) -> None:
    text = replaced("objective: {name: cmic}}", f"objective: {{name: cmic}}, matrix: {matrix}}}")
    assert f"x.yaml:6: {expected}" in errors(tmp_path, text)


def test_an_unfair_matrix_is_refused(tmp_path: Path) -> None:
    text = replaced("objective: {name: cmic}}", "objective: {name: cmic}, matrix: {architecture: [mlp, small_cnn]}}")
    assert errors(tmp_path, text) == [
        "x.yaml:7: pairs[0]: unfair: 'a' and 'b-architecture-small_cnn' differ in architecture (mlp, small_cnn); "
        "only the objective may, or its adversary"
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), (" 1e-3 / 2", 5e-4), ("-.5", -0.5), (3, 3.0), ("3.", 3.0)]
)
def test_numbers(text: object, value: float) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize("text", ["1/2/3", "", "eps", "inf", "nan", "1e999", "__import__('os')", None, [1], 10**400])
def test_no_numbers(text: object) -> None:
    with pytest.raises(ValueError, match=r"should be a (finite )?number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("eps/10", 0.02), ("eps", 0.2), ("2.5*eps/40", 0.0125), ("0.1 * eps", 0.02), ("eps*3", 0.6), (0.7, 0.7)],
)
def test_steps_relative_to_eps(text: float | str, value: float) -> None:
    assert resolve_relative(text, 0.2) == pytest.approx(value)


def test_l2_balls_may_be_larger_than_one(tmp_path: Path) -> None:
    suite = load(tmp_path, replaced("{name: FGSM, eps: 0.1}", "{name: PGD, norm: l2, eps: 1.5}")).suite
    attack = suite.attacks[0]
    assert isinstance(attack, PGD)
    assert attack.eps == [1.5]


def test_names_in_the_schema_are_those_that_exist() -> None:
    assert {"ce", "cmic"} <= set(OBJECTIVES)
    places = [objective.implementation for objective in OBJECTIVES.values()]
    places += [dataset.implementation for dataset in DATASETS.values()]
    for place in [*ARCHITECTURES.values(), *places]:
        assert callable(pkgutil.resolve_name(place))


def test_committed_json_schema_is_current() -> None:
    text = suite_json_schema()
    assert (ROOT / "docs" / "suite.schema.json").read_text() == text, "run `robustbench-cmic schema --output ...`"
    definitions = json.loads(text)["$defs"]
    assert "lambda" in definitions["CmicObjective"]["properties"]


@pytest.mark.parametrize("name", sorted(shipped_suites()))
def test_suites_fit_the_json_schema_that_editors_check_them_by(name: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(suite_json_schema()))
    suite = read_document(shipped_suites()[name]).data
    assert [error.message for error in validator.iter_errors(suite)] == []
    own = {"name": "my_package.my_module:attack", "norm": "l2", "eps": "8/255", "anything": [1]}
    assert isinstance(suite, dict)
    suite["models"][0]["objective"] = {"name": "my_module:Mine", "anything": "1/2", "adversary": {"eps": 0.1}}
    assert validator.is_valid(suite | {"attacks": [own]})
    assert not validator.is_valid(suite | {"attacks": [{"name": "my_module:attack", "eps": 0.1}]})
    assert not validator.is_valid(suite | {"attacks": [{"name": "FGSM", "eps": 0.1, "step": 3}]})
    suite["models"][0]["objective"] = {"name": "mine", "anything": 1}
    assert not validator.is_valid(suite)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_edit_of_a_suite_ends_in_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    """Cut, repeat or replace any piece of a suite: the answer is a suite or a SuiteError, nothing else."""
    start = data.draw(st.integers(0, len(GOOD)))
    stop = data.draw(st.integers(start, min(len(GOOD), start + 30)))
    filler = data.draw(
        st.sampled_from(
            ["", "\n", "[", "}", "- ", ": ", "&a *a", "~", "1e9", "'", "name: ", "{}", "\x07", "é", "!!int "]
        )
    )
    path = tmp_path / "edited.yaml"
    path.write_text(GOOD[:start] + filler + GOOD[stop:])
    try:
        loaded = load_suite(path)
    except SuiteError:
        return
    assert loaded.suite.models
