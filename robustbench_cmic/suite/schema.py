"""What a suite file may say: strict pydantic models, one class for each part of the file.

Names of architectures and library attacks are checked in
`checks.py`, so that the schema needs neither torch nor the packages behind the names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

from robustbench_cmic.suite.fields import (
    OWN_TAG,
    Count,
    Name,
    NonNegative,
    Norm,
    OwnName,
    Positive,
    Seed,
    Strict,
    Text,
    UnitInterval,
)
from robustbench_cmic.suite.numbers import Number, Step, resolve_relative
from robustbench_cmic.suite.schema_attacks import Attack
from robustbench_cmic.suite.schema_training import Training

FilePath = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class NamedDataset(Strict):
    """A data set that is known by name; all but `digits` lie in the data folder or are downloaded to it."""

    name: Literal["digits", "cifar10", "cifar100", "mnist", "fashion_mnist", "svhn"]

    @property
    def label(self) -> str:
        """What results call it."""
        return self.name


class Arrays(Strict):
    """A `.npz` of x_train, y_train, x_test and y_test; `path` is absolute or in the data folder."""

    name: Literal["arrays"]
    path: FilePath

    @property
    def label(self) -> str:
        """What results call it."""
        return f"{self.name}:{self.path}"


class ImageFolder(Strict):
    """Image files in train/<class>/ and test/<class>/ (or val/<class>/) under `path`.

    Attributes:
        path: absolute, or in the data folder.
        size: height and width in pixels to which the central square of every image is resized.
    """

    name: Literal["imagefolder"]
    path: FilePath
    size: Annotated[int, Field(ge=8, le=4096)]

    @property
    def label(self) -> str:
        """What results call it."""
        return f"{self.name}:{self.path}"


Dataset = Annotated[NamedDataset | Arrays | ImageFolder, Field(discriminator="name")]


class Adversary(Strict):
    """Adversarial training (Madry et al. 2018): every step learns from images that PGD finds near its own.

    The images are changed after their augmentation, by an attack on the model in eval mode. What a training's curve
    shows is measured on the changed images. The extra examples of `centroids: class_batches` stay as they are.

    Attributes:
        norm: of the ball.
        eps: its radius.
        alpha: step size, absolute or as `eps/4`; by default 2.5 * eps / steps.
        steps: of the attack; each costs a pass forward and one back.
        loss: what the attack raises, whatever the objective lowers; `ce` stalls where logits lead by 17 and more.
        random_start: start at a random point of the ball.
    """

    norm: Norm = "linf"
    eps: Positive
    alpha: Step | None = None
    steps: Count = 10
    loss: Literal["ce", "margin", "dlr"] = "ce"
    random_start: bool = True

    @model_validator(mode="after")
    def _alpha_is_finite(self) -> Adversary:
        self.resolved()
        return self

    def resolved(self) -> dict[str, Any]:
        """Every parameter, `alpha` as a number.

        Raises:
            ValueError: a step that is not finite; no validated adversary has one.
        """
        alpha = f"2.5*eps/{self.steps}" if self.alpha is None else self.alpha
        return self.model_dump() | {"alpha": resolve_relative(alpha, self.eps)}


class CrossEntropy(Strict):
    """The baseline.

    Attributes:
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016).
        adversary: changes the images that it is trained on; None: nobody does.
    """

    name: Literal["ce"]
    label_smoothing: UnitInterval = 0.0
    adversary: Adversary | None = None


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
        label_smoothing: as for `ce`, in the cross-entropy term.
        adversary: as for `ce`.
    """

    name: Literal["cmic"]
    lambda_: Annotated[NonNegative, Field(alias="lambda")] = 0.7
    beta: NonNegative = 0.4
    centroids: Literal["batch", "class_batches"] = "batch"
    momentum: UnitInterval | None = None
    class_batch_size: Count = 8
    floor: Annotated[Number, Field(gt=0, lt=1)] = 1e-8
    label_smoothing: UnitInterval = 0.0
    adversary: Adversary | None = None

    @property
    def centroid_momentum(self) -> float:
        """`momentum`, or the default that goes with `centroids`."""
        if self.momentum is not None:
            return self.momentum
        return 0.99 if self.centroids == "batch" else 0.9999


class OwnObjective(BaseModel):
    """An objective of your own: `name(classes, **parameters)` returns a `robustbench_cmic.objectives.Objective`.

    Further keys are its parameters: numbers, words, true/false, or lists of these.

    Attributes:
        name: `package.module:name` of a class or function.
        adversary: as for `ce`.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: OwnName
    adversary: Adversary | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that are the objective's own, as written."""
        return dict(self.model_extra or {})


OBJECTIVES = ("ce", "cmic")


def _objective_kind(value: Any) -> str | None:
    if not isinstance(value, dict | BaseModel):
        return OBJECTIVES[0]  # any: what they all say first is that it should be a mapping
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if isinstance(name, str) and ":" in name:
        return OWN_TAG
    return None if name is None else str(name)


Objective = Annotated[
    Annotated[CrossEntropy, Tag("ce")] | Annotated[Cmic, Tag("cmic")] | Annotated[OwnObjective, Tag(OWN_TAG)],
    Discriminator(_objective_kind),
]


class Normalization(Strict):
    """Mean and standard deviation per channel of images in [0, 1], for weights that were trained with others."""

    mean: Annotated[list[Number], Field(min_length=1, max_length=16)]
    std: Annotated[list[Positive], Field(min_length=1, max_length=16)]


class Model(Strict):
    """One model: an architecture, and the objective to train it with or the weights to load into it.

    Attributes:
        id: names it in results.
        architecture: a name of `list`, any model of timm, or `package.module:function` of your own, which is called
            with the shape (C, H, W) and the number of classes and returns a module that maps images to logits.
        objective: what to train with; None for given weights of unknown training.
        stem: `small` gives a ResNet of timm the first layer for small images: 3x3, stride 1, no max-pooling.
        weights: a .safetensors file instead of a training, in the suite's folder; `{seed}` in it stands for the seed.
        pretrained: load timm's weights instead of training.
        normalization: what the first layer subtracts and divides by; by default the moments of the training images,
            for pretrained weights timm's.
    """

    id: Name
    architecture: Text
    objective: Objective | None = None
    stem: Literal["default", "small"] = "default"
    weights: Text | None = None
    pretrained: bool = False
    normalization: Normalization | None = None

    @property
    def given(self) -> bool:
        """Its weights are loaded, not trained."""
        return self.weights is not None or self.pretrained

    def weights_file(self, seed: int) -> Path:
        """The file of `weights` for a seed."""
        return Path((self.weights or "").replace("{seed}", str(seed)))


class Evaluation(Strict):
    """Which examples are attacked.

    Attributes:
        split: of the data set.
        limit: how many examples, drawn once and for all; None: all.
        per_class: as many of every class (up to one).
    """

    split: Literal["train", "test"] = "test"
    limit: Count | None = None
    per_class: bool = False


class Suite(Strict):
    """A whole suite file, matrices expanded.

    Attributes:
        audit: whether every trained model and its attacks are checked for masked gradients; `strict` on more examples.
    """

    suite: Name
    description: Text = ""
    dataset: Dataset
    training: Training | None = None
    models: Annotated[list[Model], Field(min_length=1)]
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = [0]
    attacks: list[Attack] = []
    evaluation: Evaluation = Evaluation()
    audit: Literal["strict", "standard", "off"] = "standard"
