"""Learning rates as pure functions of the step, so that a resumed training needs no scheduler state."""

from __future__ import annotations

import math
from typing import Any

_START = 25.0
_END = 1e4


def learning_rate_factor(schedule: dict[str, Any], step: int, steps: int, steps_per_epoch: int) -> float:
    """What to multiply the base learning rate with at a step.

    Args:
        schedule: `name` (`constant`, `multistep`, `cosine` or `onecycle`) and parameters, as a suite declares them.
        step: 0 ... steps - 1.
        steps: of the whole training.
        steps_per_epoch: steps of one epoch; milestones count epochs.

    Returns:
        A factor in [0, 1] (beyond 1 for a multistep `gamma` above 1). Equal to torch's MultiStepLR, CosineAnnealingLR
        and OneCycleLR (cosine, start 1/25, end 1/250,000) stepped every batch. A warm-up of w steps rises along
        (step + 1) / w; a cosine begins after it, milestones count from the start of the training.
    """
    name = schedule["name"]
    warmup: int = round(schedule.get("warmup_epochs", 0.0) * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    if name == "multistep":
        passed = sum(step >= epoch * steps_per_epoch for epoch in schedule["milestones"])
        return float(schedule["gamma"] ** passed)
    if name == "cosine":
        return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
    if name == "onecycle":
        peak = max(schedule["warmup"] * steps - 1, 0.0)
        if step <= peak:
            return _cosine(1 / _START, 1.0, step / peak if peak else 1.0)
        return _cosine(1.0, 1 / (_START * _END), (step - peak) / (steps - 1 - peak))
    return 1.0


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
