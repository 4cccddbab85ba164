"""What counts as robust: whatever an attack returns is checked, projected into ball and box and classified again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustbench_cmic.attacks.model import AttackError, CountedModel, usable
from robustbench_cmic.attacks.threat import beyond_box, project, violations
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.fields import Threat


class Batch(NamedTuple):
    """Consecutive examples, and which of them are attacked.

    Attributes:
        places: (N,) among the evaluated examples, counted from 0.
        images: (N, C, H, W).
        labels: (N,).
        attacked: (N,) truth values; the others were broken in a smaller ball.
        kept: (M, C, H, W), the adversarial examples of those others.
    """

    places: Tensor
    images: Tensor
    labels: Tensor
    attacked: Tensor
    kept: Tensor | None


class BrokenExample(NamedTuple):
    """An example that is classified correctly when clean, and not as the attack returned it; on the CPU.

    Attributes:
        place: among the evaluated examples, counted from 0.
        clean, adversarial: (C, H, W), the image and what the attack made of it, in ball and box.
        clean_logits, logits: (classes,) float32.
    """

    place: int
    clean: Tensor
    adversarial: Tensor
    clean_logits: Tensor
    logits: Tensor


@dataclass(frozen=True)
class AttackEvaluation:
    """What an attack did to a set of examples, as judged here; passes and parts are those of an `AttackRecord`.

    Attributes:
        correct: (N,) truth values: still classified correctly.
        logits: (N, classes) of the examples that the attack returned.
        images: (N, C, H, W), these examples, on the CPU; None unless asked for.
        outside: examples returned outside ball or box, and projected back.
        broken: the first examples that the attack broke, as many as were asked for.
        outside_box: those of them with values outside [0, 1].
        vanished: survivors whose gradients were lost on the attack's way; None where that is not known.
    """

    correct: Tensor
    logits: Tensor
    images: Tensor | None
    outside: int
    broken: list[BrokenExample]
    parts: list[Part] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0
    outside_box: int = 0
    vanished: int | None = None


@dataclass(frozen=True)
class Judge:
    """What attacks are judged by.

    Attributes:
        model: the one that is attacked; its passes here are not the attack's.
        threat: the ball; None where nothing is perturbed.
        keep_images: whether an evaluation holds what the attack returned.
        keep_broken: how many of the first broken examples it holds.
    """

    model: CountedModel
    threat: Threat | None
    keep_images: bool
    keep_broken: int

    def judge(self, batch: Batch, returned: Any, parts: list[Part]) -> AttackEvaluation:
        """Judge a batch by what the attack returned for it, which may be anything.

        Raises:
            AttackError: it is not finite images of the right shape, or the model's logits are not finite.
        """
        if not isinstance(returned, Tensor) or returned.shape != batch.images.shape:
            got = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
            raise AttackError(f"the attack should return images of shape {tuple(batch.images.shape)}, not {got}")
        points, outside, outside_box = returned.detach().to(batch.images), 0, 0
        if not bool(torch.isfinite(points).all()):
            raise AttackError("the attack returned images with NaN or infinity")
        if self.threat is not None:
            outside = int(violations(self.threat, batch.images, points).sum())
            outside_box = int(beyond_box(points).sum())
            points = project(self.threat, batch.images, points)
        # An attack may have flipped the model's mode; what is judged is the model in eval mode.
        self.model.model.eval()
        with torch.no_grad():
            logits = self.model(points).float()
            clean = logits if self.threat is None else self.model(batch.images).float()
        if not (usable(logits) and usable(clean)):
            raise AttackError("the model returned logits with NaN or infinity")
        correct, clean_correct = (each.argmax(1) == batch.labels for each in (logits, clean))
        broken = []
        for row in (clean_correct & ~correct).nonzero()[: self.keep_broken, 0].tolist():
            rows = (values[row].cpu().clone() for values in (batch.images, points, clean, logits))
            broken.append(BrokenExample(int(batch.places[row]), *rows))
        # What a smaller ball broke is broken; the projection may have moved it by one rounding.
        correct = correct & clean_correct & batch.attacked.to(correct.device)
        images = points.cpu() if self.keep_images else None
        return AttackEvaluation(correct, logits, images, outside, broken, parts, outside_box=outside_box)

    def total(self, batches: list[AttackEvaluation], forwards: int, backwards: int) -> AttackEvaluation:
        """What the attack did to consecutive batches, in so many passes of examples."""
        images = [batch.images for batch in batches if batch.images is not None]
        vanished = [batch.vanished for batch in batches if batch.vanished is not None]
        return AttackEvaluation(
            correct=torch.cat([batch.correct for batch in batches]),
            logits=torch.cat([batch.logits for batch in batches]),
            images=torch.cat(images) if images else None,
            outside=sum(batch.outside for batch in batches),
            outside_box=sum(batch.outside_box for batch in batches),
            broken=[example for batch in batches for example in batch.broken][: self.keep_broken],
            parts=_sum_parts([part for batch in batches for part in batch.parts]),
            forwards=forwards,
            backwards=backwards,
            vanished=sum(vanished) if vanished else None,
        )


def _sum_parts(parts: list[Part]) -> list[Part]:
    """The parts of an attack, each summed over batches, in the order in which they first ran."""
    counts = ("attacked", "broken", "forwards", "backwards", "seconds")
    sums = {part.name: dict.fromkeys(counts, 0) for part in parts}
    for part, count in itertools.product(parts, counts):
        sums[part.name][count] += getattr(part, count)
    return [Part(name=name, **each) for name, each in sums.items()]
