"""Every class of torchattacks on grey and colour images of odd sizes, one alone and one more than a block of 256."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.model import AttackError, CountedModel, GradientWatch
from robustbench_cmic.suite.attacks import NATIVE_ATTACKS
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.torchattacks import TorchattacksAttack, attack_modules, class_parameters

QUICK = {
    "steps": 2, "n_queries": 3, "n_restarts": 1, "restarts": 1, "max_iterations": 2, "binary_search_steps": 1, "N": 1,
    "m": 1, "eot_iter": 1, "num_iter_set": 2, "num_iter": 2, "nb_sample": 2, "max_batch_size": 2, "popsize": 3,
    "abort_early": False,
}  # fmt: skip
SHAPES = [(1, 11, 13), (1, 7, 7), (3, 13, 11), (3, 7, 7)]
CLASSES = 10
ATTACKED = 2
"""So many of 257 are classified correctly: what goes on from image to image is done with the others at once."""


def network(channels: int) -> nn.Module:
    """Laid out as this package's are, which is where `view` fails."""
    torch.manual_seed(0)
    layers = nn.Conv2d(channels, 2, 3, stride=2, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, CLASSES)).eval().to(memory_format=torch.channels_last)


def tried(name: str, shape: tuple[int, int, int], n: int) -> int:
    """The examples of n that a quick attack of this class was judged on."""
    model, images = network(shape[0]), torch.rand(n, *shape)
    labels = model(images).argmax(1)
    labels[ATTACKED:] = (labels[ATTACKED:] - 1) % CLASSES  # JSMA aims at the next class
    taken = class_parameters(name)
    own = {key: value for key, value in QUICK.items() if key in taken}
    ball = {} if "eps" in taken else {"norm": "linf"}
    attack = TorchattacksAttack.model_validate({"name": name, "eps": [0.5], **own, **ball})
    assert list(attack.problems()) == []
    verdict = evaluate_attack(model, images, labels, classes=CLASSES, attack=attack.at(attack.threats()[0]), seed=0)
    return len(verdict.correct)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of SparseFool
@pytest.mark.parametrize("name", sorted(set(attack_modules()) - set(NATIVE_ATTACKS)))
def test_every_class_works_or_says_why_not(name: str) -> None:
    for shape in SHAPES:
        attack = TorchattacksAttack.model_validate({"name": name, "norm": "linf", "eps": [0.5]})
        if problem := attack.misfit(shape, CLASSES):
            with pytest.raises(AttackError, match=problem):
                tried(name, shape, 1)
        else:
            assert tried(name, shape, 1) == 1
    # A block and one image behind it: in colour, where the layouts differ.
    assert tried(name, SHAPES[-1], 257) == 257


def test_what_a_class_takes_for_granted_is_told() -> None:
    """Kernels of three channels, sides that are exchanged, a next class of ten."""

    def misfit(name: str, shape: tuple[int, int, int], classes: int | None) -> str | None:
        return TorchattacksAttack.model_validate({"name": name, "norm": "linf", "eps": [0.5]}).misfit(shape, classes)

    square = (3, 8, 8)
    told = {name for name in attack_modules() if misfit(name, (1, 8, 8), 10)}
    assert told == {"PIFGSM", "PIFGSMPP", "TIFGSM"}
    assert {name for name in attack_modules() if misfit(name, (3, 8, 9), 10)} == {"Pixle"}
    assert {name for name in attack_modules() if misfit(name, square, 9)} == {"JSMA"}
    few = {classes: {name for name in attack_modules() if misfit(name, square, classes)} for classes in (2, 3, 4)}
    assert few == {2: {"APGDT", "JSMA"}, 3: {"APGDT", "JSMA"}, 4: {"JSMA"}}
    for name in ("APGD", "UPGD"):
        attack = TorchattacksAttack.model_validate({"name": name, "norm": "linf", "eps": [0.5], "loss": "dlr"})
        assert attack.misfit(square, 2) == f"{name} needs 3 classes for its DLR loss, the data has 2: leave it out"
        assert attack.misfit(square, 3) is None
    assert not [name for name in attack_modules() if misfit(name, square, 10) or misfit(name, square, None)]


def test_what_others_code_gets_and_hands_back_is_row_by_row_in_memory() -> None:
    """In the layout of channels last, in views of it, and of one channel, whose strides can be taken for either."""
    for channels in (1, 3):
        target = CountedModel(network(channels), CLASSES)
        target.watch = GradientWatch(5, addend=0.0)
        images = torch.rand(5, 8, 6, channels).permute(0, 3, 1, 2).requires_grad_()
        (gradient,) = torch.autograd.grad(target(images).sum(), images)
        expected = torch.autograd.grad(target.model(images).sum(), images)[0]
        assert gradient.stride() == torch.empty(images.shape).stride()
        assert torch.equal(gradient, expected)


class Confident(nn.Module):
    """Logits so far apart that cross entropy's gradient is short, and yet not 0."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 2)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.scale * self.layer(images.flatten(1))
        return logits


@pytest.mark.parametrize(("name", "lost"), [("PGDL2", True), ("DIFGSM", False), ("EOTPGD", False)])
def test_gradients_that_an_attacks_arithmetic_loses_are_counted(name: str, lost: bool) -> None:
    torch.manual_seed(0)
    model, images = Confident(1.0), torch.rand(300, 3, 2, 2)
    with torch.no_grad():
        model.layer.bias.copy_(torch.tensor([20.0, -20.0]))
    attack = TorchattacksAttack.model_validate({"name": name, "eps": [0.1], "steps": 2})
    labels = torch.zeros(300, dtype=torch.int64)
    verdict = evaluate_attack(model, images, labels, classes=2, attack=attack.at(attack.threats()[0]), seed=0)
    assert int(verdict.correct.sum()) == 300
    assert verdict.vanished == (300 if lost else 0)


def test_a_gradient_of_zero_is_lost_whatever_the_attack_does_with_it() -> None:
    watch = GradientWatch(4, addend=0.0)
    gradient = torch.ones(4, 3, 2, 2) * torch.tensor([0.0, 1e-31, 1e-20, 1.0])[:, None, None, None]
    every = torch.ones(4, dtype=torch.bool)
    assert watch.mostly_lost(every) is None
    watch.note(gradient[:3])  # whose these are nobody knows
    assert watch.mostly_lost(every) is None
    watch.note(gradient)
    assert watch.mostly_lost(every) == 2
    assert watch.mostly_lost(torch.tensor([False, True, True, True])) == 1
    watch.note(torch.ones(4, 3, 2, 2))
    assert watch.mostly_lost(every) == 0, "half of them are not most"


def test_a_watch_ends_with_the_attack() -> None:
    model, images = network(3), torch.rand(3, 3, 8, 8)
    attack = TorchattacksAttack.model_validate({"name": "BIM", "eps": [0.1], "steps": 1})
    one = attack.at(Threat("linf", 0.1))
    verdict = evaluate_attack(model, images, model(images).argmax(1), classes=CLASSES, attack=one, seed=0)
    assert (verdict.forwards, verdict.backwards, verdict.vanished) == (3, 3, 0)
