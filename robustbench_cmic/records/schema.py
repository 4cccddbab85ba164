"""What records hold: typed, versioned, plain data. `store` reads and writes them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, TypeAdapter

from robustbench_cmic.plan.audit import PlannedCheck
from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.probed import Derivatives, Forward, Gradients, Outputs
from robustbench_cmic.suite.fields import Frozen, Norm

RECORD_SCHEMA: Literal["robustbench_cmic/record/3"] = "robustbench_cmic/record/3"
Status = Literal["ok", "diverged", "failed", "skipped"]
"""How a cell has ended; `skipped`, since one that it depends on did not end well, leaves no record."""


class Timing(Frozen):
    """The only part of a record that differs between equal runs on one machine."""

    started: str  # UTC, ISO 8601
    seconds: float  # wall time of the cell; of a resumed training, of its last part
    resumed_after_epoch: int | None = None  # the epoch after which a killed training was taken up again
    examples_per_second: float | None = None  # of the training, or of the whole attack
    peak_memory: int | None = None  # bytes, on a GPU for this cell alone, on the CPU of the process since it began


class Epoch(Frozen):
    """One epoch of training, measured on the batches it trained on, while the weights moved."""

    epoch: int  # counted from 1
    lr: float  # learning rate of the last step
    loss: dict[str, float]  # the mean of each term of the objective; `total` is what was minimised
    accuracy: float  # fraction in [0, 1]
    cmi: float  # nats, as separation; see `information`
    separation: float
    ncmi: float | None
    held_out: float | None = None  # accuracy after the epoch on held-out training images, under an adversary its attack
    checked: float | None = None  # accuracy under 5 steps on one training batch, where a method may overfit at once


class Part(Frozen):
    """What one of the attacks did that make up another, such as AutoAttack's."""

    name: str
    attacked: int  # examples that the parts before it had left
    broken: int  # how many of them it broke
    forwards: int  # examples through the network, as backwards
    backwards: int
    seconds: float


class Measures(Frozen):
    """Information measures in nats; None where undefined (those of an absent class, NCMI at a separation of 0)."""

    cmi: float
    separation: float
    ncmi: float | None
    class_cmi: list[float | None]
    class_separation: list[float | None]


class CalibratedMeasures(Frozen):
    """What is measured at the temperatures of `Calibration`: of all examples, each half's logits over the other's.

    Attributes:
        ncmi_replicates: as in `AttackRecord`, of the same samples; the temperatures are not fitted again in each.
        confidence, nll_replicates, confidence_replicates: as in `Calibration`, in the same records.
    """

    cmi: float  # nats, as separation
    separation: float
    ncmi: float | None  # None where separation is 0
    nll: float  # as in `Calibration`
    ece: float
    brier: float
    confidence: float | None = None
    ncmi_replicates: str
    nll_replicates: str | None = None
    confidence_replicates: str | None = None


class Calibration(Frozen):
    """How well outputs fit the labels, as they come and at the temperature that fits best; `information.calibration`.

    Attributes:
        temperatures: that minimise NLL on the first and on the second half of the examples; None where there is none.
        undefined: why one of them is None.
        calibrated: None where one of them is.
        confidence: mean of the largest probability, in [1/C, 1]; None, as the replicates of it and of NLL, in records
            from before it was measured.
        nll_replicates, confidence_replicates: of the samples of `AttackRecord.ncmi_replicates`.
    """

    nll: float  # negative log-likelihood of the labels, nats
    ece: float  # expected calibration error over 15 bins, in [0, 1]
    brier: float  # Brier score, in [0, 2]
    confidence: float | None = None
    nll_replicates: str | None = None
    confidence_replicates: str | None = None
    temperatures: tuple[PositiveFloat | None, PositiveFloat | None]
    undefined: str = ""
    calibrated: CalibratedMeasures | None = None

    @property
    def temperature(self) -> float | None:
        """The geometric mean of both, for temperatures are factors; None where one of them is."""
        first, second = self.temperatures
        return None if first is None or second is None else math.sqrt(first) * math.sqrt(second)


class Fingerprint(Frozen):
    """How a trained model answers, to tell whether one that is built anew from its weights is the same.

    Attributes:
        images: training images, evenly spaced among all; their logits are those of eval mode, in float32.
        logits: of the first 16 classes (fewer where there are fewer), packed by `pack_replicates`.
        outside: digests of attributes that the state dict does not hold, by name; for messages.
        repeatable: a second pass gave the same bits.
    """

    images: int
    logits: str
    outside: dict[str, str] = {}
    repeatable: bool = True


class KeptOutputs(Frozen):
    """Logits of some test examples over a training, in eval mode: what pictures of the simplex are made from.

    Attributes:
        classes: whose logits these are, K labels, ascending; the examples are of these classes, too.
        names: of these classes; none where they have none.
        counts: examples of each of these classes, N in all; they come class by class.
        examples_sha256: hash of their indices in the test split.
        epochs: after which, E of them, ascending.
        logits: (E, N, K), less the greatest of each example, which no softmax sees; packed by `pack_logits`.
    """

    classes: list[int]
    names: list[str] = []
    counts: list[Annotated[int, Field(ge=0)]]
    examples_sha256: str
    epochs: list[int]
    logits: str


class Features(Frozen):
    """The columns of a table, and how they became numbers in [0, 1]: (box + clip((x - mean) / std)) / (2 box).

    Attributes:
        mean, std: of the training rows, one a column.
        box: standard deviations from the mean at which values are clipped; 2 box of them are as long as [0, 1].
        clipped: how many values of all rows were.
    """

    names: list[str]
    mean: list[float]
    std: list[PositiveFloat]
    box: PositiveFloat
    clipped: int


