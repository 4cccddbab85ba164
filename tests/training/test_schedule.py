"""Learning rates against torch's own schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, lr_scheduler

from robustbench_cmic.suite.fields import classes_by_name
from robustbench_cmic.suite.training import AnySchedule, DeclaredSchedule, Training

STEPS, PER_EPOCH = 60, 6


def schedule_of(declared: dict[str, Any]) -> DeclaredSchedule:
    optimizer = {"name": "sgd", "lr": 0.5}
    written = {"epochs": 10, "batch_size": 2, "optimizer": optimizer, "schedule": declared}
    return Training.model_validate(written).schedule


CASES: list[tuple[dict[str, Any], Callable[[SGD], lr_scheduler.LRScheduler]]] = [
    ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, factor=1)),
    (
        {"name": "multistep", "milestones": [3, 7], "gamma": 0.2},
        lambda o: lr_scheduler.MultiStepLR(o, [3 * PER_EPOCH, 7 * PER_EPOCH], gamma=0.2),
    ),
    ({"name": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
    (
        {"name": "onecycle", "warmup": 0.3},
        lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=STEPS, pct_start=0.3, cycle_momentum=False),
    ),
]


def warmed_up(optimizer: SGD, then: lr_scheduler.LRScheduler, steps: int) -> lr_scheduler.LRScheduler:
    rise = lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)
    return lr_scheduler.SequentialLR(optimizer, [rise, then], milestones=[steps])


WARM = 2 * PER_EPOCH
CASES += [
    (
        {"name": "constant", "warmup_epochs": 2.0},
        lambda o: warmed_up(o, lr_scheduler.ConstantLR(o, factor=1), WARM),
    ),
    (
        {"name": "cosine", "warmup_epochs": 2.0},
        lambda o: warmed_up(o, lr_scheduler.CosineAnnealingLR(o, STEPS - WARM), WARM),
    ),
    (
        # Milestones count from the start of the training: torch's begin after the warm-up.
        {"name": "multistep", "milestones": [3, 7], "gamma": 0.2, "warmup_epochs": 2.0},
        lambda o: warmed_up(o, lr_scheduler.MultiStepLR(o, [3 * PER_EPOCH - WARM, 7 * PER_EPOCH - WARM], 0.2), WARM),
    ),
]


def test_every_schedule_that_a_suite_may_name_is_among_the_cases() -> None:
    assert {case[0]["name"] for case in CASES} == set(classes_by_name(AnySchedule))


@pytest.mark.parametrize(("schedule", "make"), CASES)
def test_equals_torch(schedule: dict[str, Any], make: Callable[[SGD], lr_scheduler.LRScheduler]) -> None:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    scheduler = make(optimizer)
    for step in range(STEPS):
        ours = 0.5 * schedule_of(schedule).factor(step, STEPS, PER_EPOCH)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6, abs=1e-9), step
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("schedule", [case[0] for case in CASES])
def test_a_training_of_one_step_has_a_rate(schedule: dict[str, Any]) -> None:
    assert 0 < schedule_of(schedule).factor(0, 1, 1) <= 1
