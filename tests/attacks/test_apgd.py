"""APGD against closed forms, against torchattacks' from the same start, and its own promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustbench_cmic.attacks.apgd import _Search, apgd, checkpoints
from robustbench_cmic.attacks.pgd import LossGradient
from robustbench_cmic.attacks.threat import random_perturbations, violations
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted
from tests.attacks.oracles import LinearClassifier, inner_images, linear_robust

NAMES = {"linf": "Linf", "l2": "L2"}
BALLS = [("linf", 0.04), ("l2", 0.25)]


def drawn(threat: Threat, images: Tensor, seed: int = 0) -> Callable[[int], Tensor]:
    def noise(run: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * seed + run)
            return random_perturbations(threat, images.shape)

    return noise


def survivors(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return predicted(model, images) == labels


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("linf", 0.05), ("l2", 0.12), ("l2", 0.3)])
@pytest.mark.parametrize(("classes", "loss", "targets"), [(2, "log_odds", 0), (2, "dlr", 9), (6, "dlr", 9)])
def test_reaches_the_exact_robust_accuracy_of_a_linear_model(
    norm: Norm, eps: float, classes: int, loss: str, targets: int
) -> None:
    model, images = LinearClassifier(classes), inner_images(150)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    robust = linear_robust(model, images, labels, norm, eps)
    assert 0 < int(robust.sum()) < 150
    found = apgd(model, images, labels, threat, drawn(threat, images), steps=40, loss=loss, targets=targets)
    assert torch.equal(survivors(model, found, labels), robust)


@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_goes_where_torchattacks_goes_from_the_same_start(norm: Norm, eps: float) -> None:
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    reference = torchattacks.APGD(model, norm=NAMES[norm], eps=eps, steps=60)
    torch.manual_seed(3)
    best, unbroken, _, _ = reference.attack_single_run(images, labels)
    torch.manual_seed(3)
    start = 2 * torch.rand(images.shape) - 1 if norm == "linf" else torch.randn(images.shape)
    found = apgd(model, images, labels, threat, lambda _: start, steps=60, loss="ce")
    assert torch.equal(survivors(model, found, labels), unbroken)
    assert 5 < int(unbroken.sum()) < 35
    # Broken ones leave at their first misclassified iterate; the others go all the way.
    apart = (found - best)[unbroken].abs().amax((1, 2, 3))
    # All but where two points of nearly one loss compare otherwise after other rounding.
    assert float(apart.max()) < 2e-3
    assert int((apart > 1e-5).sum()) <= 2


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize(("norm", "eps"), BALLS)
def test_leaves_nothing_that_torchattacks_breaks(norm: Norm, eps: float, scale: float) -> None:
    model = convolutional(scale=scale)
    images, _ = examples(60)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    broken = {}
    for loss, targets, theirs in (
        ("log_odds", 0, torchattacks.APGD(model, norm=NAMES[norm], eps=eps, steps=20)),
        ("dlr", 4, torchattacks.APGDT(model, norm=NAMES[norm], eps=eps, steps=20, n_classes=5)),
    ):
        found = apgd(model, images, labels, threat, drawn(threat, images), steps=20, loss=loss, targets=targets)
        ours = survivors(model, found, labels)
        reference = survivors(model, theirs(images, labels), labels)
        assert not bool((ours & ~reference).any())
        broken[loss] = int((~ours).sum()), int((~reference).sum())
        assert 30 < broken[loss][0] < 50
    if scale > 1:  # where cross entropy saturates
        assert broken["log_odds"][0] > broken["log_odds"][1] + 20


@pytest.mark.parametrize(("norm", "eps"), BALLS)
@pytest.mark.parametrize(("loss", "targets"), [("log_odds", 0), ("dlr", 3)])
def test_an_example_fares_the_same_in_any_company(norm: Norm, eps: float, loss: str, targets: int) -> None:
    model = convolutional()
    images, _ = examples(60)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    noise = drawn(threat, images)
    whole = apgd(model, images, labels, threat, noise, steps=15, loss=loss, targets=targets)
    part = torch.arange(1, 60, 3)
    alone = apgd(
        model, images[part], labels[part], threat, lambda k: noise(k)[part], steps=15, loss=loss, targets=targets
    )
    torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-5)
    assert 0 < int(survivors(model, alone, labels[part]).sum()) < len(part)
    again = apgd(model, images, labels, threat, noise, steps=15, loss=loss, targets=targets)
    assert torch.equal(again, whole)
    other = apgd(model, images, labels, threat, drawn(threat, images, 1), steps=15, loss=loss, targets=targets)
    assert not torch.equal(other, whole)


@settings(max_examples=15, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 1.5),
    steps=st.integers(1, 12),
    targets=st.integers(0, 3),
    seed=st.integers(0, 50),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_result_stays_in_ball_and_box(
    norm: Norm, eps: float, steps: int, targets: int, seed: int, scale: float
) -> None:
    model = convolutional(scale=scale)
    images, labels = examples(6, seed)
    threat = Threat(norm, min(eps, 1.0) if norm == "linf" else eps)
    loss = "dlr" if targets else "log_odds"
    found = apgd(model, images, labels, threat, drawn(threat, images), steps=steps, loss=loss, targets=targets)
    assert not bool(violations(threat, images, found, tolerance=2e-6).any())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert not found.requires_grad


class Recorder(nn.Module):
    """A model that keeps what it is asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.asked: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(images.detach().clone())
        logits: Tensor = self.model(images)
        return logits


