"""CMI, separation and NCMI as a torchmetrics metric, for training loops and distributed evaluation."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from robustbench_cmic.information.measures import InformationSums


class InformationMetric(Metric):
    """`measure_information` over batches and processes (states are sums, so that workers merge exactly).

    Args:
        num_classes: C.
        kwargs: passed to `torchmetrics.Metric`.

    `update` takes logits (N, C) and labels (N,); `compute` returns float64 scalars `cmi`, `separation` and `ncmi`,
    in nats.

    >>> metric = InformationMetric(num_classes=2)
    >>> metric.update(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1]))
    >>> float(metric.compute()["cmi"])
    0.0
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        zeros = InformationSums.zeros(num_classes)
        for state in fields(zeros):
            self.add_state(state.name, default=getattr(zeros, state.name), dist_reduce_fx="sum")
        self.set_dtype(torch.float64)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Raises:
            ValueError: as `measure_information`, or logits of another number of classes.
        """
        if logits.ndim == 2 and logits.shape[1] != self.num_classes:
            raise ValueError(f"logits should have {self.num_classes} classes, not {logits.shape[1]}")
        batch = InformationSums.of(logits, labels)
        for state in fields(batch):
            setattr(self, state.name, getattr(self, state.name) + getattr(batch, state.name))

    def compute(self) -> dict[str, Tensor]:
        """The measures over everything seen since the last reset."""
        sums = InformationSums(*(getattr(self, state.name) for state in fields(InformationSums)))
        measured = sums.compute()
        return {
            name: torch.tensor(getattr(measured, name), dtype=torch.float64) for name in ("cmi", "separation", "ncmi")
        }
