"""A walk towards other images: one step each, by the predicted class alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.blocks import AttackCall, OtherImages
from robustbench_cmic.attacks.entry import called_directly
from robustbench_cmic.attacks.model import seems_misclassified
from robustbench_cmic.attacks.threat import check_threat, normalized, norms, project
from robustbench_cmic.records.schema import Part
from robustbench_cmic.suite.attacks import Walk
from robustbench_cmic.suite.fields import Threat


def run(call: AttackCall[Walk]) -> tuple[Tensor, list[Part]]:
    """`walk`, as a suite's `Walk` asks for it."""
    assert call.others is not None
    return walk(call.model, call.images, call.labels, call.attack.threat, call.others, call.attack.images), []


@called_directly
def walk(
    model: nn.Module, images: Tensor, labels: Tensor, threat: Threat, others: OtherImages, count: int = 40
) -> Tensor:
    """One step of length eps from each image towards others of other classes, `count` of them at most, in turn.

    L-inf: x + eps sign(x' - x); L2: x + eps (x' - x) / |x' - x|; into ball and box. Another image that lies in the
    ball is tried itself. The nearest in Euclidean distance come first; to take the nearest of each class in turn, or
    any at random, breaks as many on the digits. No random numbers are drawn.

    Model, images and labels are as for `pgd.pgd`. Of the model's output the argmax alone is used, `count` times an
    example at most.

    Returns:
        An example's first misclassified point, or the last one tried; the image where no other has another label.
    """
    check_threat(threat)
    if count < 1:
        raise ValueError(f"count should be at least 1, not {count}")
    images = images.detach()
    result = images.clone()
    if len(images) == 0 or len(others.labels) == 0:
        return result
    order = nearest_others(images, labels, others)[:, :count]
    left = torch.arange(len(images), device=images.device)
    for turn in order.T:
        left = left[turn[left] >= 0]
        if len(left) == 0:
            break
        x, goals = images[left], others.images[turn[left]]
        way = goals - x
        step = way.sign() if threat.norm == "linf" else normalized(way, "l2")
        points = torch.where(norms(way, threat.norm) <= threat.eps, goals, x + threat.eps * step)
        result[left] = points = project(threat, x, points)
        left = left[~seems_misclassified(model, points, labels[left])]
    return result


def nearest_others(images: Tensor, labels: Tensor, others: OtherImages) -> Tensor:
    """Positions among M others from the nearest to the farthest of N images: (N, M), -1 where there are no more.

    Those of an image's own label are left out.
    """
    # Without matrix products, whose rounding depends on how many images come together.
    distance = torch.cdist(
        images.flatten(1).double(), others.images.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    distance = distance.masked_fill(others.labels == labels[:, None], torch.inf)
    nearest = distance.sort(dim=1, stable=True)
    return nearest.indices.masked_fill(nearest.values.isinf(), -1)
