"""One training loop for every objective. Random numbers depend on (seed, epoch) only, so that it resumes exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.checkpoint import TrainingState
from robustbench_cmic.information import InformationSums
from robustbench_cmic.objectives import Objective
from robustbench_cmic.record import Epoch
from robustbench_cmic.schedule import learning_rate_factor
from robustbench_cmic.seeding import derive_seed, seeded

COLLAPSE_PATIENCE = 3
"""A model that predicts one class only over this many epochs in a row, or over the last, has collapsed."""


@dataclass
class Divergence:
    """Why a training ended early.

    Attributes:
        reason: a sentence with the epoch.
        last_finite: the loss terms of the last step at which all were finite; None where there was none.
    """

    reason: str
    last_finite: dict[str, float] | None


@dataclass
class Training:
    """A training under way: everything that changes from epoch to epoch.

    Attributes:
        model: on the device it trains on.
        objective: likewise.
        optimizer: over the model's weights.
        curve: finished epochs.
        collapsed: the latest epochs in a row in which all predictions were one class.
    """

    model: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    curve: list[Epoch] = field(default_factory=list)
    collapsed: int = 0

    def state(self) -> TrainingState:
        """A snapshot of it all, as plain tensors and data."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"objective.{name}": value for name, value in self.objective.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in slots.items() if value is not None}
        tensors["collapsed"] = torch.tensor(self.collapsed)
        return TrainingState(tensors, len(self.curve), [epoch.model_dump() for epoch in self.curve])

    def restore(self, state: TrainingState) -> None:
        """Continue from a snapshot."""
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "objective": {}, "optimizer": {}, "collapsed": {}}
        for name, value in state.tensors.items():
            group, _, inner = name.partition(".")
            groups[group][inner] = value
        self.model.load_state_dict(groups["model"])
        self.objective.load_state_dict(groups["objective"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["optimizer"].items():
            index, _, slot = name.partition(".")
            slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.curve = [Epoch.model_validate(epoch) for epoch in state.curve]
        self.collapsed = int(groups["collapsed"][""])


def build_optimizer(model: nn.Module, declared: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that a suite declares: its `name` and parameters."""
    kinds: dict[str, type[torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    parameters = {key: value for key, value in declared.items() if key != "name"}
    return kinds[declared["name"]](model.parameters(), **parameters)


def train(
    training: Training,
    images: Tensor,
    labels: Tensor,
    *,
    declared: dict[str, Any],
    seed: int,
    after_epoch: Callable[[Training], None] = lambda _: None,
) -> Divergence | None:
    """Train to the end, from wherever `training` stands.

    Args:
        training: model, objective and optimiser; changed in place.
        images: (N, C, H, W) in [0, 1], on the model's device.
        labels: (N,) int64.
        declared: `epochs`, `batch_size`, `optimizer` and `schedule`, as a suite declares them.
        seed: decides the order of examples and the random numbers of layers; two objectives see the same order.
        after_epoch: called when an epoch is finished, to store and to show it.

    Returns:
        None, or why the training diverged: a loss that is not finite, or a collapse to one class.
    """
    epochs = declared["epochs"]
    while len(training.curve) < epochs:
        epoch = len(training.curve) + 1
        # Layers such as dropout draw from the global generator: seeded by epoch, a resumed run draws the same.
        with seeded(derive_seed("epoch", seed, epoch)):
            divergence = _train_epoch(training, images, labels, declared, seed, epoch)
        divergence = divergence or _collapse(training, epochs)
        if divergence is not None:
            return divergence
        after_epoch(training)
    return None


def _train_epoch(
    training: Training, images: Tensor, labels: Tensor, declared: dict[str, Any], seed: int, epoch: int
) -> Divergence | None:
    """One pass over the data. Nothing is read back from the device before its end, the divergence guard included."""
    model, objective, optimizer = training.model, training.objective, training.optimizer
    order = torch.randperm(len(images), generator=_generator("order", seed, epoch)).to(images.device)
    # Batch normalisation cannot take a batch of one.
    batches = [index for index in torch.split(order, declared["batch_size"]) if len(index) > 1]
    class_examples = _class_examples(objective, labels, len(batches), _generator("class examples", seed, epoch))
    steps = declared["epochs"] * len(batches)
    seen = _Seen()
    rate = 0.0
    model.train()
    for step, index in enumerate(batches):
        factor = learning_rate_factor(declared["schedule"], (epoch - 1) * len(batches) + step, steps, len(batches))
        rate = declared["optimizer"]["lr"] * factor
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        logits = model(images[index])
        terms = objective(logits, labels[index])
        terms["total"].backward()
        optimizer.step()
        seen.add(logits, labels[index], terms)
        if class_examples is None:
            objective.update(logits.detach(), labels[index])
        else:
            objective.update(_outputs(model, images[class_examples[step]]), labels[class_examples[step]])
    return seen.close(training, epoch, rate)


def _generator(purpose: str, seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(purpose, seed, epoch))


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    """Logits in eval mode: the paper's centroid step has the weights fixed, and must not move running statistics."""
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(images)
    model.train()
    return logits


def _class_examples(objective: Objective, labels: Tensor, steps: int, generator: torch.Generator) -> Tensor | None:
    """(steps, examples) indices: for each step `class_examples` random examples of every class that has any."""
    if objective.class_examples == 0:
        return None
    columns = []
    for label in range(objective.classes):
        members = (labels == label).nonzero()[:, 0]
        if len(members) > 0:
            chosen = torch.randint(len(members), (steps, objective.class_examples), generator=generator)
            columns.append(members[chosen.to(members.device)])
    return torch.cat(columns, dim=1)


@dataclass
class _Seen:
    """What an epoch's steps leave behind, on the device until the epoch is over."""

    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    terms: list[Tensor] = field(default_factory=list)
    names: tuple[str, ...] = ()

    def add(self, logits: Tensor, labels: Tensor, terms: dict[str, Tensor]) -> None:
        self.names = tuple(terms)
        self.logits.append(logits.detach().float())
        self.labels.append(labels)
        self.terms.append(torch.stack([term.detach().float() for term in terms.values()]))

    def close(self, training: Training, epoch: int, rate: float) -> Divergence | None:
        """Append the epoch to the curve, or say why the training diverged in it."""
        terms = torch.stack(self.terms).cpu()
        finite = torch.isfinite(terms).all(1)
        if not bool(finite.all()):
            step = int((~finite).nonzero()[0])
            last = self._named(terms[step - 1]) if step > 0 else _last_loss(training.curve)
            return Divergence(f"the loss is not finite at step {step + 1} of epoch {epoch}", last)
        logits, labels = torch.cat(self.logits), torch.cat(self.labels)
        weights = [bool(torch.isfinite(value).all()) for value in training.model.state_dict().values()]
        if not all(weights) or not bool(torch.isfinite(logits).all()):
            what = "the outputs are" if all(weights) else "the weights are"
            return Divergence(f"{what} not finite after epoch {epoch}", self._named(terms[-1]))
        predictions = logits.argmax(1)
        one_class = bool((predictions == predictions[0]).all()) and bool((labels != labels[0]).any())
        training.collapsed = training.collapsed + 1 if one_class else 0
        measured = InformationSums.of(logits, labels).compute()
        training.curve.append(
            Epoch(
                epoch=epoch,
                lr=rate,
                loss=self._named(terms.double().mean(0)),
                accuracy=float((predictions == labels).double().mean()),
                cmi=measured.cmi,
                separation=measured.separation,
                ncmi=measured.ncmi if math.isfinite(measured.ncmi) else None,
            )
        )
        return None

    def _named(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self.names, values.tolist(), strict=True))


def _last_loss(curve: list[Epoch]) -> dict[str, float] | None:
    return curve[-1].loss if curve else None


def _collapse(training: Training, epochs: int) -> Divergence | None:
    """A model whose every prediction is one class, over several epochs in a row or over the last."""
    epoch = training.curve[-1]
    if training.collapsed < (1 if epoch.epoch == epochs else COLLAPSE_PATIENCE):
        return None
    return Divergence(f"collapsed to one class: every prediction of epoch {epoch.epoch} was the same", epoch.loss)
