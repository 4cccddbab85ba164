"""What a network costs: operations of an example, counted, and how many of them a device does in a second, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robustbench_cmic.attacks.losses import make_loss
from robustbench_cmic.attacks.model import frozen, searching
from robustbench_cmic.attacks.pgd import loss_and_gradient
from robustbench_cmic.data.base import Split
from robustbench_cmic.models.architectures import Shape
from robustbench_cmic.models.build import build_model
from robustbench_cmic.models.layout import lay_out
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.run.cost import Flops, Rates
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.training import Augmentation, Constant, Training
from robustbench_cmic.training.checkpoint import TrainingRun
from robustbench_cmic.training.loop import Acceleration, train
from robustbench_cmic.training.optimizer import build_optimizer


class Repeats(NamedTuple):
    """How often something is done: so often in vain, then so often on the clock."""

    warm_up: int
    timed: int


def built_model(declared: Model, shape: Shape, classes: int) -> nn.Sequential:
    """A network of this kind with any weights; raises what `build_model` raises."""
    without = declared.model_copy(update={"pretrained": False})
    return build_model(without, shape, classes, ([0.5] * shape[0], [0.25] * shape[0]), seed=0)


def example_flops(model: nn.Module, shape: Shape) -> Flops:
    """Floating-point operations of an example as torch counts them: matrix products and convolutions, two a product.

    `model` takes images of this shape, (C, H, W).
    """
    images = torch.full((2, *shape), 0.5)  # a single one is no batch to normalise over
    mode = model.training
    with frozen(model):
        forward, gradient = _forward_and_back(model, images.requires_grad_())
    model.train()
    _, learned = _forward_and_back(model, images.detach())
    model.train(mode)
    model.zero_grad(set_to_none=True)
    return Flops(forward / 2, gradient / 2, learned / 2)


def _forward_and_back(model: nn.Module, images: torch.Tensor) -> tuple[int, int]:
    """Operations of all images together."""
    with FlopCounterMode(display=False) as counter:
        logits = model(images)
        forward = counter.get_total_flops()
        torch.autograd.backward(logits.sum())
        return forward, counter.get_total_flops() - forward


def measured_rates(declared: Model, training: Training | None, shape: Shape, classes: int, device: str) -> Rates:
    """Operations a second of a step of cross entropy, and of a step of an attack, as cells take them on this device.

    On a CPU one step each is timed, of a thread, as many of which run as there are cores.
    """
    cuda = device.startswith("cuda")
    repeats = Repeats(10, 50) if cuda else Repeats(1, 1)
    model = built_model(declared, shape, classes)
    flops = example_flops(model, shape)
    model = lay_out(model.to(device), declared.architecture, shape)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        attack = _attack_step(model, shape, 256 if cuda else 16, device, repeats)
        learned = None
        if training is not None:
            batch = training.batch_size if cuda else min(training.batch_size, 32)
            learned = _training_step(model, training, shape, classes, batch, repeats)
    finally:
        torch.set_num_threads(threads)
    return Rates(
        None if learned is None else (flops.forward + flops.learned) / learned,
        (flops.forward + flops.gradient) / attack,
    )


def _attack_step(model: nn.Module, shape: Shape, batch: int, device: str, repeats: Repeats) -> float:
    """Seconds an example."""
    images = torch.rand(batch, *shape, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    loss = make_loss("ce", None)
    with frozen(model), searching():
        return timed(lambda: loss_and_gradient(model, images, labels, None, loss), repeats, device) / batch


def _training_step(
    model: nn.Sequential, declared: Training, shape: Shape, classes: int, batch: int, repeats: Repeats
) -> float:
    """Seconds an example."""
    device = str(next(model.parameters()).device)
    objective = build_objective(objective_of({"name": "ce"}), classes).to(device)
    run = TrainingRun(model, objective, build_optimizer(model, declared.optimizer))
    values = {"epochs": 1, "batch_size": batch, "schedule": Constant(name="constant"), "limit": None}
    changed = declared.model_copy(update={**values, "select": None, "held_out": None, "augmentation": Augmentation()})
    cuda = device.startswith("cuda")
    images = np.zeros((batch * sum(repeats), *shape), dtype=np.uint8)
    split = Split(images, np.arange(len(images), dtype=np.int64) % classes)
    return seconds_per_step(run, split, changed, Acceleration(reduced=cuda, graphed=cuda), repeats.warm_up) / batch


def seconds_per_step(
    training: TrainingRun, split: Split, declared: Training, acceleration: Acceleration, warm_up: int
) -> float:
    """Mean over the steps of one epoch of `train`, without the first ones."""
    device = str(next(training.model.parameters()).device)
    began, steps = 0.0, 0

    def after_step(done: int, in_all: int) -> None:
        nonlocal began, steps
        if done == warm_up:
            _wait(device)
            began, steps = time.perf_counter(), in_all - warm_up

    train(training, split, declared=declared, seed=0, acceleration=acceleration, after_step=after_step)
    return (time.perf_counter() - began) / steps


def timed(action: Callable[[], object], repeats: Repeats, device: str) -> float:
    """Seconds that an action takes, the mean."""
    for _ in range(repeats.warm_up):
        action()
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats.timed):
        action()
    _wait(device)
    return (time.perf_counter() - began) / repeats.timed


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
