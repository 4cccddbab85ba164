"""What a model's answer depends on: on nothing but the image, or it is seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import CountedModel, frozen
from robustbench_cmic.audit.probes.behaviour import correctly_classified, forward_facts, gradient_facts
from robustbench_cmic.audit.probes.compare import differ
from robustbench_cmic.audit.probes.points import probed_places
from robustbench_cmic.records.probed import Forward
from robustbench_cmic.seeding import seeded
from robustbench_cmic.suite.fields import Threat
from tests.attacks.nets import Linear, convolutional, examples, predicted
from tests.audit.probes.faults import Defended, by_batch, on_grid
from tests.audit.probes.test_derivatives import HONEST, linear

IMAGES = examples(96)[0]
N = len(IMAGES)


def facts(model: nn.Module, classes: int = 10) -> Forward:
    target = CountedModel(model.eval(), classes)
    with frozen(model), seeded(0):
        before = correctly_classified(target, IMAGES, torch.zeros(N))[1]
        labels = before.argmax(1)
        places = probed_places(target, IMAGES, labels, [Threat("linf", 0.05), Threat("linf", 0.2)])
        return forward_facts(target, places, labels, before)


@pytest.mark.parametrize("name", [*HONEST, "two classes"])
def test_answers_of_honest_networks_depend_on_the_image_alone(name: str) -> None:
    found = facts(linear(), 2) if name == "two classes" else facts(HONEST[name])
    assert found == Forward(repeat=0, companions=0, training=[])


class Third(nn.Module):
    """Answers otherwise every third time."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, logits: Tensor) -> Tensor:
        self.passes += 1
        return logits if self.passes % 3 else logits.roll(1, 1)


class AfterBackward(nn.Module):
    """Answers otherwise once a gradient has been asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def forward(self, logits: Tensor) -> Tensor:
        if self.asked:
            return logits.roll(1, 1)
        if logits.requires_grad:
            logits.register_hook(self._ask)  # type: ignore[no-untyped-call]
        return logits

    def _ask(self, _: Tensor) -> None:
        self.asked = True


class Original(nn.Module):
    """Answers otherwise when it is a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.original = id(self)

    def forward(self, logits: Tensor) -> Tensor:
        return logits if id(self) == self.original else logits.roll(1, 1)


def behind(layer: nn.Module) -> nn.Module:
    return nn.Sequential(convolutional(), layer)


