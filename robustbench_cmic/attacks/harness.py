"""The harness: runs any attack on a model and judges what comes back. It trusts no attack.

Whatever an attack returns is checked, projected into ball and box and classified again, in float32, here. An attack
that crashes or returns nonsense raises `AttackError`, so that its cell fails; it never counts as robust. On a GPU any
attack searches in TF32 (`model.searching`): an example that only TF32 misclassifies is not broken.
"""

from __future__ import annotations

import contextlib
import copy
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import AttackCall, OtherImages
from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.judge import AttackEvaluation, Batch, Judge
from robustbench_cmic.attacks.losses import class_centroids
from robustbench_cmic.attacks.model import (
    AttackError,
    CountedModel,
    frozen,
    in_float32,
    is_out_of_memory,
    searching,
    with_less_memory,
)
from robustbench_cmic.attacks.threat import BLOCK, check_threat
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.information.measures import check_labels
from robustbench_cmic.models.build import layers_in_training
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.attack_base import Attack
from robustbench_cmic.suite.attacks import OTHERS
from robustbench_cmic.suite.signatures import one_line

CallOn = Callable[..., AttackCall[Attack]]
"""Takes images, labels and places, which are all that an `AttackCall` still lacks."""


class BrokenBefore(NamedTuple):
    """Examples that were broken in a smaller ball, and are not attacked again.

    Attributes:
        places: (M,) ascending places among the evaluated examples.
        images: (M, C, H, W) their adversarial examples.
    """

    places: Tensor
    images: Tensor


@called_directly
def evaluate_attack(
    model: nn.Module,
    images: Tensor | Examples,
    labels: Tensor,
    *,
    classes: int,
    attack: Attack | None,
    seed: int,
    batch_size: int = BLOCK,
    progress: Callable[[int, int, int], None] | None = None,
    source: nn.Module | None = None,
    kept: BrokenBefore | None = None,
    keep_images: bool = False,
    keep_broken: int = 0,
) -> AttackEvaluation:
    """Attack a model and judge the result.

    Args:
        model: returns logits for images in [0, 1]; put into eval mode here and restored afterwards.
        images: (N, C, H, W) float32 in [0, 1], on the model's device; or such images that are brought there in slices.
        labels: (N,) integers of any type.
        classes: number of classes.
        attack: at one threat; None for the clean evaluation.
        seed: of the cell.
        batch_size: examples that a native attack has in memory at once; fewer and fewer go through the network
            together where that is too many, and the verdict does not depend on it. Attacks that draw from generators
            of their own always run on whole blocks of 256.
        progress: after every batch told the examples done, those in all, and how many of those done are correct.
        source: the model whose adversarial examples are tried on `model`; None: its own.
        kept: what a smaller ball broke: broken here, too.
        keep_images: keep the adversarial examples.
        keep_broken: keep this many of the first examples that were broken, to look at.

    Raises:
        ValueError: a label that is no class.
        AttackError: the attack crashed, or its result or the model's logits are unusable.
        torch.OutOfMemoryError: not even a few times `model.MIN_ROWS` examples fit.
    """
    check_labels(labels, classes)
    threat = None if attack is None else attack.threat
    if threat is not None:
        check_threat(threat)
    copied = attack is not None and attack.distrusted  # a user's code never holds the model that is judged
    target = CountedModel(copy.deepcopy(model) if copied else model if source is None else source, classes)
    target.training = False  # torchattacks puts a model back into the mode in which it found it
    judge = Judge(CountedModel(model, classes), threat, keep_images, keep_broken)
    batches: list[AttackEvaluation] = []
    correct = 0
    with in_float32(), _untouched(model, target.model):
        call_on = None if attack is None else _call_on(attack, seed, target, images, labels, batch_size)
        size = BLOCK if attack is not None and attack.whole_blocks else batch_size
        for start in range(0, len(images), size):
            batch = _batch(start, images[start : start + size], labels[start : start + size], kept)
            action = partial(_attack_and_judge, call_on, target, judge, batch)
            batches.append(with_less_memory(target, len(batch.images), action))
            if progress is not None:
                correct += int(batches[-1].correct.sum())
                progress(start + len(batch.images), len(images), correct)
    return judge.total(batches, target.forwards, target.backwards)


