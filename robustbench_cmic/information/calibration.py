"""Measures that survive a rescaling of logits: at the temperature that minimises NLL (Guo et al., arXiv 1706.04599).

NCMI falls when all logits are multiplied by a number above 1, though no prediction changes. Dividing them by the
temperature T that minimises

    NLL(T) = -(1/N) sum_x log softmax(z(x) / T)_y(x)

undoes any such factor: logits s z have the temperature s T. As a function of 1/T the NLL is convex, with the slope

    g(1/T) = (1/N) sum_x sum_c softmax(z(x) / T)_c (z(x)_c - z(x)_y(x))

so that T is where g is 0. Nothing is fitted and measured on the same examples: they are split into two halves, and the
logits of each are divided by the temperature that fits the other (cross-fitting).

How well P_x = softmax(z(x)) estimates the distribution of the label is told by

    NLL   = mean of -log P_x(y), in nats
    Brier = mean of sum_c (P_x(c) - 1{c = y})^2, from 0 to 2 (Brier 1950)
    ECE   = sum over bins of confidence of (share of examples) |accuracy - mean confidence|  (Naeini et al. 2015)

where the confidence is max_c P_x(c), in 15 bins of equal width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_cmic.information.measures import Information, measure_information

_BINS = 15
_CHUNK = 2**21
"""Logits held at once as float64: 16 MiB for each intermediate array."""


@dataclass(frozen=True)
class Scores:
    """How well probabilities fit labels; less is better.

    Attributes:
        nll: negative log-likelihood, nats.
        ece: expected calibration error in [0, 1], as torchmetrics' `multiclass_calibration_error` with 15 bins and l1
            (a confidence of exactly 1 is a bin of its own), but in float64.
        brier: Brier score in [0, 2].
        confidence: mean of max_c P_x(c), in [1/C, 1]; of it more is better only where it is right.
    """

    nll: float
    ece: float
    brier: float
    confidence: float


@dataclass(frozen=True)
class ScaledMeasures:
    """What `measure_calibration` finds.

    Attributes:
        temperatures: that fit the first and the second half of the examples, see `fit_temperature`; each is applied
            to the other half.
        native: of the logits as they come.
        calibrated: of the scaled logits of all examples; None where a temperature is not a positive number.
        information: of the same.
        undefined: why `calibrated` and `information` are None; empty where they are not.
    """

    temperatures: tuple[float, float]
    native: Scores
    calibrated: Scores | None
    information: Information | None
    undefined: str


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T at which the NLL of softmax(logits / T) is least, to a relative precision of 1e-9.

    Args:
        logits: (N, C) floats of any scale, on any device; computed with in float64. Finite, or -infinity for classes
            that are masked and not the example's own.
        labels: (N,) integers in [0, C).

    Returns:
        T > 0; 0.0 where NLL falls without end as T does, since the label has the largest logit of every example; inf
        where no T is better than uniform outputs.

    Raises:
        ValueError: what `measure_information` refuses.

    >>> wrong_once_in_four = torch.tensor([[5.0, 0.0]]).repeat(4, 1)
    >>> round(fit_temperature(wrong_once_in_four, torch.tensor([0, 0, 0, 1])), 6)  # 5 / log 3
    4.551196
    """
    from scipy.optimize import brentq  # takes a second to import, and only clean evaluations need it

    measure_information(logits, labels)  # it refuses what does not fit
    labels = labels.long()
    # In units of a typical spread, 1/T is near 1 for logits of any scale.
    lowest = logits.masked_fill(logits.isneginf(), torch.inf).amin(1)
    unit = float((logits.amax(1).double() - lowest.double()).mean())

    def slope(inverse: float) -> float:
        return _slope(logits, labels, inverse, unit)

    if unit == 0 or slope(0.0) >= 0:
        return math.inf
    if bool((logits.amax(1) == logits.gather(1, labels.long()[:, None])[:, 0]).all()):
        return 0.0
    low = high = 1.0
    while slope(low) >= 0:
        low /= 2
    while slope(high) < 0:
        high *= 2
    root: float = brentq(lambda log: slope(math.exp(log)), math.log(low), math.log(high), xtol=1e-10)
    return unit / math.exp(root)


