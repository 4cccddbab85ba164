"""AutoAttack against closed forms, against torchattacks' four attacks, and what it says of its parts."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from pydantic import ValidationError
from torch import Tensor, nn

from robustbench_cmic.attacks import autoattack as module
from robustbench_cmic.attacks.autoattack import autoattack
from robustbench_cmic.attacks.blocks import SeedOf
from robustbench_cmic.attacks.threat import violations
from robustbench_cmic.records.schema import Part
from robustbench_cmic.seeding import derive_seed
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted
from tests.attacks.oracles import LinearClassifier, inner_images, linear_robust

SMALL: dict[str, Any] = {"queries": 30, "steps": 8, "targets": 3}
BALLS = [("linf", 0.04), ("l2", 0.25)]


def seeds(seed: int) -> SeedOf:
    return partial(derive_seed, seed)


class Counted(nn.Module):
    """Counts examples, as the harness does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = 7
        self.backwards = 3

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        self.forwards += len(images)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.3)])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_reaches_the_exact_robust_accuracy_of_a_linear_model(norm: Norm, eps: float, classes: int) -> None:
    model, images = LinearClassifier(classes), inner_images(150)
    labels = predicted(model, images)
    robust = linear_robust(model, images, labels, norm, eps)
    assert 0 < int(robust.sum()) < 150
    found, parts = autoattack(model, images, labels, Threat(norm, eps), seed_of=seeds(0), queries=2, steps=20)
    assert torch.equal(predicted(model, found) == labels, robust)
    assert parts[-1].attacked - parts[-1].broken == int(robust.sum())


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_leaves_nothing_that_the_four_of_torchattacks_break(norm: Norm, eps: float, scale: float) -> None:
    model = convolutional(scale=scale)
    images, _ = examples(30)
    labels = predicted(model, images)
    found, _ = autoattack(model, images, labels, Threat(norm, eps), seed_of=seeds(0), queries=40, steps=8, targets=3)
    ours = predicted(model, found) == labels
    ball = {"norm": {"linf": "Linf", "l2": "L2"}[norm], "eps": eps}
    survive = torch.ones(30, dtype=torch.bool)
    for attack in (
        torchattacks.APGD(model, **ball, steps=8),
        torchattacks.APGDT(model, **ball, steps=8, n_classes=4),
        torchattacks.FAB(model, **ball, steps=8, multi_targeted=True, n_classes=4),
        torchattacks.Square(model, **ball, n_queries=40),
    ):
        left = survive.nonzero()[:, 0]
        survive[left] = predicted(model, attack(images[left], labels[left])) == labels[left]
    assert not bool((ours & ~survive).any())
    assert 3 < int(ours.sum()) < 25


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_an_example_fares_the_same_in_any_company(norm: Norm, eps: float) -> None:
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    whole, parts = autoattack(model, images, labels, threat, seed_of=seeds(5), **SMALL)
    rows = torch.arange(1, 40, 2)
    alone, _ = autoattack(model, images[rows], labels[rows], threat, seed_of=seeds(5), places=rows, **SMALL)
    torch.testing.assert_close(alone, whole[rows], rtol=0, atol=1e-5)
    assert 0 < int((predicted(model, alone) == labels[rows]).sum()) < len(rows)
    again, parts_again = autoattack(model, images, labels, threat, seed_of=seeds(5), **SMALL)
    assert torch.equal(again, whole)
    assert [part.broken for part in parts_again] == [part.broken for part in parts]
    assert not torch.equal(autoattack(model, images, labels, threat, seed_of=seeds(6), **SMALL)[0], whole)
    assert not bool(violations(threat, images, whole, tolerance=1e-6).any())


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_blocks_together_fare_as_one_by_one(norm: Norm, eps: float) -> None:
    model = Counted(convolutional())
    images, _ = examples(600)
    labels = predicted(model.model, images)
    places = torch.arange(100, 700)
    threat = Threat(norm, eps)
    together, parts = autoattack(model, images, labels, threat, seed_of=seeds(1), places=places, **SMALL)
    blocks = [places // 256 == block for block in range(3)]
    apart = [
        autoattack(model, images[own], labels[own], threat, seed_of=seeds(1), places=places[own], **SMALL)
        for own in blocks
    ]
    found = torch.cat([each for each, _ in apart])
    assert torch.equal(predicted(model.model, found), predicted(model.model, together))
    torch.testing.assert_close(together, found, rtol=0, atol=1e-5)
    for number, part in enumerate(parts):
        for count in ("attacked", "broken", "forwards", "backwards"):
            assert getattr(part, count) == sum(getattr(each[number], count) for _, each in apart)
    assert 0 < parts[-1].attacked - parts[-1].broken < 500


def test_parts_say_what_they_did() -> None:
    model = Counted(convolutional())
    images, _ = examples(50)
    labels = predicted(model.model, images)
    found, parts = autoattack(model, images, labels, Threat("linf", 0.04), seed_of=seeds(0), **SMALL)
    assert [part.name for part in parts] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert [part.attacked for part in parts[1:]] == [part.attacked - part.broken for part in parts[:-1]]
    assert parts[0].attacked == 50
    assert sum(part.broken for part in parts) == int((predicted(model.model, found) != labels).sum()) > 20
    assert sum(part.forwards for part in parts) == model.forwards - 7 - 50, "all but the clean pass"
    assert sum(part.backwards for part in parts) == model.backwards - 3
    assert all(part.seconds > 0 for part in parts)
    _, uncounted = autoattack(model.model, images, labels, Threat("linf", 0.04), seed_of=seeds(0), **SMALL)
    assert {(part.forwards, part.backwards) for part in uncounted} == {(0, 0)}


def test_survivors_cost_what_the_budget_says() -> None:
    model = Counted(convolutional())
    images, _ = examples(20)
    labels = predicted(model.model, images)
    found, parts = autoattack(model, images, labels, Threat("linf", 1e-4), seed_of=seeds(0), **SMALL)
    assert not any(part.broken for part in parts)
    # Starts, steps and judgement; targets are ranked once; FAB asks twice a step; Square begins with one point.
    assert [part.forwards for part in parts] == [20 * (9 + 1), 20 * (1 + 3 * 9 + 1), 20 * (1 + 3 * 16 + 1), 20 * 32]
    assert [part.backwards for part in parts] == [20 * 9, 20 * 3 * 9, 20 * 3 * 8, 0]
    # What survives is returned as the point of highest cross entropy.
    with torch.no_grad():
        before, after = (nn.functional.cross_entropy(model.model(x), labels, reduction="none") for x in (images, found))
    assert bool((after > before).all())


def test_clean_errors_are_left_alone() -> None:
    model = convolutional()
    images, labels = examples(50)
    clean = predicted(model, images) == labels
    found, parts = autoattack(model, images, labels, Threat("linf", 0.04), seed_of=seeds(0), **SMALL)
    assert parts[0].attacked == int(clean.sum()) > 0
    assert torch.equal(found[~clean], images[~clean])
    nothing, parts = autoattack(model, images[~clean], labels[~clean], Threat("linf", 0.04), seed_of=seeds(0), **SMALL)
    assert torch.equal(nothing, images[~clean])
    assert {(part.attacked, part.broken) for part in parts} == {(0, 0)}


def test_the_global_generators_and_the_mode_are_left_alone() -> None:
    model = convolutional()
    images, _ = examples(20)
    torch.manual_seed(5)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]  # noqa: NPY002
    autoattack(model, images, predicted(model, images), Threat("l2", 0.2), seed_of=seeds(0), **SMALL)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]  # noqa: NPY002
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_part_that_leaves_the_ball_has_broken_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = convolutional()
    images, _ = examples(20)
    labels = predicted(model, images)
    monkeypatch.setattr(module, "square", lambda _, images, *__, **___: 1 - images)
    found, parts = autoattack(model, images, labels, Threat("linf", 1e-4), seed_of=seeds(0), **SMALL)
    assert bool((predicted(model, 1 - images) != labels).any())
    assert parts[3].broken == 0
    assert not bool(violations(Threat("linf", 1e-4), images, found).any())