def test_the_first_misclassified_iterate_is_returned_and_asked_no_more() -> None:
    model = Recorder(convolutional())
    images, _ = examples(50)
    labels = predicted(model.model, images)
    threat = Threat("linf", 0.04)
    found = apgd(model, images, labels, threat, drawn(threat, images), steps=20)
    broken = ~survivors(model.model, found, labels)
    assert len(model.asked) == 21
    assert len(model.asked[0]) == 50
    assert len(model.asked[-1]) >= int((~broken).sum())
    for image in found[broken]:
        seen = [i for i, batch in enumerate(model.asked) if bool((batch == image).flatten(1).all(1).any())]
        assert len(seen) == 1
    # Sizes fall as soon as an iterate is misclassified.
    for asked, following in zip(model.asked, model.asked[1:], strict=False):
        left = sum(bool((found[i] == x).all()) for x in asked for i in broken.nonzero()[:, 0].tolist())
        assert len(following) == len(asked) - left


def test_starts_lie_on_the_surface() -> None:
    model = Recorder(convolutional())
    images, labels = inner_images(20), torch.arange(20) % 10
    for norm in ("linf", "l2"):
        threat = Threat(norm, 0.2)
        model.asked.clear()
        apgd(model, images, labels, threat, drawn(threat, images), steps=1)
        delta = (model.asked[0] - images).flatten(1)
        lengths = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((20,), 0.2), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 5, 10, 20, 50, 100, 137])
def test_checkpoints_as_in_the_authors_code(steps: int) -> None:
    distance, counter, expected = max(int(0.22 * steps), 1), 0, []
    for i in range(steps):
        counter += 1
        if counter == distance:
            expected.append(i + 1)
            counter = 0
            distance = max(distance - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    assert checkpoints(steps) == expected


def test_step_sizes_are_halved_on_either_condition() -> None:
    flat = torch.zeros(5, 1, 1, 1)
    at = LossGradient(flat, torch.zeros(5), torch.zeros(5, dtype=torch.bool))
    labels = torch.zeros(5, dtype=torch.long)
    search = _Search.begin(flat, labels, None, flat, at, eps=0.5)
    search.rises = torch.tensor([15, 16, 20, 20, 20])
    search.best_loss = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])
    search.halved_before = torch.tensor([False, False, False, True, False])
    search.best_point = flat + 1
    search.reconsider(21)  # of which 75 % are 15.75
    # Too few rises; enough; no better than before; no better, but halved just before; enough.
    halved = [True, False, True, False, False]
    assert search.step.flatten().tolist() == [0.5 if each else 1.0 for each in halved]
    assert search.point.flatten().tolist() == [1.0 if each else 0.0 for each in halved]
    assert search.halved_before.tolist() == halved
    assert search.best_before.tolist() == search.best_loss.tolist()
    assert search.rises.tolist() == [0] * 5
    first = _Search.begin(flat, labels, None, flat, at, eps=0.5)
    first.rises += 21
    first.reconsider(21)
    assert not bool(first.halved_before.any()), "condition 2 cannot hold at the first checkpoint"


def test_a_gradient_of_nan_harms_no_image() -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            # The square root's slope is infinite at 0: times 0 it is NaN.
            rest = (images * 0).sqrt().flatten(1).sum(1, keepdim=True)
            return torch.cat([1 + rest, images.flatten(1)[:, :3]], 1)

    images, _ = examples(5)
    labels = torch.zeros(5, dtype=torch.long)
    threat = Threat("l2", 0.1)
    found = apgd(Broken(), images, labels, threat, drawn(threat, images), steps=5)
    assert bool(torch.isfinite(found).all())


def test_parameters_out_of_range_are_refused() -> None:
    images, labels = examples(2)
    threat = Threat("linf", 0.1)
    for steps, targets in ((0, 0), (1, -1)):
        with pytest.raises(ValueError, match="steps should be at least 1"):
            apgd(convolutional(), images, labels, threat, drawn(threat, images), steps=steps, targets=targets)
    with pytest.raises(ValueError, match="'cmic' needs the class centroids"):
        apgd(convolutional(), images, labels, threat, drawn(threat, images), loss="cmic")
    assert apgd(convolutional(), images[:0], labels[:0], threat, drawn(threat, images)).shape == (0, 1, 8, 8)