def _batch(start: int, images: Tensor, labels: Tensor, kept: BrokenBefore | None) -> Batch:
    """The examples from place `start` on; those broken before are not attacked."""
    places = torch.arange(start, start + len(images))
    if kept is None:
        return Batch(places, images, labels, torch.ones_like(places, dtype=torch.bool), None)
    broken = kept.images[torch.isin(kept.places, places)].to(images)
    return Batch(places, images, labels, ~torch.isin(places, kept.places), broken)


def _attack_and_judge(call_on: CallOn | None, target: CountedModel, judge: Judge, batch: Batch) -> AttackEvaluation:
    """Run the attack, and judge it; whatever it raises becomes an `AttackError`, but for a lack of memory."""
    try:
        returned, parts = _attack(call_on, batch)
    except Exception as error:
        if isinstance(error, AttackError) or is_out_of_memory(error):
            raise
        raise AttackError(f"the attack crashed: {one_line(error)}") from error
    judge.model.rows = target.rows
    watch, target.watch = target.watch, None
    verdict = judge.judge(batch, returned, parts)
    return verdict if watch is None else replace(verdict, vanished=watch.mostly_lost(verdict.correct))


def _attack(call_on: CallOn | None, batch: Batch) -> tuple[Any, list[Part]]:
    """The examples after the attack: those that are attacked as it returns them, the others as they were kept."""
    if call_on is None:
        return batch.images, []
    rows = slice(None) if batch.kept is None else batch.attacked
    call = call_on(images=batch.images[rows], labels=batch.labels[rows], places=batch.places[rows])
    returned, parts = call.images, []
    if len(call.images) > 0:
        with searching():
            returned, parts = pkgutil.resolve_name(call.attack.implementation)(call)
    if batch.kept is None:
        return returned, parts
    result = batch.images.clone()
    result[batch.attacked], result[~batch.attacked] = returned, batch.kept
    return result, parts


@contextlib.contextmanager
def _untouched(*models: nn.Module) -> Iterator[None]:
    """`frozen`, and an `AttackError` if weights or statistics are not the same afterwards."""
    with contextlib.ExitStack() as stack:
        states = []
        for model in {id(each): each for each in models}.values():
            states.append((model, {name: value.clone() for name, value in model.state_dict().items()}))
            stack.enter_context(frozen(model))
        yield
    for model, before in states:
        after = model.state_dict()
        if before.keys() != after.keys() or not all(_same(before[name], value) for name, value in after.items()):
            raise AttackError(_who_changed(model))


def _same(before: Tensor, after: Tensor) -> bool:
    """Equal, NaN to NaN: a buffer that nothing uses may hold it."""
    return before.shape == after.shape and torch.allclose(before, after, rtol=0, atol=0, equal_nan=True)


def _who_changed(model: nn.Module) -> str:
    """Why weights or statistics are not what they were: the attack, or the model itself, which evaluates otherwise."""
    with frozen(model):
        layers = layers_in_training(model)
    if layers:
        stuck = f"the model stays in training mode when it is told to evaluate ({', '.join(layers[:3])})"
        return f"{stuck}, and what it evaluates changes its weights or statistics"
    return "weights or statistics of the model were changed, by the attack or by the model's own forward pass"


def _call_on(
    attack: Attack, seed: int, target: CountedModel, images: Tensor | Examples, labels: Tensor, batch_size: int
) -> CallOn:
    centroids = _centroids(target, images, labels, batch_size) if attack.raised_loss == "cmic" else None
    others = _others(images, labels) if attack.wants_others else None
    return partial(AttackCall, attack=attack, seed=seed, centroids=centroids, model=target, others=others)


def _others(images: Tensor | Examples, labels: Tensor) -> OtherImages:
    """At most `OTHERS` of the evaluated examples, chosen evenly."""
    count = min(OTHERS, len(images))
    rows = [number * len(images) // count for number in range(count)]
    return OtherImages(images[rows] if isinstance(images, Tensor) else images.at(rows), labels[rows])


def _centroids(target: CountedModel, images: Tensor | Examples, labels: Tensor, batch_size: int) -> Tensor:
    """(classes, classes) mean softmax over the clean examples of each class."""
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    with torch.no_grad():
        logits = [with_less_memory(target, len(batch), partial(target, batch)).float() for batch in batches]
    return class_centroids(torch.cat(logits), labels, target.classes)
