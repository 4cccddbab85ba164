"""A training with any objective, as a cell prepares it: head in place, features found, parameters in the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustbench_cmic.models.build import build_model
from robustbench_cmic.objectives import Objective, build_objective
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.training.checkpoint import TrainingRun
from robustbench_cmic.training.optimizer import build_optimizer
from tests.training.test_train import DIGITS, SGD, optimizer_of


def begun(declared: dict[str, Any], seed: int = 0, optimizer: dict[str, Any] = SGD) -> TrainingRun:
    """`small_cnn` on the digits, at its start."""
    return begun_with(build_objective(objective_of(declared), 10), seed, optimizer)


def begun_with(objective: Objective, seed: int = 0, optimizer: dict[str, Any] = SGD) -> TrainingRun:
    """The same with an objective of the test's own."""
    entry = Model(id="x", architecture="small_cnn")
    model = build_model(entry, (1, 8, 8), 10, DIGITS.moments, seed, objective=objective)
    objective.attach(model, torch.from_numpy(DIGITS.train.images[:2]))
    return TrainingRun(model, objective, build_optimizer(model, optimizer_of(optimizer), objective))


def accuracy(training: TrainingRun) -> float:
    """On the test images, in eval mode."""
    images, labels = torch.from_numpy(DIGITS.test.images[:]), torch.from_numpy(DIGITS.test.labels)
    with torch.no_grad():
        predicted: Tensor = training.model.eval()(images).argmax(1)
    return float((predicted == labels).double().mean())
