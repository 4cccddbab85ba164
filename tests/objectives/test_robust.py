"""What TRADES, MART and robust CMI add to a loss: by hand, at the extremes, and with their gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from robustbench_cmic.objectives import Cmic, RobustCmi, mart_terms, trades_terms

CLEAN = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2]], dtype=torch.float64)
CHANGED = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])
KL = [
    0.8 * math.log(0.8 / 0.5) + 0.1 * math.log(0.1 / 0.3) + 0.1 * math.log(0.1 / 0.2),
    0.3 * math.log(0.3 / 0.6) + 0.5 * math.log(0.5 / 0.2),
]


def plain(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(term) for name, term in terms.items()}


def test_trades_by_hand() -> None:
    """Logits are logarithms of probabilities, shifted: softmax does not see it."""
    terms = plain(trades_terms(CLEAN.log() + 3, CHANGED.log() - 1, 6.0))
    assert terms == pytest.approx({"total": 6 * (KL[0] + KL[1]) / 2, "trades_kl": (KL[0] + KL[1]) / 2})


def test_mart_by_hand() -> None:
    """The likeliest wrong classes at x' have 0.3 and 0.6; the true ones have 0.8 and 0.5 at x."""
    terms = plain(mart_terms(CLEAN.log() + 3, CHANGED.log() - 1, LABELS, 5.0))
    margin = -(math.log(1 - 0.3) + math.log(1 - 0.6)) / 2
    divergence = ((1 - 0.8) * KL[0] + (1 - 0.5) * KL[1]) / 2
    assert terms == pytest.approx({"total": margin + 5 * divergence, "mart_margin": margin, "mart_kl": divergence})


def released_trades(clean: Tensor, changed: Tensor, weight: float) -> Tensor:
    """As in `yaodongyu/TRADES`, without its cross entropy."""
    kl = functional.kl_div(changed.log_softmax(1), clean.softmax(1), reduction="sum")
    return weight * kl / len(clean)


def released_mart(clean: Tensor, changed: Tensor, labels: Tensor, weight: float) -> Tensor:
    """As in `YisenWang/MART`, without its cross entropy and without the constants that bound logarithms."""
    p = changed.softmax(1)
    order = p.argsort(dim=1)[:, -2:]
    other = torch.where(order[:, -1] == labels, order[:, -2], order[:, -1])
    boosted = functional.nll_loss((1 - p).log(), other)
    true = clean.softmax(1).gather(1, labels[:, None]).squeeze(1)
    kl = functional.kl_div(p.log(), clean.softmax(1), reduction="none").sum(1)
    return boosted + weight * (kl * (1 - true)).sum() / len(clean)


@pytest.mark.parametrize("method", ["trades", "mart"])
def test_values_and_gradients_are_those_of_the_authors_code(method: str) -> None:
    """In the clean logits, too: the gradient flows through P_x as well."""
    generator = torch.Generator().manual_seed(0)
    pair = [2 * torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2)]
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    found = []
    for ours in (True, False):
        clean, changed = (logits.clone().requires_grad_() for logits in pair)
        if method == "trades":
            value = trades_terms(clean, changed, 6.0)["total"] if ours else released_trades(clean, changed, 6.0)
        else:
            arguments = clean, changed, labels, 5.0
            value = mart_terms(*arguments)["total"] if ours else released_mart(*arguments)
        torch.autograd.backward([value])
        assert clean.grad is not None
        assert float(clean.grad.abs().sum()) > 0.1
        found.append([value.detach(), clean.grad, changed.grad])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "logits",
    [torch.zeros(2, 3), torch.tensor([[1000.0, 0, -1000], [0, 0, 1000]]), torch.tensor([[1.0, -torch.inf, 0]] * 2)],
)
def test_gradients_are_finite_at_the_extremes(logits: Tensor) -> None:
    for changed in (logits, logits.flip(0), logits[:, [0, 1, 2]] * -1 if logits.isfinite().all() else logits):
        leaves = [logits.clone().requires_grad_(), changed.clone().requires_grad_()]
        labels = torch.tensor([0, 2])
        for terms in (trades_terms(leaves[0], leaves[1], 6.0), mart_terms(leaves[0], leaves[1], labels, 5.0)):
            for gradient in torch.autograd.grad(terms["total"], leaves):
                assert gradient.isfinite().all()
            assert terms["total"].isfinite()


def test_robust_cmi_adds_the_terms_of_the_authors_reading() -> None:
    logits, labels = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3
    term = RobustCmi(3, lambda_=0.5, beta=0.2)
    reference = Cmic(3, lambda_=0.5, beta=0.2, separation_gradient="first", separation_mean="unlike_pairs")
    expected = reference(logits, labels)
    found = plain(term.added(logits, labels))
    assert found["total"] == pytest.approx(float(expected["total"] - expected["ce"]))
    assert found["robust_cmi"] == pytest.approx(float(expected["cmi"]))
    assert found["robust_separation"] == pytest.approx(float(expected["separation"]))
    ascended = term.ascended(logits, labels)
    assert ascended.shape == (8,)
    assert float(ascended.mean()) == pytest.approx(found["robust_cmi"] - 0.4 * found["robust_separation"])


def test_robust_separation_has_the_floor_of_its_own() -> None:
    """Two saturated rows of two classes: -P_x . max(log P_u, log 1e-8), where `Cmic` takes its floor from 1e-25."""
    logits = torch.tensor([[90.0, 0.0], [0.0, 90.0]])
    separation = plain(RobustCmi(2, beta=0.2).added(logits, torch.tensor([0, 1])))["robust_separation"]
    assert separation == pytest.approx(-math.log(1e-8), rel=1e-5)


def test_robust_cmi_begins_with_the_class_means_and_only_then() -> None:
    term = RobustCmi(2)
    outputs: list[tuple[Tensor, ...]] = [(CLEAN[:, :2].log(), torch.tensor([0, 1]))]
    term.begin_epoch(1, lambda: iter(outputs))
    expected = CLEAN[:, :2] / CLEAN[:, :2].sum(1, keepdim=True)
    torch.testing.assert_close(term.centroid.double(), expected, atol=1e-6, rtol=0)

    def never() -> Any:
        raise AssertionError

    term.begin_epoch(2, never)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_robust_cmi_without_concentration_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="lambda: should be above 0"):
        RobustCmi(3, lambda_=value)
