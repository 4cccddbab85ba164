"""One training loop for every objective. Random numbers depend on (seed, epoch) only, so that it resumes exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustbench_cmic.data.base import Split
from robustbench_cmic.data.feed import Feed, unit
from robustbench_cmic.data.subset import hold_out
from robustbench_cmic.objectives.base import checked_names
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.training import Training
from robustbench_cmic.training.adversary import AtPrecision, find_adversarial
from robustbench_cmic.training.augment import augment, draw
from robustbench_cmic.training.checkpoint import TrainingRun
from robustbench_cmic.training.cuda_graph import GraphedStep
from robustbench_cmic.training.epoch_log import EpochLog
from robustbench_cmic.training.optimizer import set_rate
from robustbench_cmic.training.robust import RobustAdditions
from robustbench_cmic.training.selection import Judges

COLLAPSE_PATIENCE = 3
"""A model that predicts one class only over this many epochs in a row, or over the last, has collapsed."""


class Acceleration(NamedTuple):
    """What makes a training faster and does not belong to its definition.

    Attributes:
        workers: processes that read ahead, for images that do not live on the device.
        reduced: bfloat16 where autocast allows it: forward and backward, so that logits are rounded to it. Weights and
            their updates, statistics and everything that the objective computes stay in float32.
        graphed: record a step as a CUDA graph and replay it; without effect where there is an adversary.
    """

    workers: int = 1
    reduced: bool = False
    graphed: bool = False


PLAIN = Acceleration()


@dataclass
class Divergence:
    """Why a training ended early.

    Attributes:
        reason: a sentence with the epoch.
        last_finite: the loss terms of the last step at which all were finite; None where there was none.
    """

    reason: str
    last_finite: dict[str, float] | None


def train(
    training: TrainingRun,
    split: Split,
    *,
    declared: Training,
    seed: int,
    acceleration: Acceleration = PLAIN,
    after_epoch: Callable[[TrainingRun], None] = lambda _: None,
    after_step: Callable[[int, int], None] = lambda _, __: None,
) -> Divergence | None:
    """Train to the end, from wherever `training` stands; the model is left with the weights of the selected epoch.

    Catastrophic overfitting, where it is checked for, ends a training before, see `TrainingRun.fell`.

    Args:
        training: model, objective and optimiser; changed in place.
        split: images and labels to train on, and to hold some out of.
        declared: what a suite says of all trainings.
        seed: decides the order of examples, their augmentation, where an adversary starts and the random numbers of
            layers; two objectives see the same.
        acceleration: what makes it faster.
        after_epoch: called when an epoch is finished, to store and to show it.
        after_step: called with steps done and steps in all, as the steps are given to the device.

    Returns:
        None, or why the training diverged: a loss that is not finite, or a collapse to one class.

    Raises:
        DataError: so many images are to be held out that too few are left.
    """
    loop = _Loop(training, split, declared, seed, acceleration)
    epochs = declared.epochs
    with contextlib.closing(loop.images):
        while len(training.curve) < epochs and training.fell is None:
            epoch = len(training.curve) + 1
            # Layers such as dropout draw from the global generator: seeded by epoch, a resumed run draws the same.
            with seeded(derive_seed("epoch", seed, epoch)):
                divergence = loop.run_epoch(epoch, after_step)
            divergence = divergence or _collapse(training, epochs)
            if divergence is not None:
                return divergence
            loop.judges.note()
            after_epoch(training)
    if training.best:
        training.model.load_state_dict(training.best)
    return None


class _Loop:
    """The epochs of one training. Nothing is read back from the device before the end of an epoch."""

    def __init__(
        self, training: TrainingRun, split: Split, declared: Training, seed: int, acceleration: Acceleration
    ) -> None:
        self.training = training
        self.declared = declared
        self.seed = seed
        self.at = (0, 0)  # epoch and step, which seed the adversary
        self.network = AtPrecision(training.model, acceleration.reduced)
        self.device = next(training.model.parameters()).device
        kept, held = hold_out(split.labels, declared.held_out_images(len(split.labels)))
        self.rows, labels = torch.from_numpy(kept), torch.from_numpy(split.labels)
        self.labels = labels[self.rows]
        self.image_size = (split.images.shape[2], split.images.shape[3])
        self.fill: Tensor = training.model.get_buffer("0.mean")
        self.names: tuple[str, ...] = ()
        self.terms: tuple[str, ...] = ()  # of the objective alone
        # Random starts are drawn by the host: a graph would replay those that it was recorded with.
        self.step = GraphedStep(self._step) if acceleration.graphed and training.adversary is None else self._step
        self.steps = declared.steps_of_epoch(len(self.labels))
        training.objective.begin(declared.epochs * self.steps)
        if training.robust_cmi is not None:
            training.robust_cmi.begin(declared.epochs * self.steps)
        self.robust: RobustAdditions | None = None
        if training.adversary is not None:
            self.robust = RobustAdditions(training.adversary, training.robust_cmi, self.network, seed)
        self.judges = Judges(training, split, held, kept[self._order(1)[0].numpy()], declared.batch_size, seed)
        self.feed = Feed(split.images, self.device, acceleration.workers)
        self.images = self.feed.batches(self._all_indices(self.feed.indices_on))

    def _all_indices(self, device: torch.device) -> Iterator[Tensor]:
        """Which images are wanted, batch by batch, to the end of the training."""
        for epoch in range(len(self.training.curve) + 1, self.declared.epochs + 1):
            batches, extra = self._order(epoch), self._class_examples(epoch)
            if extra is not None:
                batches = [torch.cat([index, more]) for index, more in zip(batches, extra, strict=True)]
            # One transfer for the whole epoch: a small one a step would make the host wait for the device.
            yield from torch.split(self.rows[torch.cat(batches)].to(device), [len(index) for index in batches])

    def _order(self, epoch: int) -> list[Tensor]:
        """The batches of an epoch, as indices into the images that are learned from."""
        order = torch.randperm(len(self.labels), generator=_generator("order", self.seed, epoch))
        return list(torch.split(order, self.declared.batch_size))[: self.steps]

    def _class_examples(self, epoch: int) -> Tensor | None:
        """(steps, examples) indices: for each step `class_examples` random examples of every class that has any."""
        objective = self.training.objective
        if objective.class_examples == 0:
            return None
        generator = _generator("class examples", self.seed, epoch)
        columns = []
        for label in range(objective.classes):
            members = (self.labels == label).nonzero()[:, 0]
            if len(members) > 0:
                shape = (self.steps, objective.class_examples)
                columns.append(members[torch.randint(len(members), shape, generator=generator)])
        return torch.cat(columns, dim=1)

    def run_epoch(self, epoch: int, after_step: Callable[[int, int], None]) -> Divergence | None:
        """One pass over the data; appends to the curve, or says why the training diverged."""
        training, declared = self.training, self.declared
        order, extra = self._order(epoch), self._class_examples(epoch)
        generator = _generator("augmentation", self.seed, epoch)
        draws = draw(len(self.labels), self.image_size, declared.augmentation, generator).to(self.device)
        labels = self.labels[torch.cat(order)].to(self.device)
        extra_labels = None if extra is None else self.labels[extra].to(self.device)
        in_all = declared.epochs * self.steps
        log: EpochLog | None = None
        rate, seen = 0.0, 0
        training.objective.begin_epoch(epoch, partial(self._training_outputs, epoch))
        if training.robust_cmi is not None:
            training.robust_cmi.begin_epoch(epoch, partial(self._training_outputs, epoch, clean=True))
        training.model.train()
        self.terms = ()
        for step, index in enumerate(order):
            done = (epoch - 1) * self.steps + step
            factor = declared.schedule.factor(done, in_all, self.steps)
            rate = declared.optimizer.lr * factor
            set_rate(training.optimizer, rate)
            rows = slice(seen, seen + len(index))
            seen = rows.stop
            inputs = [next(self.images), labels[rows], draws[rows]]
            if extra_labels is not None:
                inputs.append(extra_labels[step])
            self.at = (epoch, step)
            logits, terms = self.step(*inputs)
            log = log or EpochLog(self.steps, logits.shape[1], self.names, self.device)
            log.add(logits, labels[rows], terms)
            after_step(done + 1, in_all)
        divergence = self._close(log, epoch, rate)
        if divergence is None:
            training.objective.end_epoch(epoch, partial(self._training_outputs, epoch))
        return divergence

    def _step(self, pixels: Tensor, labels: Tensor, draws: Tensor, *extra_labels: Tensor) -> tuple[Tensor, ...]:
        """One step on the weights and one of the objective; returns the logits and the stacked loss terms."""
        objective = self.training.objective
        images = unit(pixels)
        batch = augment(images[: len(labels)], draws, self.declared.augmentation, self.fill)
        self.training.optimizer.zero_grad(set_to_none=True)
        found = self._attacked(batch, labels, "adversary", *self.at)
        logits, *features = objective.outputs(self.network, batch if self._learns_clean else found)
        # Not as a module, whose hook reads the labels: those of the data were checked as it was loaded.
        terms, shown = objective.forward(logits, labels, *features), logits
        self.terms = checked_names(objective, terms, self.terms)
        if self.robust is not None:
            terms, shown = self.robust.add(terms, logits, labels, batch, found, self.at)
        torch.autograd.backward(terms["total"])
        self.training.optimizer.step()
        if self.robust is not None:
            self.robust.update(labels)
        if extra_labels:
            more = self._seen(images[len(labels) :], extra_labels[0], "adversary of class batches", *self.at)
            logits_of_more, *features = self._outputs(more, objective.class_mode)
            objective.update(logits_of_more, extra_labels[0], *features)
        else:
            objective.update(logits.detach(), labels, *(each.detach() for each in features))
        self.names = tuple(terms)
        return shown.detach(), torch.stack([term.detach() for term in terms.values()])

    def _attacked(self, images: Tensor, labels: Tensor, purpose: str, epoch: int, number: int) -> Tensor:
        """What the adversary makes of the batch of that number; without one the images themselves."""
        adversary = self.training.adversary
        if adversary is None:
            return images
        start_seed = derive_seed(purpose, self.seed, epoch, number)
        return find_adversarial(adversary, self.network, images, labels, start_seed)

    @property
    def _learns_clean(self) -> bool:
        return self.training.adversary is not None and self.training.adversary.learns_clean

    def _seen(self, images: Tensor, labels: Tensor, purpose: str, epoch: int, number: int) -> Tensor:
        """Further images as the objective sees those of a step: attacked, unless the method learns from clean ones."""
        return images if self._learns_clean else self._attacked(images, labels, purpose, epoch, number)

    def _outputs(self, images: Tensor, mode: Literal["eval", "train"]) -> tuple[Tensor, ...]:
        """Of the objective's outputs, without gradient: the centroid step has the weights fixed.

        In eval mode running statistics stay.
        """
        self.network.train(mode == "train")
        with torch.no_grad():
            outputs = self.training.objective.outputs(self.network, images)
        self.network.train()
        return outputs

    def _training_outputs(self, epoch: int, clean: bool = False) -> Iterator[tuple[Tensor, ...]]:
        """The outputs and labels of all images that are learned from, see `objectives.base.TrainingOutputs`.

        Of robust CMI the logits and labels of `clean` images.
        """
        size = self.declared.batch_size
        rows = torch.split(self.rows.to(self.feed.indices_on), size)
        labels = torch.split(self.labels.to(self.device), size)
        with contextlib.closing(self.feed.batches(rows)) as batches:
            for number, (pixels, own) in enumerate(zip(batches, labels, strict=True)):
                images = unit(pixels)
                if not clean:
                    images = self._seen(images, own, "adversary of class means", epoch, number)
                logits, *features = self._outputs(images, "eval")
                yield (logits, own) if clean else (logits, own, *features)

    def _close(self, log: EpochLog | None, epoch: int, rate: float) -> Divergence | None:
        training = self.training
        assert log is not None, "a split has at least two images"
        problem = log.problem(training.model)
        if problem is not None:
            what, last = problem
            before = training.curve[-1].loss if training.curve else None
            return Divergence(f"{what} of epoch {epoch}", last or before)
        training.collapsed = training.collapsed + 1 if log.one_class() else 0
        training.curve.append(log.epoch(epoch, rate))
        return None


def _generator(purpose: str, seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(purpose, seed, epoch))


def _collapse(training: TrainingRun, epochs: int) -> Divergence | None:
    """A model whose every prediction is one class, over several epochs in a row or over the last."""
    epoch = training.curve[-1]
    if training.collapsed < (1 if epoch.epoch == epochs else COLLAPSE_PATIENCE):
        return None
    return Divergence(f"collapsed to one class: every prediction of epoch {epoch.epoch} was the same", epoch.loss)
