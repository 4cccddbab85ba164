"""What survives AutoAttack, example by example: this package's against torchattacks' four attacks, in one run.

    python benchmarks/autoattack.py --data .data [--norm l2] [--device cuda]
    python benchmarks/autoattack.py --toy

Three networks are trained here for each data set: with cross entropy, with CMIC-DL, and with cross entropy on PGD's
adversarial images. Both sides attack the same test images with standard AutoAttack at one budget: APGD-CE, APGD-T and
FAB-T of 100 steps, at most 9 targets, and Square of 5,000 queries, each on what the earlier ones left, in blocks of
256. The reference are torchattacks' own classes, given the true number of classes. Whatever either side returns is
judged once more: broken is misclassified in ball and box. Clean errors count as broken by both.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchattacks
from about import machine, table
from torch import Tensor, nn
from torch.nn import functional

from robustbench_cmic.attacks.autoattack import autoattack
from robustbench_cmic.attacks.model import CountedModel, frozen
from robustbench_cmic.attacks.pgd import pgd
from robustbench_cmic.attacks.threat import violations
from robustbench_cmic.data import load_data
from robustbench_cmic.data.base import Data, Split, moments_of
from robustbench_cmic.models.build import build_model
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.data import dataset_of
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.models import Model
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.training import OneCycle, Sgd, Training
from robustbench_cmic.training.checkpoint import TrainingRun
from robustbench_cmic.training.loop import train
from robustbench_cmic.training.optimizer import build_optimizer

BLOCK = 256
EPS = {
    "linf": {"digits": 0.1, "mnist": 0.1, "cifar100": 2 / 255, "toy-100": 0.05},
    "l2": {"digits": 0.5, "mnist": 1.0, "cifar100": 0.25, "toy-100": 0.25},
}
SGD = Sgd(name="sgd", lr=0.05, nesterov=True)
CMIC = {"name": "cmic", "lambda": 0.7, "beta": 0.4, "centroids": "batch", "momentum": 0.99}
MODELS = ("ce", "cmic", "adversarial")
NAMES = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class Budget:
    """What each of the four attacks may spend."""

    steps: int = 100
    queries: int = 5000
    targets: int = 9


def broken(model: nn.Module, images: Tensor, found: Tensor, labels: Tensor, threat: Threat) -> Tensor:
    """(N,) truth values: misclassified in ball and box."""
    with torch.no_grad():
        return torch.as_tensor(model(found).argmax(1) != labels) & ~violations(threat, images, found)


@dataclass(frozen=True)
class Outcome:
    """What one side did: broken examples (N,), passes of examples through the network, seconds."""

    broken: Tensor
    passes: int
    seconds: float


def ours(target: CountedModel, images: Tensor, labels: Tensor, threat: Threat, budget: Budget, block: int) -> Tensor:
    """This package's AutoAttack."""
    found, _ = autoattack(
        target,
        images,
        labels,
        threat,
        seed_of=lambda _: derive_seed("benchmark", block),
        queries=budget.queries,
        steps=budget.steps,
        targets=budget.targets,
    )
    return found


def reference(
    target: CountedModel, images: Tensor, labels: Tensor, threat: Threat, budget: Budget, block: int
) -> Tensor:
    """The four attacks of torchattacks, each on what the earlier ones left."""
    seed, classes = derive_seed("benchmark", block), min(budget.targets + 1, target.classes)
    ball = {"norm": NAMES[threat.norm], "eps": threat.eps, "seed": seed}
    attacks: list[Callable[[Tensor, Tensor], Tensor]] = [
        torchattacks.APGD(target, **ball, steps=budget.steps, loss="ce"),
        torchattacks.APGDT(target, **ball, steps=budget.steps, n_classes=classes),
        torchattacks.FAB(target, **ball, steps=budget.steps, multi_targeted=True, n_classes=classes),
        torchattacks.Square(target, **ball, n_queries=budget.queries),
    ]
    result = images.clone()
    left = (~broken(target, images, images, labels, threat)).nonzero()[:, 0]
    for attack in attacks:
        if len(left) == 0:
            break
        with seeded(seed):
            found = attack(images[left], labels[left])
        success = broken(target, images[left], found, labels[left], threat)
        result[left[success]] = found[success]
        left = left[~success]
    return result


SIDES = {"ours": ours, "reference": reference}


def attack_all(side: str, model: nn.Module, split: tuple[Tensor, Tensor], threat: Threat, budget: Budget) -> Outcome:
    """One side against one network, block by block."""
    images, labels = split
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    target = CountedModel(model, classes)
    target.training = False  # torchattacks puts a model back into the mode in which it found it
    found = []
    _wait(images)
    began = time.perf_counter()
    for block, start in enumerate(range(0, len(images), BLOCK)):
        x, y = images[start : start + BLOCK], labels[start : start + BLOCK]
        found.append(SIDES[side](target, x, y, threat, budget, block))
        print(f"  {side}: {min(start + BLOCK, len(images))} of {len(images)}", flush=True)
    _wait(images)
    seconds = time.perf_counter() - began
    judged = broken(CountedModel(model, classes), images, torch.cat(found), labels, threat)
    return Outcome(judged, target.forwards + target.backwards, seconds)


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize()


