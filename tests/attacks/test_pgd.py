"""PGD against torchattacks (bit for bit), against closed forms, and its own promises."""

from __future__ import annotations

import functools

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from robustbench_cmic.attacks.losses import LOSSES, class_centroids
from robustbench_cmic.attacks.pgd import pgd, pgd_search
from robustbench_cmic.attacks.threat import l2_norms, random_perturbations, violations
from robustbench_cmic.suite.attacks import PGD
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import Linear, convolutional, examples, predicted
from tests.attacks.oracles import LinearClassifier, inner_images, linear_robust


@pytest.mark.parametrize("n", [1, 7, 50, 100, 128])
@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("eps", [0.03, 8 / 255, 0.2])
def test_equals_torchattacks_bit_for_bit(n: int, scale: float, eps: float) -> None:
    model = convolutional(scale=scale)
    images, labels = examples(n)
    theirs = torchattacks.PGD(model, eps=eps, alpha=eps / 10, steps=20, random_start=False)(images, labels)
    ours = pgd(model, images, labels, eps=eps, alpha=eps / 10, steps=20, random_start=False)
    assert torch.equal(ours, theirs)
    fgsm = torchattacks.FGSM(model, eps=eps)(images, labels)
    assert torch.equal(pgd(model, images, labels, eps=eps, alpha=eps, steps=1, random_start=False), fgsm)
    assert not torch.equal(ours, fgsm)


def test_equals_torchattacks_from_the_same_random_start() -> None:
    model = convolutional()
    images, labels = examples(40)
    torch.manual_seed(3)
    theirs = torchattacks.PGD(model, eps=0.1, alpha=0.02, steps=7)(images, labels)
    torch.manual_seed(3)
    assert torch.equal(pgd(model, images, labels, eps=0.1, alpha=0.02, steps=7), theirs)
    assert not torch.equal(pgd(model, images, labels, eps=0.1, alpha=0.02, steps=7), theirs)


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("eps", [0.02, 0.05, 0.1])
def test_early_stop_loses_no_example_that_torchattacks_breaks(scale: float, eps: float) -> None:
    """From the same random starts: whatever their last iterate breaks, some iterate of ours breaks."""
    model = convolutional(scale=scale)
    images, _ = examples(300)
    labels = predicted(model, images)
    torch.manual_seed(4)
    theirs = torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=10)(images, labels)
    torch.manual_seed(4)
    ours = pgd(model, images, labels, eps=eps, alpha=eps / 4, steps=10, early_stop=True)
    survive_theirs, survive_ours = (predicted(model, found) == labels for found in (theirs, ours))
    assert not bool((survive_ours & ~survive_theirs).any())
    assert int((~survive_theirs).sum()) > 0


