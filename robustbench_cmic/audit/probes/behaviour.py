"""The forward pass, the outputs and the gradients of a model on clean images, as numbers of examples."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_cmic.attacks.losses import LOSSES, margin
from robustbench_cmic.attacks.model import MIN_ROWS, VANISHED, AttackError, CountedModel, usable
from robustbench_cmic.records.schema import Forward, Gradients, Outputs
from robustbench_cmic.suite.signatures import one_line

TOLERANCE = 1e-4
"""Of differences between logits, as a part of their spread: above what rounding does, below what noise does."""


def forward_facts(target: CountedModel, images: Tensor) -> Forward:
    """Whether logits of a model in eval mode depend on anything but their own image, of images (N, C, H, W)."""
    repeat = companions = 0
    with torch.no_grad():
        for rows in torch.split(images, MIN_ROWS):
            others = images.roll(MIN_ROWS, 0)[: len(rows)]
            batches = (torch.cat([rows, beside]) for beside in (others, others, 1 - others))
            first, again, elsewhere = (target(batch)[: len(rows)] for batch in batches)
            repeat += int(_differ(first, again).sum())
            companions += int(_differ(first, elsewhere).sum())
    training = [name or "the model itself" for name, module in target.model.named_modules() if module.training]
    return Forward(repeat=repeat, companions=companions, training=training)


def _differ(first: Tensor, second: Tensor) -> Tensor:
    """(N,) truth values: the logits of an example are not the same, NaN included."""
    # The largest over the median logit: one extreme logit, as of a class that is masked out, must not hide the others.
    masked = first.isneginf()
    typical = first.masked_fill(masked, torch.nan).nanmedian(1).values
    scale = (first.amax(1) - typical).clamp(min=1e-12)
    near = (first - second).abs() <= TOLERANCE * torch.maximum(scale[:, None], first.abs() * 1e-2)
    near = torch.where(masked, second.isneginf(), near)
    return ~near.all(1) | (first.argmax(1) != second.argmax(1))


def output_facts(logits: Tensor) -> Outputs:
    """What outputs (N, C) on clean images look like."""
    probabilities = bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all())
    top = logits.amax(1)
    bound = top.max()
    second = logits.topk(2, dim=1).values[:, 1] if logits.shape[1] > 1 else top
    return Outputs(
        probabilities=probabilities,
        saturated=int((logits.float().softmax(1).amax(1) == 1).sum()),
        at_bound=int((top >= bound - 1e-6 * bound.abs()).sum()),
        median_lead=min(float((top - second).median()), torch.finfo(torch.float32).max),
    )


def gradient_facts(target: CountedModel, images: Tensor, labels: Tensor, loss: str, step: float) -> Gradients:
    """The gradients of the loss `ce` or `margin`, and whether it leads anywhere.

    The images, (N, C, H, W), are those that the model, in eval mode, classifies correctly. They are moved along the
    gradient's signs by `step`, in units of images.
    """
    counts = {"zero": 0, "bad": 0, "unhelpful": 0}
    if len(images) == 0:  # nothing is classified correctly; many networks cannot take an empty batch
        return Gradients(loss=loss, n=0)
    try:
        batches = torch.split(images, 2 * MIN_ROWS), torch.split(labels, 2 * MIN_ROWS)
        for batch, classes in zip(*batches, strict=True):
            leaf = batch.clone().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(LOSSES[loss](target(leaf), classes).sum(), leaf)
            flat = gradient.flatten(1)
            bad = ~torch.isfinite(flat).all(1)
            zero = ~bad & (flat.abs().amax(1) < VANISHED)
            moved = (batch + step * gradient.nan_to_num().sign()).clamp(0, 1)
            with torch.no_grad():
                rise = margin(target(moved), classes) - margin(target(batch), classes)
            counts["bad"] += int(bad.sum())
            counts["zero"] += int(zero.sum())
            counts["unhelpful"] += int((~bad & ~zero & ~(rise > 0)).sum())
    except Exception as error:  # whatever a model's own code raises is what is to be found out
        return Gradients(loss=loss, n=len(images), error=one_line(error))
    return Gradients(loss=loss, n=len(images), **counts)


def correctly_classified(target: CountedModel, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) truth values, and the logits (N, C).

    Raises:
        AttackError: logits that are not finite.
    """
    with torch.no_grad():
        logits = torch.cat([target(batch) for batch in torch.split(images, 4 * MIN_ROWS)]).float()
    if not usable(logits):
        raise AttackError("the model returned logits with NaN or infinity")
    return logits.argmax(1) == labels, logits
