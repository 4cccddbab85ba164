"""The harness trusts no attack: what comes back is checked, projected and judged, whatever the attack did."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torchattacks
from torch import Tensor, nn

from robustbench_cmic.attacks import foreign, harness
from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.judge import AttackEvaluation, Batch, Judge
from robustbench_cmic.attacks.model import AttackError, CountedModel
from robustbench_cmic.attacks.threat import project
from robustbench_cmic.information.measures import measure_information
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.fields import Norm, Threat
from robustbench_cmic.suite.schema import attack_of
from tests.attacks.nets import convolutional, examples, predicted

PGD = {
    "name": "PGD", "alpha": 0.01, "steps": 5, "loss": "ce", "restarts": 2, "early_stop": False, "random_start": True,
    "targets": 0, "schedule": "constant",
}  # fmt: skip
TRANSFER = {key: value for key, value in PGD.items() if key != "early_stop"} | {"name": "Transfer"}
BALL = Threat("linf", 0.1)


def judge(model: nn.Module, images: Tensor, labels: Tensor, setting: dict[str, Any], **others: Any) -> AttackEvaluation:
    parameters: dict[str, Any] = {"classes": 10, "threat": BALL, "seed": 0} | others
    threat = parameters.pop("threat")
    attack = None if threat is None else attack_of(setting, threat)
    return evaluate_attack(model, images, labels, attack=attack, **parameters)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts any function in the place of a library attack."""

    def plant(attack: Callable[..., Any]) -> None:
        def make(model: nn.Module) -> Callable[[Tensor, Tensor], Any]:
            return lambda images, labels: attack(model, images, labels)

        monkeypatch.setattr(torchattacks, "Planted", make, raising=False)
        monkeypatch.setattr(foreign, "class_parameters", lambda _: {})

    return plant


LIBRARY = {"name": "torchattacks.Planted"}


def _nan(_: nn.Module, images: Tensor, __: Tensor) -> Tensor:
    images[0, 0, 0, 0] = torch.nan
    return images


def _crash(_: nn.Module, __: Tensor, ___: Tensor) -> Tensor:
    raise IndexError("index 3 is out of bounds")


def _shape(_: nn.Module, images: Tensor, __: Tensor) -> Tensor:
    return images[:, :, :4]


def _shuffled_weights(model: nn.Module, images: Tensor, _: Tensor) -> Tensor:
    with torch.no_grad():
        next(model.parameters()).mul_(-1)
    return images


def _train_mode(model: nn.Module, images: Tensor, _: Tensor) -> Tensor:
    model.train()
    model(images)  # moves the running statistics of batch normalisation
    return images


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (_nan, "NaN or infinity"),
        (_crash, "crashed: IndexError: index 3 is out of bounds"),
        (_shape, r"shape \(20, 1, 8, 8\), not \(20, 1, 4, 8\)"),
        (lambda *_: None, "not NoneType"),
        (_shuffled_weights, "model were changed, by the attack"),
        (_train_mode, "model were changed, by the attack"),
    ],
)
def test_a_bad_attack_is_an_error_never_robust(planted: Any, attack: Any, message: str) -> None:
    planted(attack)
    images, labels = examples(20)
    with pytest.raises(AttackError, match=message):
        judge(convolutional(), images, labels, LIBRARY)


def test_an_attack_that_flips_the_mode_is_judged_in_eval_mode(planted: Any) -> None:
    model = nn.Sequential(nn.Dropout(0.9), convolutional()).eval()
    images, _ = examples(40)
    labels = predicted(model, images)

    def flip(target: nn.Module, images: Tensor, _: Tensor) -> Tensor:
        for module in target.modules():
            module.training = isinstance(module, nn.Dropout)
        return images

    planted(flip)
    assert bool(judge(model, images, labels, LIBRARY).correct.all())
    assert not any(module.training for module in model.modules())


def test_what_lies_outside_is_projected_and_counted(planted: Any) -> None:
    model = convolutional()
    images, _ = examples(30)
    labels = predicted(model, images)
    planted(lambda _, images, __: 1 - images)  # a negative: far outside a ball of 0.1
    verdict = judge(model, images, labels, LIBRARY)
    assert verdict.outside == 30
    assert torch.equal(verdict.correct, predicted(model, project(BALL, images, 1 - images)) == labels)
    planted(lambda _, images, __: images + 0.05)
    assert judge(model, images.clamp(0.2, 0.8), labels, LIBRARY).outside == 0
    planted(lambda _, images, __: images - 0.05)
    assert judge(model, images * 0, labels, LIBRARY).outside == 30, "below 0 is outside the box"