def _slope(logits: Tensor, labels: Tensor, inverse: float, unit: float) -> float:
    """The derivative of NLL in `inverse`, 1 / T, for logits in the given unit."""
    total = logits.new_zeros((), dtype=torch.float64)
    rows = max(1, _CHUNK // logits.shape[1])
    for part, labelled in zip(torch.split(logits.detach(), rows), torch.split(labels, rows), strict=True):
        leads = part.double()
        leads = (leads - leads.gather(1, labelled.long()[:, None])) / unit
        masked = leads.isneginf()
        leads = leads.masked_fill(masked, 0.0)
        total += ((inverse * leads).masked_fill(masked, -torch.inf).softmax(1) * leads).sum()
    return float(total) / len(logits)


def second_half(labels: Tensor) -> Tensor:
    """Which examples are in the second half: (N,) truth values.

    Every other example of a class in the order given, so that both halves have every class of two examples; their
    sizes differ by one at most. It depends on labels only: models evaluated on the same examples share the halves.
    """
    second = torch.zeros_like(labels, dtype=torch.bool)
    second[labels.long().argsort(stable=True)[1::2]] = True
    return second


def scale_logits(logits: Tensor, labels: Tensor, temperatures: tuple[float, float]) -> Tensor:
    """Logits of each half over the temperature that was fitted on the other: (N, C) float64.

    Args:
        logits: (N, C) floats.
        labels: (N,) integers, which make the halves.
        temperatures: positive, fitted on the first and on the second half.
    """
    of_first, of_second = (logits.new_tensor(value, dtype=torch.float64) for value in temperatures)
    return logits.detach().double() / torch.where(second_half(labels), of_first, of_second)[:, None]


def measure_calibration(logits: Tensor, labels: Tensor) -> ScaledMeasures:
    """NLL, ECE and Brier score as outputs come; and with CMI, separation and NCMI at cross-fitted temperatures.

    Args:
        logits: (N, C) floats as for `fit_temperature`, the classifier's outputs before softmax, on any device.
        labels: (N,) integers in [0, C).

    Raises:
        ValueError: what `measure_information` refuses, or fewer than two examples, which make no two halves.
    """
    measure_information(logits, labels)  # it refuses what does not fit
    labels = labels.long()
    if len(labels) < 2:
        raise ValueError("one example makes no two halves: calibration needs two at least")
    second = second_half(labels)
    temperatures = (
        fit_temperature(logits[~second], labels[~second]),
        fit_temperature(logits[second], labels[second]),
    )
    correct = logits.argmax(1) == labels
    native = _scores(logits, labels, correct)
    undefined = "; ".join(filter(None, map(_why_undefined, ("first", "second"), temperatures)))
    if undefined:
        return ScaledMeasures(temperatures, native, None, None, undefined)
    scaled = scale_logits(logits, labels, temperatures)
    calibrated = _scores(scaled, labels, correct)
    return ScaledMeasures(temperatures, native, calibrated, measure_information(scaled, labels), "")


def _why_undefined(half: str, temperature: float) -> str:
    if temperature == 0:
        return f"no error in the {half} half, where NLL falls without end as the temperature does"
    return f"no temperature is better than uniform outputs on the {half} half" if math.isinf(temperature) else ""


def _scores(logits: Tensor, labels: Tensor, correct: Tensor) -> Scores:
    nll, brier = logits.new_zeros(2, dtype=torch.float64)
    confidences = []
    rows = max(1, _CHUNK // logits.shape[1])
    for part, labelled in zip(torch.split(logits.detach(), rows), torch.split(labels, rows), strict=True):
        log_p = part.double().log_softmax(1)
        p = log_p.exp()
        nll -= log_p.gather(1, labelled.long()[:, None]).sum()
        brier += (p - (labelled[:, None] == torch.arange(p.shape[1], device=p.device)).double()).square().sum()
        confidences.append(p.amax(1))
    # On the CPU: a GPU would add up in whatever order threads arrive.
    confidence = torch.cat(confidences).cpu()
    means = {"nll": float(nll) / len(labels), "brier": float(brier) / len(labels)}
    return Scores(**means, ece=_calibration_error(confidence, correct.cpu()), confidence=float(confidence.mean()))


def _calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """ECE of (N,) float64 and (N,) bools. These lines rather than torchmetrics', which takes four seconds to import."""
    edges = torch.linspace(0, 1, _BINS + 1, dtype=confidence.dtype)
    places = torch.bucketize(confidence, edges, right=True) - 1  # a confidence of 1 has a bin of its own
    empty = confidence.new_zeros(_BINS + 1)
    count = empty.scatter_add(0, places, torch.ones_like(confidence))
    gap = empty.scatter_add(0, places, correct.double()) / count - empty.scatter_add(0, places, confidence) / count
    return float((gap.nan_to_num().abs() * (count / count.sum())).sum())


def example_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """-log P_x(y) in nats and max_c P_x(c) of every example: (N, 2) float64, whose means are `nll` and `confidence`.

    Args:
        logits: (N, C) floats, in which no example's own class is masked.
        labels: (N,) integers in [0, C).
    """
    found = []
    rows = max(1, _CHUNK // logits.shape[1])
    for part, labelled in zip(torch.split(logits.detach(), rows), torch.split(labels, rows), strict=True):
        log_p = part.double().log_softmax(1)
        found.append(torch.stack([-log_p.gather(1, labelled.long()[:, None])[:, 0], log_p.amax(1).exp()], 1))
    return torch.cat(found)