def large_batches(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits if len(images) < 64 else logits.tanh()


def single_images(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits.tanh() if len(images) == 1 else logits


def beside_others(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits + 0.1 * images.mean() * logits.flip(1)


def asked_for_gradients(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits.flip(1) if images.requires_grad else logits


def graph_is_kept(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits.flip(1) if logits.requires_grad else logits


def grad_mode_is_on(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits.flip(1) if torch.is_grad_enabled() else logits


def no_leaf(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return logits.flip(1) if torch.is_grad_enabled() and not images.requires_grad else logits


def statistics_of_the_batch(net: nn.Module, images: Tensor) -> Tensor:
    return nn.functional.batch_norm(net(images), None, None, training=True)


def noisy_off_grid(net: nn.Module, images: Tensor) -> Tensor:
    logits: Tensor = net(images)
    return torch.where(on_grid(images)[:, :, 0, 0], logits, logits + torch.randn_like(logits))


SWITCHING: list[tuple[str, nn.Module, str]] = [
    ("every third pass", behind(Third()), "repeat"),
    ("after a backward pass", behind(AfterBackward()), "repeat"),
    ("noise off the grid", Defended(convolutional(), noisy_off_grid), "repeat"),
    ("copies", behind(Original()), "copies"),
    ("gradients are asked for", Defended(convolutional(), asked_for_gradients), "grad_mode"),
    ("gradients may be asked for", Defended(convolutional(), grad_mode_is_on), "grad_mode"),
    ("gradients may be asked for, and are not", Defended(convolutional(), no_leaf), "grad_mode"),
    ("a graph is kept", Defended(convolutional(), graph_is_kept), "grad_mode"),
    ("large batches", Defended(convolutional(), large_batches), "companions"),
    ("neighbours", Defended(convolutional(), beside_others), "companions"),
    ("statistics of the batch", Defended(convolutional(), statistics_of_the_batch), "companions"),
    ("gradients of large batches", Defended(convolutional(), by_batch), "companion_gradients"),
]


@pytest.mark.parametrize(("model", "field"), [case[1:] for case in SWITCHING], ids=[case[0] for case in SWITCHING])
def test_what_else_an_answer_depends_on_is_seen(model: nn.Module, field: str) -> None:
    found: dict[str, Any] = facts(model).model_dump()
    assert found[field] == N
    assert field == "repeat" or found["repeat"] == 0, "which would hide all others"
    if field not in ("repeat", "companions"):  # of which others follow
        assert found == Forward(repeat=0, companions=0, training=[]).model_dump() | {field: N}


def test_a_batch_of_one_is_tried_on_some() -> None:
    found = facts(Defended(convolutional(), single_images))
    assert 16 <= found.companions < N
    assert found.repeat == found.grad_mode == 0


def test_a_model_that_takes_no_single_image_is_not_accused() -> None:
    def squeezed(net: nn.Module, images: Tensor) -> Tensor:
        logits: Tensor = net(images)
        return logits.squeeze()

    assert facts(Defended(convolutional(), squeezed)) == Forward(repeat=0, companions=0, training=[])


def test_a_model_without_gradients_or_copies_gets_its_other_facts() -> None:
    class Alone(nn.Module):
        def __deepcopy__(self, _: Any) -> None:
            raise TypeError("not me")

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = convolutional()(images.detach())
            return logits

    assert facts(Alone()) == Forward(repeat=0, companions=0, training=[])


def test_logits_differ_by_more_than_rounding() -> None:
    logits = torch.tensor([[5.0, 0.0, -1.0], [1e-7, 0.0, -4.0], [0.0, -torch.inf, 1.0]])
    tiny = torch.tensor([[1e-5, 0.0, 0.0], [-2e-7, 0.0, 0.0], [0.0, 0.0, 1e-6]])
    assert not differ(logits, logits + tiny).any()  # the second one's decision is another, between equals
    assert differ(logits, logits + 1e3 * tiny.abs()).tolist() == [True, True, True]
    assert differ(logits, logits.masked_fill(logits == 5, torch.nan)).tolist() == [True, False, False]
    assert differ(logits, logits.nan_to_num(neginf=-9.0)).tolist() == [False, False, True]
    # All logits close, and yet another decision.
    assert differ(torch.tensor([[3e-4, 0.0, -10.0]]), torch.tensor([[0.0, 1e-5, -10.0]])).tolist() == [True]


@pytest.mark.parametrize(("scale", "astray"), [(1.0, False), (1e4, True)])
def test_a_step_of_cross_entropy_goes_astray_where_its_gradient_is_rounded_away(scale: float, astray: bool) -> None:
    model = convolutional(scale=scale)
    found = gradient_facts(CountedModel(model, 10), IMAGES, predicted(model, IMAGES), "ce", 0.005)
    assert found.astray is not None
    assert found.astray >= 0.9 * N if astray else found.astray == 0
    assert gradient_facts(CountedModel(model, 10), IMAGES, predicted(model, IMAGES), "margin", 0.005).astray is None


def test_of_two_classes_a_saturated_softmax_still_steps_right() -> None:
    class Both(nn.Module):
        """Logits (-s, s): either class's gradient is the other's, negated."""

        def forward(self, images: Tensor) -> Tensor:
            score: Tensor = 8 * Linear(torch.linspace(-1, 1, 64), 0.0)(images)[:, 1]
            return torch.stack([-score, score], dim=1)

    model = Both()
    with torch.no_grad():
        saturated = model(IMAGES).softmax(1).amax(1) == 1
    assert int(saturated.sum()) > 0.1 * N
    images = IMAGES[model(IMAGES)[:, 0].abs() < 40]  # beyond, float32 has nothing left of the other one's, either
    assert gradient_facts(CountedModel(model, 2), images, predicted(model, images), "ce", 0.005).astray == 0
