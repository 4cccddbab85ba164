"""What an objective may ask of a network: features, a head in the place of its last layer, a group of parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.data.base import Split
from robustbench_cmic.models.build import build_model
from robustbench_cmic.objectives import FeatureObjective, Objective, ObjectiveError, OwnHead, ParameterGroup
from robustbench_cmic.suite.models import Model
from robustbench_cmic.training.adversary import AtPrecision
from robustbench_cmic.training.checkpoint import load_state, save_state
from robustbench_cmic.training.loop import train
from robustbench_cmic.training.optimizer import build_optimizer, set_rate
from tests.objectives.rivals import accuracy, begun, begun_with
from tests.training.test_train import DIGITS, declare, optimizer_of, weights

FEW = Split(DIGITS.train.images[:256], DIGITS.train.labels[:256])


class Scaled(FeatureObjective):
    """Cross entropy of logits times a learned number, and what it was given."""

    def __init__(self, group: ParameterGroup | None = None) -> None:
        super().__init__()
        self.classes = 10
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []
        if group is not None:
            self.parameter_group = group

    def forward(self, logits: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        self.seen.append(features.detach())
        return {"total": functional.cross_entropy(self.scale * logits, labels)}


class Nearest(Objective):
    """Cross entropy of a head that returns minus the distance of features to a mean for each class."""

    owns_head = True
    parameter_group = ParameterGroup(lr_factor=2.0, weight_decay=True)

    class Head(nn.Module):
        def __init__(self, classes: int, features: int) -> None:
            super().__init__()
            self.means = nn.Parameter(torch.randn(classes, features))

        def forward(self, features: Tensor) -> Tensor:
            return -torch.cdist(features, self.means)

    def __init__(self) -> None:
        super().__init__()
        self.classes = 10

    def make_head(self, features: int) -> nn.Module:
        return Nearest.Head(self.classes, features)

    def forward(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"total": functional.cross_entropy(logits, labels)}


@pytest.mark.parametrize("architecture", ["mlp", "small_cnn", "small_resnet", "resnet18", "vit_tiny_patch16_224"])
def test_features_are_what_goes_into_the_last_linear_layer(architecture: str) -> None:
    side = 224 if architecture.startswith("vit") else 16
    model = build_model(Model(id="x", architecture=architecture), (3, side, side), 10, ([0.5] * 3, [0.2] * 3), 0)
    images = torch.rand(2, 3, side, side)
    objective = Scaled()
    objective.attach(model, images)
    model.eval()
    logits, features = objective.outputs(model, images)
    layer = objective.last_layer.layer
    assert isinstance(layer, nn.Linear)
    assert features.shape == (2, layer.in_features)
    assert torch.equal(layer(features), logits)
    assert torch.equal(model(images), logits)
    assert not layer._forward_pre_hooks


def test_features_are_float32_under_autocast_and_carry_gradients() -> None:
    training = begun_with(Scaled())
    logits, features = training.objective.outputs(AtPrecision(training.model, True), torch.rand(4, 1, 8, 8))
    assert (logits.dtype, features.dtype) == (torch.float32, torch.float32)
    torch.autograd.backward(features.sum())
    assert training.model.get_parameter("1.0.weight").grad is not None


def test_looking_for_the_last_layer_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[2].eval()
    images = torch.rand(2, 1, 8, 8)
    torch.manual_seed(1)
    drawn = torch.get_rng_state()
    Scaled().attach(model, images)
    assert [module.training for module in model] == [True, True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not any(module._forward_hooks for module in model.modules())


class Twice(nn.Module):
    """Uses one linear layer two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.layer(images.flatten(1)[:, :10]))
        return logits


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), "it has no linear layer"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)), "the output of its last one, 1, is another"),
        (Twice(), "layer is used more than once in a pass"),
    ],
)
def test_a_network_without_a_last_linear_layer_is_refused(model: nn.Module, words: str) -> None:
    with pytest.raises(ObjectiveError, match="this objective needs a network that ends") as raised:
        Scaled().attach(model, torch.rand(2, 1, 8, 8))
    assert str(raised.value).endswith(words)
    assert "\n" not in str(raised.value)