def linear_case() -> tuple[Linear, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    model = Linear(torch.randn(64, generator=generator), bias=0.0)
    images = 0.4 + 0.2 * torch.rand(10, 1, 8, 8, generator=generator)
    return model, images, predicted(model, images)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_linear_model_linf_optimum(loss: str) -> None:
    model, images, labels = linear_case()
    direction = torch.where(labels == 1, -1.0, 1.0)[:, None, None, None] * model.weight.detach().sign().reshape(1, 8, 8)
    optimum = (images + 0.1 * direction).clamp(0, 1)
    found = pgd(model, images, labels, eps=0.1, alpha=0.03, steps=10, loss=loss)
    assert torch.allclose(found, optimum, atol=1e-6)


def test_linear_model_linf_optimum_at_the_edge_of_the_box() -> None:
    model, images, labels = linear_case()
    found = pgd(model, images, labels, eps=0.9, alpha=0.3, steps=10, loss="margin")
    direction = torch.where(labels == 1, -1.0, 1.0)[:, None, None, None] * model.weight.detach().sign().reshape(1, 8, 8)
    assert torch.allclose(found, (images + 0.9 * direction).clamp(0, 1), atol=1e-6)
    assert bool(((found == 0) | (found == 1)).all())


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_linear_model_l2_optimum(loss: str) -> None:
    model, images, labels = linear_case()
    unit = (model.weight.detach() / model.weight.detach().norm()).reshape(1, 8, 8)
    optimum = images + 0.3 * torch.where(labels == 1, -1.0, 1.0)[:, None, None, None] * unit
    found = pgd(model, images, labels, eps=0.3, alpha=0.1, steps=30, norm="l2", loss=loss, random_start=False)
    assert torch.allclose(found, optimum, atol=1e-5)


def test_l2_step_survives_a_vanishing_gradient() -> None:
    # Gradients of 1e-30: their squares underflow float32, so that a naive length is 0 and the step undefined.
    model, images, labels = linear_case()
    faint = Linear(model.weight.detach() * 1e-30, bias=0.0)
    labels = predicted(model, images)
    found = pgd(faint, images, labels, eps=0.3, alpha=0.3, steps=1, norm="l2", loss="margin", random_start=False)
    assert torch.allclose(l2_norms(found - images).flatten(), torch.full((10,), 0.3), rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_result_stays_in_ball_and_box(norm: Norm) -> None:
    model = convolutional()
    images, labels = examples(30)
    found = pgd(model, images, labels, eps=0.25, alpha=0.2, steps=5, norm=norm)
    assert not bool(violations(Threat(norm, 0.25), images, found, tolerance=1e-6).any())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert not found.requires_grad


def test_early_stop_returns_a_misclassified_iterate_and_loses_none() -> None:
    model = convolutional(scale=5)
    images, _ = examples(60)
    labels = predicted(model, images)
    settings = {"eps": 0.06, "alpha": 0.01, "steps": 15, "random_start": False}
    plain = predicted(model, pgd(model, images, labels, **settings)) == labels  # type: ignore[arg-type]
    stopped = pgd(model, images, labels, **settings, early_stop=True)  # type: ignore[arg-type]
    survived = predicted(model, stopped) == labels
    assert 0 < int(survived.sum()) < 60
    assert not bool((survived & ~plain).any())
    # An example that was broken early lies closer to the image than the full walk would have taken it.
    assert float((stopped - images)[~survived].abs().amax((1, 2, 3)).min()) < 0.055


def test_restarts_never_make_the_attack_weaker() -> None:
    model = convolutional(scale=5)
    images, _ = examples(80)
    labels = predicted(model, images)
    for early_stop in (False, True):
        broken = []
        for restarts in (1, 6):
            torch.manual_seed(0)
            found = pgd(model, images, labels, eps=0.04, alpha=0.02, steps=2, restarts=restarts, early_stop=early_stop)
            broken.append(predicted(model, found) != labels)
        assert not bool((broken[0] & ~broken[1]).any())
        assert int(broken[1].sum()) > int(broken[0].sum())


def test_losses_as_defined() -> None:
    logits = torch.tensor([[2.0, 5.0, -1.0, 0.5], [3.0, 1.0, 0.0, -2.0]])
    labels = torch.tensor([0, 0])
    assert LOSSES["margin"](logits, labels).tolist() == [3.0, -2.0]
    # z sorted: 5, 2, 0.5, -1 and 3, 1, 0, -2; divided by first minus third.
    assert torch.allclose(LOSSES["dlr"](logits, labels), torch.tensor([3 / 4.5, -2 / 3]))
    expected = -logits.double().log_softmax(1)[:, 0]
    assert torch.allclose(LOSSES["ce"](logits, labels).double(), expected, rtol=1e-6)


def test_margin_and_dlr_break_what_saturated_cross_entropy_cannot_see() -> None:
    model = convolutional(scale=1e4)
    images, _ = examples(50)
    labels = predicted(model, images)
    survivors = {}
    for loss in ("ce", "margin", "dlr"):
        found = pgd(model, images, labels, eps=0.1, alpha=0.02, steps=20, loss=loss, random_start=False)
        survivors[loss] = int((predicted(model, found) == labels).sum())
    assert survivors["ce"] > 30
    assert survivors["margin"] < 5
    assert survivors["dlr"] < 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps should be"),
        ({"eps": float("nan")}, "eps should be"),
        ({"alpha": float("inf")}, "alpha should be"),
        ({"steps": 0}, "at least 1"),
        ({"restarts": 0}, "at least 1"),
        ({"norm": "l1"}, "'linf' or 'l2'"),
        ({"loss": "mse"}, "loss should be one of ce, margin, dlr"),
        ({"targets": -1}, "targets should be at least 0"),
        ({"schedule": "step"}, "schedule should be one of constant, linear, cosine"),
        ({"loss": "cmic"}, "'cmic' needs the class centroids"),
        ({"loss": "cmic", "targets": 2}, "'cmic' needs the class centroids"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    images, labels = examples(2)
    parameters = {"eps": 0.1, "alpha": 0.1, "steps": 1} | wrong
    with pytest.raises(ValueError, match=message):
        pgd(convolutional(), images, labels, **parameters)  # type: ignore[arg-type]


def test_images_outside_their_range_are_refused() -> None:
    images, labels = examples(2)
    for wrong in (images * 255, images - 0.5, images * torch.nan):
        with pytest.raises(ValueError, match=r"images should be in \[0, 1\]"):
            pgd(convolutional(), wrong, labels, eps=0.1, alpha=0.1, steps=1)


def test_random_starts_fill_the_ball() -> None:
    torch.manual_seed(0)
    lengths = l2_norms(random_perturbations(Threat("l2", 0.5), torch.Size((4000, 1, 3, 3)))).flatten()
    cube = random_perturbations(Threat("linf", 0.5), torch.Size((4000, 1, 3, 3)))
    for values, low in ((lengths, 0.0), (cube, -0.5)):
        # Uniform between its ends: as many values in each tenth.
        shares = torch.histc(values, bins=10, min=low, max=0.5) / values.numel()
        assert float((shares - 0.1).abs().max()) < 0.02
    directions = random_perturbations(Threat("l2", 0.5), torch.Size((4000, 1, 3, 3))).sign().mean(0)
    assert float(directions.abs().max()) < 0.07


def test_dlr_needs_three_classes() -> None:
    model, images, labels = linear_case()
    with pytest.raises(ValueError, match="at least 3 classes"):
        pgd(model, images, labels, eps=0.1, alpha=0.1, steps=1, loss="dlr")


@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", 0.05, 0.02), ("l2", 0.3, 0.1)])
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr", "scaled_ce", "log_odds"])
def test_targets_reach_the_exact_robust_accuracy_of_a_linear_model(
    norm: Norm, eps: float, alpha: float, loss: str
) -> None:
    model, images = LinearClassifier(6), inner_images(150)
    labels = predicted(model, images)
    robust = linear_robust(model, images, labels, norm, eps)
    settings = {"eps": eps, "alpha": alpha, "steps": 20, "norm": norm, "loss": loss, "early_stop": True}
    torch.manual_seed(0)
    found = pgd(model, images, labels, **settings, targets=99)  # type: ignore[arg-type]
    # Cross entropy and DLR also weigh classes that are neither label nor target, and may give way for those.
    missed = (predicted(model, found) == labels) & ~robust
    assert bool((predicted(model, found) == labels)[robust].all())
    assert int(missed.sum()) <= (0 if loss == "margin" else 1)
    one = pgd(model, images, labels, **settings, targets=1)  # type: ignore[arg-type]
    assert 0 < int((predicted(model, one) != labels).sum()) <= int((~robust).sum())


def test_targets_are_the_likeliest_classes_at_the_image_one_run_each() -> None:
    model, images = LinearClassifier(6), inner_images(1)
    with torch.no_grad():
        order = model(images)[0].argsort(descending=True)
    started: list[int] = []

    def noise(run: int) -> Tensor:
        started.append(run)
        return torch.zeros_like(images)

    for targets in (1, 2, 5, 9):
        started.clear()
        search = PGD(name="PGD", eps=[0.1], alpha=1e-6, steps=1, loss="margin", restarts=2, targets=targets)
        found = pgd_search(model, images, order[:1], search, noise)
        towards = order[min(targets, 5)]  # of the last run
        expected = images + 1e-6 * (model.weight[towards] - model.weight[order[0]]).sign().reshape(1, 1, 8, 8)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
        assert started == list(range(2 * min(targets, 5)))


@pytest.mark.parametrize(
    ("schedule", "sizes"),
    [
        ("constant", [0.4, 0.4, 0.4, 0.4]),
        ("linear", [0.4, 0.3, 0.2, 0.1]),
        ("cosine", [0.4, 0.34142136, 0.2, 0.05857864]),
    ],
)
def test_step_sizes_follow_the_schedule(schedule: str, sizes: list[float]) -> None:
    search = PGD(name="PGD", eps=[0.4], alpha=0.4, steps=4, schedule=schedule)  # type: ignore[arg-type]
    assert [search.step_size(step) for step in range(4)] == pytest.approx(sizes)
    model, images, labels = linear_case()
    settings = {"eps": 0.4, "steps": 4, "loss": "margin", "random_start": False, "schedule": schedule}
    found = pgd(model, images, labels, alpha=0.04, **settings)  # type: ignore[arg-type]
    # The gradient of a linear model is the same everywhere: every pixel goes the whole way.
    torch.testing.assert_close((found - images).abs(), torch.full_like(images, sum(sizes) / 10))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_is_not_finite_moves_nothing_and_harms_nothing(norm: Norm, spoilt: float) -> None:
    class Spoilt(nn.Module):
        """The first example's first pixel has a gradient of `spoilt`."""

        def forward(self, images: Tensor) -> Tensor:
            mask = torch.ones_like(images)
            mask[0, 0, 0, 0] = spoilt
            if images.requires_grad:
                images = images * 1  # an inner node, whose gradient is changed
                images.register_hook(lambda gradient: gradient * mask)  # type: ignore[no-untyped-call]
            logits: Tensor = model(images)
            return logits

    model, images, labels = linear_case()
    settings = {"eps": 0.1, "alpha": 0.02, "steps": 3, "norm": norm, "random_start": False}
    clean = pgd(model, images, labels, **settings)  # type: ignore[arg-type]
    found = pgd(Spoilt(), images, labels, **settings)  # type: ignore[arg-type]
    assert torch.equal(found[1:], clean[1:])
    assert float(found[0, 0, 0, 0]) == float(images[0, 0, 0, 0])
    assert bool((found[0].flatten()[1:] != images[0].flatten()[1:]).all())


def test_cmic_breaks_what_saturated_cross_entropy_cannot_see_towards_targets_too() -> None:
    model = convolutional(scale=1e4)
    images, _ = examples(50)
    labels = predicted(model, images)
    with torch.no_grad():
        centroids = class_centroids(model(images), labels, 10)
    settings = {"eps": 0.1, "alpha": 0.02, "steps": 10, "random_start": False, "loss": "cmic", "centroids": centroids}
    for targets in (0, 3):
        found = pgd(model, images, labels, **settings, targets=targets)  # type: ignore[arg-type]
        assert int((predicted(model, found) == labels).sum()) < 8


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint64])
@pytest.mark.parametrize("loss", ["ce", "margin", "cmic"])
def test_labels_of_any_integer_type_are_attacked_alike(kind: torch.dtype, loss: str) -> None:
    model = convolutional()
    images, labels = examples(6)
    centroids = class_centroids(model(images), labels, 10)
    assert torch.equal(class_centroids(model(images), labels.to(kind), 10), centroids)

    def attacked(given: Tensor) -> Tensor:
        fixed = functools.partial(pgd, eps=0.1, alpha=0.02, steps=2, targets=2, random_start=False)
        return fixed(model, images, given, loss=loss, centroids=centroids)

    assert torch.equal(attacked(labels.to(kind)), attacked(labels))


def test_labels_that_are_none_are_refused() -> None:
    images, labels = examples(6)
    for wrong in (labels.float(), labels > 4, labels[:5], labels[:, None], torch.full_like(labels, -100)):
        with pytest.raises(ValueError, match="labels should be"):
            pgd(convolutional(), images, wrong, eps=0.1, alpha=0.02, steps=1)
