"""How long a run will take, learned from what of it is done. Used by whoever shows a run; imports no torch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from robustbench_cmic.plan.audit import PlannedAudit
from robustbench_cmic.plan.cell import Cell, Kind, title
from robustbench_cmic.suite.attack_base import GRADIENT
from robustbench_cmic.suite.fields import Frozen, Threat
from robustbench_cmic.suite.schema import attack_of


class CellEstimate(Frozen):
    """What of a cell is needed to name it and to estimate its time.

    Attributes:
        id: of the cell.
        title: the cell in words.
        kind, attack, eps: cells that agree in these and differ in model and seed take about equally long.
        work: see `declared_work`.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    id: str
    title: str
    kind: Kind
    attack: str
    eps: float
    work: Annotated[float, Field(ge=0)]


def cell_estimate(cell: Cell) -> CellEstimate:
    """A cell as the estimate sees it."""
    return CellEstimate(
        id=cell.id, title=title(cell), kind=cell.kind, attack=cell.attack, eps=cell.eps, work=declared_work(cell)
    )


_SIZES = {
    "digits": (1_198, 599), "mnist": (60_000, 10_000), "fashion_mnist": (60_000, 10_000), "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000), "svhn": (73_257, 26_032),
}  # fmt: skip
"""Examples to train on and to evaluate on; a guess serves for a user's own, whose data a plan does not open."""
_GUESS = (10_000, 2_000)


def declared_work(cell: Cell) -> float:
    """A cell's work in passes of a thousand examples through the network, roughly."""
    train = cell.declared.get("train", cell.declared)
    sizes = _SIZES.get(train["dataset"]["name"], _GUESS)
    if cell.kind == "train":
        training = cell.declared["training"]
        if training is None:
            return 20.0  # a process that starts, and reads weights
        return 3e-3 * float(training["epochs"]) * float(min(sizes[0], training.get("limit") or sizes[0]))
    evaluation = cell.declared["evaluation"]
    whole = sizes[evaluation["split"] == "test"]
    examples = 1e-3 * float(min(whole, evaluation.get("limit") or whole))
    if cell.kind == "audit":
        audit = PlannedAudit.model_validate(cell.declared["audit"])
        probed = min(examples, 1e-3 * float(audit.examples))
        return probed * sum(_passes(check.attack, check.threat) for check in audit.checks)
    return examples * _passes(cell.declared["attack"], cell.threat)


def _passes(declared: dict[str, Any], threat: Threat) -> float:
    attack = attack_of(declared, threat)
    return GRADIENT if attack is None else attack.work


class Pace:
    """How fast a running cell is, since its first report: a resumed training begins in the middle."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def seconds_left(self, now: float, done: int, total: int) -> float | None:
        """From a report at the time `now` (seconds) of `done` units of `total`; None until something is known."""
        if self._first is None:
            self._first = (now, done)
        began, at_first = self._first
        if done <= at_first or done >= total:
            return None
        return (now - began) / (done - at_first) * (total - done)


class Estimator:
    """Time left, learned from the cells that are done and, as far as they tell, from those that run.

    A kind of cell not seen yet is estimated by its declared work (epochs, gradient steps), scaled by how long such
    work took so far.
    """

    def __init__(self, tasks: Sequence[CellEstimate], jobs: int) -> None:
        self._left = {task.id: task for task in tasks}
        self._jobs = jobs
        self._running: dict[str, tuple[float, float]] = {}
        self._seconds: dict[tuple[str, str, float], list[float]] = defaultdict(list)
        self._work = 0.0
        self._spent = 0.0

    def running(self, cell: str, spent: float, left: float) -> None:
        """A cell has run for `spent` seconds and will, at its pace, for another `left`."""
        if cell in self._left:
            self._running[cell] = (spent, left)

    def finished(self, cell: str, seconds: float) -> None:
        """Learn from a finished cell; 0 seconds teach nothing."""
        known = self._left.pop(cell, None)
        self._running.pop(cell, None)
        if known is not None and seconds > 0:
            self._seconds[known.kind, known.attack, known.eps].append(seconds)
            self._work += known.work
            self._spent += seconds

    def seconds_left(self) -> float | None:
        """None until something is known."""
        seconds = {kind: list(known) for kind, known in self._seconds.items()}
        work, spent = self._work, self._spent
        for cell, (so_far, left) in self._running.items():
            task = self._left[cell]
            seconds.setdefault((task.kind, task.attack, task.eps), []).append(so_far + left)
            work, spent = work + task.work, spent + so_far + left
        if work == 0:
            return None
        total = longest = 0.0
        for cell, task in self._left.items():
            known = seconds.get((task.kind, task.attack, task.eps))
            expected = sum(known) / len(known) if known else task.work * spent / work
            if cell in self._running:
                expected = self._running[cell][1]
                longest = max(longest, expected)
            total += expected
        left = max(total / self._jobs, longest)
        return left if math.isfinite(left) else None  # cells of absurdly unequal work tell nothing


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
