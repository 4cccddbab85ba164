"""RayS against exact radii of linear classifiers, against the paper's flips written plainly, and its own promises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks import rays as module
from robustbench_cmic.attacks.blocks import Uniform
from robustbench_cmic.attacks.rays import along, rays
from robustbench_cmic.attacks.threat import norms, violations
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted
from tests.attacks.oracles import LinearClassifier, inner_images, linear_robust


def run(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, queries: int, seed: int = 0) -> Tensor:
    places = torch.arange(len(images))
    return rays(model, images, labels, threat, places=places, seed_of=lambda block: seed + block, queries=queries)


class Asked(nn.Module):
    """Another model, and how many examples it was asked about, image by image where there is one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.asked: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked.append(images.clone())
        logits: Tensor = self.model(images)
        return logits


def exact_radius(model: LinearClassifier, images: Tensor, labels: Tensor, norm: str) -> Tensor:
    """(N,) the least perturbation that reaches another class: min over j of (z_y - z_j) / |w_y - w_j|, dual norm."""
    logits, order = model(images), 1 if norm == "linf" else 2
    radii = torch.full_like(logits, torch.inf)
    for row, label in enumerate(labels.tolist()):
        for other in set(range(logits.shape[1])) - {label}:
            gap = logits[row, label] - logits[row, other]
            radii[row, other] = gap / torch.linalg.vector_norm(model.weight[label] - model.weight[other], order)
    return radii.amin(1)


def doubled(classes: int) -> LinearClassifier:
    model = LinearClassifier(classes)
    model.weight, model.bias = model.weight.double(), model.bias.double()
    return model


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_finds_what_lies_well_beyond_the_exact_radius_and_nothing_below_it(norm: Norm, classes: int) -> None:
    """Between the radius and 1.5 times it may miss: of L2 a ray of signs is no shortest way."""
    model, images = doubled(classes), inner_images(60).double()
    labels = predicted(model, images)
    radius = exact_radius(model, images, labels, norm)
    # Balls that lie inside the box, of radii that have the exact ones of some examples on either side.
    for eps in (torch.linspace(0.1, 1, 7) * (0.35 if norm == "linf" else 0.8)).tolist():
        broken = predicted(model, run(model, images, labels, Threat(norm, eps), 1000)) != labels
        assert not bool((broken & (radius >= eps)).any()), "below the exact radius there is nothing"
        assert bool(broken[1.5 * radius <= eps].all())
        assert torch.equal(linear_robust(model, images, labels, norm, eps), radius > eps)
    assert float((1.5 * radius <= eps).double().mean()) > 0.1


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.25), ("linf", 1.0), ("l2", 20.0), ("linf", 0.0)])
def test_points_lie_in_ball_and_box_and_queries_are_bounded(norm: Norm, eps: float) -> None:
    model = Asked(convolutional())
    images, _ = examples(40)
    labels = predicted(model.model, images)
    found = run(model, images, labels, Threat(norm, eps), 70)
    assert not bool(violations(Threat(norm, eps), images, found, tolerance=2e-6).any())
    assert len(model.asked) <= 70
    survives = predicted(model.model, found) == labels
    assert sum(len(batch) for batch in model.asked) >= 70 * int(survives.sum())
    assert all(float(batch.min()) >= 0 and float(batch.max()) <= 1 for batch in model.asked)


def test_one_query_at_eps_comes_first_and_may_be_all() -> None:
    model = Asked(convolutional())
    images, _ = examples(40)
    labels = predicted(model.model, images)
    found = run(model, images, labels, Threat("linf", 0.04), 1)
    assert len(model.asked) == 1
    torch.testing.assert_close(model.asked[0], (images + 0.04).clamp(0, 1))
    assert torch.equal(found, model.asked[0])
    run(model, images[:0], labels[:0], Threat("linf", 0.04), 5)
    assert len(model.asked) == 1, "nobody is asked about nothing"


class OneHot(nn.Module):
    """The decisions of a model, and nothing else of its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(logits.shape, generator=generator).to(logits) * (images * 0).flatten(1).sum(1, keepdim=True)
        return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits) + noise


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.25)])
def test_only_decisions_are_used(norm: Norm, eps: float) -> None:
    images, _ = examples(40)
    labels = predicted(convolutional(), images)
    expected = run(convolutional(), images, labels, Threat(norm, eps), 150)
    found = run(OneHot(convolutional()), images, labels, Threat(norm, eps), 150)
    assert torch.equal(found, expected)
    assert 0 < int((predicted(convolutional(), found) == labels).sum()) < 40


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.2)])
def test_an_example_fares_the_same_in_any_company(norm: Norm, eps: float) -> None:
    """In a second pass over all blocks, too, which begins after 127 flips."""
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    whole = run(model, images, labels, threat, 400)
    rows = torch.arange(1, 40, 2)
    part = rays(model, images[rows], labels[rows], threat, places=rows, seed_of=lambda _: 0, queries=400)
    assert torch.equal(part, whole[rows])
    assert 0 < int((predicted(model, part) == labels[rows]).sum()) < len(rows)
    assert not torch.equal(run(model, images, labels, threat, 400, seed=1), whole)


class Never(nn.Module):
    """Never fooled."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).repeat(len(images), 1)


