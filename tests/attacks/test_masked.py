"""Logits of -infinity: what is computed is what would be, had the network no output for the masked classes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from robustbench_cmic.attacks.losses import LOSSES, class_centroids, make_loss
from robustbench_cmic.attacks.model import usable
from robustbench_cmic.information.bootstrap import bootstrap_ncmi
from robustbench_cmic.information.calibration import fit_temperature, measure_calibration
from robustbench_cmic.information.measures import measure_information
from robustbench_cmic.objectives.cmic import Cmic

KEPT = torch.tensor([0, 1, 3, 4, 6, 8])
CLASSES = 9


def masked_and_reduced(n: int = 60) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (n, 9) of which 3 are masked, labels; the same with 6 outputs."""
    generator = torch.Generator().manual_seed(1)
    reduced = 3 * torch.randn(n, len(KEPT), generator=generator)
    small = torch.randint(len(KEPT), (n,), generator=generator)
    masked = torch.full((n, CLASSES), -torch.inf).index_copy(1, KEPT, reduced)
    return masked, KEPT[small], reduced, small


@pytest.mark.parametrize("name", list(LOSSES))
def test_losses_and_their_gradients_are_those_over_the_finite_classes(name: str) -> None:
    masked, labels, reduced, small = masked_and_reduced()
    found = []
    for logits, truth in ((masked, labels), (reduced, small)):
        leaf = logits.clone().requires_grad_()
        centroids = class_centroids(reduced, small, len(KEPT))
        if logits is masked:  # those of masked classes are far from everything
            few, centroids = centroids, torch.eye(CLASSES, dtype=torch.float64)
            centroids[KEPT[:, None], KEPT] = few
        values = make_loss(name, centroids)(leaf, truth)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        found.append((values, gradient))
    (values, gradient), (expected, slope) = found
    assert torch.allclose(values, expected, atol=1e-5)
    assert torch.allclose(gradient[:, KEPT], slope, atol=1e-5)


def test_dlr_is_the_margin_where_fewer_classes_are_left_than_it_divides_by() -> None:
    logits = torch.tensor([[2.0, 1.0, -torch.inf, -torch.inf]]).requires_grad_()
    value = LOSSES["dlr"](logits, torch.tensor([0]))
    assert value.item() == -1
    assert torch.autograd.grad(value.sum(), logits)[0].tolist() == [[-1, 1, 0, 0]]


def test_information_is_that_over_the_finite_classes() -> None:
    masked, labels, reduced, small = masked_and_reduced()
    found, expected = measure_information(masked, labels), measure_information(reduced, small)
    for name in ("cmi", "separation", "ncmi"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)
    assert [found.class_cmi[index] for index in KEPT] == pytest.approx(expected.class_cmi)
    assert torch.allclose(bootstrap_ncmi(masked, labels, 20), bootstrap_ncmi(reduced, small, 20), rtol=1e-12)
    assert fit_temperature(masked, labels) == pytest.approx(fit_temperature(reduced, small), rel=1e-8)
    one, other = measure_calibration(masked, labels), measure_calibration(reduced, small)
    assert dataclasses.astuple(one.native) == pytest.approx(dataclasses.astuple(other.native))
    with pytest.raises(ValueError, match="finite"):
        measure_information(torch.full((3, 2), -torch.inf), torch.zeros(3, dtype=torch.int64))


def test_cmic_trains_over_the_finite_classes() -> None:
    masked, labels, _, _ = masked_and_reduced()
    leaf = masked.clone().requires_grad_()
    terms = Cmic(CLASSES)(leaf, labels)
    assert all(bool(torch.isfinite(term)) for term in terms.values())
    assert bool(torch.isfinite(torch.autograd.grad(terms["total"], leaf)[0]).all())


@pytest.mark.parametrize(
    ("row", "decides"),
    [
        ([0.0, -1], True),
        ([0, -torch.inf], True),
        ([-torch.inf] * 2, False),
        ([torch.nan, 0], False),
        ([torch.inf, 0], False),
        ([-torch.inf, torch.nan], False),
    ],
)
def test_logits_decide_where_one_is_finite_and_none_is_nan_or_infinity(row: list[float], decides: bool) -> None:
    assert usable(torch.tensor([[1.0, 2.0], row])) == decides
