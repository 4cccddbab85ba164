"""An attack cell: one attack at one eps on one trained model."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from robustbench_cmic.attacks.harness import BrokenBefore, evaluate_attack
from robustbench_cmic.attacks.judge import AttackEvaluation
from robustbench_cmic.attacks.model import AttackError
from robustbench_cmic.audit.rules_normalization import better_as_it_is
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.information.bootstrap import bootstrap_means, bootstrap_ncmi
from robustbench_cmic.information.calibration import example_scores, measure_calibration, scale_logits
from robustbench_cmic.information.measures import measure_information
from robustbench_cmic.models.weights import load_weights, save_weights
from robustbench_cmic.records.packing import pack_outcomes, pack_replicates
from robustbench_cmic.records.schema import AttackRecord, CalibratedMeasures, Calibration, WithoutNormalization
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.run.jobs.pictures import keep_pictures, room_for_pictures
from robustbench_cmic.statistics import wilson_interval
from robustbench_cmic.suite.schema import attack_of


def run_attack(job: Job) -> AttackRecord:
    """Attack the weights that the needed training has left, and judge the outcome."""
    cell, settings = job.cell, job.settings
    shown = room_for_pictures(job)
    model, checkpoint_sha256 = job.trained_model(cell.needs, cell.declared["train"])
    inputs: dict[str, str] = {}
    source, kept = None, None
    if cell.source is not None:
        source, inputs[cell.source] = job.trained_model(cell.source, cell.declared["source"])
    if cell.after is not None:
        kept, inputs[cell.after] = _kept(job, cell.after)
    examples, labels, examples_sha256 = job.evaluated()
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
    found = measured(verdict, labels)
    if attack is None:
        found["ncmi_replicates"] = replicates(verdict.logits, labels)
        found["calibration"] = calibration_of(verdict.logits, labels)
        found["without_normalization"] = _without_normalization(job, model, examples, labels, verdict.correct)
    record = AttackRecord(
        **job.common(),
        status="ok",
        checkpoint_sha256=checkpoint_sha256,
        inputs=inputs,
        examples_sha256=examples_sha256,
        **found,
        outside=verdict.outside,
        outside_box=verdict.outside_box,
        vanished=verdict.vanished,
        forwards=verdict.forwards,
        backwards=verdict.backwards,
        parts=verdict.parts,
        kept=0 if kept is None else len(kept.places),
        images_sha256=_keep(job, verdict) if carries_over else None,
    )
    if (figures := better_as_it_is(record)) is not None:  # the board will show it, too
        advice = "does the model normalise by itself, or was it trained without? then write `normalization: none`"
        job.progress(0, 0, f"warning: the normalisation in front of the given weights harms: {figures}; {advice}")
    return record


def measured(verdict: AttackEvaluation, labels: Tensor) -> dict[str, Any]:
    """What a record holds of accuracy and information, on clean or on attacked examples."""
    n, correct = len(verdict.correct), int(verdict.correct.sum())
    low, high = wilson_interval(correct, n)
    information = measure_information(verdict.logits, labels)
    return {
        "n": n,
        "accuracy": correct / n,
        "ci_low": low,
        "ci_high": high,
        "outcomes": pack_outcomes(verdict.correct.tolist()),
        "information": {name: _finite(value) for name, value in asdict(information).items()},
        "masked": int(verdict.logits.isneginf().any(1).sum()),
    }


def _without_normalization(
    job: Job, model: nn.Sequential, examples: Examples, labels: Tensor, correct: Tensor
) -> WithoutNormalization | None:
    """The clean evaluation again, of given weights alone; None where nothing is put in front, or logits overflow.

    `correct`, (N,) truth values, says which examples the whole model classifies correctly.
    """
    mean, std = (model.get_buffer(f"0.{name}") for name in ("mean", "std"))
    if job.cell.declared["train"]["training"] is not None or bool((mean == 0).all() and (std == 1).all()):
        return None
    own: dict[str, Any] = {"classes": job.data.classes, "seed": job.cell.seed, "batch_size": job.settings.batch_size}
    try:
        alone = evaluate_attack(model[1:], examples, labels, attack=None, **own).correct
    except AttackError:
        return None
    gained, lost = int((alone & ~correct).sum()), int((correct & ~alone).sum())
    return WithoutNormalization(accuracy=int(alone.sum()) / len(alone), gained=gained, lost=lost)


def calibration_of(logits: Tensor, labels: Tensor) -> Calibration | None:
    """What a record holds of `measure_calibration`.

    None of a single example, which makes no two halves, and where a model masks an example's own class, of which it is
    infinitely sure that it is another.
    """
    if len(labels) < 2 or bool(logits.gather(1, labels[:, None]).isneginf().any()):
        return None
    scores = measure_calibration(logits, labels)
    calibrated = None
    if scores.calibrated is not None and scores.information is not None:
        information, scaled = scores.information, scale_logits(logits, labels, scores.temperatures)
        calibrated = CalibratedMeasures(
            cmi=information.cmi,
            separation=information.separation,
            ncmi=_finite(information.ncmi),
            ncmi_replicates=replicates(scaled, labels),
            **_mean_replicates(scaled, labels),
            **asdict(scores.calibrated),
        )
    first, second = (value if 0 < value < math.inf else None for value in scores.temperatures)
    own = asdict(scores.native) | _mean_replicates(logits, labels)
    return Calibration(temperatures=(first, second), undefined=scores.undefined, calibrated=calibrated, **own)


def replicates(logits: Tensor, labels: Tensor) -> str:
    """NCMI of bootstrap samples, packed."""
    return pack_replicates(bootstrap_ncmi(logits, labels).tolist())


def _mean_replicates(logits: Tensor, labels: Tensor) -> dict[str, str]:
    """NLL and mean confidence of the same samples, packed."""
    nll, confidence = bootstrap_means(example_scores(logits, labels)).T
    return {
        "nll_replicates": pack_replicates(nll.tolist()),
        "confidence_replicates": pack_replicates(confidence.tolist()),
    }


def _keep(job: Job, verdict: AttackEvaluation) -> str:
    """Store the adversarial examples for the next larger ball; returns the file's hash."""
    broken = (~verdict.correct).nonzero()[:, 0].cpu()
    assert verdict.images is not None
    return save_weights(job.settings.store.images(job.cell.id), {"places": broken, "images": verdict.images[broken]})


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


def _finite(value: Any) -> Any:
    """Numbers, None in place of those that JSON does not know."""
    if isinstance(value, tuple):
        return [_finite(number) for number in value]
    return value if math.isfinite(value) else None
