"""Square Attack against the paper's algorithm written plainly, against torchattacks', and its own promises."""

from __future__ import annotations

import math

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustbench_cmic.attacks import square as module
from robustbench_cmic.attacks.blocks import Uniform
from robustbench_cmic.attacks.square import square
from robustbench_cmic.attacks.threat import violations
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples, predicted

NAMES = {"linf": "Linf", "l2": "L2"}


def run(model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, queries: int, seed: int = 0) -> Tensor:
    places = torch.arange(len(images))
    return square(model, images, labels, threat, places=places, seed_of=lambda block: seed + block, queries=queries)


class Stubborn(nn.Module):
    """Always right, and keeps what it is asked. Its margin rises or falls at random, whatever the images."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(images.clone())
        torch.manual_seed(len(self.asked))
        return torch.cat([torch.ones(len(images), 1), torch.rand(len(images), 2)], 1)


@pytest.fixture
def asked() -> list[Tensor]:
    """All L-inf queries of one search: 40 of each image, of 3 channels, 9 rows and 11 columns."""
    model = Stubborn()
    with torch.random.fork_rng(devices=[]):
        run(model, torch.full((4, 3, 9, 11), 0.5), torch.zeros(4, dtype=torch.long), Threat("linf", 0.1), 40)
    assert len(model.asked) == 41
    return model.asked


def test_linf_begins_with_stripes_and_stays_at_the_corners(asked: list[Tensor]) -> None:
    first = asked[0] - 0.5
    assert torch.equal(first, first[:, :, :1].expand_as(first))
    assert 40 < int((first[:, :, 0] > 0).sum()) < 92
    for query in asked:
        torch.testing.assert_close((query - 0.5).abs(), torch.full_like(query, 0.1))


def test_linf_queries_differ_from_an_earlier_one_in_a_square_of_one_sign_a_channel(asked: list[Tensor]) -> None:
    for number, query in enumerate(asked[1:]):
        side = module._side(number, 40, 0.8, (9, 11))
        for image in range(4):
            fits = []
            for earlier in asked[: number + 1]:
                changed = query[image] != earlier[image]
                rows, columns = changed.any(0).any(1).nonzero()[:, 0], changed.any(0).any(0).nonzero()[:, 0]
                small = len(rows) > 0 and int(rows[-1] - rows[0]) < side and int(columns[-1] - columns[0]) < side
                fits.append(small and all(len(set(query[image, c][changed[c]].tolist())) < 2 for c in range(3)))
            assert any(fits)


def test_squares_of_each_image_its_own_reach_all_pixels() -> None:
    images = torch.full((256, 1, 9, 11), 0.5)
    best = images - 0.1
    for side in (1, 2, 5, 9):
        generator = torch.Generator().manual_seed(side)
        counts = torch.zeros(9, 11)
        places = set()
        for _ in range(30):
            point = module._linf_query(images, best, 0.1, side, torch.rand(256, 6, generator=generator))
            changed = (point > 0.5)[:, 0]
            assert bool((changed.flatten(1).sum(1) == side**2).all()), "a query is never the point before"
            counts += changed.sum(0)
            places |= {tuple(map(int, each.nonzero()[0])) for each in changed}
        assert places == {(r, c) for r in range(10 - side) for c in range(12 - side)}
        if side == 1:
            assert float(counts.min()) > 0.5 * 30 * 256 / 99
            assert float(counts.max()) < 1.6 * 30 * 256 / 99


class LastPixel(nn.Module):
    """Class 1 where the last pixel exceeds 0.55."""

    def forward(self, images: Tensor) -> Tensor:
        last = images[:, 0, -1, -1]
        return torch.stack([0.55 - last, last - 0.55], 1) + images.flatten(1).sum(1, keepdim=True) * 0


def test_finds_the_last_pixel() -> None:
    images = torch.full((64, 1, 8, 8), 0.5)
    labels = torch.zeros(64, dtype=torch.long)
    found = run(LastPixel(), images, labels, Threat("linf", 0.1), 500)
    assert int(predicted(LastPixel(), found).sum()) > 58
    # Of torchattacks only the first stripes do, half of which point the right way.
    theirs = torchattacks.Square(LastPixel(), eps=0.1, n_queries=500)
    theirs.set_device("cpu")
    assert int(predicted(LastPixel(), theirs(images, labels)).sum()) < 48


def plain_l2_query(image: Tensor, best: Tensor, eps: float, side: int, numbers: Tensor) -> Tensor:
    """Algorithm 3 of the paper, for one image, in float64."""
    channels, height, width = image.shape
    delta = (best - image).double()
    u = numbers.tolist()
    r1, c1, r2, c2 = (int(x * (n - side + 1)) for x, n in zip(u, (height, width, height, width), strict=False))
    bump = torchattacks.Square(convolutional()).eta_rectangles(side // 2, side)
    bump = torch.cat([bump, -torchattacks.Square(convolutional()).eta_rectangles(side - side // 2, side)]).double()
    bump /= bump.norm()
    if u[4] >= 0.5:
        bump = bump.T
    union = torch.zeros(height, width, dtype=torch.bool)
    union[r1 : r1 + side, c1 : c1 + side] = True
    union[r2 : r2 + side, c2 : c2 + side] = True
    unused = max(eps**2 - float((delta**2).sum()), 0)
    result = delta.clone()
    result[:, r2 : r2 + side, c2 : c2 + side] = 0
    for c in range(channels):
        available = math.sqrt(float((delta[c][union] ** 2).sum()) + unused / channels)
        window = delta[c, r1 : r1 + side, c1 : c1 + side]
        new = (-1 if u[5 + c] < 0.5 else 1) * bump + window / window.norm()
        result[c, r1 : r1 + side, c1 : c1 + side] = available * new / new.norm()
    point: Tensor = (image + eps * result / result.square().sum().sqrt()).clamp(0, 1)
    return point


@pytest.mark.parametrize(("side", "odd"), [(1, 3), (3, 3), (4, 5), (7, 7)])
def test_l2_queries_are_those_of_the_paper(side: int, odd: int) -> None:
    generator = torch.Generator().manual_seed(side)
    images = torch.rand(12, 3, 8, 10, generator=generator)
    delta = torch.randn(12, 3, 8, 10, generator=generator)
    best = (images + 0.4 * delta / delta.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)).clamp(0, 1)
    numbers = torch.rand(12, 8, generator=generator)
    found = module._l2_query(images, best, 0.5, side, numbers)
    expected = torch.stack([plain_l2_query(images[i], best[i], 0.5, odd, numbers[i]) for i in range(12)])
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 14, 14), (1, 1, 7), (2, 4, 3)])
def test_l2_begins_with_bumps_all_over_the_image(shape: tuple[int, ...]) -> None:
    images = torch.full((40, *shape), 0.5)
    first = module._bumps(images, 0.4, Uniform(torch.arange(40), lambda _: 0)) - 0.5
    torch.testing.assert_close(first.flatten(1).norm(dim=1), torch.full((40,), 0.4))
    side = max(min(shape[1:]) // 5, 1)
    touched = first.abs().amax(0).amax(0)
    assert int((touched.amax(1) == 0).sum()) < side
    assert int((touched.amax(0) == 0).sum()) < side
    assert len({tuple(each.flatten().sign().tolist()) for each in first}) > 10, "signs of each image its own"


@pytest.mark.parametrize("queries", [10, 137, 5000, 10_000])
def test_sides_follow_the_schedule_of_the_authors_code(queries: int) -> None:
    reference = torchattacks.Square(convolutional(), n_queries=queries)
    for query in range(0, queries, max(1, queries // 200)):
        expected = max(round(math.sqrt(reference.p_selection(query) * 28 * 28)), 1)
        assert module._side(query, queries, 0.8, (28, 28)) == expected


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.25)])
def test_leaves_fewer_than_torchattacks(norm: Norm, eps: float) -> None:
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    ours = predicted(model, run(model, images, labels, Threat(norm, eps), 120)) == labels
    theirs = torchattacks.Square(model, norm=NAMES[norm], eps=eps, n_queries=120)(images, labels)
    assert int(ours.sum()) <= int((predicted(model, theirs) == labels).sum())


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.25)])
def test_an_example_fares_the_same_in_any_company(norm: Norm, eps: float) -> None:
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    threat = Threat(norm, eps)
    whole = run(model, images, labels, threat, 80)
    rows = torch.arange(1, 40, 2)
    part = square(model, images[rows], labels[rows], threat, places=rows, seed_of=lambda _: 0, queries=80)
    torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-6)
    assert 0 < int((predicted(model, part) == labels[rows]).sum()) < len(rows)
    assert torch.equal(run(model, images, labels, threat, 80), whole)
    assert not torch.equal(run(model, images, labels, threat, 80, seed=1), whole)


@settings(max_examples=15, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 2),
    queries=st.integers(1, 30),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_result_stays_in_ball_and_box(
    norm: Norm, eps: float, queries: int, shape: tuple[int, int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 4))
    images = (1.4 * torch.rand(5, *shape, generator=generator) - 0.2).clamp(0, 1)
    threat = Threat(norm, min(eps, 1.0) if norm == "linf" else eps)
    found = run(model, images, torch.arange(5) % 4, threat, queries, seed)
    assert not bool(violations(threat, images, found, tolerance=2e-6).any())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_places_and_queries_out_of_range_are_refused() -> None:
    images, labels = examples(2)
    for places, queries in (([0], 5), ([256, 0], 5), ([-1, 0], 5), ([0, 1], 0)):
        with pytest.raises(ValueError, match="should be"):
            square(
                convolutional(), images, labels, Threat("linf", 0.1), places=torch.tensor(places), queries=queries,
                seed_of=int,
            )  # fmt: skip


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.04), ("l2", 0.25)])
def test_looking_less_often_changes_no_result(norm: Norm, eps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = convolutional()
    images, _ = examples(40)
    labels = predicted(model, images)
    every_time = run(model, images, labels, Threat(norm, eps), 85)
    for every in (2, 10, 100):
        monkeypatch.setattr(module, "_look_every", lambda _, every=every: every)
        found = run(model, images, labels, Threat(norm, eps), 85)
        assert torch.equal(predicted(model, found), predicted(model, every_time))
        torch.testing.assert_close(found, every_time, rtol=0, atol=1e-6)
    assert 0 < int((predicted(model, every_time) == labels).sum()) < 40
