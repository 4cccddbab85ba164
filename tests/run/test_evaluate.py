"""`evaluate`: a network in memory gets what a run finds, is left as it was; wrong arguments get a sentence."""

from __future__ import annotations

import pickle
import random
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustbench_cmic import evaluate, load_model
from robustbench_cmic.attacks.model import AttackError
from robustbench_cmic.data.digits import load_digits
from robustbench_cmic.data.subset import choose
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.schema import AnyRecord, AuditRecord
from robustbench_cmic.report import read_results, summarize
from robustbench_cmic.run.evaluate import ModelEvaluation
from robustbench_cmic.suite.budgets import BUDGETS
from robustbench_cmic.suite.fields import Threat
from tests.in_process import carried_out

N = 104
SUITE = """\
suite: own
dataset: {name: digits}
training: {epochs: 6, batch_size: 64, optimizer: {name: sgd, lr: 0.1, momentum: 0.9}}
models: [{id: net, architecture: mlp, objective: {name: ce}}]
attacks:
  - {name: FGSM, eps: [0.15, 0.2]}
  - {name: PGD, id: PGD-ce, eps: [0.15, 0.2], steps: 40, early_stop: true}
  - {name: PGD, id: PGD-margin, eps: [0.15, 0.2], steps: 40, loss: margin, early_stop: true}
  - {name: AutoAttack, eps: [0.15, 0.2], ascending: true}
evaluation: {limit: 104}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records and weights of a suite that the standard budget is to agree with."""
    place = tmp_path_factory.mktemp("made")
    (place / "own.yaml").write_text(SUITE)
    carried_out(place / "own.yaml", place / "own", place / "own.work", batch_size=256)
    return place


@pytest.fixture(scope="module")
def net(folder: Path) -> nn.Module:
    return load_model(folder / "own", "net", 0, work=folder / "own.work")


@pytest.fixture(scope="module")
def examples() -> tuple[Tensor, Tensor]:
    """Those that the suite evaluates."""
    split = load_digits().test
    rows = choose(split.labels, N)
    return torch.from_numpy(np.asarray(split.images[rows])), torch.from_numpy(split.labels[rows])


@pytest.fixture(scope="module")
def found(net: nn.Module, examples: tuple[Tensor, Tensor]) -> ModelEvaluation:
    return evaluate(net, *examples, eps=[0.15, "1/5"], progress=False)


class Scaled(nn.Module):
    """A defence that is none: logits so far apart that cross entropy has no gradient."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = 1e4 * self.net(images)
        return logits


def place_of(cell: Cell) -> tuple[str, str, float]:
    return cell.kind, cell.attack, cell.eps


def without(record: AnyRecord) -> dict[str, Any]:
    """A record without what names its place and what takes time."""
    place = {"suite", "cell", "provenance", "timing", "dataset_sha256", "checkpoint_sha256", "images_sha256", "sha256"}
    told = record.model_dump(exclude=place | {"examples_sha256"})
    parts = [part | {"seconds": 0} for part in told.get("parts", [])]
    return told | {"parts": parts, "inputs": list(told["inputs"].values())}


def test_it_finds_what_a_run_finds(folder: Path, found: ModelEvaluation) -> None:
    """To the last bit: every outcome, passes, information, the audit's probes and attacks, and the worst case."""
    theirs = summarize(read_results(folder / "own"))
    records = {place_of(record.cell): record for record in theirs.results.records.values()}
    ours = list(found.summary.results.records.values())
    assert len(ours) == len(records) - 1 == 10  # all but the training
    for record in ours:
        expected = records[place_of(record.cell)]
        assert without(record) == without(expected), record.cell.id
    assert any(isinstance(record, AuditRecord) and len(record.checks) > 5 for record in ours)
    for eps in (0.15, 0.2):
        row = next(iter(theirs.groups["net", "worst case", Threat("linf", eps)].values()))
        assert found.survivors(eps).tolist() == row.outcomes.tolist()
        assert found.worst_case[eps] == pytest.approx(row.accuracy)
    assert [flag.name for flag in found.flags] == [flag.name for flag in theirs.flags]


