"""The harness: runs any attack on a model and judges what comes back. It trusts no attack.

Whatever an attack returns is checked, projected into ball and box and classified again, in float32, here. An attack
that crashes or returns nonsense raises `AttackError`, so that its cell fails; it never counts as robust.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import SeededAttack, attack_block
from robustbench_cmic.attacks.judge import AttackEvaluation, Batch, Judge
from robustbench_cmic.attacks.losses import class_centroids
from robustbench_cmic.attacks.model import AttackError, CountedModel, frozen, is_out_of_memory, with_less_memory
from robustbench_cmic.attacks.threat import BLOCK, check_threat
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.attack_base import Attack

OnBatch = Callable[[int, int, int], None]
"""Called with (examples done, examples in all, how many of those done are classified correctly)."""


@dataclass(frozen=True)
class BrokenBefore:
    """Examples that were broken in a smaller ball, and are not attacked again.

    Attributes:
        places: (M,) ascending places among the evaluated examples.
        images: (M, C, H, W) their adversarial examples.
    """

    places: Tensor
    images: Tensor


def evaluate_attack(
    model: nn.Module,
    images: Tensor | Examples,
    labels: Tensor,
    *,
    classes: int,
    attack: Attack | None,
    seed: int,
    batch_size: int = BLOCK,
    progress: OnBatch | None = None,
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
        batch_size: examples that a native attack has in memory at once; fewer and fewer go through the network
            together where that is too many, and the verdict does not depend on it. Attacks that draw from generators
            of their own always run on whole blocks of 256.
        progress: told about every finished batch.
        source: the model whose adversarial examples are tried on `model`; None: its own.
        kept: what a smaller ball broke: broken here, too.
        keep_images: keep the adversarial examples.
        keep_broken: keep this many of the first examples that were broken, to look at.

    Raises:
        AttackError: the attack crashed, or its result or the model's logits are unusable.
        torch.OutOfMemoryError: not even a few times `model.MIN_ROWS` examples fit.
    """
    threat = None if attack is None else attack.threat
    if threat is not None:
        check_threat(threat)
    copied = attack is not None and attack.distrusted  # a user's code never holds the model that is judged
    target = CountedModel(copy.deepcopy(model) if copied else model if source is None else source, classes)
    target.training = False  # torchattacks puts a model back into the mode in which it found it
    judge = Judge(CountedModel(model, classes), threat, keep_images, keep_broken)
    batches: list[AttackEvaluation] = []
    correct = 0
    with _untouched(model, target.model):
        seeded = None if attack is None else SeededAttack(attack=attack, seed=seed)
        if seeded is not None and seeded.attack.raised_loss == "cmic":
            seeded = replace(seeded, centroids=_centroids(target, images, labels, batch_size))
        size = BLOCK if attack is not None and attack.whole_blocks else batch_size
        for start, stop in _batches(len(images), size):
            batch = _batch(start, images[start:stop], labels[start:stop], kept)
            action = partial(_attack_and_judge, seeded, target, judge, batch)
            batches.append(with_less_memory(target, stop - start, action))
            if progress is not None:
                correct += int(batches[-1].correct.sum())
                progress(stop, len(images), correct)
    return judge.total(batches, target.forwards, target.backwards)


def _batch(start: int, images: Tensor, labels: Tensor, kept: BrokenBefore | None) -> Batch:
    """The examples from place `start` on; those broken before are not attacked."""
    places = torch.arange(start, start + len(images))
    attacked = torch.ones(len(images), dtype=torch.bool)
    if kept is None:
        return Batch(places, images, labels, attacked, None)
    inside = (kept.places >= start) & (kept.places < start + len(images))
    attacked[kept.places[inside] - start] = False
    return Batch(places, images, labels, attacked, kept.images[inside].to(images))


def _attack_and_judge(
    attack: SeededAttack[Attack] | None, target: CountedModel, judge: Judge, batch: Batch
) -> AttackEvaluation:
    """Run the attack, and judge it; whatever it raises becomes an `AttackError`, but for a lack of memory."""
    try:
        returned, parts = _attack(attack, target, batch)
    except AttackError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise AttackError(f"the attack crashed: {type(error).__name__}: {error}") from error
    judge.model.rows = target.rows
    return judge.judge(batch, returned, parts)


def _attack(attack: SeededAttack[Attack] | None, target: CountedModel, batch: Batch) -> tuple[Any, list[Part]]:
    """The examples after the attack: those that are attacked as it returns them, the others as they were kept."""
    if attack is None:
        return batch.images, []
    if batch.kept is None:
        return attack_block(attack, target, batch.images, batch.labels, batch.places)
    result = batch.images.clone()
    rows = batch.attacked
    result[~rows] = batch.kept
    parts: list[Part] = []
    if bool(rows.any()):
        result[rows], parts = attack_block(attack, target, batch.images[rows], batch.labels[rows], batch.places[rows])
    return result, parts


@contextlib.contextmanager
def _untouched(*models: nn.Module) -> Iterator[None]:
    """`frozen`, and an error if weights or statistics are not the same afterwards.

    Raises:
        AttackError: they are not.
    """
    with contextlib.ExitStack() as stack:
        states = []
        for model in {id(each): each for each in models}.values():
            states.append((model, {name: value.clone() for name, value in model.state_dict().items()}))
            stack.enter_context(frozen(model))
        yield
    for model, before in states:
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
            logits.append(with_less_memory(target, stop - start, partial(target, images[start:stop])).float())
    return class_centroids(torch.cat(logits), labels, target.classes)