def test_l2_projection_is_radial() -> None:
    images = torch.full((1, 1, 1, 2), 0.5)
    found = project(Threat("l2", 0.1), images, images + torch.tensor([0.3, 0.4]))
    assert torch.allclose(found - images, torch.tensor([0.06, 0.08]))


def test_clean_errors_count_as_errors(planted: Any) -> None:
    model = convolutional()
    images, labels = examples(50)
    clean = predicted(model, images) == labels
    assert 0 < int(clean.sum()) < 50

    def repair(target: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Make as many examples as possible correct."""
        found = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(target(found), labels)
        return images - 0.1 * torch.autograd.grad(loss, found)[0].sign()

    planted(repair)
    repaired = predicted(model, project(BALL, images, repair(model, images, labels))) == labels
    assert bool((repaired & ~clean).any())
    assert not bool((judge(model, images, labels, LIBRARY).correct & ~clean).any())


@pytest.mark.parametrize("setting", [{"name": "FGSM", "loss": "ce"}, PGD | {"alpha": 0.0}])
def test_eps_zero_equals_clean_exactly(setting: dict[str, Any]) -> None:
    model = convolutional()
    images, labels = examples(60)
    clean = judge(model, images, labels, {"name": "none"}, threat=None)
    attacked = judge(model, images, labels, setting, threat=Threat("linf", 0.0))
    assert torch.equal(attacked.correct, clean.correct)
    assert attacked.logits.tolist() == clean.logits.tolist()
    assert torch.equal(clean.correct, predicted(model, images) == labels)


@pytest.mark.parametrize("early_stop", [False, True])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_verdict_does_not_depend_on_the_batch_size(early_stop: bool, norm: Norm) -> None:
    model = convolutional(scale=4)
    images, _ = examples(300)
    labels = predicted(model, images)
    setting = PGD | {"early_stop": early_stop, "loss": "margin"}
    threat = Threat(norm, 0.05 if norm == "linf" else 0.3)
    whole = judge(model, images, labels, setting, threat=threat, batch_size=300)
    assert 0 < int(whole.correct.sum()) < 300
    for batch_size in (37, 256):
        parts = judge(model, images, labels, setting, threat=threat, batch_size=batch_size)
        assert torch.equal(parts.correct, whole.correct)
        assert parts.logits.tolist() == whole.logits.tolist()
        assert (parts.forwards, parts.backwards) == (whole.forwards, whole.backwards)
    some, one_by_one = (
        judge(model, images[:24], labels[:24], setting, threat=threat, batch_size=size) for size in (24, 1)
    )
    assert torch.equal(one_by_one.correct, whole.correct[:24])
    assert one_by_one.logits.tolist() == whole.logits[:24].tolist()
    assert (one_by_one.forwards, one_by_one.backwards) == (some.forwards, some.backwards)


def test_the_verdict_on_an_example_does_not_depend_on_later_ones() -> None:
    model = convolutional(scale=4)
    images, _ = examples(300)
    labels = predicted(model, images)
    whole = judge(model, images, labels, PGD)
    assert torch.equal(judge(model, images[:270], labels[:270], PGD).correct, whole.correct[:270])


def test_seeds_and_only_seeds_decide_random_starts() -> None:
    model = convolutional(scale=4)
    images, labels = examples(100)
    first = judge(model, images, labels, PGD, seed=1)
    torch.manual_seed(99)
    assert judge(model, images, labels, PGD, seed=1).logits.tolist() == first.logits.tolist()
    assert judge(model, images, labels, PGD, seed=2).logits.tolist() != first.logits.tolist()


def test_library_attacks_are_seeded_by_block_and_leave_the_generators_alone() -> None:
    model = convolutional(scale=4)
    images, _ = examples(40)
    labels = predicted(model, images)
    setting = {"name": "torchattacks.APGDT", "steps": 3}
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is the subject
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]  # noqa: NPY002
    first = judge(model, images, labels, setting)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]  # noqa: NPY002
    torch.manual_seed(6)
    assert judge(model, images, labels, setting, batch_size=3).logits.tolist() == first.logits.tolist()
    assert judge(model, images, labels, setting, seed=1).logits.tolist() != first.logits.tolist()


def test_library_attacks_get_the_real_number_of_classes() -> None:
    images, _ = examples(20)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    labels = predicted(model, images)
    # With the library's default of 10 classes this would crash, on targets that the model does not have.
    verdict = judge(model, images, labels, {"name": "torchattacks.APGDT", "steps": 2}, classes=5)
    assert int(verdict.correct.sum()) < 20


def test_passes_are_counted_by_example() -> None:
    model = convolutional()
    images, labels = examples(25)
    verdict = judge(model, images, labels, PGD | {"restarts": 1})
    assert (verdict.forwards, verdict.backwards) == (125, 125)
    clean = judge(model, images, labels, {"name": "none"}, threat=None)
    assert (clean.forwards, clean.backwards) == (0, 0)


def test_model_is_left_as_it_was() -> None:
    model = convolutional().train()
    model[1].eval()  # type: ignore[index]
    next(model.parameters()).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    images, labels = examples(20)
    judge(model, images, labels, PGD)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())


class Cramped(nn.Module):
    """Has memory for a limited number of examples at once, like a GPU."""

    def __init__(self, room: int, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.inner = convolutional()
        self.room = room
        self.error = error

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise self.error()
        logits: Tensor = self.inner(images)
        return logits


@pytest.mark.parametrize(
    "setting",
    [PGD | {"random_start": True}, {"name": "torchattacks.PGD", "alpha": 0.02, "steps": 3, "random_start": True}],
)
@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_where_memory_is_short_fewer_go_through_together_and_nothing_else_changes(
    setting: dict[str, Any], error: Callable[[], Exception]
) -> None:
    images, labels = examples(600)
    roomy = judge(Cramped(10_000, error), images, labels, setting)
    cramped = judge(Cramped(40, error), images, labels, setting)
    assert torch.equal(cramped.correct, roomy.correct)
    assert cramped.logits.tolist() == roomy.logits.tolist()
    assert (cramped.forwards, cramped.backwards) == (roomy.forwards, roomy.backwards)
    with pytest.raises(type(error()), match="memory"):
        judge(Cramped(10, error), images, labels, setting)


def test_the_logits_are_those_of_what_the_attack_returned(planted: Any) -> None:
    model = convolutional()
    images, labels = examples(30)
    shifted = (images + 0.1).clamp(0, 1)
    planted(lambda _, images, __: (images + 0.1).clamp(0, 1))
    with torch.no_grad():
        expected = measure_information(model(project(BALL, images, shifted)), labels)
    found = measure_information(judge(model, images, labels, LIBRARY).logits, labels)
    assert found.cmi == pytest.approx(expected.cmi, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), r"logits of shape \(20, 10\), not \(20, 7\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Threshold(1e9, torch.nan)), "logits with NaN"),
    ],
)
def test_a_model_without_usable_logits_is_an_error(model: nn.Module, message: str) -> None:
    images, labels = examples(20)
    with pytest.raises(AttackError, match=message):
        judge(model, images, labels, {"name": "none"}, threat=None)


@pytest.mark.parametrize(
    "setting",
    [
        PGD | {"loss": "cmic"},
        PGD | {"targets": 3, "loss": "dlr", "early_stop": True},
        {"name": "Noise", "samples": 5},
        {"name": "AutoAttack", "targets": 2, "steps": 5, "queries": 30},
    ],
)
def test_no_native_attack_depends_on_the_batch_size(setting: dict[str, Any]) -> None:
    model = convolutional()
    images, _ = examples(300)
    labels = predicted(model, images)
    whole = judge(model, images, labels, setting, batch_size=300)
    parts = judge(model, images, labels, setting, batch_size=37)
    assert whole.logits.tolist() == parts.logits.tolist()
    assert 0 < int(whole.correct.sum()) < 300, "some fall and some stand, or this shows nothing"
    assert (parts.forwards, parts.backwards) == (whole.forwards, whole.backwards)


def test_parts_are_summed_over_blocks() -> None:
    model = convolutional()
    images, _ = examples(300)
    labels = predicted(model, images)
    verdict = judge(model, images, labels, {"name": "AutoAttack", "targets": 2, "steps": 5, "queries": 30})
    assert [part.name for part in verdict.parts] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert verdict.parts[0].attacked == 300
    for before, after in itertools.pairwise(verdict.parts):
        assert after.attacked == before.attacked - before.broken
    assert sum(part.broken for part in verdict.parts) == int((~verdict.correct).sum())


def test_a_transfer_is_crafted_on_the_source_and_judged_on_the_model() -> None:
    source, model = convolutional(seed=1), convolutional(seed=2)
    images, _ = examples(40)
    labels = predicted(model, images)
    verdict = judge(model, images, labels, TRANSFER, source=source, keep_images=True)
    own = judge(source, images, labels, TRANSFER, keep_images=True)
    assert verdict.images is not None
    assert own.images is not None
    assert torch.equal(verdict.images, own.images), "the same examples, whoever they are tried on"
    assert torch.equal(verdict.correct, predicted(model, verdict.images) == labels)
    assert not torch.equal(verdict.correct, own.correct)


@pytest.mark.parametrize("setting", [PGD, {"name": "AutoAttack", "targets": 2, "steps": 5, "queries": 30}])
def test_what_a_smaller_ball_broke_is_kept_and_not_attacked_again(setting: dict[str, Any]) -> None:
    model = convolutional()
    images, _ = examples(300)
    labels = predicted(model, images)
    small = judge(model, images, labels, setting, threat=Threat("linf", 0.03), keep_images=True)
    places = (~small.correct).nonzero()[:, 0]
    assert small.images is not None
    assert 10 < len(places) < 290
    kept = harness.BrokenBefore(places, small.images[places])
    verdict = judge(model, images, labels, setting, kept=kept, keep_images=True)
    afresh = judge(model, images, labels, setting)
    assert verdict.images is not None
    assert torch.allclose(verdict.images[places], small.images[places], atol=1e-6)
    assert not bool(verdict.correct[places].any())
    assert verdict.forwards < afresh.forwards
    others = torch.ones(300, dtype=torch.bool)
    others[places] = False
    if setting["name"] == "PGD":
        assert torch.equal(verdict.correct[others], afresh.correct[others]), "an example meets the same random numbers"


def test_kept_examples_stay_broken_even_where_a_rounding_would_save_them() -> None:
    model = convolutional()
    images, _ = examples(20)
    labels = predicted(model, images)
    kept = harness.BrokenBefore(
        torch.tensor([3]), images[3:4]
    )  # no adversarial example at all: the verdict was given before
    assert not bool(judge(model, images, labels, PGD | {"alpha": 0.0}, kept=kept).correct[3])


def test_the_first_broken_examples_are_kept_over_batches() -> None:
    model = convolutional()
    images, _ = examples(90)
    labels = predicted(model, images)
    labels[0] = (labels[0] + 1) % 10  # an error from the outset is no broken example
    evaluation = judge(model, images, labels, PGD, batch_size=20, keep_broken=25, keep_images=True)
    broken = (~evaluation.correct).nonzero()[1:, 0].tolist()
    assert len(broken) > 25
    assert [example.place for example in evaluation.broken] == broken[:25]
    assert evaluation.images is not None
    for example in evaluation.broken:
        assert torch.equal(example.clean, images[example.place])
        assert torch.equal(example.adversarial, evaluation.images[example.place])
        assert torch.equal(example.logits, evaluation.logits[example.place])
        assert int(example.clean_logits.argmax()) == int(labels[example.place]) != int(example.logits.argmax())
    assert judge(model, images, labels, PGD).broken == []


def test_parts_are_summed_by_name_and_stay_as_they_were() -> None:
    images, labels = examples(4)
    network = CountedModel(convolutional(), 10)
    batch = Batch(torch.arange(4), images, labels, torch.ones(4, dtype=torch.bool), None)
    first = Part(name="a", attacked=4, broken=1, forwards=10, backwards=2, seconds=0.5)
    other = Part(name="b", attacked=3, broken=3, forwards=1, backwards=0, seconds=0.25)
    single = Judge(network, BALL, keep_images=False, keep_broken=0)
    batches = [single.judge(batch, images, parts) for parts in ([first, other], [first])]
    total = single.total(batches, forwards=7, backwards=8)
    assert total.parts == [Part(name="a", attacked=8, broken=2, forwards=20, backwards=4, seconds=1.0), other]
    assert batches[0].parts == [first, other]
    assert (total.forwards, total.backwards, total.images, len(total.correct)) == (7, 8, None, 8)
