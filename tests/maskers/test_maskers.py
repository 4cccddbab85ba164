"""The audit on broken and on honest models, through the real command line: a fast part of `tests.maskers.table`."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from robustbench_cmic.models.build import Normalize
from robustbench_cmic.plan.audit import plan_audit
from robustbench_cmic.report import summarize
from robustbench_cmic.suite import load_suite
from robustbench_cmic.suite.fields import Threat
from tests.maskers.base import Plain, digits
from tests.maskers.classic import (
    BatchNormInTrainMode,
    Detached,
    LogitsTimes10000,
    NegatedGradients,
    NoisyInputs,
    SoftmaxAsLogits,
)
from tests.maskers.gradients import GRADIENTS, Checkerboard
from tests.maskers.honest import linear
from tests.maskers.logits import LOGITS
from tests.maskers.suites import AUTOATTACK, PLAIN, Found, honest_suite, only, run_all, with_autoattack
from tests.maskers.switches import (
    SWITCHES,
    HonestAmongClean,
    HonestAtFirst,
    HonestCopy,
    HonestForDarkImages,
    HonestInFloat64,
    HonestInSmallBatches,
    HonestOnBlack,
    HonestOnGrid,
    HonestUnderHooks,
)
from tests.maskers.table import Row, page, raised_flags, rows_of, wrong
from tests.maskers.truth import decisions, true_accuracy
from tests.maskers.zoo import MASKERS

CHOSEN = {
    LogitsTimes10000: "saturated",
    SoftmaxAsLogits: "probabilities",
    NoisyInputs: "random-forward",
    BatchNormInTrainMode: "batch-dependent",
    Detached: "zero-gradients",
    NegatedGradients: "misleading-gradients",
}
BALL = Threat("linf", 0.1)


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """One seed, one radius, one honest model, some maskers around it."""
    honest = honest_suite()
    honest |= {"models": honest["models"][:1], "seeds": [0], "evaluation": {"limit": 120, "per_class": True}}
    kept = ("FGSM", "PGD", "PGD-margin")
    honest["attacks"] = [
        attack | {"eps": [0.1]} for attack in honest["attacks"] if attack.get("id", attack["name"]) in kept
    ]
    # What needs no gradient gives a result where there is none.
    honest["attacks"].append({"name": "Noise", "eps": [0.1], "samples": 50})
    return run_all(honest, tmp_path, tuple(CHOSEN), ["plain", *(masker.__name__ for masker in CHOSEN)])


def test_every_masker_is_flagged_for_what_is_wrong_and_the_honest_model_is_not(found: Found, tmp_path: Path) -> None:
    rows = rows_of(found, tmp_path)
    # The flag of saturation is about cross entropy; its worst case rests on one attack on the margin, and on 120
    # examples it is some points too high without a flag.
    judged = [row for row in rows if row.model != "LogitsTimes10000"]
    assert wrong(judged, found) == []
    assert "over the truth, points" in page({"of a part": (rows, found)})
    assert raised_flags(found["honest"]) == {"plain": {0: set()}}
    plain, negated = (next(row for row in rows if row.model == name) for name in ("plain", "NegatedGradients"))
    assert plain.truth == negated.truth
    # The attacks of the suite find nothing; those of the audit without gradients, which count, find nearly all.
    attacks = [cell for cell in found["maskers"].plan.of("attack") if cell.model == "NegatedGradients" and cell.norm]
    records = [found["maskers"].attack(cell.id) for cell in attacks]
    least = min(record.accuracy or 0.0 for record in records if record is not None)
    assert negated.truth is not None
    assert negated.reported is not None
    assert negated.truth <= negated.reported < negated.truth + 0.1 < negated.truth + 0.2 < least
    flags = raised_flags(found["maskers"])
    missing = {masker.__name__ for masker, flag in CHOSEN.items() if flag not in flags[masker.__name__][0]}
    assert missing == set(), "each flag says what is wrong"
    ranks = {entry.model: entry.rank for entry in summarize(found["maskers"]).standings[BALL]}
    assert ranks["NoisyInputs"] is ranks["NegatedGradients"] is None


def _row(broken: bool, reported: float | None, *flags: str) -> Row:
    return Row("model", 0, BALL, broken, reported, 0.5, flags, ())


def test_what_the_audit_does_wrong() -> None:
    right = [_row(True, 0.52), _row(True, 0.9, "saturated"), _row(True, None), _row(False, 0.52)]
    right.append(_row(False, 0.9, "not-converged"))
    assert [row.problem for row in right] == [None] * len(right)
    false = (_row(True, 0.54), _row(False, 0.5, "saturated"))
    assert [row.problem is not None for row in false] == [True] * 2


def _behind_normalisation(network: nn.Module) -> nn.Sequential:
    return nn.Sequential(Normalize(*digits().moments), network).eval()


@pytest.mark.parametrize("masker", [*GRADIENTS, *LOGITS, *SWITCHES], ids=lambda masker: masker.__name__)
def test_a_masker_decides_as_the_plain_network_does_near_its_images_too(masker: type[Plain]) -> None:
    torch.manual_seed(0)
    plain, masked = (_behind_normalisation(build((1, 8, 8), 10)) for build in (Plain, masker))
    masked.load_state_dict(plain.state_dict())
    images = torch.from_numpy(digits().test.images[:40])
    images = torch.cat([images, (images + 0.1 * torch.randn_like(images)).clamp(0, 1)])
    with torch.no_grad():
        logits = masked(images)
    assert torch.equal(decisions(masked, images), plain(images).argmax(1))
    # What the judge sees in a batch is the same decision.
    assert torch.equal(logits.argmax(1), plain(images).argmax(1))


def _gradient(model: nn.Module, images: Tensor) -> Tensor:
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)
    return gradient


CLEAN = torch.from_numpy(digits().test.images[:80])
MOVED = (CLEAN + 0.013).clamp(0, 0.99)
SWITCHED: dict[type[Plain], tuple[Tensor, Tensor]] = {
    HonestInSmallBatches: (MOVED[:64], MOVED[:65]),
    HonestOnGrid: (CLEAN, MOVED),
    HonestForDarkImages: (0.5 * CLEAN, (0.5 + CLEAN).clamp(0, 1)),
    HonestOnBlack: (CLEAN[(CLEAN == 0).flatten(1).sum(1) >= 24], MOVED),
    HonestAmongClean: (torch.cat([MOVED[:1], CLEAN]), torch.cat([CLEAN[:1], MOVED])),
}
"""Images among which a masker is honest, and others."""


@pytest.mark.parametrize("masker", list(SWITCHED), ids=lambda masker: masker.__name__)
def test_a_switch_hides_the_gradient_where_it_says_so_alone(masker: type[Plain]) -> None:
    model = _behind_normalisation(masker((1, 8, 8), 10))
    plain = _plain_of(model)
    shown, hidden = SWITCHED[masker]
    assert torch.equal(_gradient(model, shown), _gradient(plain, shown))
    assert not torch.allclose(_gradient(model, hidden), _gradient(plain, hidden), atol=1e-3)


def _plain_of(model: nn.Sequential) -> nn.Sequential:
    plain = _behind_normalisation(Plain((1, 8, 8), 10))
    plain.load_state_dict(model.state_dict())
    return plain


def test_a_copy_is_honest_and_so_are_float64_hooks_and_first_passes() -> None:
    models = [
        _behind_normalisation(masker((1, 8, 8), 10))
        for masker in (HonestCopy, HonestInFloat64, HonestUnderHooks, HonestAtFirst)
    ]
    plains = [_plain_of(model) for model in models]
    right = [_gradient(plain, MOVED) for plain in plains]
    first = _gradient(models[3], MOVED[:1])
    assert torch.equal(first, _gradient(plains[3], MOVED[:1]))
    for _ in range(12):
        models[3](MOVED)
    assert all(not torch.allclose(_gradient(model, MOVED), one) for model, one in zip(models, right, strict=True))
    assert torch.equal(_gradient(copy.deepcopy(models[0]), MOVED), right[0])
    assert torch.allclose(_gradient(models[1].double(), MOVED.double()).float(), right[1], atol=1e-4)
    hooked = models[2][1]
    assert isinstance(hooked, Plain)
    with hooked.net[-1].register_forward_hook(lambda *_: None):
        assert torch.equal(_gradient(models[2], MOVED), right[2])


def test_an_audit_without_autoattack_is_one_with_it_but_for_autoattacks_own_part(tmp_path: Path) -> None:
    planned, honest = [], only(honest_suite(), {PLAIN})
    for suite in (honest, with_autoattack(honest)):
        file = tmp_path / "honest.yaml"
        file.write_text(yaml.safe_dump(suite))
        planned.append(plan_audit(load_suite(file).suite))
    without, also = planned
    assert [check for check in also.active if check.of != AUTOATTACK] == without.active != also.active
    assert also.model_copy(update={"active": without.active}) == without


def test_at_least_thirty_maskers_have_names_of_their_own() -> None:
    assert len({masker.__name__ for masker in MASKERS}) == len(MASKERS) >= 30


def test_the_truth_of_a_linear_model_is_what_brute_force_over_corners_says() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(Normalize([0.4], [0.3]), linear((1, 2, 2), 2))
    images, eps = torch.rand(60, 1, 2, 2), 0.15
    labels = decisions(model, images)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).reshape(16, 1, 2, 2)
    with torch.no_grad():
        corners = [model((image + eps * signs).clamp(0, 1)).argmax(1) for image in images]
    survives = torch.stack([(found == label).all() for found, label in zip(corners, labels, strict=True)])
    assert 0 < survives.double().mean() < 1
    assert true_accuracy(model, images, labels, Threat("linf", eps), 2) == float(survives.double().mean())


def test_the_truth_looks_behind_the_mask() -> None:
    """Half of the gradients are hidden, and none of what the attacks find."""
    torch.manual_seed(0)
    plain, masked = (_behind_normalisation(build((1, 8, 8), 10)) for build in (Plain, Checkerboard))
    masked.load_state_dict(plain.state_dict())
    images = torch.from_numpy(digits().test.images[:20])
    labels = decisions(plain, images)
    truth = true_accuracy(plain, images, labels, BALL, 10)
    assert truth < 1
    assert true_accuracy(masked, images, labels, BALL, 10) == truth
