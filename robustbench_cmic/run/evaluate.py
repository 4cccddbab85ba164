"""A network in memory, judged as a run judges those of a suite: attacked, audited, summed up."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from rich.console import Console
from torch import Tensor, nn

from robustbench_cmic.attacks.model import in_float32
from robustbench_cmic.data.base import Data
from robustbench_cmic.models.build import Normalize
from robustbench_cmic.plan.audit import audit_cell, plan_audit
from robustbench_cmic.plan.build import attack_cells
from robustbench_cmic.plan.cell import Cell, Plan, cell_id
from robustbench_cmic.plan.versions import SUBSET
from robustbench_cmic.records.provenance import collect
from robustbench_cmic.records.schema import AnyRecord
from robustbench_cmic.records.store import Store, write_record
from robustbench_cmic.report.formats.terminal import model_text
from robustbench_cmic.report.frame import WORST
from robustbench_cmic.report.results import Results
from robustbench_cmic.report.summary import RaisedFlag, Summary, summarize
from robustbench_cmic.run.evaluate_arguments import check_types, checked_data, integer, radii_of
from robustbench_cmic.run.jobs.attack import run_attack
from robustbench_cmic.run.jobs.audit import run_audit
from robustbench_cmic.run.jobs.context import Job, Stopwatch
from robustbench_cmic.run.options import Settings, usual_batch_size
from robustbench_cmic.run.watch.events import CellEnded, CellStarted, Emit
from robustbench_cmic.run.watch.progress import display
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.budgets import BUDGETS, Budget, declared_budget
from robustbench_cmic.suite.fields import CLEAN, Norm, Threat, parse_number
from robustbench_cmic.suite.schema import Suite

MODEL = "model"


@dataclass(frozen=True, repr=False)
class ModelEvaluation:
    """What attacks left of one network, and what the audit says of them; printed, a table.

    Accuracies are fractions of all n examples, those that are misclassified without an attack among them. An upper
    bound of robustness, whatever it says: no flag is no proof.

    Attributes:
        summary: all of it, as a report is made from.
    """

    summary: Summary

    @property
    def audited(self) -> bool:
        """The budget has an audit; without one nothing says whether the attacks were able to succeed."""
        return self.summary.audit.wanted

    @property
    def accuracy(self) -> float:
        """Without an attack."""
        return self._mean("none", CLEAN)

    @property
    def worst_case(self) -> dict[float, float]:
        """By eps what survives every attack in the ball and in smaller ones, the audit's own attacks among them."""
        return {threat.eps: self._mean(WORST, threat) for threat in self._threats}

    @property
    def worst_case_interval(self) -> dict[float, tuple[float, float]]:
        """Wilson's 95 % intervals, over examples."""
        return {each.eps: self.summary.interval_over_examples(MODEL, WORST, each) for each in self._threats}

    @property
    def attacks(self) -> dict[float, dict[str, float]]:
        """By eps what every attack leaves, by its label."""
        attacks = self.summary.attacks
        return {each.eps: {label: self._mean(label, each) for label in attacks(each)} for each in self._threats}

    @property
    def flags(self) -> list[RaisedFlag]:
        """What the audit raised: name, what it is about, and the numbers that raised it."""
        return self.summary.flags

    def flags_of_worst_case(self, eps: float | str) -> tuple[str, ...]:
        """Names of the flags that take a worst case away; empty where it may stand. KeyError: no such eps."""
        return self.summary.values(MODEL, WORST, self._threat(eps)).flags

    def survivors(self, eps: float | str) -> npt.NDArray[np.bool_]:
        """(n,) truth values in the order of the examples: what `worst_case` counts. KeyError: no such eps."""
        (row,) = self.summary.groups[MODEL, WORST, self._threat(eps)].values()
        return np.array(row.outcomes)

    @property
    def frame(self) -> pd.DataFrame:
        """One row an attack and ball, with the columns of results.csv."""
        return self.summary.frame

    @property
    def _threats(self) -> list[Threat]:
        return self.summary.results.threats

    def _threat(self, eps: float | str) -> Threat:
        return {threat.eps: threat for threat in self._threats}[parse_number(str(eps))]

    def _mean(self, label: str, threat: Threat) -> float:
        mean = self.summary.values(MODEL, label, threat).mean
        assert mean is not None, "every evaluation of it has a result"
        return mean

    def __repr__(self) -> str:
        left = ", ".join(f"{str(threat)!r}: {self._mean(WORST, threat):.4f}" for threat in self._threats)
        return f"ModelEvaluation(accuracy={self.accuracy:.4f}, worst_case={{{left}}}, flags={len(self.flags)})"

    def __str__(self) -> str:
        return model_text(self.summary, 110)


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float | str | Sequence[float | str],
    norm: Norm = "linf",
    budget: Budget = "standard",
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = True,
) -> ModelEvaluation:
    """Attack a network, audit whether the attacks were able to succeed, and sum it up.

    What a run does with a model of a suite, for one in memory: the same attacks, judged in float32 by the harness, the
    same audit, the same rules. It does not matter whether it is called under `torch.no_grad`, `inference_mode` or
    autocast. Attacks need gradients with respect to the image. Weights, statistics, the mode of every layer, images and
    the global random state are as before afterwards. One network at a time: its mode is another meanwhile.

    Args:
        model: images (N, C, H, W) in [0, 1] -> logits (N, classes), normalisation included, on any device.
        images: (N, C, H, W) of floats in [0, 1].
        labels: (N,) whole numbers in [0, classes).
        eps: radius, or several, in units of images in [0, 1]; `8/255` as text, too.
        norm: `linf` or `l2`.
        budget: `quick`: FGSM and PGD with 20 steps on the margin, no audit: an upper bound to look at while one works.
            `standard`: FGSM, PGD with 40 steps on cross entropy and on the margin, AutoAttack, and the audit.
            `strict`: the same with the audit on four times as many examples.
        seed: of whatever is drawn.
        batch_size: examples attacked at once; no result depends on it. 256 by default, 1,024 on a GPU.
        progress: tell on stderr how far it is.

    Raises:
        ValueError: an argument is not what is said here, or the model fails on the first image; the message says how.
        AttackError: the model gives no usable logits for some image, or an attack fails; the message says what.
    """
    suite = _suite(eps, norm, budget)
    seed, batch_size = integer("seed", seed), None if batch_size is None else integer("batch_size", batch_size, 1)
    check_types(model, images, labels)
    device = next((each.device for each in chain(model.parameters(), model.buffers())), images.device)
    with _plainly(device, seed):
        data, classes = checked_data(model, images, labels, device)
        plan = _plan(suite, model, classes, data, seed)
        wrapped = nn.Sequential(Normalize([0.0] * images.shape[1], [1.0] * images.shape[1]).to(device), model)
        wrapped.training = model.training
        cells = [cell for cell in plan.cells if cell.kind != "train"]
        console = Console(stderr=True, quiet=not progress, soft_wrap=True)
        records: dict[str, AnyRecord] = {}
        with tempfile.TemporaryDirectory() as folder, display(console, cells, 1) as emit:
            settings = _settings(Path(folder), str(device), batch_size)
            for cell in cells:
                records[cell.id] = _record(_Job(cell, settings, data, Stopwatch(), emit, network=wrapped), emit)
                write_record(settings.store.results, records[cell.id])  # the next larger ball reads it
    return ModelEvaluation(summarize(Results(Path(folder), plan, records, [], [])))