class WithoutNormalization(Frozen):
    """Given weights on the same clean examples without the normalisation that is put in front of them."""

    accuracy: float  # fraction
    gained: Annotated[int, Field(ge=0)]  # examples that only this way are classified correctly
    lost: Annotated[int, Field(ge=0)]  # only behind the normalisation


class _Record(Frozen):
    """What all records hold."""

    schema_: Literal["robustbench_cmic/record/3"] = Field(RECORD_SCHEMA, alias="schema")
    suite: str
    cell: Cell
    status: Literal["ok", "diverged", "failed"]
    reason: str = ""
    provenance: dict[str, Any]
    timing: Timing
    dataset_sha256: str | None = None  # fingerprint of the data
    checkpoint_sha256: str | None = None  # of the weights that were trained or attacked
    inputs: dict[str, str] = {}  # hashes of what was taken from further cells, by their ids


class TrainRecord(_Record):
    """One training. `checkpoint_sha256` is the hash of its weights file; None unless status is `ok`."""

    kind: Literal["train"] = "train"
    parameters: int | None = None  # number of trainable weights
    left_out: list[str] = []  # files of a user's own folder of images that were not read, by their paths in it
    mean: list[float] = []  # of the normalisation layer, per channel, as std
    std: list[float] = []
    image_shape: tuple[int, int, int] | None = None  # (C, H, W); None, as classes, in records from before it was told
    classes: int | None = None
    features: Features | None = None  # of a table
    curve: list[Epoch] = []
    selected_epoch: int | None = None  # whose weights were kept, where they are not those of the last one as such
    stopped: str = ""  # why it ended early all the same, as a sentence; its weights are those of `selected_epoch`
    last_finite: dict[str, float] | None = None  # if diverged, the loss terms of the last step at which all were finite
    outputs: KeptOutputs | None = None  # where the suite asks for them
    fingerprint: Fingerprint | None = None  # None in records from before there was one, and of outputs that are random


class AttackRecord(_Record):
    """One attack at one eps on one trained model. The measured fields are None unless status is `ok`.

    Attributes:
        ncmi_replicates: for the clean evaluation NCMI of bootstrap samples, see `information.bootstrap`, packed by
            `pack_replicates`; equal numbers stand for equal samples in all records of as many examples.
        calibration: of the clean evaluation; None in records from before it was measured, and of a single example.
        without_normalization: of the clean evaluation of given weights that have one; None in records from before it
            was measured.
    """

    kind: Literal["attack"] = "attack"
    examples_sha256: str | None = None  # hash of the indices of the evaluated examples
    n: int | None = None  # number of examples
    accuracy: float | None = None  # fraction still classified correctly, with its Wilson 95 % interval
    ci_low: float | None = None
    ci_high: float | None = None
    outcomes: str | None = None  # bit i (most significant first, base64) is 1 where example i is classified correctly
    information: Measures | None = None  # measured on the examples that the attack returned
    masked: int = 0  # examples with a class of logit -infinity; `information` is then over the finite classes
    ncmi_replicates: str | None = None
    calibration: Calibration | None = None
    without_normalization: WithoutNormalization | None = None
    outside: int | None = None  # examples returned outside ball or box, which the harness projected back
    forwards: int | None = None  # examples through the network for the attack, without the judge's own, as backwards
    backwards: int | None = None
    parts: list[Part] = []  # of an attack that is made of several, in order
    kept: int = 0  # examples whose adversarial example of a smaller ball was taken over
    images_sha256: str | None = None  # of the file of adversarial examples, where a larger ball may need them
    outside_box: int | None = None  # of those `outside`, examples with values beyond [0, 1]
    vanished: int | None = None  # survivors, most of whose gradients were lost on the way of an attack of others' code


class Check(PlannedCheck):
    """One of the audit's own attacks, on its examples, or on those that the checks before it have left.

    Attributes:
        outcomes: like those of an attack record, for all of the audit's examples: those that the check did not attack
            count as correct. None where the check crashed.
    """

    outcomes: str | None = None
    error: str = ""  # why it crashed


class ActiveTest(Frozen):
    """An attack on models altered so that an adversarial example is in the ball (Zimmermann et al. 2022).

    Attributes:
        tried: images, all classified correctly, for which it was tried to build such a model; None in older records.
        tested: images for which such a model could be built, and random points of the ball, as many as built it, found
            nothing.
        by_chance: images for which they did find an adversarial example; not tested.
        found: of the tested ones, those for which the attack found one.
    """

    of: str  # as norm, eps and attack in `PlannedCheck`
    norm: Norm
    eps: float
    attack: dict[str, Any]
    tried: int | None = None
    tested: int = 0
    by_chance: int = 0
    found: int = 0
    error: str = ""  # why the test crashed


class AuditRecord(_Record):
    """What is known of a trained model that decides whether attacks on it could succeed."""

    kind: Literal["audit"] = "audit"
    examples_sha256: str | None = None  # hash of the indices of the evaluated examples
    positions: list[int] = []  # which of the evaluated examples the audit took, counted from 0
    forward_pass: Forward | None = None
    outputs: Outputs | None = None
    gradients: list[Gradients] = []
    derivatives: list[Derivatives] = []  # none in records from before they were taken
    checks: list[Check] = []
    active: list[ActiveTest] = []


AnyRecord = TrainRecord | AttackRecord | AuditRecord
RECORD_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])
