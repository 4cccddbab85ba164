"""CMI, separation and NCMI against brute force, closed forms and merging."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robustbench_cmic.information.bootstrap import bootstrap_ncmi
from robustbench_cmic.information.calibration import measure_calibration
from robustbench_cmic.information.measures import InformationSums, measure_information
from robustbench_cmic.information.metric import InformationMetric


def brute_force(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """CMI and separation as defined, pair by pair, in plain Python floats."""
    log_p = logits.double().log_softmax(1).tolist()
    p = [[math.exp(value) for value in row] for row in log_p]
    y = labels.tolist()
    n, classes = len(y), len(p[0])
    cmi = separation = 0.0
    for i in range(n):
        members = [k for k in range(n) if y[k] == y[i]]
        for c in range(classes):
            q = sum(p[k][c] for k in members) / len(members)
            if p[i][c] > 0:
                cmi += p[i][c] * (log_p[i][c] - math.log(q)) / n
        for j in range(n):
            if y[i] != y[j]:
                separation -= sum(a * b for a, b in zip(p[i], log_p[j], strict=True)) / n**2
    return cmi, separation


def random_case(n: int, classes: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1e3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_double_sum(scale: float, seed: int) -> None:
    logits, labels = random_case(60, 7, scale, seed)
    measured = measure_information(logits, labels)
    cmi, separation = brute_force(logits, labels)
    assert measured.cmi == pytest.approx(cmi, rel=1e-9)
    assert measured.separation == pytest.approx(separation, rel=1e-9)
    assert measured.ncmi == pytest.approx(cmi / separation, rel=1e-9)


def test_saturated_on_the_right_class_with_gaps_of_a_thousand() -> None:
    labels = torch.arange(6) % 3
    logits = 1e3 * torch.nn.functional.one_hot(labels, 3).float()
    measured = measure_information(logits, labels)
    assert measured.cmi == 0.0
    # 24 of 36 ordered pairs differ in label, each at a cross entropy of exactly 1000 nats.
    assert measured.separation == pytest.approx(1000 * 24 / 36, rel=1e-12)


def test_single_class_has_no_separation() -> None:
    logits, _ = random_case(40, 5, 2.0)
    labels = torch.full((40,), 3)
    measured = measure_information(logits, labels)
    assert measured.cmi == pytest.approx(brute_force(logits, labels)[0], rel=1e-9)
    assert measured.separation == 0.0
    assert math.isnan(measured.ncmi)


def test_class_without_examples() -> None:
    logits, labels = random_case(50, 6, 3.0)
    labels = labels.clamp(max=4)
    measured = measure_information(logits, labels)
    cmi, separation = brute_force(logits, labels)
    assert measured.cmi == pytest.approx(cmi, rel=1e-9)
    assert measured.separation == pytest.approx(separation, rel=1e-9)
    assert math.isnan(measured.class_cmi[5])
    assert math.isnan(measured.class_separation[5])


def test_logits_may_require_gradients() -> None:
    logits, labels = random_case(20, 3, 1.0)
    assert measure_information(logits.requires_grad_(), labels) == measure_information(logits.detach(), labels)


def test_closed_form_of_two_classes() -> None:
    # P = (a, 1-a) for both examples of class 0 and (1-a, a) for class 1: no spread within a class; the cross entropy
    # between classes is -a log(1-a) - (1-a) log a, over half of the ordered pairs.
    a = 0.8
    logits = torch.tensor([[a, 1 - a], [a, 1 - a], [1 - a, a], [1 - a, a]], dtype=torch.float64).log()
    measured = measure_information(logits, torch.tensor([0, 0, 1, 1]))
    assert measured.cmi == pytest.approx(0.0, abs=1e-15)
    assert measured.separation == pytest.approx(0.5 * (-a * math.log(1 - a) - (1 - a) * math.log(a)), rel=1e-12)


def test_concentration_is_the_mutual_information_of_a_uniform_mixture() -> None:
    # One class, two certain and opposite outputs: Q = (1/2, 1/2) and KL(P || Q) = log 2.
    logits = torch.tensor([[1e3, 0.0], [0.0, 1e3]])
    assert measure_information(logits, torch.tensor([0, 0])).cmi == pytest.approx(math.log(2), rel=1e-12)


def test_classes_add_up_to_the_whole() -> None:
    logits, labels = random_case(80, 4, 2.0)
    measured = measure_information(logits, labels)
    shares = torch.bincount(labels, minlength=4).double() / 80
    assert float(shares @ torch.tensor(measured.class_cmi, dtype=torch.float64)) == pytest.approx(measured.cmi)
    separations = torch.tensor(measured.class_separation, dtype=torch.float64)
    assert float(shares @ separations) == pytest.approx(measured.separation)


def test_parts_merge_to_the_whole() -> None:
    logits, labels = random_case(101, 6, 5.0)
    whole = measure_information(logits, labels)
    sums = InformationSums.zeros(6)
    for part in torch.split(torch.arange(101), 17):
        sums = sums + InformationSums.of(logits[part], labels[part])
    merged = sums.compute()
    assert merged.cmi == pytest.approx(whole.cmi, rel=1e-12)
    assert merged.separation == pytest.approx(whole.separation, rel=1e-12)
    assert merged.class_cmi == pytest.approx(whole.class_cmi, rel=1e-12)


def test_large_sets_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    logits, labels = torch.randn(1000, 7, generator=generator), torch.randint(7, (1000,), generator=generator)
    whole = measure_information(logits, labels)
    sizes = []
    add = InformationSums.add

    def spy(self: InformationSums, values: Tensor, of: Tensor) -> None:
        sizes.append(len(of))
        add(self, values, of)

    monkeypatch.setattr(InformationSums, "add", spy)
    monkeypatch.setattr("robustbench_cmic.information.measures._CHUNK", 7 * 64)
    in_parts = measure_information(logits, labels)
    assert (max(sizes), sum(sizes)) == (64, 1000)
    assert in_parts.cmi == pytest.approx(whole.cmi, rel=1e-12)
    assert in_parts.separation == pytest.approx(whole.separation, rel=1e-12)


def test_metric_equals_the_function_and_forgets_on_reset() -> None:
    logits, labels = random_case(90, 5, 4.0)
    metric = InformationMetric(num_classes=5)
    for part in torch.split(torch.arange(90), 20):
        metric.update(logits[part], labels[part])
    whole = measure_information(logits, labels)
    computed = metric.compute()
    for name in ("cmi", "separation", "ncmi"):
        assert float(computed[name]) == pytest.approx(getattr(whole, name), rel=1e-12)
    metric.reset()
    metric.update(logits[:30], labels[:30])
    assert float(metric.compute()["cmi"]) == pytest.approx(measure_information(logits[:30], labels[:30]).cmi)
    with pytest.raises(ValueError, match="5 classes, not 4"):
        metric.update(logits[:, :4], labels)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), "shapes"),
        (torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), "shapes"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), "no examples"),
        (torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), "floating point"),
        (torch.zeros(3, 2), torch.zeros(3), "integers"),
        (torch.full((3, 2), torch.nan), torch.zeros(3, dtype=torch.int64), "finite"),
        (torch.full((3, 2), -torch.inf), torch.zeros(3, dtype=torch.int64), "finite"),
        (torch.tensor([[1e308, -1e308]], dtype=torch.float64), torch.tensor([0]), "differ by less"),
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), "labels should be from 0 to 1"),
        (torch.zeros(3, 2), torch.tensor([0, 1, -1]), "labels should be from 0 to 1"),
    ],
)
def test_what_does_not_fit_is_refused(logits: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_information(logits, labels)


def test_nothing_summed_is_refused() -> None:
    with pytest.raises(ValueError, match="no examples"):
        InformationSums.zeros(3).compute()


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]


@pytest.mark.parametrize("kind", INTEGERS)
def test_labels_of_any_integer_type_are_labels(kind: torch.dtype) -> None:
    logits, labels = random_case(24, 3, 2.0)
    assert measure_information(logits, labels.to(kind)) == measure_information(logits, labels)
    assert measure_calibration(logits, labels.to(kind)) == measure_calibration(logits, labels)
    assert bootstrap_ncmi(logits, labels.to(kind), 5).tolist() == bootstrap_ncmi(logits, labels, 5).tolist()


def test_an_absent_class_adds_nothing_to_ncmi() -> None:
    """It is the NCMI of the formula, by brute force; only where no two classes are there is none."""
    logits, labels = torch.randn(40, 10, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 9
    measured = measure_information(logits, labels)
    cmi, separation = brute_force(logits, labels)
    assert measured.ncmi == pytest.approx(cmi / separation, rel=1e-9)
    assert math.isnan(measured.class_cmi[9])
    assert math.isnan(measure_information(logits, torch.full((40,), 3)).ncmi)


def test_outputs_that_are_all_certain_of_one_class_have_no_separation() -> None:
    logits = torch.tensor([[2000.0, 0.0]]).repeat(4, 1)
    measured = measure_information(logits, torch.tensor([0, 1, 0, 1]))
    assert measured.separation == 0
    assert math.isnan(measured.ncmi)
