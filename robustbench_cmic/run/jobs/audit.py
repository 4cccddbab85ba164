"""An audit cell: what is to be known of one trained model to believe the attacks on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.harness import BrokenBefore, evaluate_attack
from robustbench_cmic.attacks.model import AttackError, CountedModel, frozen
from robustbench_cmic.audit.probes.behaviour import correctly_classified, forward_facts, gradient_facts, output_facts
from robustbench_cmic.audit.probes.binarization import binarization_test
from robustbench_cmic.plan.audit import IN_TURN, PlannedAudit, PlannedCheck
from robustbench_cmic.records.packing import pack_outcomes, unpack_outcomes
from robustbench_cmic.records.schema import AuditRecord, Check
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.suite.fields import Threat
from robustbench_cmic.suite.schema import attack_of

CLOSED = 0.02
"""Where PGD leaves no more than this share of the examples, no attack without gradients is tried."""


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
    checks, in_turn = [], InTurn(len(labels))
    for number, check in enumerate(planned.checks):
        job.progress(1 + number, steps, f"audit: {check.check} {check.of}".rstrip())
        attacked = in_turn.attacked(check)
        checks.append(_check(job, model, images, labels, check, attacked.to(images.device)))
        in_turn.note(checks[-1])
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


class InTurn:
    """Which of the audit's examples are left to those of its checks that are made in turn, in each ball.

    Args:
        examples: how many the audit takes.
    """

    def __init__(self, examples: int) -> None:
        self._all = torch.ones(examples, dtype=torch.bool)
        self._left: dict[Threat, Tensor] = {}
        self._alone: dict[Threat, Tensor] = {}

    def attacked(self, check: PlannedCheck) -> Tensor:
        """(n,) truth values: the examples that a check attacks."""
        left = self._left.get(check.threat, self._all)
        if check.check == "confirm":
            return self._alone.get(check.threat, ~self._all)
        if check.check == "gradient-free" and int(left.sum()) <= CLOSED * len(left):
            return ~self._all
        return left if check.check in IN_TURN else self._all

    def note(self, check: Check) -> None:
        """What a check did."""
        if check.check not in IN_TURN or check.outcomes is None:
            return
        correct = torch.from_numpy(unpack_outcomes(check.outcomes, len(self._all)))
        if check.check == "confirm":
            self._alone[check.threat] = self._alone[check.threat] & correct
            return
        left = self._left.get(check.threat, self._all)
        if check.check == "gradient-free":
            self._alone[check.threat] = left & ~correct
        self._left[check.threat] = left & correct


def _check(
    job: Job, model: nn.Module, images: Tensor, labels: Tensor, check: PlannedCheck, attacked: Tensor
) -> Check:
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
