"""The harness: runs any attack on a model and judges what comes back. It trusts no attack.

Whatever an attack returns is checked, projected into ball and box and classified again, in float32, here. An attack
that crashes or returns nonsense raises `AttackError`, so that its cell fails; it never counts as robust.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.autoattack import Part
from robustbench_cmic.attacks.blocks import BLOCK, SeededAttack, attack_block
from robustbench_cmic.attacks.losses import class_centroids
from robustbench_cmic.attacks.model import AttackError, CountedModel, frozen, is_out_of_memory, with_less_memory
from robustbench_cmic.attacks.threat import Threat
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.suite.attack_base import Attack

Progress = Callable[[int, int, int], None]
"""Called with (examples done, examples in all, how many of those done are classified correctly)."""


class BrokenExample(NamedTuple):
    """An example that is classified correctly when clean, and not as the attack returned it; on the CPU.

    Attributes:
        place: among the evaluated examples, counted from 0.
        clean, found: (C, H, W), the image and what the attack made of it, in ball and box.
        clean_logits, logits: (classes,) float32.
    """

    place: int
    clean: Tensor
    found: Tensor
    clean_logits: Tensor
    logits: Tensor


@dataclass
class AttackEvaluation:
    """What an attack did to a set of examples, as judged here.

    Attributes:
        correct: (N,) truth values: still classified correctly.
        logits: (N, classes) of the examples that the attack returned.
        images: (N, C, H, W), the examples that the attack returned; on the CPU, and None unless asked for.
        outside: examples returned outside ball or box, and projected back.
        forwards, backwards: examples through the network, by the attack alone.
        parts: of an attack that is made of several.
        broken: the first examples that the attack broke, as many as were asked for.
    """

    correct: Tensor
    logits: Tensor
    images: Tensor | None
    outside: int
    forwards: int
    backwards: int
    parts: list[Part]
    broken: list[BrokenExample]


@dataclass
class BrokenBefore:
    """Examples that were broken in a smaller ball, and are not attacked again.

    Attributes:
        places: (M,) ascending places among the evaluated examples.
        images: (M, C, H, W) their adversarial examples.
    """

    places: Tensor
    images: Tensor


@dataclass
class _Accumulator:
    """Results of consecutive batches, in order."""

    keep_images: bool
    keep_broken: int
    broken: list[BrokenExample] = field(default_factory=list)
    correct: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    images: list[Tensor] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    outside: int = 0


def evaluate_attack(
    model: nn.Module,
    images: Tensor | Examples,
    labels: Tensor,
    *,
    classes: int,
    attack: Attack | None,
    seed: int,
    batch_size: int = BLOCK,
    progress: Progress | None = None,
    source: nn.Module | None = None,
    kept: BrokenBefore | None = None,
    keep_images: bool = False,
    keep_broken: int = 0,
) -> AttackEvaluation:
    """Attack a model and judge the result.

    Args:
        model: returns logits for images in [0, 1]; put into eval mode here and restored afterwards.
        images: (N, C, H, W) float32 in [0, 1], on the model's device; or such images that are brought there in slices.
        labels: (N,) int64.
        classes: number of classes.
        attack: at one threat; None for the clean evaluation.
        seed: of the cell.
        batch_size: examples that a native attack has in memory at once; the verdict does not depend on it. Attacks
            that draw from generators of their own always run on whole blocks of 256.
        progress: told about every finished batch.
        source: the model whose adversarial examples are tried on `model`; None: its own.
        kept: what a smaller ball broke: broken here, too.
        keep_images: the verdict holds the adversarial examples.
        keep_broken: the verdict holds this many of the first examples that were broken, to look at.

    Where the memory of the device does not suffice, fewer and fewer examples go through the network together.

    Raises:
        AttackError: the attack crashed, or its result or the model's logits are unusable.
        torch.OutOfMemoryError: not even a few times `target.MIN_ROWS` examples fit.
    """
    copied = attack is not None and attack.distrusted  # a user's code never holds the model that is judged
    target = CountedModel(copy.deepcopy(model) if copied else model if source is None else source, classes)
    target.training = False  # torchattacks puts a model back into the mode in which it found it
    judge = CountedModel(model, classes)  # the judge's own passes are not the attack's
    judged = _Accumulator(keep_images, keep_broken)
    correct = 0
    with contextlib.ExitStack() as stack:
        for network in {id(each): each for each in (model, target.model)}.values():
            stack.enter_context(_untouched(network))
        order = None if attack is None else SeededAttack(attack=attack, seed=seed)
        if order is not None and order.attack.raised_loss == "cmic":
            order = replace(order, centroids=_centroids(target, images, labels, batch_size))
        size = BLOCK if order is not None and order.attack.whole_blocks else batch_size
        for start, stop in _batches(len(images), size):
            batch = _Batch(start, images[start:stop], labels[start:stop], kept)

            act = functools.partial(_attack_and_judge, order, target, judge, batch, judged)
            with_less_memory(target, stop - start, act)
            if progress is not None:
                correct += int(judged.correct[-1].sum())
                progress(stop, len(images), correct)
    return AttackEvaluation(
        correct=torch.cat(judged.correct),
        logits=torch.cat(judged.logits),
        images=torch.cat(judged.images) if keep_images else None,
        outside=judged.outside,
        forwards=target.forwards,
        backwards=target.backwards,
        parts=list(judged.parts.values()),
        broken=judged.broken,
    )


class _Batch:
    """Consecutive examples, and which of them are attacked."""

    def __init__(self, start: int, images: Tensor, labels: Tensor, kept: BrokenBefore | None) -> None:
        self.images = images
        self.labels = labels
        self.places = torch.arange(start, start + len(images))
        self.attacked = torch.ones(len(images), dtype=torch.bool)
        self.kept: Tensor | None = None
        if kept is not None:
            inside = (kept.places >= start) & (kept.places < start + len(images))
            self.attacked[kept.places[inside] - start] = False
            self.kept = kept.images[inside].to(images)

    def run(self, order: SeededAttack[Attack] | None, target: CountedModel) -> tuple[Any, list[Part]]:
        """The examples after the attack: those that are attacked as it returns them, the others as they were kept."""
        if order is None:
            return self.images, []
        if self.kept is None:
            return attack_block(order, target, self.images, self.labels, self.places)
        found = self.images.clone()
        found[~self.attacked] = self.kept
        parts: list[Part] = []
        if bool(self.attacked.any()):
            rows = self.attacked
            found[rows], parts = attack_block(order, target, self.images[rows], self.labels[rows], self.places[rows])
        return found, parts


def _attack_and_judge(
    order: SeededAttack[Attack] | None,
    target: CountedModel,
    judge: CountedModel,
    batch: _Batch,
    judged: _Accumulator,
) -> None:
    found, parts = _guarded(order, target, batch)
    judge.rows = target.rows
    _judge(judge, batch, found, None if order is None else order.threat, judged)
    _add(judged.parts, parts)


def _guarded(order: SeededAttack[Attack] | None, target: CountedModel, batch: _Batch) -> tuple[Any, list[Part]]:
    """Run the attack; whatever it raises becomes an `AttackError`, but for a lack of memory."""
    try:
        return batch.run(order, target)
    except AttackError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise AttackError(f"the attack crashed: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """`frozen`, and an error if the weights or statistics are not the same afterwards.

    Raises:
        AttackError: they are not.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with frozen(model):
        yield
    after = model.state_dict()
    if before.keys() != after.keys() or any(not torch.equal(before[name], value) for name, value in after.items()):
        raise AttackError("the attack changed the model's weights or statistics")


