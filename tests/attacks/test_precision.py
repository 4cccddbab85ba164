"""GPUs search in TF32 and judge in float32: the flags that say so, which a CPU ignores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks import parts as parts_of_attacks
from robustbench_cmic.attacks.autoattack import autoattack
from robustbench_cmic.attacks.blocks import AttackCall
from robustbench_cmic.attacks.fab import fab
from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.model import AttackError, in_float32, misclassified, searching, seems_misclassified
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.attacks import PGD, AutoAttack, Noise
from robustbench_cmic.suite.fields import Threat
from tests.attacks.nets import convolutional, examples, predicted

BALL = Threat("linf", 0.02)
PGD_ON_CMIC = PGD(name="PGD", norm="linf", eps=[0.02], alpha=0.01, steps=3, loss="cmic", restarts=2)


class Flags(NamedTuple):
    matmul: bool
    convolutions: bool


TF32, FLOAT32 = Flags(True, True), Flags(False, False)


def flags() -> Flags:
    return Flags(torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


@pytest.fixture(params=[Flags(False, True), TF32, FLOAT32])
def outside(request: pytest.FixtureRequest) -> Iterator[Flags]:
    """What the flags are outside, PyTorch's defaults among it."""
    before = flags()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = request.param
    yield request.param
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Spy(nn.Module):
    """Notes the flags of every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.model = convolutional()
        self.seen: list[Flags] = []
        self.calls: list[str] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(flags())
        logits: Tensor = self.model(images)
        return logits


def test_flags_are_set_inside_and_as_before_afterwards(outside: Flags) -> None:
    for manager, inside in ((searching, TF32), (in_float32, FLOAT32)):
        with manager():
            assert flags() == inside
        assert flags() == outside
        with suppress(KeyError), manager():
            raise KeyError
        assert flags() == outside
    with searching():
        with in_float32():
            assert flags() == FLOAT32
        assert flags() == TF32


def test_a_verdict_is_float32_whoever_asks(outside: Flags) -> None:
    model, (images, labels) = Spy(), examples(5)
    with searching():
        misclassified(model, images, labels)
        seems_misclassified(model, images, labels)
    misclassified(model, images, labels)
    assert model.seen == [FLOAT32, TF32, FLOAT32]
    assert flags() == outside


def spy_attack(call: AttackCall[Noise]) -> tuple[Tensor, list[Part]]:
    assert isinstance(call.model.model, Spy)
    call.model.model.calls.append(f"attack {flags() == TF32}")
    call.model(call.images)
    if call.attack.samples == 7:
        raise RuntimeError("no luck")
    return call.images, []


class Spied(Noise):
    implementation = f"{__name__}:spy_attack"


def evaluate(model: nn.Module, attack: Any) -> None:
    images, _ = examples(20)
    evaluate_attack(model, images, predicted(convolutional(), images), classes=10, attack=attack, seed=0)


def test_the_harness_searches_in_tf32_and_judges_in_float32(outside: Flags) -> None:
    model = Spy()
    evaluate(model, Spied(name="Noise", norm="linf", eps=[0.02]))
    assert (model.calls, model.seen) == (["attack True"], [TF32, FLOAT32, FLOAT32])
    assert flags() == outside
    with pytest.raises(AttackError, match="no luck"):
        evaluate(model, Spied(name="Noise", norm="linf", eps=[0.02], samples=7))
    assert flags() == outside


def test_clean_evaluation_and_centroids_are_float32(outside: Flags) -> None:
    model = Spy()
    evaluate(model, None)
    assert model.seen == [FLOAT32]
    assert flags() == outside
    model = Spy()
    evaluate(model, PGD_ON_CMIC)
    # Centroids; a run; what it broke; another run; the judge's two passes.
    assert model.seen == [FLOAT32] + [TF32] * 3 + [FLOAT32] + [TF32] * 3 + [FLOAT32] * 2


def test_autoattack_decides_in_float32_what_goes_on(outside: Flags, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Spy()
    asked = []

    def spied(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        asked.append(flags())
        return misclassified(model, images, labels)

    monkeypatch.setattr(parts_of_attacks, "misclassified", spied)
    evaluate(model, AutoAttack(name="AutoAttack", norm="linf", eps=[1e-4], targets=2, steps=3, queries=4))
    assert asked == [TF32] * 5, "it runs in the search"
    assert model.seen.count(FLOAT32) == 5 + 2, "the clean images and after each part; and the judge"
    assert model.seen[0] == model.seen[-1] == FLOAT32
    assert flags() == outside


def test_what_only_tf32_misclassifies_goes_on_to_the_next_part() -> None:
    class Fickle(Spy):
        """Right in float32, wrong in TF32."""

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * (-1 if flags() == TF32 else 1)

    model, (images, _) = Fickle(), examples(12)
    labels = predicted(model.model, images)
    with searching():
        found, parts = autoattack(model, images, labels, Threat("linf", 0.0), seed_of=int, queries=2, steps=2)
    assert [(part.attacked, part.broken) for part in parts] == [(12, 0)] * 4
    assert torch.equal(found, images)


def test_fab_asks_in_the_precision_of_its_search() -> None:
    model, (images, _) = Spy(), examples(4)
    with searching():
        fab(model, images, predicted(model.model, images), BALL, steps=2, targets=1)
    assert set(model.seen) == {TF32}
