"""An audit cell: what is to be known of one trained model to believe the attacks on it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import BrokenBefore, evaluate_attack
from robustbench_cmic.attacks.model import AttackError, CountedModel, frozen, in_float32, with_less_memory
from robustbench_cmic.attacks.threat import BLOCK
from robustbench_cmic.audit.probes.behaviour import correctly_classified, forward_facts, gradient_facts, output_facts
from robustbench_cmic.audit.probes.binarization import binarization_test
from robustbench_cmic.audit.probes.derivatives import derivative_facts
from robustbench_cmic.audit.probes.points import probed_places
from robustbench_cmic.plan.audit import PlannedAudit, PlannedCheck
from robustbench_cmic.records.packing import pack_outcomes
from robustbench_cmic.records.schema import AuditRecord, Check
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.run.jobs.in_turn import InTurn
from robustbench_cmic.seeding import derive_seed, seeded
from robustbench_cmic.suite.fields import Threat
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
    target = CountedModel(model, classes)
    # The words decide which points are drawn.
    with frozen(model), in_float32(), seeded(derive_seed("audit probes", cell.seed)):
        correct, logits = correctly_classified(target, images, labels)
        probed = _probe(target, planned, images, labels, logits)
    checks, in_turn = [], InTurn(len(labels))
    for number, check in enumerate(planned.checks):
        job.progress(1 + number, steps, f"audit: {check.check} {check.of}".rstrip())
        attacked = in_turn.attacked(check)
        checks.append(_check(job, model, images, labels, check, attacked.to(images.device)))
        in_turn.note(checks[-1])
    active = []
    tested = images[correct][: planned.active_examples]
    for number, check in enumerate(planned.active):
        job.progress(1 + len(checks) + number, steps, f"audit: binarization test of {check.of}")
        active.append(binarization_test(model, tested, classes, check, cell.seed))
    return AuditRecord(
        **job.common(),
        status="ok",
        checkpoint_sha256=checkpoint_sha256,
        examples_sha256=examples_sha256,
        positions=positions,
        outputs=output_facts(logits),
        **probed,
        checks=checks,
        active=active,
    )


def _probe(
    target: CountedModel, planned: PlannedAudit, images: Tensor, labels: Tensor, logits: Tensor
) -> dict[str, Any]:
    """Fields of the record on the forward pass and on gradients."""
    correct = logits.argmax(1) == labels
    right = images[correct], labels[correct]
    gradients = [gradient_facts(target, *right, loss, planned.step) for loss in ("ce", "margin")]
    places = with_less_memory(target, BLOCK, partial(probed_places, target, images, labels, _balls(planned)))
    forward_pass = with_less_memory(target, BLOCK, partial(forward_facts, target, places, labels, logits))
    derivatives = []
    for name, points in places.named():
        action = partial(derivative_facts, target, points[correct], right[1], name, planned.step)
        derivatives.append(with_less_memory(target, BLOCK, action))
    return {"gradients": gradients, "forward_pass": forward_pass, "derivatives": derivatives}


def _balls(planned: PlannedAudit) -> list[Threat]:
    """Those that the suite attacks in; where it attacks in none, the field's usual one."""
    return [check.threat for check in planned.checks if check.check == "reference"] or [Threat("linf", 8 / 255)]


def _check(job: Job, model: nn.Module, images: Tensor, labels: Tensor, check: PlannedCheck, attacked: Tensor) -> Check:
    """A check of the examples (n,) that it attacks; the others count as correctly classified."""
    outcomes = torch.ones_like(attacked)
    if not bool(attacked.any()):
        return Check(**check.model_dump(), outcomes=pack_outcomes(outcomes.tolist()))
    try:
        verdict = evaluate_attack(
            model,
            images,
            labels,
            classes=job.data.classes,
            attack=attack_of(check.attack, check.threat),
            seed=job.cell.seed,
            batch_size=job.settings.batch_size,
            # Left alone; what an example meets does not depend on which others are attacked with it.
            kept=BrokenBefore((~attacked).nonzero()[:, 0].cpu(), images[~attacked]),
        )
    except AttackError as error:
        return Check(**check.model_dump(), error=str(error)[:300])
    outcomes[attacked] = verdict.correct[attacked]
    return Check(**check.model_dump(), outcomes=pack_outcomes(outcomes.tolist()))
