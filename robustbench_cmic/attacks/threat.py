"""What the threat model asks of images: a ball around each, `suite.fields.Threat`, within the box [0, 1]."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from robustbench_cmic.suite.fields import Norm, Threat, radius_problem

BLOCK = 256
"""Examples for which random numbers are drawn together."""


def check_threat(threat: Threat) -> None:
    """Refuse a ball that there is not.

    Raises:
        ValueError: another norm than `linf` and `l2`, or an eps that is negative, not finite, or for `linf` above 1.
    """
    if threat.norm not in get_args(Norm):
        raise ValueError(f"norm should be 'linf' or 'l2', not {threat.norm!r}")
    if not 0 <= threat.eps < float("inf"):
        raise ValueError(f"eps should be at least 0 and finite, not {threat.eps}")
    if problem := radius_problem(threat):
        raise ValueError(f"eps {problem}")


def project(threat: Threat, images: Tensor, candidates: Tensor) -> Tensor:
    """The candidates (N, C, H, W) moved into the ball around `images` (same shape) and into the box.

    The box is last: clamping to [0, 1], where the images are, only shortens a perturbation. Candidates that are
    inside already come back unchanged up to one rounding.
    """
    delta = candidates - images
    if threat.norm == "linf":
        delta = delta.clamp(-threat.eps, threat.eps)
    else:
        lengths = l2_norms(delta)
        delta = torch.where(lengths > threat.eps, delta * (threat.eps / lengths.clamp(min=1e-45)), delta)
    return (images + delta).clamp(0, 1)


def violations(threat: Threat, images: Tensor, candidates: Tensor, tolerance: float = 1e-5) -> Tensor:
    """(N,) truth values: the candidate lies outside the ball or the box by more than rounding explains."""
    lengths = norms(candidates - images, threat.norm).flatten()
    return (lengths > threat.eps + tolerance * max(1.0, threat.eps)) | beyond_box(candidates, tolerance)


def beyond_box(candidates: Tensor, tolerance: float = 1e-5) -> Tensor:
    """(N,) truth values: the candidate has values outside [0, 1] by more than rounding explains."""
    return ((candidates < -tolerance) | (candidates > 1 + tolerance)).flatten(1).any(1)


def random_perturbations(threat: Threat, shape: torch.Size) -> Tensor:
    """Random perturbations of the ball for `shape` (N, C, H, W), drawn from the global generator of the CPU.

    L-inf: uniform in the cube. L2: a uniform direction, its length uniform in [0, eps] (as torchattacks' PGDL2).
    """
    if threat.norm == "linf":
        return torch.empty(shape).uniform_(-threat.eps, threat.eps)
    direction = torch.empty(shape).normal_()
    radius = torch.empty(shape[0], *[1] * (len(shape) - 1)).uniform_(0, threat.eps)
    return direction * (radius / l2_norms(direction).clamp(min=1e-45))


def l2_norms(values: Tensor) -> Tensor:
    """Euclidean length of each example, shaped (N, 1, 1, 1) for values (N, C, H, W).

    Scaled by the largest entry first: the squares of a vanishing gradient (1e-25, say) would underflow to zero.
    """
    flat = values.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
    lengths = largest * scaled.square().sum(1, keepdim=True).sqrt()
    return lengths.reshape(-1, *[1] * (values.ndim - 1))


def norms(values: Tensor, norm: str) -> Tensor:
    """Length of each example in a norm, `linf` or `l2`, shaped as by `l2_norms`."""
    if norm == "l2":
        return l2_norms(values)
    return values.flatten(1).abs().amax(1).reshape(-1, *[1] * (values.ndim - 1))


def normalized(values: Tensor, norm: str) -> Tensor:
    """Values (N, C, H, W) of length 1 in a norm, `linf` or `l2`; zeros stay zeros."""
    lengths = norms(values, norm)
    return values / torch.where(lengths > 0, lengths, torch.ones_like(lengths))
