"""FAB against torchattacks', its projections against brute force."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torchattacks.attacks import fab as reference

from robustbench_cmic.attacks.fab import fab, to_hyperplane
from robustbench_cmic.attacks.threat import violations
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted
from tests.attacks.oracles import LinearClassifier, inner_images, linear_robust
from tests.attacks.test_apgd import Recorder

NAMES = {"linf": "Linf", "l2": "L2"}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000), reach=st.sampled_from([0.01, 0.3, 0.8, 1.3]), scale=st.sampled_from([1e-20, 1, 1e6])
)
def test_projections_are_the_shortest_within_the_box(norm: Norm, seed: int, reach: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = (1.4 * torch.rand(4, 12, generator=generator).double() - 0.2).clamp(0, 1)
    normals = torch.randn(4, 12, generator=generator).double() * (torch.rand(4, 12, generator=generator) > 0.2)
    sign = torch.where(torch.rand(4, generator=generator) < 0.5, -1.0, 1.0)
    room = torch.where(normals * sign[:, None] > 0, 1 - points, points)
    most = (normals.abs() * room).sum(1)  # what w . d can be within the box
    gaps = sign * reach * most
    found = to_hyperplane(points, normals * scale, gaps * scale, norm)
    assert float((points + found).min()) >= -1e-12
    assert float((points + found).max()) <= 1 + 1e-12
    torch.testing.assert_close((normals * found).sum(1), sign * most * min(reach, 1))
    # Bisection of the one number that decides all: how long entries grow.
    low, high = torch.zeros(4, 1).double(), torch.full((4, 1), 1e6).double()
    speed = torch.ones_like(normals) if norm == "linf" else normals.abs()
    for _ in range(80):
        middle = (low + high) / 2
        short = (normals.abs() * torch.minimum(middle * speed, room)).sum(1, keepdim=True) < gaps.abs()[:, None]
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    expected = torch.minimum(high * speed, room) * normals.sign() * sign[:, None]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projections_equal_torchattacks(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    points, normals = torch.rand(200, 30, generator=generator), torch.randn(200, 30, generator=generator)
    offsets = (normals * points).sum(1) + 3 * torch.randn(200, generator=generator)
    theirs = {"linf": reference.projection_linf, "l2": reference.projection_l2}[norm](points, normals, offsets)
    ours = to_hyperplane(points.double(), normals.double(), (offsets - (normals * points).sum(1)).double(), norm)
    assert float((ours - theirs).abs().amax(1).median()) < 1e-6
    assert float((ours - theirs).abs().max()) < 1e-3


def test_a_hyperplane_without_direction_moves_nothing() -> None:
    points = torch.rand(3, 5).double()
    for norm in ("linf", "l2"):
        assert not bool(to_hyperplane(points, points * 0, torch.tensor([1.0, -1.0, 0.0]).double(), norm).any())


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.25)])
def test_leaves_nothing_that_torchattacks_breaks(norm: Norm, eps: float) -> None:
    model = convolutional()
    images, _ = examples(30)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    found = fab(model, images, labels, threat, steps=15, targets=4)
    broken = predicted(model, found) != labels
    theirs = torchattacks.FAB(model, norm=NAMES[norm], eps=eps, steps=15, multi_targeted=True, n_classes=5)
    by_theirs = predicted(model, theirs(images, labels)) != labels
    assert not bool((by_theirs & ~broken).any())
    assert 10 < int(broken.sum()) < 28
    assert not bool(violations(threat, images, found, tolerance=0).any())
    assert torch.equal(found[~broken], images[~broken])
    part = torch.arange(0, 30, 2)
    alone = fab(model, images[part], labels[part], threat, steps=15, targets=4)
    assert torch.equal(predicted(model, alone) != labels[part], broken[part])


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.2)])
@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("scale", [1e-12, 1.0])
def test_reaches_the_exact_robust_accuracy_of_a_linear_model(
    norm: Norm, eps: float, classes: int, scale: float
) -> None:
    model = LinearClassifier(classes, scale)
    images = inner_images(150)
    labels = predicted(model, images)
    robust = linear_robust(model, images, labels, norm, eps)
    assert 0 < int(robust.sum()) < 150
    found = fab(model, images, labels, Threat(norm, eps), steps=20)
    missed = (predicted(model, found) == labels) & ~robust
    assert bool((predicted(model, found) == labels)[robust].all())
    # Its point lies 5 % beyond the border, so that what is broken by less than that escapes it now and then.
    assert int(missed.sum()) <= 2


def test_from_a_point_too_far_away_the_search_goes_back_towards_the_image() -> None:
    model = Recorder(LinearClassifier(2))
    images = inner_images(20)
    labels = predicted(model.model, images)
    fab(model, images, labels, Threat("l2", 1e-6), steps=2)
    _, _, tried, following, _ = model.asked  # ranking; image and first point; start of the second step, its point
    assert bool((predicted(model.model, tried) != labels).all())
    torch.testing.assert_close(following, images + 0.9 * (tried - images))


def test_parameters_out_of_range_are_refused() -> None:
    images, labels = examples(2)
    for steps, targets in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="should be at least 1"):
            fab(convolutional(), images, labels, Threat("linf", 0.1), steps=steps, targets=targets)