@contextlib.contextmanager
def _plainly(device: torch.device, seed: int) -> Iterator[None]:
    """As a worker of a run computes, whatever the caller's surroundings: with gradients, in float32, seeded."""
    default = torch.get_default_dtype()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device.type, enabled=False),
        in_float32(),
        seeded(derive_seed("evaluate", seed)),
    ):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(default)


@dataclass
class _Job(Job):
    """A cell on a network that is there, and not read from a training's weights."""

    network: nn.Sequential | None = None

    def trained_model(self, _: str | None, __: dict[str, Any]) -> tuple[nn.Sequential, str]:
        """The network; it has no file, and so no hash."""
        assert self.network is not None
        return self.network, ""


def _record(job: Job, emit: Emit) -> AnyRecord:
    emit(CellStarted(cell=job.cell.id))
    record = run_audit(job) if job.cell.kind == "audit" else run_attack(job)
    accuracy = record.accuracy if record.kind == "attack" else None
    emit(CellEnded(cell=job.cell.id, status="ok", seconds=record.timing.seconds, accuracy=accuracy))
    return record


def _suite(eps: float | str | Sequence[float | str], norm: Norm, budget: Budget) -> Suite:
    """The attacks and the audit of a budget, as a suite declares them; of its data and model nothing is read."""
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm: should be linf or l2, not {norm!r}")
    if not isinstance(budget, str) or budget not in BUDGETS:
        raise ValueError(f"budget: should be {', '.join(BUDGETS)}, not {budget!r}")
    radii = radii_of(eps, norm)
    declared = {
        "suite": "evaluate",
        "dataset": {"name": "arrays", "path": "memory"},
        "models": [{"id": MODEL, "architecture": "mlp", "objective": {"name": "ce"}}],
        **declared_budget(budget, norm, radii),
    }
    return Suite.model_validate(declared)


def _plan(suite: Suite, model: nn.Module, classes: int, data: Data, seed: int) -> Plan:
    """The cells of one network, as those of a suite."""
    declared = {
        "dataset": suite.dataset.model_dump(),
        "model": {"architecture": type(model).__name__, "classes": classes},
        "objective": None,
        "training": None,
        "weights": None,
        "seed": seed,
    }
    training = Cell(
        id=cell_id([MODEL, f"s{seed}", "train"], declared), kind="train", model=MODEL,
        architecture=type(model).__name__, objective="given", seed=seed, declared=declared,
    )  # fmt: skip
    evaluation = {"split": "test", "limit": len(data.test.labels), "draw": SUBSET}
    cells = [training, *attack_cells(training, suite.attacks, evaluation)]
    if suite.audit != "off":
        cells.append(audit_cell(training, plan_audit(suite), evaluation))
    return Plan(suite=suite.suite, description="", dataset="arrays", pairs=[], cells=cells)


def _settings(folder: Path, device: str, batch_size: int | None) -> Settings:
    return Settings(
        suite="evaluate", store=Store(folder, folder), device=device,
        batch_size=batch_size or usual_batch_size(device), data=folder, memory=None, loaders=1,
        deterministic=False, pictured_seed=-1, weights={}, provenance=collect(),
    )  # fmt: skip