def _batches(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(start + size, n)


def _centroids(target: CountedModel, images: Tensor | Examples, labels: Tensor, batch_size: int) -> Tensor:
    """(classes, classes) mean softmax over the clean examples of each class."""
    logits = []
    for start, stop in _batches(len(images), batch_size):
        with torch.no_grad():
            logits.append(with_less_memory(target, stop - start, functools.partial(target, images[start:stop])).float())
    return class_centroids(torch.cat(logits), labels, target.classes)


def _add(parts: dict[str, Part], more: list[Part]) -> None:
    """Sum what the parts of an attack did over batches."""
    for part in more:
        known = parts.get(part.name, Part(part.name, 0, 0, 0, 0, 0.0))
        parts[part.name] = Part(
            part.name,
            attacked=known.attacked + part.attacked,
            broken=known.broken + part.broken,
            forwards=known.forwards + part.forwards,
            backwards=known.backwards + part.backwards,
            seconds=known.seconds + part.seconds,
        )


def _judge(judge: CountedModel, batch: _Batch, found: Any, threat: Threat | None, judged: _Accumulator) -> None:
    """Check, project and classify what an attack returned; design rules 2 and 3."""
    # An attack may have flipped the model's mode; what is judged is the model in eval mode.
    judge.model.eval()
    images = batch.images
    if not isinstance(found, Tensor) or found.shape != images.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise AttackError(f"the attack should return images of shape {tuple(images.shape)}, not {got}")
    found = found.detach().to(images)
    if not bool(torch.isfinite(found).all()):
        raise AttackError("the attack returned images with NaN or infinity")
    outside = 0
    if threat is not None:
        outside = int(threat.outside(images, found).sum())
        found = threat.project(images, found)
    with torch.no_grad():
        logits = judge(found).float()
        clean = logits if threat is None else judge(images).float()
    if not bool(torch.isfinite(logits).all() and torch.isfinite(clean).all()):
        raise AttackError("the model returned logits with NaN or infinity")
    correct = (logits.argmax(1) == batch.labels) & (clean.argmax(1) == batch.labels)
    # What a smaller ball broke is broken; the projection may have moved it by one rounding.
    correct &= batch.attacked.to(correct.device)
    if len(judged.broken) < judged.keep_broken:
        _keep_broken(batch, found, clean, logits, judged)
    judged.outside += outside
    judged.logits.append(logits)
    judged.correct.append(correct)
    if judged.keep_images:
        judged.images.append(found.cpu())


def _keep_broken(batch: _Batch, found: Tensor, clean: Tensor, logits: Tensor, judged: _Accumulator) -> None:
    """Put the first broken examples of a batch aside, until there are as many as were asked for."""
    broken = (clean.argmax(1) == batch.labels) & (logits.argmax(1) != batch.labels)
    for row in broken.nonzero()[: judged.keep_broken - len(judged.broken), 0].tolist():
        rows = (values[row].cpu().clone() for values in (batch.images, found, clean, logits))
        judged.broken.append(BrokenExample(int(batch.places[row]), *rows))