def test_flips_are_those_of_the_paper_then_random() -> None:
    """Level by level, block by block: all, halves, quarters ... of 6 entries; whole passes flip each entry as often."""
    model = Asked(Never())
    images = torch.full((2, 1, 2, 3), 0.5)
    run(model, images, torch.zeros(2, dtype=torch.long), Threat("linf", 0.1), 2 + 26)
    plain = [
        [-1.0 if entry * blocks // 6 == block else 1.0 for entry in range(6)]
        for blocks in (1, 2, 4, 6)
        for block in range(blocks)
    ]
    signs = torch.stack([batch.flatten(1).sub(0.5).sign() for batch in model.asked], 1)
    assert bool((signs[:, :2] == 1).all()), "at eps, and at the radius of the whole box"
    signs = signs[:, 2:]
    assert torch.equal(signs[0, :13], torch.tensor(plain))
    assert torch.equal(signs[1, :13], signs[0, :13])
    assert not torch.equal(signs[1, 13:], signs[0, 13:])
    for example in signs[:, 13:]:
        assert torch.equal((example < 0).sum(0), torch.full((6,), 4)), "once in every level"
        assert torch.equal((example < 0).sum(1), torch.tensor([6, 3, 3, 2, 1, 2, 1, 1, 1, 1, 1, 1, 1]))


class Brighter(nn.Module):
    """Class 1 where every pixel exceeds 0.7."""

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1).amin(1) - 0.7
        return torch.stack([-score, score], 1)


def test_a_direction_is_followed_inwards_in_doubling_steps_and_others_are_dropped_after_one_query() -> None:
    model = Asked(Brighter())
    image = torch.full((1, 1, 2, 2), 0.5)
    found = run(model, image, torch.tensor([0]), Threat("linf", 0.1), 30)
    torch.testing.assert_close(found, image + 0.1)  # the best direction, though the exact radius is 0.2
    radii = [float((batch - 0.5).abs().max()) for batch in model.asked]
    radius, share, expected = 1.0, module.SHRINK, [0.1]
    while radius * (1 - share) > 0.2:
        radius *= 1 - share
        expected.append(min(radius, 0.5))
        share = min(2 * share, 0.5)
    expected.append(radius * (1 - share))
    assert 6 < len(expected) < 20
    assert radii[: len(expected)] == pytest.approx(expected, abs=1e-6)
    # Then every flip, once, a little below; in the second pass half as little.
    flips = radii[len(expected) :]
    assert flips[:7] == pytest.approx([radius * (1 - module.SHRINK)] * 7)
    assert flips[7:14] == pytest.approx([radius * (1 - module.SHRINK / 2)] * len(flips[7:14]))
    assert len(model.asked) == 30


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 5)])
def test_rays_of_l2_have_the_length_that_they_say(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = (1.6 * torch.rand(50, *shape, generator=generator) - 0.3).clamp(0, 1).double()
    signs = torch.where(torch.rand(50, math.prod(shape), generator=generator) < 0.5, -1.0, 1.0).double()
    room = torch.where(signs > 0, 1 - images.flatten(1), images.flatten(1)).norm(dim=1)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        points = along("l2", images, signs, share * room)
        torch.testing.assert_close(norms(points - images, "l2").flatten(), share * room, rtol=1e-9, atol=1e-9)
        # All entries that have not met the box moved equally far.
        moved = (points - images).flatten(1).abs()
        free = (points.flatten(1) > 0) & (points.flatten(1) < 1)
        spread = moved.masked_fill(~free, 0).amax(1) - moved.masked_fill(~free, 9).amin(1)
        assert float(spread[free.any(1)].abs().max() if bool(free.any()) else 0) < 1e-9
    corner = along("l2", images, signs, room + 5)
    torch.testing.assert_close(corner, (images.flatten(1) + 2 * signs).clamp(0, 1).reshape(images.shape))


def test_parameters_out_of_range_are_refused() -> None:
    images, labels = examples(2)
    for places, queries in (([0], 5), ([256, 0], 5), ([0, 1], 0)):
        with pytest.raises(ValueError, match="should be"):
            rays(
                convolutional(), images, labels, Threat("linf", 0.1), places=torch.tensor(places), queries=queries,
                seed_of=int,
            )  # fmt: skip


def test_later_passes_are_drawn_for_blocks_of_examples() -> None:
    images = torch.zeros(300, 1, 2, 3)
    whole = module._Ranks(images, Uniform(torch.arange(300), lambda block: block))
    part = module._Ranks(images[:20], Uniform(torch.arange(250, 270), lambda block: block))
    numbers = torch.tensor([3 * 13 + 5] * 20)
    assert torch.equal(whole.block(torch.arange(250, 270), numbers), part.block(torch.arange(20), numbers))
