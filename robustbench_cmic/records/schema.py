"""What records hold: typed, versioned, plain data. `record` reads and writes them. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from robustbench_cmic.plan.audit import PlannedCheck
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.suite.fields import Frozen

RECORD_SCHEMA: Literal["robustbench_cmic/record/3"] = "robustbench_cmic/record/3"
Status = Literal["ok", "diverged", "failed", "skipped"]
"""How a cell has ended; `skipped`, since one that it depends on did not end well, leaves no record."""


class Timing(Frozen):
    """The only part of a record that differs between equal runs on one machine.

    Attributes:
        started: UTC, ISO 8601.
        seconds: wall time of the cell; of a resumed training, of its last part.
        resumed_after_epoch: the epoch after which a killed training was taken up again.
        examples_per_second: of the training, or of the whole attack.
        peak_memory: bytes, on a GPU for this cell alone, on the CPU of the process since it began.
    """

    started: str
    seconds: float
    resumed_after_epoch: int | None = None
    examples_per_second: float | None = None
    peak_memory: int | None = None


class Epoch(Frozen):
    """One epoch of training, measured on the batches it trained on, while the weights moved.

    Attributes:
        epoch: counted from 1.
        lr: learning rate of the last step.
        loss: the mean of each term of the objective; `total` is what was minimised.
        accuracy: fraction in [0, 1]; cmi, separation (nats) and ncmi as in `information`.
    """

    epoch: int
    lr: float
    loss: dict[str, float]
    accuracy: float
    cmi: float
    separation: float
    ncmi: float | None


class Part(Frozen):
    """What one of the attacks did that make up another, such as AutoAttack's.

    Attributes:
        attacked: examples that the parts before it had left.
        broken: how many of them it broke.
        forwards, backwards: examples through the network.
    """

    name: str
    attacked: int
    broken: int
    forwards: int
    backwards: int
    seconds: float


class Measures(Frozen):
    """Information measures in nats; None where undefined (an absent class, a separation of 0)."""

    cmi: float
    separation: float
    ncmi: float | None
    class_cmi: list[float | None]
    class_separation: list[float | None]


class _Record(Frozen):
    """What all records hold.

    Attributes:
        dataset_sha256: fingerprint of the data.
        checkpoint_sha256: hash of the weights that were trained or attacked.
        inputs: hashes of what was taken from further cells, by their ids.
    """

    schema_: Literal["robustbench_cmic/record/3"] = Field(RECORD_SCHEMA, alias="schema")
    suite: str
    cell: Cell
    status: Literal["ok", "diverged", "failed"]
    reason: str = ""
    provenance: dict[str, Any]
    timing: Timing
    dataset_sha256: str | None = None
    checkpoint_sha256: str | None = None
    inputs: dict[str, str] = {}


class TrainRecord(_Record):
    """One training. `checkpoint_sha256` is the hash of its weights file; None unless status is `ok`.

    Attributes:
        parameters: number of trainable weights.
        mean, std: the normalisation layer, per channel.
        curve: one entry an epoch.
        last_finite: for a diverged training, the loss terms of the last step at which all were finite.
    """

    kind: Literal["train"] = "train"
    parameters: int | None = None
    mean: list[float] = []
    std: list[float] = []
    curve: list[Epoch] = []
    last_finite: dict[str, float] | None = None


class AttackRecord(_Record):
    """One attack at one eps on one trained model. The measured fields are None unless status is `ok`.

    Attributes:
        examples_sha256: hash of the indices of the evaluated examples.
        n: number of examples.
        accuracy: fraction still classified correctly, with its Wilson 95 % interval.
        outcomes: bit i (most significant first, base64) is 1 where example i is classified correctly.
        information: measured on the examples that the attack returned.
        ncmi_replicates: for the clean evaluation NCMI of bootstrap samples, see `information_bootstrap`, packed by
            `statistics.pack_replicates`; equal numbers stand for equal samples in all records of as many examples.
        outside: examples that the attack returned outside ball or box and the harness projected back.
        forwards, backwards: examples through the network for the attack; the judge's own passes are not in them.
        parts: of an attack that is made of several, in order.
        kept: examples whose adversarial example of a smaller ball was taken over.
        images_sha256: of the file of adversarial examples, where a larger ball may need them.
    """

    kind: Literal["attack"] = "attack"
    examples_sha256: str | None = None
    n: int | None = None
    accuracy: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    outcomes: str | None = None
    information: Measures | None = None
    ncmi_replicates: str | None = None
    outside: int | None = None
    forwards: int | None = None
    backwards: int | None = None
    parts: list[Part] = []
    kept: int = 0
    images_sha256: str | None = None


class Check(PlannedCheck):
    """One of the audit's own attacks, on its examples.

    Attributes:
        outcomes: packed like those of an attack record, for the audit's examples; None where the check crashed.
        error: why it crashed.
    """

    outcomes: str | None = None
    error: str = ""


class ActiveTest(Frozen):
    """An attack on models altered so that an adversarial example is in the ball (Zimmermann et al. 2022).

    Attributes:
        of: label of the suite's attack.
        attack: name and parameters.
        tested: images for which such a model could be built, and random points of the ball, as many as built it, found
            nothing.
        by_chance: images for which they did find an adversarial example; not tested.
        found: of the tested ones, those for which the attack found one.
        error: why the test crashed.
    """

    of: str
    norm: Literal["linf", "l2"]
    eps: float
    attack: dict[str, Any]
    tested: int = 0
    by_chance: int = 0
    found: int = 0
    error: str = ""


class Forward(Frozen):
    """How a model's forward pass behaves in eval mode; numbers of examples.

    Attributes:
        repeat: logits changed when the same images were passed again.
        companions: logits changed when other images were in the batch.
        training: names of layers that stay in training mode, or go back to it.
    """

    repeat: int
    companions: int
    training: list[str]


class Outputs(Frozen):
    """What a model's outputs on clean images look like; numbers of examples.

    Attributes:
        probabilities: all outputs are at least 0 and each example's add up to 1.
        saturated: float32 softmax rounds the largest probability to 1.
        at_bound: the largest output is the largest that any example has.
        median_lead: of the largest over the second logit.
    """

    probabilities: bool
    saturated: int
    at_bound: int
    median_lead: float


class Gradients(Frozen):
    """Gradients of a loss in the clean images that are classified correctly; numbers of examples.

    Attributes:
        loss: `ce` or `margin`.
        n: examples.
        zero: the gradient is 0 everywhere, or so small that float32 products with it are lost (below 1e-30).
        bad: it is NaN or infinite.
        unhelpful: the margin does not rise along the gradient's signs, by a step of a tenth of the smallest ball.
        error: why there is no gradient at all.
    """

    loss: Literal["ce", "margin"]
    n: int
    zero: int = 0
    bad: int = 0
    unhelpful: int = 0
    error: str = ""


class AuditRecord(_Record):
    """What is known of a trained model that decides whether attacks on it could succeed.

    Attributes:
        examples_sha256: hash of the indices of the evaluated examples.
        positions: which of the evaluated examples the audit took, counted from 0.
    """

    kind: Literal["audit"] = "audit"
    examples_sha256: str | None = None
    positions: list[int] = []
    forward_pass: Forward | None = None
    outputs: Outputs | None = None
    gradients: list[Gradients] = []
    checks: list[Check] = []
    active: list[ActiveTest] = []


AnyRecord = TrainRecord | AttackRecord | AuditRecord
RECORD_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])
