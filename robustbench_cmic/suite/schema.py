"""What a suite file may say: strict pydantic models, one class for each part of the file.

Parameters of attacks have torchattacks' names. Names of data sets, architectures and library attacks are checked in
`checks.py`, so that the schema needs neither torch nor the packages behind the names.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from robustbench_cmic.suite.numbers import Number, NumberList, Step

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=64)]
"""A word that is safe as a file name: letters, digits, `_`, `.`, `+`, `-`."""

Text = Annotated[str, StringConstraints(max_length=2000)]
Norm = Literal["linf", "l2"]
Loss = Literal["ce", "margin", "dlr"]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
UnitInterval = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Strict(BaseModel):
    """Unknown keys and wrong types are errors; nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


class Dataset(Strict):
    """Where the images come from."""

    name: Text


class Sgd(Strict):
    """Stochastic gradient descent with momentum (torch.optim.SGD)."""

    name: Literal["sgd"]
    lr: Positive
    momentum: UnitInterval = 0.9
    weight_decay: NonNegative = 5e-4
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("`nesterov` needs a `momentum` above 0")
        return self


class AdamW(Strict):
    """Adam with decoupled weight decay (torch.optim.AdamW)."""

    name: Literal["adamw"]
    lr: Positive
    weight_decay: NonNegative = 0.01


class Constant(Strict):
    """The learning rate stays as it is."""

    name: Literal["constant"]


class OneCycle(Strict):
    """Up and down once along cosines (Smith & Topin 2018); momentum is left alone."""

    name: Literal["onecycle"]
    warmup: Annotated[Number, Field(gt=0, lt=1)] = 0.3


class Cosine(Strict):
    """Down to zero along a cosine (Loshchilov & Hutter 2017)."""

    name: Literal["cosine"]


class MultiStep(Strict):
    """Times `gamma` at the start of each epoch of `milestones`, counted from 0."""

    name: Literal["multistep"]
    milestones: Annotated[list[Count], Field(min_length=1)]
    gamma: Positive = 0.1


class Training(Strict):
    """How every model of the suite is trained; only the objective differs between models."""

    epochs: Count
    batch_size: Annotated[int, Field(ge=2, le=10_000_000)]
    optimizer: Annotated[Sgd | AdamW, Field(discriminator="name")]
    schedule: Annotated[Constant | OneCycle | Cosine | MultiStep, Field(discriminator="name")] = Constant(
        name="constant"
    )


class CrossEntropy(Strict):
    """The baseline."""

    name: Literal["ce"]


class Cmic(Strict):
    """CMIC-DL (arXiv 2309.09123): cross entropy + lambda * concentration - beta * separation.

    Attributes:
        lambda_: weight of the concentration term.
        beta: weight of the separation term.
        centroids: `batch` updates the centroids with the step's own outputs, at no extra forward pass;
            `class_batches` is the paper's Algorithm 1, with `class_batch_size` extra examples of every class a step.
        momentum: how much of a centroid an update keeps; by default 0.99 for `batch`, for `class_batches` the
            paper's 0.9999 (chosen there for 156,000 steps; over 500 steps it leaves the centroids uniform).
        class_batch_size: |B_c| of Algorithm 1; only for `class_batches`.
        floor: least probability inside the separation term, which is unbounded without one.
    """

    name: Literal["cmic"]
    lambda_: Annotated[NonNegative, Field(alias="lambda")] = 0.7
    beta: NonNegative = 0.4
    centroids: Literal["batch", "class_batches"] = "batch"
    momentum: UnitInterval | None = None
    class_batch_size: Count = 8
    floor: Annotated[Number, Field(gt=0, lt=1)] = 1e-8

    @property
    def centroid_momentum(self) -> float:
        """`momentum`, or the default that goes with `centroids`."""
        if self.momentum is not None:
            return self.momentum
        return 0.99 if self.centroids == "batch" else 0.9999


OBJECTIVES = ("ce", "cmic")
Objective = Annotated[CrossEntropy | Cmic, Field(discriminator="name")]


class Model(Strict):
    """One model to train: an architecture and an objective; `id` names it in results."""

    id: Name
    architecture: Text
    objective: Objective


class Fgsm(Strict):
    """Fast gradient sign method (Goodfellow et al. 2015): one step of size eps; with `norm: l2` along the gradient."""

    name: Literal["FGSM"]
    id: Name | None = None
    norm: Norm = "linf"
    eps: NumberList
    loss: Loss = "ce"

    @property
    def label(self) -> str:
        """What results call it."""
        return self.id or self.name


class Pgd(Strict):
    """Projected gradient descent (Madry et al. 2018).

    Attributes:
        alpha: step size, absolute or as `eps/10`; by default 2.5 * eps / steps.
        random_start: start at a random point of the ball.
        restarts: how often to start; an example that one restart breaks is done.
        early_stop: drop an example as soon as any iterate is misclassified, and return that iterate.
    """

    name: Literal["PGD"]
    id: Name | None = None
    norm: Norm = "linf"
    eps: NumberList
    alpha: Step | None = None
    steps: Count = 10
    random_start: bool = True
    restarts: Count = 1
    loss: Loss = "ce"
    early_stop: bool = False

    @property
    def label(self) -> str:
        """What results call it."""
        return self.id or self.name


class LibraryAttack(BaseModel):
    """Any attack class of torchattacks by name; further keys are its own parameters.

    `eps` and `norm` say in which ball the result is judged; they are also passed to the attack where it takes them.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: Text
    id: Name | None = None
    norm: Norm | None = None
    eps: NumberList | None = None

    @property
    def label(self) -> str:
        """What results call it: `id`, or the name. The field's AutoAttack is another than torchattacks'."""
        return self.id or ("torchattacks.AutoAttack" if self.name == "AutoAttack" else self.name)

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the attack's own, as written."""
        return dict(self.model_extra or {})


NATIVE_ATTACKS = ("FGSM", "PGD")


def _attack_kind(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    return name if name in NATIVE_ATTACKS else "library"


Attack = Annotated[
    Annotated[Fgsm, Tag("FGSM")] | Annotated[Pgd, Tag("PGD")] | Annotated[LibraryAttack, Tag("library")],
    Discriminator(_attack_kind),
]


class Evaluation(Strict):
    """Which examples are attacked: the first `limit` of the test split, or all."""

    limit: Count | None = None


class Suite(Strict):
    """A whole suite file, matrices expanded."""

    suite: Name
    description: Text = ""
    dataset: Dataset
    training: Training
    models: Annotated[list[Model], Field(min_length=1)]
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = [0]
    attacks: list[Attack] = []
    evaluation: Evaluation = Evaluation()
