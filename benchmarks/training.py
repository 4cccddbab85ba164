"""Cost of a step of ResNet-18 at batch 64: cross entropy, CMIC-DL `batch`, CMIC-DL `class_batches`, in one run.

    python benchmarks/training.py [--device cuda]

Steps of `train` itself, on random images of 32x32 pixels in 100 classes, with crop and flip. The three take turns;
what is shown is the median over turns. On a GPU the step is also set against the floor: the operations of the network
over the card's measured matrix rate, and the bytes that must move over its measured bandwidth, whichever takes longer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from about import machine, table
from torch.utils.flop_counter import FlopCounterMode

from robustbench_cmic.data.base import Split
from robustbench_cmic.models.build import build_model
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.run.measure import seconds_per_step
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.training import Augmentation, Constant, Sgd, Training
from robustbench_cmic.training.checkpoint import TrainingRun
from robustbench_cmic.training.loop import Acceleration
from robustbench_cmic.training.optimizer import build_optimizer

CLASSES, BATCH = 100, 64
MODEL = Model(id="resnet18", architecture="resnet18", stem="small")
CMIC = {"name": "cmic", "lambda": 0.7, "beta": 0.4}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "ce": {"name": "ce"},
    "cmic, batch": CMIC | {"centroids": "batch", "momentum": 0.99},
    "cmic, class_batches": CMIC | {"centroids": "class_batches", "class_batch_size": 8, "momentum": 0.9999},
}
TRAINING = Training(
    epochs=1,
    batch_size=BATCH,
    optimizer=Sgd(name="sgd", lr=0.1),
    schedule=Constant(name="constant"),
    augmentation=Augmentation(crop=4, flip=True),
)
WARM_UP = 1


def data(steps: int) -> Split:
    """Random images, at least one batch and 8 of every class."""
    draw = np.random.default_rng(0)
    n = BATCH * steps
    return Split(draw.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8), np.arange(n, dtype=np.int64) % CLASSES)


def build(objective: dict[str, Any], device: str) -> TrainingRun:
    """A fresh network and what trains it."""
    model = build_model(MODEL, (3, 32, 32), CLASSES, ((0.5,) * 3, (0.25,) * 3), seed=0).to(device)
    model = model.to(memory_format=torch.channels_last)
    computed = build_objective(objective_of(objective), CLASSES).to(device)
    return TrainingRun(model, computed, build_optimizer(model, TRAINING.optimizer))


def step_seconds(objective: dict[str, Any], device: str, steps: int, acceleration: Acceleration) -> float:
    """Mean over the steps of one epoch, without the first ones."""
    warm_up = 10 if device.startswith("cuda") else WARM_UP
    return seconds_per_step(build(objective, device), data(steps + warm_up), TRAINING, acceleration, warm_up)


def floor(device: str) -> tuple[float, float]:
    """Least seconds for a step of cross entropy on this card: for its arithmetic, and for its memory traffic."""
    training = build(OBJECTIVES["ce"], device)
    images = torch.rand(BATCH, 3, 32, 32, device=device)
    labels = torch.arange(BATCH, device=device)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with FlopCounterMode(display=False) as flops, torch.autocast(device, torch.bfloat16):
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = training.objective(training.model(images).float(), labels)["total"]
        loss.backward()
    weights = sum(weight.numel() for weight in training.model.parameters())
    # Saved activations are written once and read once; of the weights the optimiser reads weight, gradient and
    # momentum and writes two of them, float32.
    traffic = 2 * sum(kept.values()) + 5 * 4 * weights
    return flops.get_total_flops() / _matrix_rate(device), traffic / _bandwidth(device)


def _timed(function: Any, repeat: int) -> float:
    for _ in range(3):
        function()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeat):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeat


def _matrix_rate(device: str) -> float:
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    return float(2 * 8192**3 / _timed(lambda: a @ b, 20))


def _bandwidth(device: str) -> float:
    source = torch.rand(2**30, device=device)
    target = torch.empty_like(source)
    return float(2 * 4 * 2**30 / _timed(lambda: target.copy_(source), 20))


def main() -> None:
    """Print the table, and on a GPU the floor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, help="in a turn; by default 2, on a GPU 300")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    torch.backends.cudnn.benchmark = cuda
    steps = options.steps or (300 if cuda else 2)
    ways = {"": Acceleration(reduced=cuda, graphed=cuda)}
    if cuda:
        ways["without CUDA graph, "] = Acceleration(reduced=True)
    times: dict[str, list[float]] = {f"{way}{name}": [] for way in ways for name in OBJECTIVES}
    for turn in range(options.rounds):
        for way, how in ways.items():
            for name, objective in OBJECTIVES.items():
                times[f"{way}{name}"].append(step_seconds(objective, options.device, steps, how))
        print(f"turn {turn + 1} of {options.rounds}", flush=True)
    # Ratios turn by turn: the machine's mood changes between turns, less within one.
    rows = []
    for name, seconds in times.items():
        ratio = statistics.median(mine / ce for mine, ce in zip(seconds, times["ce"], strict=True))
        took = statistics.median(seconds)
        rows.append([name, f"{1e3 * took:.2f}", f"{BATCH / took:,.0f}", f"{ratio:.3f}"])
    print(f"\n{table(rows, ['objective', 'ms a step', 'examples / s', 'time / ce'])}\n")
    if cuda:
        arithmetic, traffic = floor(options.device)
        took = statistics.median(times["ce"])
        print(f"floor: arithmetic {1e3 * arithmetic:.3f} ms, memory {1e3 * traffic:.3f} ms a step; ", end="")
        print(f"a step of ce takes {took / max(arithmetic, traffic):.1f} times the larger\n")
    print(machine(options.device, "timm"))


if __name__ == "__main__":
    main()