def test_what_a_part_raises_passes() -> None:
    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            if images.requires_grad:
                raise RuntimeError("no gradients here")
            return images.flatten(1)[:, :5]

    images, _ = examples(4)
    with pytest.raises(RuntimeError, match="no gradients here"):
        autoattack(Failing(), images, predicted(Failing(), images), Threat("linf", 0.1), seed_of=seeds(0), **SMALL)


def test_parameters_out_of_range_are_refused() -> None:
    model, (images, labels) = convolutional(), examples(2)
    threat = Threat("linf", 0.1)
    for wrong in ({"queries": 0}, {"steps": 0}, {"targets": 0}):
        with pytest.raises(ValueError, match="should be at least 1"):
            autoattack(model, images, labels, threat, seed_of=seeds(0), **(SMALL | wrong))
    for places in (torch.tensor([0]), torch.tensor([256, 0]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match="places should be ascending numbers of at least 0, one for each of 2"):
            autoattack(model, images, labels, threat, seed_of=seeds(0), places=places, **SMALL)


def test_a_part_is_a_plain_value() -> None:
    part = Part(name="FAB-T", attacked=3, broken=1, forwards=10, backwards=5, seconds=0.1)
    assert part == part.model_copy()
    with pytest.raises(ValidationError):
        part.broken = 2  # type: ignore[misc]
