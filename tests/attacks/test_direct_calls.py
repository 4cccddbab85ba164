"""Attack functions as people call them: models in training mode, labels of any type, inference mode, eps in pixels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.apgd import apgd
from robustbench_cmic.attacks.autoattack import autoattack
from robustbench_cmic.attacks.blocks import OtherImages
from robustbench_cmic.attacks.fab import fab
from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.noise import random_points
from robustbench_cmic.attacks.pgd import pgd
from robustbench_cmic.attacks.rays import rays
from robustbench_cmic.attacks.square import square
from robustbench_cmic.attacks.walk import walk
from robustbench_cmic.suite.attacks import FGSM
from robustbench_cmic.suite.fields import Threat
from tests.attacks.nets import convolutional, examples

Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
N = 6


def drawn(images: Tensor, _: int) -> Tensor:
    return torch.full_like(images, 0.01)


def by_pgd(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    return pgd(model, images, labels, eps=eps, alpha=0.02, steps=3, random_start=False, targets=2, loss="margin")


def by_harness(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    attack = FGSM(name="FGSM", norm="linf", eps=[eps])
    return evaluate_attack(model, images, labels, classes=10, attack=attack, seed=0).logits


def by_autoattack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, samples: int = 1) -> Tensor:
    budget: dict[str, Any] = {"steps": 2, "targets": 2, "queries": 3, "samples": samples}
    return autoattack(model, images, labels, Threat("linf", eps), seed_of=int, **budget)[0]


ATTACKS: dict[str, Attack] = {
    "pgd": by_pgd,
    "apgd": lambda m, x, y, eps: apgd(m, x, y, Threat("linf", eps), partial(drawn, x), steps=3),
    "fab": lambda m, x, y, eps: fab(m, x, y, Threat("linf", eps), steps=3, targets=2),
    "square": lambda m, x, y, eps: square(
        m, x, y, Threat("linf", eps), places=torch.arange(len(x)), seed_of=int, queries=5
    ),
    "rays": lambda m, x, y, eps: rays(
        m, x, y, Threat("linf", eps), places=torch.arange(len(x)), seed_of=int, queries=9
    ),
    "walk": lambda m, x, y, eps: walk(m, x, y, Threat("linf", eps), OtherImages(*examples(9, seed=1)), 5),
    "noise": lambda m, x, y, eps: random_points(m, x, y, Threat("linf", eps), partial(drawn, x), 3),
    "autoattack": by_autoattack,
    "autoattack rand": partial(by_autoattack, samples=2),
    "harness": by_harness,
}
EACH = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


def facts() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network whose batch norm tells the modes apart, images, labels that it gives, and where they are now."""
    model = convolutional()
    images, _ = examples(N)
    with torch.no_grad():
        return model, images, model(images).argmax(1), model(images)


@EACH
def test_a_model_in_training_mode_is_attacked_in_eval_mode_and_put_back(attack: Attack) -> None:
    model, images, labels, logits = facts()
    expected = attack(model, images, labels, 0.1)
    model.train()
    list(model.children())[2].eval()  # one module apart: as it was, not all alike
    weight = next(model.parameters())
    weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    assert torch.equal(attack(model, images, labels, 0.1), expected)
    assert [module.training for module in model.modules()] == modes
    assert not weight.requires_grad
    with torch.no_grad():
        assert torch.equal(model.eval()(images), logits), "statistics of batch norm are untouched"


def test_what_is_in_training_mode_on_purpose_in_a_model_in_eval_mode_stays_so() -> None:
    seen = []

    class Layer(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.training)
            return x

    model, images, labels, _ = facts()
    noisy = nn.Sequential(Layer(), model).eval()
    next(iter(noisy)).train()
    by_pgd(noisy, images, labels, 0.1)
    assert set(seen) == {True}


@EACH
@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32])
def test_labels_of_any_integer_type(attack: Attack, kind: torch.dtype) -> None:
    model, images, labels, _ = facts()
    assert torch.equal(attack(model, images, labels.to(kind), 0.1), attack(model, images, labels, 0.1))


@EACH
def test_labels_that_are_no_integers_are_refused(attack: Attack) -> None:
    model, images, labels, _ = facts()
    with pytest.raises(ValueError, match=r"labels should be integers, not torch\.float32"):
        attack(model, images, labels.float(), 0.1)


@EACH
def test_it_works_under_inference_mode_and_under_no_grad(attack: Attack) -> None:
    model, images, labels, _ = facts()
    expected = attack(model, images, labels, 0.1)
    with torch.no_grad():
        assert torch.equal(attack(model, images, labels, 0.1), expected)
    with torch.inference_mode():
        assert torch.equal(attack(model, images, labels, 0.1), expected)
        made_in_it = images.clone(), labels.clone()
        assert made_in_it[0].is_inference()
        found = attack(model, *made_in_it, 0.1)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(found, expected)
    assert torch.equal(attack(model, *made_in_it, 0.1), expected)


@EACH
def test_weights_that_no_gradient_passes_are_refused(attack: Attack) -> None:
    _, images, labels, _ = facts()
    with torch.inference_mode():
        model = convolutional()
    with pytest.raises(ValueError, match=r"weights were made under torch\.inference_mode, .* outside of it"):
        attack(model, images, labels, 0.1)


@EACH
def test_eps_in_pixel_units_is_refused(attack: Attack) -> None:
    model, images, labels, _ = facts()
    sentence = r"^eps 8 is outside \[0, 1\], the range of the images; in pixel units\? then write 8/255$"
    with pytest.raises(ValueError, match=sentence):
        attack(model, images, labels, 8)


@EACH
@pytest.mark.parametrize("wrong", [-1, 10])
def test_a_label_that_is_no_class_of_the_model_is_named(attack: Attack, wrong: int) -> None:
    model, images, labels, _ = facts()
    labels[2] = wrong
    with pytest.raises(ValueError, match=f"^labels should be from 0 to 9, since there are 10 classes, not {wrong}$"):
        attack(model, images, labels, 0.1)
    assert not model._forward_hooks


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of TorchScript
def test_labels_are_checked_for_a_function_too_and_scripted_models_may_be_attacked() -> None:
    model, images, labels, _ = facts()
    scripted: nn.Module = torch.jit.trace(model, images)  # type: ignore[no-untyped-call]
    assert pgd(scripted, images, labels, eps=0.1, alpha=0.1, steps=1).shape == images.shape
    labels[0] = 12
    function: Any = lambda images: model(images)  # noqa: E731
    with pytest.raises(ValueError, match="since there are 10 classes, not 12"):
        pgd(function, images, labels, eps=0.1, alpha=0.1, steps=1)


def test_a_large_ball_in_l2_is_one() -> None:
    model, images, labels, _ = facts()
    found = pgd(model, images, labels, eps=8, alpha=2, steps=1, norm="l2")
    assert found.shape == images.shape
    with pytest.raises(ValueError, match=r"^eps 300 is outside \[0, 1\], the range of the images$"):
        pgd(model, images, labels, eps=300, alpha=2, steps=1)


def test_any_function_of_images_may_be_attacked_and_arguments_have_their_names() -> None:
    model, images, labels, _ = facts()
    call: Any = pgd
    found = call(model=lambda x: model(x), labels=labels, images=images, eps=0.1, alpha=0.1, steps=1)
    assert found.shape == images.shape
    assert call.__doc__.startswith("PGD (Madry")
