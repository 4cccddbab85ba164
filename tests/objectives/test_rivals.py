"""Every rival of CMIC-DL: its equation by hand, gradients that stay finite, resumed bit for bit, and digits learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.data.base import Split
from robustbench_cmic.objectives import (
    CenterLoss,
    CmiOverGamma,
    CosFace,
    Focal,
    LabelSmoothing,
    LargeMarginGaussian,
    Ncmi,
    Objective,
    ObjectiveError,
    Opl,
    Squentropy,
    build_objective,
)
from robustbench_cmic.objectives.ncmi import SigmaxHead
from robustbench_cmic.suite.objectives import OBJECTIVES, objective_of
from robustbench_cmic.training.checkpoint import load_state, save_state
from robustbench_cmic.training.loop import train
from tests.objectives.rivals import accuracy, begun
from tests.training.test_train import DIGITS, assert_no_step_reads, declare, weights

REACHED: dict[str, tuple[dict[str, Any], float]] = {
    "label_smoothing": ({}, 0.95),
    "focal": ({}, 0.95),
    "squentropy": ({}, 0.95),
    "center": ({}, 0.95),
    "opl": ({}, 0.95),
    "lgm": ({}, 0.95),
    "cosface": ({"scale": 16}, 0.95),
    "ncmi_alone": ({}, 0.9),
    "cmi_over_gamma": ({"warmup_epochs": 10}, 0.95),
}
"""What a suite may say of each rival, and what it reaches at least on the digits in twenty epochs."""
RIVALS = [{"name": name} | keys for name, (keys, _) in REACHED.items()]
FEW = Split(DIGITS.train.images[:256], DIGITS.train.labels[:256])
each_rival = pytest.mark.parametrize("declared", RIVALS, ids=lambda declared: str(declared["name"]))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: LabelSmoothing(10, smoothing=1.5), "smoothing"),
        (lambda: Focal(10, gamma=-1.0), "gamma"),
        (lambda: Squentropy(1), "classes"),
        (lambda: CenterLoss(10, rate=2.0), "rate"),
        (lambda: Opl(10, unlike="none"), "unlike"),  # type: ignore[arg-type]
        (lambda: LargeMarginGaussian(10, margin=-0.1), "margin"),
        (lambda: CosFace(10, scale=0.0), "scale"),
        (lambda: Ncmi(10, temperature=float("nan")), "temperature"),
        (lambda: CmiOverGamma(10, warmup_epochs=-1), "warmup_epochs"),
    ],
)
def test_in_a_loop_of_ones_own_a_wrong_value_is_named(make: Callable[[], Objective], key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: .*should"):
        make()


def test_every_objective_is_a_rival_or_tested_elsewhere() -> None:
    assert OBJECTIVES.keys() == REACHED.keys() | {"ce", "cmic"}


def terms_of(objective: Objective, logits: Tensor, labels: Tensor, features: Tensor) -> dict[str, Tensor]:
    more = (features,) if objective.needs_features else ()
    terms: dict[str, Tensor] = objective(logits, labels, *more)
    return terms


@each_rival
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_gradients_are_finite(declared: dict[str, Any], scale: float) -> None:
    """Logits 1,000 apart, and all at zero; where the head makes the logits, features of that size."""
    objective = build_objective(objective_of(declared), 4)
    model = nn.Sequential(nn.Identity(), nn.Linear(8, 4))
    generator = torch.Generator().manual_seed(0)
    features = (scale * torch.randn(6, 8, generator=generator)).requires_grad_()
    objective.attach(model, torch.randn(2, 8, generator=generator))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    if objective.owns_head:
        logits = model(features)
    else:
        places = torch.tensor([0, 2, 2, 1, 0, 3])
        logits = (scale * functional.one_hot(places, 4).float()).requires_grad_()
    terms = terms_of(objective, logits, labels, features)
    torch.autograd.backward(terms["total"])
    assert all(torch.isfinite(term) for term in terms.values())
    for leaf in (features, logits, *objective.parameters(), *model.parameters()):
        assert leaf.grad_fn is not None or leaf.grad is None or bool(torch.isfinite(leaf.grad).all())
    assert any(leaf.grad is not None for leaf in (features, logits) if leaf.grad_fn is None)


@each_rival
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumes_bit_for_bit(declared: dict[str, Any], optimizer: str, tmp_path: Path) -> None:
    chosen = {"name": optimizer, "lr": 0.01}
    epochs = declare({"epochs": 2, "optimizer": chosen})
    whole, resumed = begun(declared, 0, chosen), begun(declared, 1, chosen)

    def keep(training: Any) -> None:
        if len(training.curve) == 1:
            save_state(tmp_path / "state", training.state(), "cell")

    assert train(whole, FEW, declared=epochs, seed=0, after_epoch=keep) is None
    state = load_state(tmp_path / "state", "cell")
    assert state is not None
    resumed.restore(state)
    assert train(resumed, FEW, declared=epochs, seed=0) is None
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.curve == whole.curve
    mine, theirs = whole.objective.state_dict(), resumed.objective.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@each_rival
def test_no_step_reads_from_the_device(declared: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # On the CPU alone `one_hot` reads, to check its labels.
    monkeypatch.setattr(
        functional, "one_hot", lambda labels, classes: (labels[:, None] == torch.arange(classes)).long()
    )
    assert_no_step_reads(begun(declared), FEW, monkeypatch)


@pytest.mark.parametrize("name", REACHED)
def test_learns_the_digits(name: str) -> None:
    keys, least = REACHED[name]
    training = begun({"name": name} | keys)
    assert train(training, DIGITS.train, declared=declare({"epochs": 20}), seed=0) is None
    reached = accuracy(training)
    assert reached > least, f"{name} reaches {reached:.4f}"


def test_center_loss_by_hand() -> None:
    """Centres (1, 0) and (0, 2); features (2, 0), (1, 2), (0, 0) of classes 0, 0, 1."""
    objective = CenterLoss(2, weight=0.5, rate=0.5)
    objective.prepare(2)
    objective.center.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    features = torch.tensor([[2.0, 0.0], [1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    terms = objective(torch.zeros(3, 2), labels, features)
    # Squared distances 1, 4, 4: half their mean is 3/2; cross entropy of equal logits is log 2.
    assert float(terms["center"].detach()) == pytest.approx(1.5)
    assert float(terms["total"].detach()) == pytest.approx(float(torch.tensor(2.0).log()) + 0.75)
    terms["total"].backward()
    assert features.grad is not None
    assert torch.allclose(features.grad, 0.5 * torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, -2.0]]) / 3)
    objective.update(torch.zeros(3, 2), labels, features.detach())
    # c_0: sum of (c - f) is (-1, -2), over 1 + 2; c_1: (0, 2) over 1 + 1.
    assert torch.allclose(objective.center, torch.tensor([[1 + 1 / 6, 1 / 3], [0.0, 1.5]]))


P = torch.tensor([[3 / 4, 1 / 4], [1 / 3, 2 / 3]], dtype=torch.float64)
BOTH = torch.tensor([0, 1])


def test_label_smoothing_by_hand() -> None:
    """Targets (0.9, 0.1) by `all` at e = 0.2 with two classes, (0.8, 0.2) by `wrong`."""
    logs = [math.log(3 / 4), math.log(1 / 4), math.log(2 / 3), math.log(1 / 3)]
    for convention, share in (("all", 0.1), ("wrong", 0.2)):
        built = build_objective(
            objective_of({"name": "label_smoothing", "smoothing": 0.2, "convention": convention}), 2
        )
        by_hand = -((1 - share) * (logs[0] + logs[2]) + share * (logs[1] + logs[3])) / 2
        assert float(built(P.log(), BOTH)["total"]) == pytest.approx(by_hand, rel=1e-12)
    logits, labels = torch.randn(20, 7), torch.randint(7, (20,))
    ours = LabelSmoothing(7, 0.3)(logits, labels)["total"]
    assert torch.allclose(ours, functional.cross_entropy(logits, labels, label_smoothing=0.3))
    wrong = LabelSmoothing(7, 0.3, "wrong")(logits, labels)["total"]
    assert torch.allclose(wrong, functional.cross_entropy(logits, labels, label_smoothing=0.3 * 7 / 6))


def test_focal_by_hand() -> None:
    """(1/4)^2 log 4/3 and (1/3)^2 log 3/2."""
    by_hand = (math.log(4 / 3) / 16 + math.log(3 / 2) / 9) / 2
    assert float(Focal(2)(P.log(), BOTH)["total"]) == pytest.approx(by_hand, rel=1e-12)
    assert float(Focal(2, 0.0)(P.log(), BOTH)["total"]) == pytest.approx((math.log(4 / 3) + math.log(3 / 2)) / 2)


def test_focal_has_a_gradient_where_p_is_1() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    Focal(2, 0.5)(logits, torch.tensor([0]))["total"].backward()
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_squentropy_by_hand() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, -math.inf]])
    terms = Squentropy(3)(logits, torch.tensor([2, 0]))
    assert float(terms["square"]) == pytest.approx(((1 + 4) / 2 + 1 / 2) / 2)
    ce = (math.log(math.exp(-2) + math.exp(-1) + 1) + math.log(1 + math.exp(-1))) / 2
    assert float(terms["total"]) == pytest.approx(ce + 1.5)


def test_opl_by_hand() -> None:
    """Features along 0, 60, 90 and 180 degrees, of classes 0, 0, 1, 1."""
    features = torch.tensor([[2.0, 0.0], [0.5, 3**0.5 / 2], [0.0, 3.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 1, 1])
    # Like pairs: cos 60 and cos 90. Unlike ones: cos 90, cos 180, cos 30, cos 120.
    like = 1 - (0.5 + 0) / 2
    root = 3**0.5 / 2
    for unlike, r in (("signed", -1.5 + root), ("absolute", 1.5 + root), ("absolute_mean", 1.5 - root)):
        built = build_objective(objective_of({"name": "opl", "weight": 2.0, "unlike": unlike}), 2)
        terms = built(torch.zeros(4, 2), labels, features)
        assert float(terms["like"]) == pytest.approx(like)
        assert float(terms["unlike"]) == pytest.approx(r / 4, rel=1e-6)
        assert float(terms["total"]) == pytest.approx(math.log(2) + 2 * (like + r / 8), rel=1e-6)


def test_opl_without_a_like_pair_has_no_such_term() -> None:
    terms = Opl(4)(torch.zeros(2, 4), torch.tensor([0, 3]), torch.eye(2))
    assert float(terms["like"]) == 0
    terms = Opl(4)(torch.zeros(2, 4), torch.tensor([3, 3]), torch.eye(2))
    assert (float(terms["like"]), float(terms["unlike"])) == (1, 0)


def attached(objective: Objective, features: int) -> nn.Sequential:
    """A network whose features are its inputs."""
    model = nn.Sequential(nn.Identity(), nn.Linear(features, objective.classes))
    objective.attach(model, torch.randn(2, features, generator=torch.Generator().manual_seed(0)))
    return model


def test_lgm_by_hand() -> None:
    """Means (0, 0) and (2, 0), the feature (1, 1): both distances are 1. (3, 0): 4.5 and 0.5."""
    objective = LargeMarginGaussian(2, margin=0.5, likelihood=0.25)
    model = attached(objective, 2)
    with torch.no_grad():
        objective.head.get_parameter("means").copy_(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
        logits = model(torch.tensor([[1.0, 1.0], [3.0, 0.0]]))
    assert torch.allclose(logits, torch.tensor([[-1.0, -1.0], [-4.5, -0.5]])), "without a margin"
    terms = objective(logits, BOTH)
    # With it -1.5 against -1, and -0.75 against -4.5.
    ce = (math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(-3.75))) / 2
    assert float(terms["ce"]) == pytest.approx(ce)
    assert float(terms["total"]) == pytest.approx(ce + 0.25 * 0.75)
    assert objective.parameter_group == (2.0, True, True)


def test_cosface_by_hand() -> None:
    """Rows along 0 and 90 degrees, features along 0 and 60."""
    objective = CosFace(2, scale=2.0, margin=0.5)
    model = attached(objective, 2)
    with torch.no_grad():
        objective.head.get_parameter("weight").copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
        logits = model(torch.tensor([[7.0, 0.0], [0.5, 3**0.5 / 2]]))
    root = 3**0.5
    assert torch.allclose(logits, torch.tensor([[2.0, 0.0], [1.0, root]])), "without a margin"
    terms = objective(logits, BOTH)
    by_hand = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1 - (root - 1)))) / 2
    assert float(terms["total"]) == pytest.approx(by_hand)


def test_ncmi_by_hand() -> None:
    """Two features; the running mean is (0, 0), T = 1/2, so that f = (0, 3) has u = (0, 2)."""
    objective = Ncmi(2, temperature=0.5)
    model = attached(objective, 2).eval()
    features = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
    high = 1 / (1 + math.exp(-2))
    p = [0.5 / (0.5 + high), high / (0.5 + high)]
    far = 1 / (1 + math.exp(-10))
    q = [far / (far + 0.5), 0.5 / (far + 0.5)]

    def kl(first: list[float], second: list[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(first, second, strict=True))

    with torch.no_grad():
        logits = model(features)
    by_hand = [[-kl(p, q), -kl(p, q[::-1])], [-kl(p[::-1], q), -kl(p[::-1], q[::-1])]]
    assert torch.allclose(logits, torch.tensor(by_hand), atol=1e-6)
    terms = objective(logits, torch.tensor([1, 0]), features)
    # Of both images: KL(P || own Q) over half of KL(other Q || P).
    assert float(terms["total"]) == pytest.approx(kl(p, q[::-1]) / (kl(q, p) / 2), rel=1e-4)

    def outputs() -> Iterator[tuple[Tensor, ...]]:
        yield logits, torch.tensor([1, 1]), features

    objective.end_epoch(1, outputs)
    centroid = objective.head.get_buffer("centroid")
    assert torch.allclose(centroid, torch.tensor([q, [0.5, 0.5]]), atol=1e-6), "a class without images keeps its target"


def test_the_running_mean_of_ncmi_moves_in_training_mode_alone() -> None:
    objective = Ncmi(2, momentum=0.75)
    model = attached(objective, 2)
    mean = objective.head.get_buffer("mean")
    model.eval()(torch.ones(4, 2))
    assert mean.tolist() == [0, 0]
    model.train()(torch.ones(4, 2))
    assert mean.tolist() == [1, 1], "the first batch sets it"
    model(torch.full((4, 2), 5.0))
    assert mean.tolist() == [2, 2]


def test_a_training_ends_with_the_class_means_of_its_last_weights() -> None:
    training = begun({"name": "ncmi_alone"})
    train(training, FEW, declared=declare({"epochs": 1}), seed=0)
    head = training.objective.head
    assert isinstance(head, SigmaxHead)
    with torch.no_grad():
        _, features = training.objective.outputs(training.model.eval(), torch.from_numpy(FEW.images[:]))
        p = head.log_p(features).exp()
    means = torch.stack([p[torch.from_numpy(FEW.labels) == label].mean(0) for label in range(10)])
    assert torch.allclose(head.centroid, means, atol=1e-5)


def test_ncmi_wants_a_feature_for_every_class() -> None:
    with pytest.raises(ObjectiveError, match="has 3 features, fewer than the 4 classes"):
        attached(Ncmi(4), 3)


def test_logits_of_ncmi_alone_keep_the_digits_in_which_they_differ() -> None:
    """With high T all P are nearly uniform, and so are all Q: the logits are 1e-5 and less."""
    objective = Ncmi(4, temperature=20.0)
    model = attached(objective, 64).eval()
    features = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    head = objective.head
    with torch.no_grad():
        p = head.log_p(features.double()).exp()  # type: ignore[operator]
        head.get_buffer("centroid").copy_(p.reshape(4, 8, 64).mean(1))
        logits = model(features)
        expected = -(p[:, None] * (p[:, None] / head.get_buffer("centroid").double()).log()).sum(2)
    assert float(expected.abs().max()) < 1e-4
    assert float((logits - expected).abs().max()) < 1e-10


def test_cmi_over_gamma_by_hand() -> None:
    """P = (3/4, 1/4) and (1/3, 2/3), centroids uniform; the first epoch is cross entropy."""
    objective = CmiOverGamma(2)
    objective.begin_epoch(1, lambda: iter(()))
    ce = (math.log(4 / 3) + math.log(3 / 2)) / 2
    assert float(objective(P.log(), BOTH)["total"]) == pytest.approx(ce, rel=1e-6)
    objective.begin_epoch(2, lambda: iter(()))
    concentration = (
        0.75 * math.log(1.5) + 0.25 * math.log(0.5) + 1 / 3 * math.log(2 / 3) + 2 / 3 * math.log(4 / 3)
    ) / 2
    entropies = -(3 / 4 * math.log(1 / 3) + 1 / 4 * math.log(2 / 3)) - (
        1 / 3 * math.log(3 / 4) + 2 / 3 * math.log(1 / 4)
    )
    assert float(objective(P.log(), BOTH)["total"]) == pytest.approx(concentration / (entropies / 4), rel=1e-6)
