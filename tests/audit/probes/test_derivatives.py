"""Gradients against finite differences: what is wrong is seen, on honest networks nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import CountedModel, frozen
from robustbench_cmic.audit.probes.derivatives import derivative_facts
from robustbench_cmic.audit.probes.points import Place, probed_places
from robustbench_cmic.records.probed import Derivatives
from robustbench_cmic.seeding import seeded
from robustbench_cmic.suite.fields import Threat
from tests.attacks.nets import Linear, convolutional, examples, predicted
from tests.audit.probes.faults import STAIRS, USELESS, WRONG, Defended

BALLS = [Threat("linf", 0.05), Threat("linf", 0.2), Threat("l2", 0.5)]
IMAGES = examples(80)[0]
N = len(IMAGES)


def facts(model: nn.Module, classes: int = 10) -> dict[Place, Derivatives]:
    target = CountedModel(model.eval(), classes)
    labels = predicted(model, IMAGES)
    with frozen(model), seeded(0):
        places = probed_places(target, IMAGES, labels, BALLS)
        return {name: derivative_facts(target, points, labels, name, 0.005) for name, points in places.named()}


class Nearest(nn.Module):
    """Minus the distance to the nearest of each class."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("points", examples(50, seed=1)[0].flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        distances = torch.cdist(images.flatten(1), self.get_buffer("points"))
        return -distances.reshape(len(images), 10, 5).amin(2)


class Single(nn.Module):
    """Computes in float32, whatever it gets."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = convolutional()(images.float())
        return logits


def dense(activation: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), activation, nn.Linear(64, 10))


def attention() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)
        return nn.Sequential(nn.Flatten(1, 2), layer, nn.Flatten(), nn.Linear(64, 10))


def pooled() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)
        )


def linear() -> nn.Module:
    return Linear(torch.linspace(-1, 1, 64), 0.0)


HONEST = {
    "convolutional": convolutional(), "steep": convolutional(scale=1e4), "max-pooling": pooled(),
    "gelu": dense(nn.GELU()), "sigmoid": dense(nn.Sigmoid()), "attention": attention(), "nearest": Nearest(),
    "log-softmax": nn.Sequential(convolutional(), nn.LogSoftmax(1)), "one-precision": Single(),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_gradients_of_honest_networks_are_slopes(name: str) -> None:
    for found in facts(HONEST[name]).values():
        assert (found.n, found.error, found.single) == (N, "", name == "one-precision")
        assert (found.stairs, found.unhelpful) == (0, 0)
        assert found.wrong <= (2 if found.single else 0)
        assert found.typical_error < (0.2 if found.single else 1e-4)


def test_on_images_of_equal_pixels_a_slope_between_two_is_no_error() -> None:
    model, images = HONEST["max-pooling"], torch.linspace(0, 1, N)[:, None, None, None].expand(N, 1, 8, 8)
    with frozen(model), seeded(0):
        found = derivative_facts(CountedModel(model, 10), images, predicted(model, images), "clean", 0.005)
    assert (found.wrong, found.stairs, found.error) == (0, 0, "")


def test_two_classes_with_a_slope_in_closed_form() -> None:
    for found in facts(linear(), classes=2).values():
        assert (found.wrong, found.stairs, found.unhelpful, found.error) == (0, 0, 0, "")
        assert found.typical_error < 1e-6


@pytest.mark.parametrize("name", WRONG)
def test_gradients_that_are_not_slopes_are_seen(name: str) -> None:
    found = facts(Defended(convolutional(), WRONG[name]))
    assert all(place.error == "" for place in found.values())
    assert max(place.wrong for place in found.values()) >= (0.3 if name == "dark" else 0.8) * N


@pytest.mark.parametrize("name", STAIRS)
def test_staircases_are_seen(name: str) -> None:
    for found in facts(Defended(convolutional(), STAIRS[name])).values():
        assert (found.wrong, found.stairs) == (0, N)


@pytest.mark.parametrize("name", USELESS)
def test_slopes_that_lead_nowhere_are_seen(name: str) -> None:
    for found in facts(Defended(convolutional(), USELESS[name])).values():
        assert (found.wrong, found.stairs) == (0, 0)
        assert found.unhelpful >= 0.2 * N


def test_what_a_model_raises_is_told_and_nothing_is_nothing() -> None:
    found = facts(Defended(convolutional(), lambda net, images: net(images.detach())))
    assert all("RuntimeError" in place.error and place.wrong == 0 for place in found.values())
    target = CountedModel(convolutional(), 10)
    assert derivative_facts(target, IMAGES[:0], torch.zeros(0, dtype=torch.int64), "clean", 0.005).n == 0


def test_passes_are_counted() -> None:
    target = CountedModel(convolutional(), 10)
    derivative_facts(target, IMAGES, predicted(target.model, IMAGES), "clean", 0.005)
    assert target.backwards == N
    assert target.forwards <= 45 * N


@pytest.mark.parametrize("ball", BALLS)
def test_places_lie_in_the_balls_and_off_the_grid(ball: Threat) -> None:
    model = convolutional()
    labels = predicted(model, IMAGES)
    with seeded(0):
        places = probed_places(CountedModel(model, 10), IMAGES, labels, [ball])
    for name, points in places.named():
        moved = (points - IMAGES).flatten(1)
        lengths = moved.abs().amax(1) if ball.norm == "linf" else moved.norm(dim=1)
        assert float(lengths.max()) <= ball.eps + 1e-5
        assert bool(((points >= 0) & (points <= 1)).all())
        assert bool((lengths > 0).all()) == (name != "clean")
    gaps = [_margins(model, points, labels).mean() for _, points in places.named()]
    assert float(gaps[2]) > float(gaps[1])


def _margins(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(images)
    own = logits.gather(1, labels[:, None])[:, 0]
    return torch.as_tensor(logits.scatter(1, labels[:, None], -torch.inf).amax(1) - own)
