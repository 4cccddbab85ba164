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
from tests.attacks.nets import Linear, convolutional, examples
from tests.audit.probes.faults import WRONG, Defended
from tests.audit.probes.test_derivatives import HONEST

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


@pytest.mark.parametrize("name", ["max-pooling", "gelu", "attention", "nearest", "log-softmax", "one-precision"])
def test_what_is_hidden_in_honest_networks_is_found(name: str) -> None:
    model = HONEST[name]
    found = binarized(model, PGD)
    assert (found.error, found.tried) == ("", 24)
    assert found.tested >= 18
    assert found.found >= 0.9 * found.tested


@pytest.mark.parametrize("name", ["checkerboard", "half", "negated", "grid", "thrown-away"])
def test_what_is_hidden_behind_wrong_gradients_is_not(name: str) -> None:
    found = binarized(Defended(convolutional(), WRONG[name]), PGD)
    assert (found.error, found.tested >= 20) == ("", True)
    assert found.found <= 0.65 * found.tested


def test_a_last_layer_whose_result_is_thrown_away_does_not_count() -> None:
    class TwoPasses(nn.Module):
        """The logits are a rounded image's; the honest network comes last, times 0."""

        def __init__(self) -> None:
            super().__init__()
            self.net = convolutional()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.net((images * 64).round() / 64) + 0 * self.net(images)
            return logits

    found = binarized(TwoPasses().eval(), PGD | {"random_start": False})
    assert found.tested >= 20
    assert found.found == 0


def test_of_two_linear_classes_the_exact_optimum_is_found() -> None:
    planned = {"check": "active", "of": "x", "norm": "linf", "eps": 0.1, "attack": {"name": "FGSM", "loss": "margin"}}
    model = Linear(torch.linspace(-1, 1, 64), 0.0)
    found = binarization_test(model, IMAGES, 2, PlannedCheck.model_validate(planned), 0)
    assert (found.tested + found.by_chance, found.found) == (24, found.tested)
    assert found.tested >= 20


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
