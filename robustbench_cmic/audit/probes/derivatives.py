"""Gradients checked against finite differences: is what an attack follows the slope of what the judge sees?

The gradient is the attack's own: in float32, with the batches of an attack, of the model itself. The slopes are the
judge's: differences of logits without gradients, in float64 on a copy of the model, where a step may be so small that
it crosses next to no kink of a rectifier or a pooling. A copy that cannot compute in float64, or that answers other
than the model, is of no use; then the model's own float32 values are taken, with larger steps and less trust.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from robustbench_cmic.attacks.losses import margin
from robustbench_cmic.attacks.model import CountedModel, is_out_of_memory
from robustbench_cmic.attacks.threat import BLOCK
from robustbench_cmic.audit.probes.compare import differ
from robustbench_cmic.records.probed import Derivatives
from robustbench_cmic.suite.signatures import one_line

Function = Callable[[Tensor], Tensor]
JITTER = 1e-3
"""Points are moved by up to that, in units of images: equal pixels put many networks exactly on kinks, where a slope is
no derivative."""
FAR = 0.1
"""A step, in units of images, after which outputs that follow the image at all have changed."""


class Precision(NamedTuple):
    """How finely slopes can be told.

    Attributes:
        steps: of two central differences, in units of images.
        error: relative; larger ones are clear.
    """

    steps: tuple[float, float]
    error: float


DOUBLE = Precision((1e-6, 1e-7), 0.02)
"""Of 21 honest networks on digits, with rectifiers and max pooling among them, the largest error was 6.3e-6."""
SINGLE = Precision((4e-3, 2e-3), 0.5)
"""Of nine such networks at most 2 of 123 examples had a larger error, and nine in ten one of at most 0.11."""


def derivative_facts(
    target: CountedModel, points: Tensor, labels: Tensor, place: Literal["clean", "random", "attacked"], step: float
) -> Derivatives:
    """Gradients of the margin at points (N, C, H, W) in [0, 1] against slopes of the same loss.

    Slopes are taken along the sign of the gradient, which is an attack's step, along random signs, and along random
    signs in each half of a checkerboard, in a quarter and in a row of the image. `step`, in units of images, is a small
    step of an attack. Random numbers come from the global generator of the CPU.
    """
    if len(points) == 0:
        return Derivatives(place=place, n=0)
    points = _off_kinks(points)
    try:
        gradients = torch.cat(
            [
                _gradient(target, *batch)
                for batch in zip(torch.split(points, BLOCK), torch.split(labels, BLOCK), strict=True)
            ]
        )
        function = _in_float64(target, points)
        single = function is None
        function, precision = (
            (lambda images: target(images.float()), SINGLE) if function is None else (function, DOUBLE)
        )
        facts = _compare(function, precision, points, labels, gradients.nan_to_num(0, 0, 0), step)
    except Exception as error:  # whatever a model's own code raises
        if is_out_of_memory(error):
            raise
        return Derivatives(place=place, n=len(points), error=one_line(error))
    return facts.model_copy(update={"place": place, "single": single})


def _compare(
    function: Function, precision: Precision, points: Tensor, labels: Tensor, gradients: Tensor, step: float
) -> Derivatives:
    points, gradients = points.double(), gradients.double()

    def loss(moved: Tensor) -> Tensor:
        with torch.no_grad():
            parts = zip(torch.split(moved, BLOCK), torch.split(labels, BLOCK), strict=True)
            return torch.cat([margin(function(part).double(), classes) for part, classes in parts])

    here, directions = loss(points), _directions(gradients)
    slopes = torch.stack([torch.stack([_slope(loss, points, d, h) for d in directions]) for h in precision.steps])
    told = torch.stack([(gradients * d).flatten(1).sum(1) for d in directions])
    size = torch.stack([d.flatten(1).abs().sum(1) for d in directions])
    # How steep a direction of that many pixels is on this image; the gradient's own is steeper than any.
    typical = ((slopes[0, 1:] ** 2 / size[1:]).mean(0) * size).sqrt()
    error = (slopes - told).abs().amin(0)
    relative = error / torch.maximum(torch.maximum(slopes[0].abs(), told.abs()), typical).clamp(min=1e-300)
    # Two steps that tell different slopes have met a kink, or noise.
    sure = (slopes[0] - slopes[1]).abs() <= 0.1 * error
    relative = torch.where(sure & relative.isfinite(), relative, 0.0).amax(0)
    flat = (slopes == 0).flatten(0, 1).all(0)
    far = torch.stack([loss((points + FAR * d).clamp(0, 1)) != here for d in directions[1:]]).any(0)
    stairs = flat & far
    moves = (gradients.flatten(1) != 0).any(1) & ~stairs
    lost = torch.zeros_like(moves)
    for length in (step, 4 * step):  # where the slope is that of stairs' treads, the longer one meets stairs
        along, *aside = (loss((points + length * d).clamp(0, 1)) - here for d in directions[:3])
        lost |= ~(along > torch.stack(aside).abs().amax(0))
    return Derivatives(
        place="clean",
        n=len(points),
        wrong=int((~stairs & (relative > precision.error)).sum()),
        stairs=int(stairs.sum()),
        unhelpful=int((moves & lost).sum()),
        typical_error=float(relative.quantile(0.9)),
    )


def _gradient(target: CountedModel, points: Tensor, labels: Tensor) -> Tensor:
    leaf = points.clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(margin(target(leaf), labels).sum(), leaf)
    return gradient


def _slope(loss: Function, points: Tensor, direction: Tensor, step: float) -> Tensor:
    return (loss(points + step * direction) - loss(points - step * direction)) / (2 * step)


def _off_kinks(points: Tensor) -> Tensor:
    """Points moved at random by a fifth of `JITTER` to all of it, and reflected at the faces of the box."""
    signs = torch.randint(0, 2, points.shape) * 2.0 - 1
    moved = points + (signs * torch.empty(points.shape).uniform_(JITTER / 5, JITTER)).to(points)
    return 1 - (1 - moved.abs()).abs()


def _directions(gradients: Tensor) -> list[Tensor]:
    """Of each image, (N, C, H, W): the gradient's signs, then random signs, the first two times everywhere."""
    n, _, height, width = gradients.shape
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    number = torch.arange(n)[:, None, None]
    whole = torch.ones(1, height, width, dtype=torch.bool)
    light = ((rows + columns) % 2 == 0)[None]
    quarter = (rows * 2 // height == number % 2) & (columns * 2 // width == number // 2 % 2)
    row = (rows == number % height) & whole
    signs = [torch.randint(0, 2, gradients.shape) * 2.0 - 1 for _ in range(6)]
    masks = (whole, whole, light, ~light, quarter, row)
    return [gradients.sign(), *((sign * mask[:, None]).to(gradients) for sign, mask in zip(signs, masks, strict=True))]


def _in_float64(target: CountedModel, points: Tensor) -> Function | None:
    """The model in float64, counted by `target`; None where it cannot be had or is another function."""
    try:
        double = CountedModel(copy.deepcopy(target.model).double(), target.classes)
        double.rows = target.rows
        with torch.no_grad():
            finer = torch.cat([double(part) for part in torch.split(points.double(), BLOCK)])
            logits = torch.cat([target(part) for part in torch.split(points, BLOCK)])
    except Exception as error:  # hard-coded float32, or no copy to be had
        if is_out_of_memory(error):
            raise
        return None
    rounded = finer.dtype != torch.float64 or torch.equal(finer.float().double(), finer)
    if rounded or bool(differ(logits, finer.float()).any()):
        return None

    def function(images: Tensor) -> Tensor:
        target.forwards += len(images)
        values: Tensor = double(images)
        return values

    return function
