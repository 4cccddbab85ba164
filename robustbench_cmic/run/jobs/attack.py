"""An attack cell: one attack at one eps on one trained model."""

from __future__ import annotations

import math
import time

from robustbench_cmic.attacks.harness import BrokenBefore, evaluate_attack
from robustbench_cmic.attacks.judge import AttackEvaluation
from robustbench_cmic.information.bootstrap import bootstrap_ncmi
from robustbench_cmic.information.measures import Information, measure_information
from robustbench_cmic.models.weights import load_weights, save_weights
from robustbench_cmic.records.packing import pack_outcomes, pack_replicates
from robustbench_cmic.records.schema import AttackRecord, Measures
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.run.jobs.inputs import evaluated, trained_model
from robustbench_cmic.run.jobs.pictures import keep_pictures, room_for_pictures
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.schema import attack_of


def run_attack(job: Job) -> AttackRecord:
    """Attack the weights that the needed training has left, and judge the outcome."""
    cell, settings = job.cell, job.settings
    shown = room_for_pictures(job)
    model, checkpoint_sha256 = trained_model(job, cell.needs or "", cell.declared["train"])
    inputs: dict[str, str] = {}
    source, kept = None, None
    if cell.source is not None:
        source, inputs[cell.source] = trained_model(job, cell.source, cell.declared["source"])
    if cell.after is not None:
        kept, inputs[cell.after] = _kept(job, cell.after)
    examples, labels, examples_sha256 = evaluated(job)
    attack = attack_of(cell.declared["attack"], cell.threat)
    carries_over = attack is not None and attack.carries_over
    began = time.perf_counter()
    verdict = evaluate_attack(
        model,
        examples,
        labels,
        classes=job.data.classes,
        attack=attack,
        seed=cell.seed,
        batch_size=settings.batch_size,
        progress=lambda done, total, correct: job.progress(done, total, "examples", correct / done),
        source=source,
        kept=kept,
        keep_images=carries_over,
        keep_broken=shown,
    )
    job.stopwatch.examples_per_second = round(len(examples) / (time.perf_counter() - began), 1)
    if shown:
        keep_pictures(job, verdict.broken, examples.indices, checkpoint_sha256)
    n, correct = len(verdict.correct), int(verdict.correct.sum())
    low, high = wilson_interval(correct, n)
    return AttackRecord(
        **job.common(),
        status="ok",
        checkpoint_sha256=checkpoint_sha256,
        inputs=inputs,
        examples_sha256=examples_sha256,
        n=n,
        accuracy=correct / n,
        ci_low=low,
        ci_high=high,
        outcomes=pack_outcomes(verdict.correct.tolist()),
        information=_measures(measure_information(verdict.logits, labels)),
        ncmi_replicates=pack_replicates(bootstrap_ncmi(verdict.logits, labels).tolist()) if attack is None else None,
        outside=verdict.outside,
        forwards=verdict.forwards,
        backwards=verdict.backwards,
        parts=verdict.parts,
        kept=0 if kept is None else len(kept.places),
        images_sha256=_keep(job, verdict) if carries_over else None,
    )


def _keep(job: Job, verdict: AttackEvaluation) -> str:
    """Store the adversarial examples for the next larger ball; returns the file's hash."""
    broken = (~verdict.correct).nonzero()[:, 0].cpu()
    assert verdict.images is not None
    stored = {"places": broken, "images": verdict.images[broken]}
    return save_weights(job.settings.store.images(job.cell.id), stored)


def _kept(job: Job, before: str) -> tuple[BrokenBefore, str]:
    """What the same attack broke in the next smaller ball, and the hash of the file that holds it.

    Raises:
        CorruptCheckpointError: its examples are not there, or not those that it recorded.
    """
    record = read_record(job.settings.store.record(before))
    assert isinstance(record, AttackRecord)
    sha256 = record.images_sha256 or ""
    stored = load_weights(job.settings.store.images(before), sha256)
    return BrokenBefore(stored["places"], stored["images"]), sha256


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
