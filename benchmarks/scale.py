"""What 1 to 64 cards would need: `suites/cifar100.yaml`, and a ResNet-50 on ImageNet, predicted from one card.

    python benchmarks/scale.py

Nothing is run: trainings take their steps times what a step took alone on an H100 (README.md), attacks and audits what
the committed records of such cells took, which ran beside others. Cells of the suite are scheduled on the cards as a
run schedules them (`plan.schedule`). Starting processes, reading images and unequal cards are left out.

The ResNet-50 is one training whose batch is shared out over the cards, which this package does not do (a cell is
computed by one card). Each card takes its part of the batch at the rate that ResNet-18 reaches at batch 128, and all
gradients are then added up in a ring: 2 (n - 1) / n times their bytes through the slowest link, while nothing else
goes on.

Beside every time stands the floor: all operations, over the rate of a large matrix product in bfloat16, over cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from about import table

from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.plan.schedule import critical_path, simulated
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.report import read_results
from robustbench_cmic.run.cost import Flops, Rates, cell_costs
from robustbench_cmic.run.measure import built_model, example_flops
from robustbench_cmic.suite.models import Model, model_of
from robustbench_cmic.suite.training import Training

ROOT = Path(__file__).resolve().parents[1]
CARDS = (1, 2, 4, 8, 16, 32, 64)

BATCH = 128
STEPS = {"ce": 3.11e-3, "batch": 3.28e-3, "class_batches": 7.32e-3}
"""Seconds of a step of ResNet-18 at this batch by what updates the centroids, alone on an H100 (README.md)."""
FLOOR_STEP, FLOOR_BATCH = 0.271e-3, 64
"""Seconds that the operations of a step at this batch take at the rate of a large matrix product (README.md)."""
ALONE = "resnet18-ce"
"""The model whose first seed was trained alone on an H100: what its record took beyond its steps."""

IMAGES, EPOCHS, IMAGENET_BATCH, IMAGENET_CLASSES = 1_281_167, 90, 256, 1000
CLASS_BATCH = 8
LINKS = {8: 450e9, 64: 50e9}
"""Bytes a second that a card sends, by up to how many cards: NVLink within a machine of eight, 400 Gb/s beyond, both as
their makers say; not measured."""


class Suite(NamedTuple):
    """What the cells of a suite take on a card of their own: seconds and operations, by id."""

    cells: list[Cell]
    seconds: dict[str, float]
    flops: dict[str, float]

    def on(self, cards: int) -> float:
        """Seconds on so many cards."""
        return simulated(self.cells, self.seconds, cards)

    @property
    def longest(self) -> float:
        """Seconds of the longest chain of cells that wait for each other."""
        return sum(self.seconds[cell.id] for cell in critical_path(self.cells, self.seconds))


def predicted(plan: Plan, records: Mapping[str, AnyRecord], flops: Flops, classes: int) -> Suite:
    """A suite of one architecture, whose operations an example are `flops`."""
    done = {cell: record for cell, record in records.items() if record.status == "ok"}
    costs = cell_costs(plan.cells, done, lambda _: flops, classes, lambda _: Rates(None, None))
    seconds = {cost.cell.id: cost.seconds or 0.0 for cost in costs}
    trainings = plan.of("train")
    alone = next(cell for cell in trainings if cell.model == ALONE)
    beyond = done[alone.id].timing.seconds / steps_seconds(alone)
    seconds |= {cell.id: beyond * steps_seconds(cell) for cell in trainings}
    return Suite(plan.cells, seconds, {cost.cell.id: cost.flops for cost in costs})


def steps_seconds(cell: Cell) -> float:
    """What the steps of a training of `suites/cifar100.yaml` take, alone on the card."""
    declared = Training.model_validate(cell.declared["training"])
    assert declared.batch_size == BATCH
    kind = cell.declared["objective"].get("centroids", "ce")
    return STEPS[kind] * declared.epochs * declared.steps_of_epoch(50_000)


class Split(NamedTuple):
    """A training whose batch is shared out.

    Attributes:
        flops: operations of a step.
        gradients: bytes of all weights' gradients.
        steps: in all.
    """

    flops: float
    gradients: float
    steps: int

    def on(self, cards: int, rate: float) -> float:
        """Seconds on so many cards that each do `rate` operations a second."""
        link = next(speed for most, speed in LINKS.items() if cards <= most)
        ring = 2 * (cards - 1) / cards * self.gradients / link
        return self.steps * (self.flops / (cards * rate) + ring)


def imagenet(flops: Flops, weights: int, extra: int) -> Split:
    """ResNet-50, with so many extra images forward each step; an epoch drops no image."""
    of_step = IMAGENET_BATCH * (flops.forward + flops.learned) + extra * flops.forward
    return Split(of_step, 4.0 * weights, EPOCHS * -(-IMAGES // IMAGENET_BATCH))


def rates(flops: Flops) -> tuple[float, float]:
    """Operations a second, of the floor and of a step of cross entropy at batch 128; `flops` of ResNet-18."""
    example = flops.forward + flops.learned
    return FLOOR_BATCH * example / FLOOR_STEP, BATCH * example / STEPS["ce"]


def hours(seconds: float) -> str:
    """`1.25 h`, or minutes below one."""
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def main() -> None:
    """Print both tables."""
    results = read_results(ROOT / "results" / "cifar100")
    small = built_model(model_of(results.plan.cells[0].declared["model"]), (3, 32, 32), 100)
    flops = example_flops(small, (3, 32, 32))
    floor, reached = rates(flops)
    suite = predicted(results.plan, results.records, flops, 100)
    operations, work = sum(suite.flops.values()), suite.on(1)
    rows = [[f"{n}", hours(suite.on(n)), f"{work / suite.on(n):.1f}", hours(operations / floor / n)] for n in CARDS]
    print(table(rows, ["cards", "cifar100, all cells", "times faster", "floor"]))
    print(f"\n{len(suite.cells)} cells, {operations:.3g} operations; no number of cards needs less than ", end="")
    print(
        f"{hours(suite.longest)}.\nRates: floor {floor / 1e12:.0f}, a step at batch 128 {reached / 1e12:.0f} TFLOP/s.\n"
    )
    large = built_model(Model(id="r", architecture="resnet50"), (3, 224, 224), IMAGENET_CLASSES)
    of_large, weights = example_flops(large, (3, 224, 224)), sum(each.numel() for each in large.parameters())
    plain, classes = (imagenet(of_large, weights, extra) for extra in (0, CLASS_BATCH * IMAGENET_CLASSES))
    rows = [
        [f"{n}", *(hours(seconds) for each in (plain, classes) for seconds in (each.on(n, reached), each.on(n, floor)))]
        for n in CARDS
    ]
    kinds = ("CE and `batch`", "`class_batches`")
    print(table(rows, ["cards", *(f"{kind}{what}" for kind in kinds for what in ("", ", floor with the ring"))]))
    print(f"\nResNet-50: {weights / 1e6:.1f} million weights, {plain.flops * plain.steps:.3g} operations", end="; ")
    print(f"`class_batches` of {CLASS_BATCH} images of each class {classes.flops * classes.steps:.3g}.")


if __name__ == "__main__":
    main()
