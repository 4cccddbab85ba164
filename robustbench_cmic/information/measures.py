"""Concentration and separation of a classifier's outputs: CMI, Gamma and NCMI (Yang et al., arXiv 2309.09123).

A classifier maps an input x to P_x = softmax(z(x)) over C classes. Over N labelled examples, in nats:

    Q_y   = mean of P_x over the examples of class y                       (centroid)
    CMI   = I(X; Yhat | Y) = (1/N) sum_x KL(P_x || Q_y(x))                 (concentration)
    Gamma = (1/N^2) sum over ordered pairs with y(x) != y(u) of -P_x . log P_u    (separation)
    NCMI  = CMI / Gamma

The double sum needs no pairs. With the class sums S_y = sum P_x, T_y = sum log P_x, the counts n_y and
h_y = sum P_x . log P_x, all over the examples of class y,

    CMI   = (1/N)   sum_y (h_y - S_y . log(S_y / n_y))
    Gamma = (1/N^2) sum_y -S_y . (T - T_y),    T = sum_y T_y

which is exact, takes one pass, O(N C) time and O(C^2) memory, and adds up over parts of the data.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

_CHUNK = 2**21
"""Probabilities held at once while summing: 16 MiB for each intermediate array of float64."""


@dataclass(frozen=True)
class Information:
    """Information measures of a set of examples, in nats.

    Attributes:
        cmi: concentration, at least 0; small when outputs of a class agree.
        separation: Gamma, at least 0; large when outputs of different classes disagree.
        ncmi: cmi / separation; NaN where separation is 0: all examples are of one class, or all outputs put everything
            on one and the same. A class without examples adds nothing to either.
        class_cmi: for each class, the mean of KL(P_x || Q_y) over its examples; `cmi` is their mean weighted by
            class size. NaN for a class without examples.
        class_separation: for each class y, (1 / (n_y N)) times the sum of -P_x . log P_u over x in y and u not in y;
            `separation` is their mean weighted by class size. NaN for a class without examples.
    """

    cmi: float
    separation: float
    ncmi: float
    class_cmi: tuple[float, ...]
    class_separation: tuple[float, ...]


def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, C) logits log P and P in float64; log P is 0 where a logit is -infinity, so that 0 log 0 is 0.

    So a class that a model masks is left out of every sum: measures are those over the finite classes.
    """
    log_p = logits.detach().double().log_softmax(1)
    p = log_p.exp()
    return log_p.masked_fill(logits.isneginf(), 0.0), p


