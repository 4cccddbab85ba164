"""An attack cell: one attack at one eps on one trained model."""

from __future__ import annotations

import math
import time

import torch

from robustbench_cmic.attacks.harness import judge_attack
from robustbench_cmic.attacks.threat import Threat
from robustbench_cmic.cells.job import Job
from robustbench_cmic.checkpoint import load_weights
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.data.subset import choose, subset_sha256
from robustbench_cmic.information import Information
from robustbench_cmic.record import AttackRecord, Measures, pack_outcomes, read_record, record_path
from robustbench_cmic.settings import weights_file
from robustbench_cmic.statistics import wilson_interval


class MissingTrainingError(Exception):
    """The training that an attack needs has left no weights for this data."""


def attack_cell(job: Job) -> AttackRecord:
    """Attack the weights that the needed training has left, and judge the outcome."""
    cell, settings, data = job.cell, job.settings, job.data
    trained = read_record(record_path(settings.results, cell.needs or ""))
    if trained.checkpoint_sha256 is None or trained.dataset_sha256 != data.sha256:
        raise MissingTrainingError(f"the training {cell.needs} has no weights for this data")
    # What is loaded replaces everything: the seed and timm's own weights play no part here.
    declared = cell.declared["train"] | {"model": cell.declared["train"]["model"] | {"pretrained": False}}
    model = job.model(declared)
    model.load_state_dict(load_weights(weights_file(settings.work, trained.cell.id), trained.checkpoint_sha256))
    evaluation = cell.declared["evaluation"]
    split = data.split(evaluation["split"])
    chosen = choose(split.labels, evaluation)
    began = time.perf_counter()
    verdict = judge_attack(
        model,
        Examples(split.images, chosen, settings.device),
        torch.from_numpy(split.labels[chosen]).to(settings.device),
        classes=data.classes,
        setting=cell.declared["attack"],
        threat=Threat(cell.norm, cell.eps) if cell.norm else None,
        seed=cell.seed,
        batch_size=settings.batch_size,
        progress=lambda done, total: job.progress(done, total, "examples"),
    )
    job.clock.examples_per_second = round(len(chosen) / (time.perf_counter() - began), 1)
    n, correct = len(verdict.correct), int(verdict.correct.sum())
    low, high = wilson_interval(correct, n)
    return AttackRecord(
        **job.common(),
        status="ok",
        checkpoint_sha256=trained.checkpoint_sha256,
        examples_sha256=subset_sha256(chosen),
        n=n,
        accuracy=correct / n,
        ci_low=low,
        ci_high=high,
        outcomes=pack_outcomes(verdict.correct.tolist()),
        information=_measures(verdict.information),
        outside=verdict.outside,
        forwards=verdict.forwards,
        backwards=verdict.backwards,
    )


def _measures(information: Information) -> Measures:
    def known(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return Measures(
        cmi=information.cmi,
        separation=information.separation,
        ncmi=known(information.ncmi),
        class_cmi=[known(value) for value in information.class_cmi],
        class_separation=[known(value) for value in information.class_separation],
    )
