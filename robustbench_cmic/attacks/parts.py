"""Attacks that are made of several: each in turn, on what the earlier ones left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import Expectation, misclassified
from robustbench_cmic.attacks.threat import violations
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.fields import Threat

PartAttack = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Images (N, C, H, W), labels (N,) and places (N,) -> what the attack makes of the images."""


def run_parts(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    threat: Threat,
    places: Tensor,
    attacks: Mapping[str, PartAttack],
    survivors_of: str,
) -> tuple[Tensor, list[Part]]:
    """Attacks by name in turn, each on the examples that are still classified correctly.

    What a part left is decided in float32, however precisely it searched. Where the model has `forwards` and
    `backwards`, parts report their growth.

    Returns:
        Images (N, C, H, W) in ball and box: examples misclassified from the outset as they are, broken ones
        misclassified, and those that survive all as the part `survivors_of` returned them. And what the parts did, in
        order: a part has broken those whose returned image is misclassified and in ball and box; this judgement's
        passes and seconds are the part's, too.
    """
    images = images.detach()
    result = images.clone()
    surviving = torch.arange(len(images), device=images.device)[~misclassified(model, images, labels)]
    parts = []
    for name, attack in attacks.items():
        passes, began = _passes(model), time.perf_counter()
        x, y = images[surviving], labels[surviving]
        points = attack(x, y, places[surviving.cpu()])
        survives = ~misclassified(model, points, y) | violations(threat, x, points)
        returned = torch.ones_like(survives) if name == survivors_of else ~survives
        result[surviving[returned]] = points[returned]
        broken, seconds = int((~survives).sum()), time.perf_counter() - began
        spent = {kind: after - passes[kind] for kind, after in _passes(model).items()}
        parts.append(Part(name=name, attacked=len(x), broken=broken, seconds=seconds, **spent))
        surviving = surviving[survives]
    return result, parts


def _passes(model: nn.Module) -> dict[str, int]:
    """Examples that went forward and backward so far; 0 where the model does not count them."""
    counted = model.model if isinstance(model, Expectation) else model
    return {kind: getattr(counted, kind, 0) for kind in ("forwards", "backwards")}