def test_an_objective_that_was_not_attached_says_so() -> None:
    with pytest.raises(ObjectiveError, match="Scaled needs `attach"):
        Scaled().outputs(nn.Linear(2, 2), torch.rand(2, 2))


def test_an_objective_that_needs_nothing_leaves_the_network_alone() -> None:
    broken = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    objective = begun({"name": "ce"}).objective
    objective.attach(broken, torch.rand(2, 1, 8, 8))
    (logits,) = objective.outputs(broken, torch.rand(2, 1, 8, 8))
    assert logits.shape == (2, 10)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("decays", "momentum"), [(False, False), (True, True)])
def test_parameters_of_an_objective_are_a_group_of_their_own(optimizer: str, decays: bool, momentum: bool) -> None:
    group = ParameterGroup(lr_factor=0.5, weight_decay=decays, momentum=momentum)
    training = begun_with(Scaled(group), 0, {"name": optimizer, "lr": 0.1, "weight_decay": 0.01})
    network, own = training.optimizer.param_groups
    assert len(network["params"]) == len(list(training.model.parameters()))
    assert own["params"] == list(training.objective.parameters())
    assert own["weight_decay"] == (0.01 if decays else 0)
    assert (own["momentum"] if optimizer == "sgd" else own["betas"][0]) == (0.9 if momentum else 0)
    set_rate(training.optimizer, 0.02)
    assert (network["lr"], own["lr"]) == (0.02, 0.01)


def test_parameters_are_learned_and_resume_bit_for_bit(tmp_path: Any) -> None:
    declared = declare({"epochs": 2})
    whole, resumed = begun_with(Scaled()), begun_with(Scaled(), 1)

    def keep(training: Any) -> None:
        if len(training.curve) == 1:
            save_state(tmp_path / "state", training.state(), "cell")

    assert train(whole, FEW, declared=declared, seed=0, after_epoch=keep) is None
    state = load_state(tmp_path / "state", "cell")
    assert state is not None
    resumed.restore(state)
    assert train(resumed, FEW, declared=declared, seed=0) is None
    assert isinstance(whole.objective, Scaled)
    assert isinstance(resumed.objective, Scaled)
    assert torch.equal(weights(whole), weights(resumed))
    assert float(whole.objective.scale.detach()) == float(resumed.objective.scale.detach()) != 1


def test_a_head_takes_the_place_of_the_last_layer() -> None:
    training, plain = begun_with(Nearest()), begun({"name": "ce"})
    (head,) = [module for module in training.model.modules() if isinstance(module, OwnHead)]
    assert training.objective.head is head.head
    body = [name for name in plain.model.state_dict() if not name.startswith("1.11.")]
    ours, theirs = training.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in body), "the network starts from equal weights"
    assert set(ours) - set(body) == {"1.11.head.means", "1.11.own_head"}
    own = training.optimizer.param_groups[1]
    assert own["params"] == list(head.parameters())
    assert own["weight_decay"] == 5e-4
    assert len(training.optimizer.param_groups[0]["params"]) == len(list(plain.model.parameters())) - 2
    assert train(training, DIGITS.train, declared=declare({"epochs": 5}), seed=0) is None
    assert accuracy(training) > 0.9


def test_a_head_computes_in_float32_under_autocast() -> None:
    training = begun_with(Nearest())
    with torch.autocast("cpu", torch.bfloat16):
        assert training.model(torch.rand(4, 1, 8, 8)).dtype == torch.float32


def test_a_network_that_is_one_linear_layer_takes_no_head() -> None:
    with pytest.raises(ObjectiveError, match="put it into a Sequential"):
        Nearest().attach(nn.Linear(4, 10), torch.rand(2, 4))


def test_the_optimizer_of_others_has_one_group() -> None:
    model = nn.Linear(2, 2)
    optimizer = build_optimizer(model, optimizer_of({"name": "sgd", "lr": 0.1}), begun({"name": "ce"}).objective)
    assert [group["params"] for group in optimizer.param_groups] == [list(model.parameters())]