def test_numbers_fit_together(found: ModelEvaluation, net: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    images, labels = examples
    assert found.accuracy == pytest.approx(float((net(images).argmax(1) == labels).double().mean()))
    assert list(found.worst_case) == list(found.attacks) == [0.15, 0.2]
    for eps, worst in found.worst_case.items():
        assert worst == pytest.approx(found.survivors(eps).mean())
        assert worst <= min(found.attacks[eps].values()) + 1e-9
        low, high = found.worst_case_interval[eps]
        assert low <= worst < high
    assert found.worst_case[0.2] < found.worst_case[0.15] < found.accuracy
    assert set(found.attacks[0.15]) == {"FGSM", "PGD-ce", "PGD-margin", "AutoAttack"}
    assert not (found.survivors(0.2) & ~found.survivors(0.15)).any()
    assert len(found.frame) == 9
    with pytest.raises(KeyError):
        found.survivors(0.3)
    lines = str(found).splitlines()
    assert lines[:2] == [f"accuracy in % of {N} examples; † flagged", f"without an attack: {100 * found.accuracy:.1f}"]
    assert lines[2].split() == ["L-inf", "0.15", "L-inf", "0.2"]
    (worst_line,) = (line for line in lines if line.startswith("worst case"))
    assert worst_line.split()[2:] == [f"{100 * worst:.1f}" for worst in found.worst_case.values()]


def test_a_defence_that_is_none_is_flagged(net: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    found = evaluate(Scaled(net), *examples, eps=0.15, progress=False)
    assert found.attacks[0.15]["FGSM"] == found.accuracy, "it hides from the gradient of cross entropy"
    assert found.worst_case[0.15] < found.accuracy / 2
    assert {"saturated", "zero-gradients", "margin-beats-cross-entropy"} <= {flag.name for flag in found.flags}
    assert "† saturated (FGSM at L-inf 0.15; PGD-ce at L-inf 0.15)" in str(found)
    assert found.flags_of_worst_case(0.15) == ()
    quick = evaluate(Scaled(net), *examples, eps=0.15, budget="quick", progress=False)
    assert (quick.audited, set(quick.attacks[0.15])) == (False, {"FGSM", "PGD-margin"})
    assert str(quick).endswith("model is not audited: nothing says whether the attacks were able to succeed")


def test_the_strict_budget_audits_more(net: nn.Module, examples: tuple[Tensor, Tensor], found: ModelEvaluation) -> None:
    assert [BUDGETS[name][1] for name in ("quick", "standard", "strict")] == ["off", "standard", "strict"]
    strict = evaluate(net, *examples, eps=0.15, budget="strict", progress=False)
    (audit,) = (record for record in strict.summary.results.records.values() if isinstance(record, AuditRecord))
    (usual,) = (record for record in found.summary.results.records.values() if isinstance(record, AuditRecord))
    assert len(audit.active) >= len(usual.active) / 2
    assert audit.cell.declared["audit"]["level"] == "strict"
    assert strict.worst_case[0.15] <= found.worst_case[0.15]


def test_the_model_and_the_generators_are_left_as_they_were(examples: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10))
    net[2].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    states = torch.get_rng_state(), random.getstate()
    one = evaluate(net, *examples, eps=0.1, budget="quick", progress=False)
    assert [net.training, net[1].training, net[2].training] == [True, True, False]
    assert all(weight.requires_grad and weight.grad is None for weight in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    other = evaluate(net, *examples, eps=0.1, budget="quick", batch_size=7, progress=False)
    assert one.survivors(0.1).tolist() == other.survivors(0.1).tolist()


@pytest.mark.parametrize("where", ["no_grad", "inference_mode", "autocast", "float64"])
def test_the_surroundings_change_nothing(where: str, net: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    expected = evaluate(net, *examples, eps=0.15, budget="quick", progress=False)
    if where == "float64":
        torch.set_default_dtype(torch.float64)
    surroundings: dict[str, AbstractContextManager[Any]] = {
        "no_grad": torch.no_grad(),
        "inference_mode": torch.inference_mode(),
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "float64": nullcontext(),
    }
    try:
        with surroundings[where]:
            found = evaluate(net, examples[0].clone(), examples[1].clone(), eps=0.15, budget="quick", progress=False)
            assert torch.is_grad_enabled() == (where not in ("no_grad", "inference_mode"))
        assert torch.get_default_dtype() == (torch.float64 if where == "float64" else torch.float32)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.survivors(0.15).tolist() == expected.survivors(0.15).tolist()
    assert found.accuracy == expected.accuracy


def test_a_model_that_changes_its_input(net: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    """It normalises in place: what is found is that of one that does not, and the caller's images stay."""

    class Shifted(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.in_place = in_place

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = net(images.sub_(0.05) if self.in_place else images - 0.05)
            return logits

    images = examples[0].clone()
    one, other = (
        evaluate(Shifted(way), images, examples[1], eps=0.15, budget="quick", progress=False) for way in (True, False)
    )
    assert torch.equal(images, examples[0])
    assert one.survivors(0.15).tolist() == other.survivors(0.15).tolist()


def test_a_random_model_is_drawn_from_the_seed(net: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    class Noisy(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = net(images + 0.1 * torch.randn_like(images))
            return logits

    one, other = (evaluate(Noisy(), *examples, eps=0.1, budget="quick", progress=False) for _ in range(2))
    assert one.survivors(0.1).tolist() == other.survivors(0.1).tolist()


def test_what_was_found_is_short_to_see_and_may_be_kept(found: ModelEvaluation) -> None:
    assert repr(found).startswith(f"ModelEvaluation(accuracy={found.accuracy:.4f}, worst_case={{'L-inf 0.15': ")
    assert len(repr(found)) < 200
    _ = found.frame
    kept: ModelEvaluation = pickle.loads(pickle.dumps(found))
    assert str(kept) == str(found)
    assert kept.survivors("0.15").tolist() == found.survivors(0.15).tolist()


@pytest.mark.parametrize("eps", [np.float32(0.25), Fraction(1, 4), np.array(0.25), torch.tensor([0.25]), ("1/4",)])
def test_a_radius_may_be_any_number(eps: Any, net: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    found = evaluate(net, *examples, eps=eps, budget="quick", progress=False, seed=np.int64(0))  # type: ignore[arg-type]
    assert list(found.worst_case) == [0.25]


def test_l2_and_half_precision_images(net: nn.Module, examples: tuple[Tensor, Tensor]) -> None:
    images, labels = examples
    found = evaluate(net, images.double(), labels.int(), eps=0.5, norm="l2", budget="quick", progress=False)
    assert list(found.attacks) == [0.5]
    assert found.summary.results.threats == [Threat("l2", 0.5)]


def test_progress_is_told_on_stderr(
    net: nn.Module, examples: tuple[Tensor, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(net, *examples, eps=0.1, budget="quick")
    out, err = capsys.readouterr()
    assert out == ""
    assert "[3/3] model seed 0: PGD-margin linf eps 0.1: done in" in err


IMAGES, LABELS = torch.full((4, 1, 8, 8), 0.5), torch.tensor([0, 1, 2, 3])
PLAIN = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
DOUBLE = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()


class Answers(nn.Module):
    """Returns what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _: Tensor) -> Any:
        return self.answer


class Detached(nn.Module):
    """A network whose gradients stop before the image."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        return images.detach().flatten(1)[:, :10]


class OneAtATime(nn.Module):
    """Gives one row of logits, whatever it gets."""

    def forward(self, images: Tensor) -> Tensor:
        """Of the first image."""
        return images.flatten(1)[:1, :10]


class Broken(nn.Module):
    """Divides by zero."""

    def forward(self, images: Tensor) -> Tensor:
        """NaN."""
        return images.flatten(1)[:, :10] * float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES[0]}, r"images: should be floats of \(N, C, H, W\) in \[0, 1\], not .* of \(1, 8, 8\)"),
        ({"images": (IMAGES * 255).byte()}, r"images: should be floats .*, not torch\.uint8 of \(4, 1, 8, 8\)"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"images: should be floats .* of \(0, 1, 8, 8\)"),
        ({"images": IMAGES * 255}, r"images: should lie in \[0, 1\], and hold 127\.5 to 127\.5"),
        ({"images": IMAGES * float("nan")}, r"images: should lie in \[0, 1\], and hold NaN"),
        ({"labels": LABELS[:3]}, r"labels: should be 4 whole numbers, not torch\.int64 of \(3,\)"),
        ({"labels": LABELS.float()}, r"labels: should be 4 whole numbers, not torch\.float32 of \(4,\)"),
        ({"labels": LABELS + 7}, r"labels: should lie in 0 \.\.\. 9, as the model has 10 logits, not 10"),
        ({"labels": LABELS - 1}, r"labels: should lie in 0 \.\.\. 9, .*, not -1"),
        ({"model": Answers(torch.zeros(1))}, r"model: should return logits \(N, classes\), and returns \(1,\)"),
        ({"model": Answers((1, 2))}, "model: should return logits .*, and returns tuple"),
        ({"eps": 8}, r"eps: 8 is outside \[0, 1\], the range of the images; in pixel units\? then write 8/255"),
        ({"eps": "much"}, "eps: should be numbers above 0 such as 0.03 or '8/255', not 'much'"),
        ({"eps": 0}, "eps: should be numbers above 0 .*, not 0"),
        ({"eps": [0.1, None]}, "eps: should be numbers above 0 .*, not None"),
        ({"eps": 1e300, "norm": "l2"}, r"eps: should be numbers above 0 .*, not 1e\+300"),
        ({"model": lambda images: images}, "model: should be a torch.nn.Module, not function"),
        ({"images": IMAGES.numpy()}, "images: should be a tensor, not ndarray; torch.as_tensor makes one"),
        ({"labels": [0, 1, 2, 3]}, "labels: should be a tensor, not list"),
        ({"images": IMAGES + 0.5 + 1e-6}, r"images: should lie in \[0, 1\], and hold 1\.00000"),
        ({"model": DOUBLE}, r"model: fails on one image of \(1, 1, 8, 8\): .*(dtype|type)"),
        ({"model": Detached()}, "model: its logits are detached from the image, and attacks need gradients"),
        ({"seed": 1.5}, "seed: should be a whole number, not 1.5"),
        ({"batch_size": 0}, "batch_size: should be a whole number from 1 on, not 0"),
        ({"eps": []}, "eps: should be one number at least"),
        ({"norm": "l1"}, "norm: should be linf or l2, not 'l1'"),
        ({"budget": "huge"}, "budget: should be quick, standard, strict, not 'huge'"),
    ],
)
def test_wrong_arguments_get_a_sentence(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"model": PLAIN, "images": IMAGES, "labels": LABELS, "eps": 0.1} | changes
    with pytest.raises(ValueError, match=message):
        evaluate(given.pop("model"), given.pop("images"), given.pop("labels"), progress=False, **given)


def test_a_model_without_usable_logits_is_no_robust_model() -> None:
    with pytest.raises(AttackError, match=r"NaN"):
        evaluate(Broken(), IMAGES, LABELS, eps=0.1, progress=False)
    with pytest.raises(AttackError, match=r"logits of shape"):
        evaluate(OneAtATime(), IMAGES, LABELS, eps=0.1, budget="quick", progress=False)
