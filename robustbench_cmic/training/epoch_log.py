"""What the steps of an epoch leave behind: summed on the device, read from it once, when the epoch is over."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustbench_cmic.information.measures import InformationSums
from robustbench_cmic.records.schema import Epoch

_HELD = 2**22
"""Logits held until they are summed: 16 MiB of float32."""


class EpochLog:
    """Loss terms step by step, and accuracy and information measures over the outputs of all steps of an epoch.

    Everything stays on `device` until it is asked for. `names` are those of the loss terms.
    """

    def __init__(self, steps: int, classes: int, names: tuple[str, ...], device: torch.device) -> None:
        self._names = names
        self._terms = torch.zeros(steps, len(names), device=device)
        self._steps = 0
        self._held: list[tuple[Tensor, Tensor]] = []
        self._rows = 0
        self._capacity = max(1, _HELD // classes)
        self._sums = InformationSums.zeros(classes, device)
        self._predicted = torch.zeros(classes, dtype=torch.int64, device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def add(self, logits: Tensor, labels: Tensor, terms: Tensor) -> None:
        """Note a step: logits (B, C), labels (B,), terms (T,). All are copied."""
        self._terms[self._steps].copy_(terms)
        self._steps += 1
        self._held.append((logits.float().clone(), labels.clone()))
        self._rows += len(logits)
        if self._rows >= self._capacity:
            self._sum()

    def _sum(self) -> None:
        logits = torch.cat([logits for logits, _ in self._held])
        labels = torch.cat([labels for _, labels in self._held])
        self._held, self._rows = [], 0
        self._sums.add(logits, labels)
        predictions = logits.argmax(1)
        self._predicted.scatter_add_(0, predictions, torch.ones_like(predictions))
        self._correct += (predictions == labels).sum()
        self._finite &= torch.isfinite(logits.amax(1)).all()  # -infinity masks a class

    def problem(self, model: nn.Module) -> tuple[str, dict[str, float] | None] | None:
        """What is not finite, and the terms of the last step at which all were (None: there was none); or None."""
        if self._held:
            self._sum()
        terms = self._terms.cpu()
        finite = torch.isfinite(terms).all(1)
        if not bool(finite.all()):
            step = int((~finite).nonzero()[0])
            return f"the loss is not finite at step {step + 1}", self._named(terms[step - 1]) if step > 0 else None
        weights = {name for name, _ in model.named_parameters()}
        held = model.state_dict().items()
        # A buffer may hold the -infinity with which classes are masked; complex ones know no such thing.
        plain = ((value, name in weights or value.is_complex()) for name, value in held)
        known = [value if whole else value[~value.isneginf()] for value, whole in plain]
        if not bool(torch.stack([torch.isfinite(value).all() for value in known]).all()):
            return "the weights are not finite after the last step", self._named(terms[-1])
        if not bool(self._finite):
            return "the outputs are not finite", self._named(terms[-1])
        return None

    def one_class(self) -> bool:
        """All predictions of the epoch were one class, although the labels were not."""
        return int((self._predicted > 0).sum()) == 1 and int((self._sums.counts > 0).sum()) > 1

    def epoch(self, number: int, rate: float) -> Epoch:
        """The epoch's entry in the curve."""
        measured = self._sums.compute()
        return Epoch(
            epoch=number,
            lr=rate,
            loss=self._named(self._terms.cpu().double().mean(0)),
            accuracy=int(self._correct) / int(self._sums.counts.sum()),
            cmi=measured.cmi,
            separation=measured.separation,
            ncmi=measured.ncmi if math.isfinite(measured.ncmi) else None,
        )

    def _named(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self._names, values.tolist(), strict=True))
