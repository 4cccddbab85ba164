"""The binarization test: what it hides is there, chance does not find it, and only an attack that works does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.audit.probes.binarization import _binarize, binarization_test
from robustbench_cmic.plan.audit import PlannedCheck
from robustbench_cmic.records.schema import ActiveTest
from robustbench_cmic.suite.fields import Norm, Threat
from tests.attacks.nets import convolutional, examples

PGD = {
    "name": "PGD", "alpha": 0.01, "steps": 20, "random_start": True, "restarts": 1, "targets": 0, "loss": "margin",
    "schedule": "constant", "early_stop": True,
}  # fmt: skip
IMAGES = examples(24)[0]
BALL = Threat("linf", 0.1)


def narrow(features: int) -> nn.Module:
    """Few features, as networks with global pooling have: any direction in them is met by many random points."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, features), nn.ReLU())
        return nn.Sequential(trunk, nn.Linear(features, 10)).eval()


def binarized(
    model: nn.Module, attack: dict[str, Any], *, images: Tensor = IMAGES, threat: Threat = BALL, seed: int = 0
) -> ActiveTest:
    planned = {"check": "active", "of": "x", "norm": threat.norm, "eps": threat.eps, "attack": attack}
    return binarization_test(model, images, 10, PlannedCheck.model_validate(planned), seed)


@pytest.mark.parametrize("model", [convolutional(), narrow(24)], ids=["wide", "narrow"])
@pytest.mark.parametrize(("norm", "eps", "alpha"), [("linf", 0.1, 0.01), ("l2", 0.5, 0.05)])
def test_pgd_finds_what_is_hidden_and_random_points_do_not(
    model: nn.Module, norm: Norm, eps: float, alpha: float
) -> None:
    found = binarized(model, PGD | {"alpha": alpha}, threat=Threat(norm, eps))
    assert (found.error, found.tested + found.by_chance) == ("", 24)
    assert found.tested >= 20
    assert found.found >= 0.8 * found.tested
    noise = binarized(model, {"name": "Noise", "samples": 20}, threat=Threat(norm, eps))
    assert noise.found <= 0.2 * noise.tested
    still = binarized(model, PGD | {"alpha": 0.0, "random_start": False}, threat=Threat(norm, eps))
    assert (still.tested, still.found) == (found.tested, 0)


def test_an_attack_without_gradients_to_follow_fails() -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = narrow(24)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.model((images * 64).round() / 64)
            return logits

    found = binarized(Rounded().eval(), PGD | {"random_start": False})
    assert found.tested >= 20
    assert found.found == 0


def test_images_are_of_the_first_class_and_something_in_the_ball_is_of_the_second() -> None:
    model, threat = narrow(24), Threat("linf", 0.1)
    torch.manual_seed(0)
    model_of_two, by_chance = _binarize(model, IMAGES, 10, threat)
    assert bool(model_of_two.separable.all())
    with torch.no_grad():
        scores = model_of_two(IMAGES)
        lead = torch.sub(*model(IMAGES).topk(2).values.T).clamp(min=1e-3)
    # The image leads by as much as it did, so that what fails on separated logits fails here.
    assert torch.allclose(scores[:, 0] - scores[:, 1], lead, rtol=1e-3)
    assert int(by_chance.sum()) <= 4


def test_equal_seeds_give_equal_tests() -> None:
    first, same = (binarized(narrow(24), PGD, seed=3) for _ in range(2))
    assert first == same


def test_what_a_model_raises_is_told() -> None:
    class Breaks(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("not\nwith me")

    found = binarized(Breaks(), PGD)
    here = f"test_binarization.py, line {Breaks.forward.__code__.co_firstlineno + 1}"
    assert (found.tested, found.error) == (0, f"RuntimeError: not with me ({here})")
    assert binarized(narrow(24), PGD, images=IMAGES[:0]).tested == 0