def network(kind: str, name: str, data: Data, threat: Threat, epochs: int, device: str) -> nn.Module:
    """A trained network: a small CNN, or for CIFAR-100 a small residual one."""
    moments = moments_of(data.train.images)
    architecture = "small_resnet" if name == "cifar100" else "small_cnn"
    declared = Model(id=kind, architecture=architecture)
    model = build_model(declared, data.image_shape, data.classes, moments, seed=0).to(device)
    if kind == "adversarial":
        harden(model, data.train, threat, epochs)
    else:
        objective = build_objective(objective_of({"name": "ce"} if kind == "ce" else CMIC), data.classes).to(device)
        how = Training(epochs=epochs, batch_size=128, optimizer=SGD, schedule=OneCycle(name="onecycle"))
        training = TrainingRun(model, objective, build_optimizer(model, SGD))
        if train(training, data.train, declared=how, seed=0) is not None:
            raise RuntimeError(f"the training of {name}, {kind}, diverged")
    return model.eval()


def harden(model: nn.Module, split: Split, threat: Threat, epochs: int, batch: int = 128) -> None:
    """Adversarial training (Madry et al. 2018): cross entropy on images that 5 steps of PGD changed first."""
    device = next(model.parameters()).device
    labels = torch.from_numpy(split.labels)
    optimizer = torch.optim.SGD(model.parameters(), **SGD.model_dump(exclude={"name"}))
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, SGD.lr, total_steps=steps)
    with seeded(0):
        for _ in range(epochs):
            for chosen in torch.split(torch.randperm(len(labels)), batch)[: len(labels) // batch]:
                x, y = pixels(split, chosen.numpy()).to(device), labels[chosen].to(device)
                with frozen(model):
                    x = pgd(model, x, y, eps=threat.eps, alpha=threat.eps / 2, steps=5, norm=threat.norm)
                model.train()
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()


def pixels(split: Split, chosen: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
    """Images (N, C, H, W) in [0, 1]."""
    images = torch.from_numpy(split.images[chosen])
    return images.float() / 255 if images.dtype == torch.uint8 else images


def load(name: str, folder: Path) -> Data:
    """A data set, or a made-up one of 100 classes: grey patterns of 8x8 pixels, with noise."""
    if name != "toy-100":
        return load_data(dataset_of({"name": name}), folder)
    draw = np.random.default_rng(0)
    patterns = draw.uniform(0.2, 0.8, (100, 1, 8, 8))

    def split(n: int) -> Split:
        labels = np.arange(n) % 100
        images = (patterns[labels] + draw.normal(0, 0.08, (n, 1, 8, 8))).clip(0, 1)
        return Split(images.astype(np.float32), labels.astype(np.int64))

    return Data(split(4000), split(1000), 100)


def compare(name: str, kind: str, data: Data, threat: Threat, options: argparse.Namespace) -> list[str]:
    """A row of the table: one network, attacked by both sides."""
    print(f"{name}, {kind}: training", flush=True)
    model = network(kind, name, data, threat, options.epochs, options.device)
    every = np.linspace(0, len(data.test.labels) - 1, options.images).round().astype(np.int64)
    images = pixels(data.test, every).to(options.device)
    labels = torch.from_numpy(data.test.labels[every]).to(options.device)
    budget = Budget(options.steps, options.queries)
    with frozen(model):
        by = {side: attack_all(side, model, (images, labels), threat, budget) for side in SIDES}
        with torch.no_grad():
            clean = float((model(images).argmax(1) == labels).float().mean())
    n, left, right = len(labels), by["ours"], by["reference"]
    return [
        f"{name}, {kind}",
        str(data.classes),
        str(n),
        f"{100 * clean:.1f}",
        *(f"{100 * float((~side.broken).float().mean()):.2f}" for side in (left, right)),
        str(int((right.broken & ~left.broken).sum())),
        str(int((left.broken & ~right.broken).sum())),
        *(f"{side.seconds:.1f}" for side in (left, right)),
        *(f"{side.passes / n:.0f}" for side in (left, right)),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".data"))
    parser.add_argument("--datasets", nargs="+", default=["digits", "cifar100"], choices=sorted(EPS["linf"]))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--norm", choices=sorted(NAMES), default="linf")
    parser.add_argument("--eps", type=float, help="by default one for each data set")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--toy", action="store_true", help="few images, short training, little search: that it runs")
    options = parser.parse_args()
    if options.toy:
        options.datasets, options.images = ["digits", "toy-100"], min(options.images, 24)
        options.epochs, options.steps, options.queries = 3, min(options.steps, 10), min(options.queries, 50)
    rows = []
    for name in options.datasets:
        data = load(name, options.data)
        eps = EPS[options.norm][name] if options.eps is None else options.eps
        rows += [compare(name, kind, data, Threat(options.norm, eps), options) for kind in options.models]
    headers = [
        f"AutoAttack, {options.norm}",
        "classes",
        "n",
        "clean %",
        "ours %",
        "reference %",
        "broken by reference only",
        "by ours only",
        "seconds, ours",
        "reference",
        "passes an image, ours",
        "reference",
    ]
    print(f"\n{table(rows, headers)}\n")
    used = {name: EPS[options.norm][name] if options.eps is None else options.eps for name in options.datasets}
    print(
        f"eps: {', '.join(f'{name} {eps:.4g}' for name, eps in used.items())}; passes are forward and backward ones\n"
    )
    print(machine(options.device, "torchattacks"))


if __name__ == "__main__":
    main()
