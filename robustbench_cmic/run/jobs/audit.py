"""An audit cell: what is to be known of one trained model to believe the attacks on it."""

from __future__ import annotations

from torch import Tensor, nn

from robustbench_cmic.attacks.harness import evaluate_attack
from robustbench_cmic.attacks.model import AttackError, CountedModel, frozen
from robustbench_cmic.audit.probes.behaviour import correctly_classified, forward_facts, gradient_facts, output_facts
from robustbench_cmic.audit.probes.binarization import binarization_test
from robustbench_cmic.plan.audit import PlannedAudit, PlannedCheck
from robustbench_cmic.records.packing import pack_outcomes
from robustbench_cmic.records.schema import AuditRecord, Check
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.suite.schema import attack_of


def run_audit(job: Job) -> AuditRecord:
    """Probe the weights that the needed training has left, and run the audit's own attacks on them."""
    cell, classes = job.cell, job.data.classes
    planned = PlannedAudit.model_validate(cell.declared["audit"])
    model, checkpoint_sha256 = job.trained_model(cell.needs, cell.declared["train"])
    examples, all_labels, examples_sha256 = job.evaluated()
    size = min(planned.examples, len(examples))
    positions = [index * len(examples) // size for index in range(size)]
    images, labels = examples.at(positions), all_labels[positions]
    steps = 2 + len(planned.checks) + len(planned.active)
    job.progress(0, steps, "audit: outputs and gradients")
    with frozen(model):
        target = CountedModel(model, classes)
        forward_pass = forward_facts(target, images)
        correct, logits = correctly_classified(target, images, labels)
        gradients = [
            gradient_facts(target, images[correct], labels[correct], loss, planned.step) for loss in ("ce", "margin")
        ]
    checks = []
    for number, check in enumerate(planned.checks):
        job.progress(1 + number, steps, f"audit: {check.check} {check.of}".rstrip())
        checks.append(_check(job, model, images, labels, check))
    active = []
    tested = images[correct][: planned.active_examples]
    for number, check in enumerate(planned.active):
        job.progress(1 + len(checks) + number, steps, f"audit: active test of {check.of}")
        active.append(binarization_test(model, tested, classes, check, cell.seed))
    return AuditRecord(
        **job.common(),
        status="ok",
        checkpoint_sha256=checkpoint_sha256,
        examples_sha256=examples_sha256,
        positions=positions,
        forward_pass=forward_pass,
        outputs=output_facts(logits),
        gradients=gradients,
        checks=checks,
        active=active,
    )


def _check(job: Job, model: nn.Module, images: Tensor, labels: Tensor, check: PlannedCheck) -> Check:
    try:
        verdict = evaluate_attack(
            model,
            images,
            labels,
            classes=job.data.classes,
            attack=attack_of(check.attack, check.threat),
            seed=job.cell.seed,
            batch_size=job.settings.batch_size,
        )
    except AttackError as error:
        return Check(**check.model_dump(), error=str(error)[:300])
    return Check(**check.model_dump(), outcomes=pack_outcomes(verdict.correct.tolist()))
