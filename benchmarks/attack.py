"""Time and passes to a verdict: PGD-40 at 8/255 on one undefended ResNet-18, by five implementations, in one run.

    pip install "setuptools<81" wheel
    pip install --no-build-isolation visdom
    pip install -e ".[bench]"
    python benchmarks/attack.py --data .data

(adv-lib needs visdom, which is distributed as source that newer setuptools cannot build.)

The network is a ResNet-18 (stem for small images) trained here, for two epochs on the first ten classes of CIFAR-100,
and kept in `build/`. All attacks start from the same random points, take steps of 2/255, and attack the same test
images as they come, rightly classified or not. A verdict is what the network says of the returned images, that pass
included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torchattacks
from about import machine, table
from adv_lib.attacks import pgd_linf
from foolbox.attacks import LinfPGD
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.attacks.pgd import pgd
from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Split, moments_of
from robustbench_cmic.models.build import build_model
from robustbench_cmic.models.weights import save_weights
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.suite.data import dataset_of
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.training import Augmentation, OneCycle, Sgd, Training
from robustbench_cmic.training.checkpoint import TrainingRun
from robustbench_cmic.training.loop import train
from robustbench_cmic.training.optimizer import build_optimizer

EPS, ALPHA, STEPS = 8 / 255, 2 / 255, 40
CLASSES = 10
WEIGHTS = Path("build/benchmark-resnet18.safetensors")
TRAINING = Training(
    epochs=2,
    batch_size=32,
    optimizer=Sgd(name="sgd", lr=0.05, nesterov=True),
    schedule=OneCycle(name="onecycle"),
    augmentation=Augmentation(flip=True),
)

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def ours(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """This package's PGD."""
    return pgd(model, images, labels, eps=EPS, alpha=ALPHA, steps=STEPS)


def ours_early(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The same, an image done as soon as one of its iterates is misclassified."""
    return pgd(model, images, labels, eps=EPS, alpha=ALPHA, steps=STEPS, early_stop=True)


def by_torchattacks(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Torchattacks' PGD."""
    result: Tensor = torchattacks.PGD(model, eps=EPS, alpha=ALPHA, steps=STEPS, random_start=True)(images, labels)
    return result


def by_foolbox(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Foolbox's LinfPGD; its input checks, and its own pass over the result, belong to its time."""
    wrapped = PyTorchModel(model, bounds=(0, 1), device=images.device)
    attack = LinfPGD(abs_stepsize=ALPHA, steps=STEPS, random_start=True)
    result: Tensor = attack(wrapped, images, labels, epsilons=EPS)[1]
    return result


def by_adv_lib(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Adversarial-library's PGD, which looks at every iterate too."""
    result: Tensor = pgd_linf(model, images, labels, EPS, steps=STEPS, absolute_step_size=ALPHA)
    return result


ATTACKS: dict[str, Attack] = {
    "ours, early stop": ours_early,
    "ours": ours,
    "torchattacks": by_torchattacks,
    "foolbox": by_foolbox,
    "adv-lib": by_adv_lib,
}


def network(data: Path, device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """The trained network, and the test images of its classes."""
    whole = load_data(dataset_of({"name": "cifar100"}), data)
    splits = []
    for split in (whole.train, whole.test):
        chosen = np.flatnonzero(split.labels < CLASSES)
        splits.append(Split(split.images[chosen], split.labels[chosen]))
    moments = moments_of(splits[0].images)
    declared = Model(id="resnet18", architecture="resnet18", stem="small")
    model = build_model(declared, whole.image_shape, CLASSES, moments, seed=0).to(device)
    model = model.to(memory_format=torch.channels_last)
    if WEIGHTS.exists():
        model.load_state_dict(safetensors.torch.load_file(WEIGHTS))
    else:
        objective = build_objective(objective_of({"name": "ce"}), CLASSES)
        training = TrainingRun(model, objective, build_optimizer(model, TRAINING.optimizer))
        train(training, splits[0], declared=TRAINING, seed=0, after_step=_tell)
        WEIGHTS.parent.mkdir(exist_ok=True)
        save_weights(WEIGHTS, model.state_dict())
    model.eval()
    images = torch.from_numpy(splits[1].images[:]).to(device).float() / 255
    labels = torch.from_numpy(splits[1].labels).to(device)
    with torch.no_grad():
        right = torch.cat([model(part).argmax(1) for part in torch.split(images, 100)]) == labels
    print(f"clean accuracy on {len(labels)} test images: {100 * float(right.float().mean()):.1f} %", flush=True)
    return model, images, labels


def _tell(done: int, total: int) -> None:
    if done % 20 == 0:
        print(f"training the network: {done} of {total} steps", flush=True)


class Counted(nn.Module):
    """The network, and how many images went forward and backward through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = False
        self.forwards = 0
        self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C)."""
        logits: Tensor = self.model(images)
        self.forwards += len(images)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def measure(attack: Attack, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, Counted, Tensor]:
    """Seconds to the verdict, the passes it took, and which images are classified correctly still."""
    target = Counted(model)
    torch.manual_seed(0)
    _wait(images)
    began = time.perf_counter()
    found = attack(target, images, labels)
    with torch.no_grad():
        survived = target(found).argmax(1) == labels
    _wait(images)
    return time.perf_counter() - began, target, survived


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Print the table, and how many images one attack broke and the other did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    model, images, labels = network(options.data, options.device)
    every = torch.linspace(0, len(labels) - 1, options.images, device=labels.device).long()
    images, labels = images[every], labels[every]
    seconds: dict[str, list[float]] = {name: [] for name in ATTACKS}
    last: dict[str, tuple[Counted, Tensor]] = {}
    with frozen(model):
        measure(ATTACKS["ours, early stop"], model, images, labels)  # warm-up
        for _ in range(options.rounds):
            for name, attack in ATTACKS.items():
                took, target, survived = measure(attack, model, images, labels)
                seconds[name].append(took)
                last[name] = target, survived
                print(f"{name}: {took:.2f} s", flush=True)
    fastest = statistics.median(seconds["ours, early stop"])
    rows = []
    for name, times in seconds.items():
        target, survived = last[name]
        n, took = len(labels), statistics.median(times)
        passes = [f"{target.forwards / n:.1f}", f"{target.backwards / n:.1f}"]
        rows.append([name, f"{took:.2f}", *passes, f"{int(survived.sum())} of {n}", f"{took / fastest:.1f}"])
    headers = [
        "PGD-40, eps 8/255",
        "seconds",
        "forwards an image",
        "backwards an image",
        "still correct",
        "time / first",
    ]
    print(f"\n{table(rows, headers)}\n")
    missed = int((last["ours, early stop"][1] & ~last["torchattacks"][1]).sum())
    print(f"broken by torchattacks and not by ours with early stop: {missed} of {len(labels)}\n")
    print(machine(options.device, "torchattacks", "foolbox", "adv-lib"))


if __name__ == "__main__":
    main()