def class_sums(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum the rows of `values` (N, C) by label (N,): (classes, C). Differentiable in `values`."""
    if values.is_cuda:
        # There `index_add` adds in whatever order threads arrive; a product with the one-hot labels does not.
        one_hot = labels[:, None] == torch.arange(classes, device=labels.device)
        return one_hot.to(values.dtype).T @ values
    return values.new_zeros(classes, values.shape[1]).index_add(0, labels, values)


def centroid_terms(p_sums: Tensor, counts: Tensor) -> Tensor:
    """S log(S / n) for sums S (..., C) of probabilities over n examples (...); 0 where S is 0.

    S / n can round to 0 where S, some 1e-323, does not; its logarithm is then that of S less that of n.
    """
    n = counts.clamp(min=1).unsqueeze(-1)
    terms = torch.special.xlogy(p_sums, p_sums / n)
    return torch.where(terms.isinf(), torch.special.xlogy(p_sums, p_sums) - p_sums * n.log(), terms)


def separation_by_class(p_sums: Tensor, log_sums: Tensor) -> Tensor:
    """Sum over x in y and u not in y of -P_x . log P_u, for each class y, from class sums of P and log P (C, C).

    Differentiable; the mean over all N^2 ordered pairs is Gamma.
    """
    return -(p_sums * (log_sums.sum(0) - log_sums)).sum(1)


@dataclass
class InformationSums:
    """The sums from which CMI and Gamma follow; parts of a data set can be summed apart and added.

    Attributes:
        counts: (C,) int64, n_y.
        p: (C, C) float64, S_y in row y.
        log_p: (C, C) float64, T_y in row y.
        p_log_p: (C,) float64, h_y.
    """

    counts: Tensor
    p: Tensor
    log_p: Tensor
    p_log_p: Tensor

    @classmethod
    def zeros(cls, classes: int, device: torch.device | str = "cpu") -> InformationSums:
        """The sums over no example."""
        square = torch.zeros(classes, classes, dtype=torch.float64, device=device)
        return cls(
            torch.zeros(classes, dtype=torch.int64, device=device), square, square.clone(), square.new_zeros(classes)
        )

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> InformationSums:
        """The sums over a batch of any size; beyond the result, memory for some 100 MB is needed.

        Args:
            logits: (N, C) floats, finite or -infinity; log P is their log_softmax in float64, without clamp or epsilon.
            labels: (N,) integers in [0, C).

        Raises:
            ValueError: shapes, types, labels or logits that do not fit; the message says which.
        """
        labels = _check(logits, labels)
        sums = cls.zeros(logits.shape[1], logits.device)
        rows = max(1, _CHUNK // logits.shape[1])
        for start in range(0, len(labels), rows):
            sums.add(logits[start : start + rows], labels[start : start + rows])
        if not bool(torch.isfinite(sums.log_p).all() and torch.isfinite(sums.p).all()):
            raise ValueError("logits should be finite, and differ by less than float64 can hold")
        return sums

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch as in `of`, unchecked, and without waiting for the device."""
        classes = len(self.counts)
        log_p, p = log_probabilities(logits)
        self.counts += class_sums(torch.ones_like(p[:, :1]), labels.long(), classes)[:, 0].long()
        self.p += class_sums(p, labels.long(), classes)
        self.log_p += class_sums(log_p, labels.long(), classes)
        self.p_log_p += class_sums((p * log_p).sum(1, keepdim=True), labels.long(), classes)[:, 0]

    def __add__(self, other: InformationSums) -> InformationSums:
        """The sums over both sets of examples."""
        return InformationSums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def compute(self) -> Information:
        """CMI, Gamma and NCMI of everything summed so far.

        Raises:
            ValueError: nothing has been summed.
        """
        n = int(self.counts.sum())
        if n == 0:
            raise ValueError("there are no examples to measure")
        counts = self.counts.double()
        # KL divergences are at least 0; rounding may say -1e-17.
        divergences = (self.p_log_p - centroid_terms(self.p, counts).sum(1)).clamp(min=0)
        separations = separation_by_class(self.p, self.log_p)
        cmi = float(divergences.sum()) / n
        separation = float(separations.sum()) / n**2
        return Information(
            cmi=cmi,
            separation=separation,
            ncmi=cmi / separation if separation > 0 else float("nan"),
            class_cmi=tuple((divergences / counts).tolist()),
            class_separation=tuple((separations / (counts * n)).tolist()),
        )


def measure_information(logits: Tensor, labels: Tensor) -> Information:
    """CMI, separation and NCMI of a classifier's outputs.

    Args:
        logits: (N, C) floats, the classifier's outputs before softmax. Some of an example's, not all, may be -infinity:
            the class is masked, and every sum is over the others.
        labels: (N,) integers of any type in [0, C); not every class need be among them.

    Raises:
        ValueError: shapes, types, labels or logits that do not fit; the message says which.

    >>> measure_information(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1])).cmi
    0.0
    """
    return InformationSums.of(logits, labels).compute()


def integer_labels(labels: Tensor) -> Tensor:
    """Labels of any integer type as int64.

    Raises:
        ValueError: they are no integers.
    """
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.is_complex():
        raise ValueError(f"labels should be integers, not {labels.dtype}")
    return labels.long()


def check_labels(labels: Tensor, classes: int) -> None:
    """Check that labels, integers of any shape, are classes. It reads them, for which the host waits on a GPU.

    Raises:
        ValueError: one is below 0, or not below `classes`; the message names it.
    """
    if labels.numel() == 0:
        return
    for label in map(int, labels.aminmax()):
        if not 0 <= label < classes:
            raise ValueError(
                f"labels should be from 0 to {classes - 1}, since there are {classes} classes, not {label}"
            )


def _check(logits: Tensor, labels: Tensor) -> Tensor:
    """The labels as int64."""
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels) or logits.shape[1] == 0:
        shapes = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"logits and labels should have shapes (N, C) and (N,), not {shapes}")
    if len(labels) == 0:
        raise ValueError("there are no examples to measure")
    if not logits.is_floating_point():
        raise ValueError(f"logits should be floating point, not {logits.dtype}")
    labels = integer_labels(labels)
    check_labels(labels, logits.shape[1])
    return labels
