"""The forward pass, the outputs and the gradients of a model, as numbers of examples."""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.losses import LOSSES, margin
from robustbench_cmic.attacks.model import MIN_ROWS, VANISHED, AttackError, CountedModel, is_out_of_memory, usable
from robustbench_cmic.attacks.threat import BLOCK
from robustbench_cmic.audit.probes.compare import differ
from robustbench_cmic.audit.probes.points import Places
from robustbench_cmic.records.probed import Forward, Gradients, Outputs
from robustbench_cmic.suite.signatures import one_line

FIRST_ROWS = 4 * MIN_ROWS
"""Images that are classified together at first."""
GRADIENT_TOLERANCE = 0.1
"""Of the change of a gradient, as a part of its length."""
EFFICIENT = 0.9
"""Of what a step can raise the loss: on digits nine in ten examples with a saturated softmax are below 0.86 where ten
classes compete, and a linear model of two classes is at 0.99.
"""


def forward_facts(target: CountedModel, places: Places, labels: Tensor, before: Tensor) -> Forward:
    """Whether logits of a model in eval mode depend on anything but their own image; labels (N,).

    All passes are compared with that of the judge: without gradients, many images at once. Order is drawn from the
    global generator of the CPU. `before` are the logits (N, C) of the clean images that `correctly_classified` gave,
    before any gradient was asked for.

    Raises:
        AttackError: the model returned no logits.
    """
    pool, classes = torch.cat(places), labels.repeat(len(places))

    def count(changed: Tensor) -> int:
        """Examples to which it happens at any place."""
        return int(changed.reshape(len(places), -1).any(0).sum())

    judged = _passed(target, pool, BLOCK)
    repeat = differ(judged, _passed(target, pool, BLOCK))
    repeat[: len(before)] |= differ(before, _passed(target, places.clean, FIRST_ROWS))
    mode = differ(judged, _passed(target, pool, BLOCK, grad=True))
    mode |= differ(judged, _passed(target, pool.clone().requires_grad_(), BLOCK))
    attacked, gradients = _with_gradients(target, pool, classes, BLOCK)
    mode |= differ(judged, attacked)
    repeat |= differ(judged, _passed(target, pool, BLOCK))  # now that there has been a pass back
    order = torch.randperm(len(pool))
    small, others = _with_gradients(target, pool[order], classes[order], 2 * MIN_ROWS)
    companions = torch.zeros_like(repeat)
    companions[order] = differ(attacked[order], small)  # both with gradients: of those, `mode` tells
    companions |= _in_odd_company(target, pool, judged) | _in_small_batches(target.model, pool, judged)
    astray = torch.zeros_like(repeat)
    if gradients is not None and others is not None:
        gap = (others - gradients[order]).flatten(1).norm(dim=1)
        astray[order] = gap > GRADIENT_TOLERANCE * gradients[order].flatten(1).norm(dim=1)
    training = [name or "the model itself" for name, module in target.model.named_modules() if module.training]
    return Forward(
        repeat=count(repeat),
        companions=count(companions),
        training=training,
        companion_gradients=count(astray),
        grad_mode=count(mode),
        copies=count(_of_copy_differ(target, pool, judged)),
    )


def _passed(target: CountedModel, images: Tensor, rows: int, grad: bool = False) -> Tensor:
    with torch.set_grad_enabled(grad):
        return torch.cat([target(batch).detach() for batch in torch.split(images, rows)])


def _with_gradients(target: CountedModel, images: Tensor, labels: Tensor, rows: int) -> tuple[Tensor, Tensor | None]:
    """Logits as an attack gets them, and the gradients of the margin, None where there are none."""
    logits: list[Tensor] = []
    gradients: list[Tensor] = []
    for batch, classes in zip(torch.split(images, rows), torch.split(labels, rows), strict=True):
        leaf = batch.clone().requires_grad_()
        with torch.enable_grad():
            output = target(leaf)
            logits.append(output.detach())
            try:
                gradients += torch.autograd.grad(margin(output, classes).sum(), leaf)
            except Exception as error:  # what a missing gradient means `gradient_facts` says
                if is_out_of_memory(error):
                    raise
    whole = sum(len(part) for part in gradients) == len(images)
    return torch.cat(logits), torch.cat(gradients) if whole else None


def _in_odd_company(target: CountedModel, images: Tensor, judged: Tensor) -> Tensor:
    """(N,): other logits beside inverted images."""
    changed = []
    for rows, before in zip(torch.split(images, MIN_ROWS), torch.split(judged, MIN_ROWS), strict=True):
        beside = 1 - images.roll(MIN_ROWS, 0)[: len(rows)]
        changed.append(differ(before, _passed(target, torch.cat([rows, beside]), BLOCK)[: len(rows)]))
    return torch.cat(changed)


def _in_small_batches(model: nn.Module, images: Tensor, judged: Tensor) -> Tensor:
    """(N,): other logits in a batch of one or of seven, in which attacks never ask, of some of the images."""
    changed = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    some = torch.randperm(len(images))[: 7 * MIN_ROWS]
    for rows in (*torch.split(some[: 2 * MIN_ROWS], 1), *torch.split(some, 7)):
        with torch.no_grad(), contextlib.suppress(Exception):  # not all take them; a user need not
            logits = model(images[rows])
            if logits.shape == judged[rows].shape:
                changed[rows] |= differ(judged[rows], logits)
    return changed


def _of_copy_differ(target: CountedModel, images: Tensor, judged: Tensor) -> Tensor:
    """(N,): a copy of the model gives other logits; no copy can be had of some."""
    try:
        other = CountedModel(copy.deepcopy(target.model), target.classes)
        other.rows = target.rows
        target.forwards += len(images)
        return differ(judged, _passed(other, images, BLOCK))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return torch.zeros(len(images), dtype=torch.bool, device=images.device)


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
    astray = 0
    if len(images) == 0:  # nothing is classified correctly; many networks cannot take an empty batch
        return Gradients(loss=loss, n=0)
    try:
        batches = torch.split(images, 2 * MIN_ROWS), torch.split(labels, 2 * MIN_ROWS)
        for batch, classes in zip(*batches, strict=True):
            leaf = batch.clone().requires_grad_()
            with torch.enable_grad():
                logits = target(leaf)
                (gradient,) = torch.autograd.grad(LOSSES[loss](logits, classes).sum(), leaf, retain_graph=True)
            flat = gradient.flatten(1)
            astray += int(_astray(logits, classes, leaf, flat).sum()) if loss == "ce" else 0
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
    return Gradients(loss=loss, n=len(images), astray=astray if loss == "ce" else None, **counts)


def _astray(logits: Tensor, labels: Tensor, leaf: Tensor, gradient: Tensor) -> Tensor:
    """(N,): rounding has led the sign of cross entropy's gradient (N, pixels) away from the loss's steepest ascent.

    The gradient of `log_odds` has the same direction and is never rounded away. To first order a step by signs s raises
    that loss by g . s, and by the sum of |g| at best.
    """
    (exact,) = torch.autograd.grad(LOSSES["log_odds"](logits, labels).sum(), leaf)
    exact = exact.flatten(1)
    return (exact * gradient.sign()).sum(1) < EFFICIENT * exact.abs().sum(1)


def correctly_classified(target: CountedModel, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) truth values, and the logits (N, C).

    Raises:
        AttackError: logits that are not finite.
    """
    with torch.no_grad():
        logits = torch.cat([target(batch) for batch in torch.split(images, FIRST_ROWS)]).float()
    if not usable(logits):
        raise AttackError("the model returned logits with NaN or infinity")
    return logits.argmax(1) == labels, logits
