"""How models are trained: optimisers, schedules, augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from robustbench_cmic.suite.fields import Count, NonNegative, Number, Positive, Strict, UnitInterval


class DeclaredOptimizer(Strict):
    """An optimiser: a class of torch, `package.module:name`, called with weights and the other keys."""

    implementation: ClassVar[str]
    on_gpu: ClassVar[dict[str, bool]] = {"fused": True}  # further keywords there; those of AdamW fit for CUDA graphs


class Sgd(DeclaredOptimizer):
    """Stochastic gradient descent with momentum (torch.optim.SGD)."""

    implementation = "torch.optim:SGD"
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


class AdamW(DeclaredOptimizer):
    """Adam with decoupled weight decay (torch.optim.AdamW)."""

    implementation = "torch.optim:AdamW"
    on_gpu = {"fused": True, "capturable": True}
    name: Literal["adamw"]
    lr: Positive
    weight_decay: NonNegative = 0.01


AnyOptimizer = Annotated[Sgd | AdamW, Field(discriminator="name")]


class DeclaredSchedule(Strict):
    """A learning rate as a pure function of the step, so that a resumed training needs no scheduler state.

    Equal to torch's MultiStepLR, CosineAnnealingLR and OneCycleLR (cosine, start 1/25, end 1/250,000) stepped every
    batch. A warm-up of w steps rises along (step + 1) / w; a cosine begins after it.
    """

    def factor(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """What to multiply the base rate with at step 0 ... steps - 1: in [0, 1], or beyond for a `gamma` above 1."""
        warmup = round(self._warmup_epochs * steps_per_epoch)
        return (step + 1) / warmup if step < warmup else self._after_warmup(step, steps, steps_per_epoch, warmup)

    def _after_warmup(self, step: int, steps: int, steps_per_epoch: int, warmup: int) -> float:
        raise NotImplementedError

    def warnings(self, epochs: int) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What a training of so many epochs never reaches: (location below `schedule`, sentence) pairs."""
        if self._warmup_epochs >= epochs:
            yield ("warmup_epochs",), "the training ends before the warm-up does"

    @property
    def _warmup_epochs(self) -> float:
        return float(getattr(self, "warmup_epochs", 0))


class Constant(DeclaredSchedule):
    """The learning rate rises linearly from near zero over `warmup_epochs`, if any, and stays as it is."""

    name: Literal["constant"]
    warmup_epochs: NonNegative = 0.0

    def _after_warmup(self, _step: int, _steps: int, _steps_per_epoch: int, _warmup: int) -> float:
        return 1.0


class OneCycle(DeclaredSchedule):
    """Up and down once along cosines (Smith & Topin 2018); momentum is left alone."""

    name: Literal["onecycle"]
    warmup: Annotated[Number, Field(gt=0, lt=1)] = 0.3

    def _after_warmup(self, step: int, steps: int, _steps_per_epoch: int, _warmup: int) -> float:
        peak = max(self.warmup * steps - 1, 0.0)
        if step <= peak:
            return _cosine(1 / 25, 1.0, step / peak if peak else 1.0)
        return _cosine(1.0, 1 / 250_000, (step - peak) / (steps - 1 - peak))


class Cosine(DeclaredSchedule):
    """Down to zero along a cosine (Loshchilov & Hutter 2017), over what the warm-up leaves."""

    name: Literal["cosine"]
    warmup_epochs: NonNegative = 0.0

    def _after_warmup(self, step: int, steps: int, _steps_per_epoch: int, warmup: int) -> float:
        return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


class MultiStep(DeclaredSchedule):
    """Times `gamma` at the start of each epoch of `milestones`, counted from 0."""

    name: Literal["multistep"]
    milestones: Annotated[list[Count], Field(min_length=1)]
    gamma: Positive = 0.1
    warmup_epochs: NonNegative = 0.0

    def _after_warmup(self, step: int, _steps: int, steps_per_epoch: int, _warmup: int) -> float:
        # Milestones count from the start of the training, not from the end of the warm-up.
        return float(self.gamma ** sum(step >= epoch * steps_per_epoch for epoch in self.milestones))

    def warnings(self, epochs: int) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Milestones after the last epoch, too."""
        for index, epoch in enumerate(self.milestones):
            if epoch >= epochs:
                yield ("milestones", index), f"epoch {epoch} is never reached: training has {epochs}"
        yield from super().warnings(epochs)


AnySchedule = Annotated[Constant | OneCycle | Cosine | MultiStep, Field(discriminator="name")]


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


class Augmentation(Strict):
    """Random changes of training images, drawn anew for every image and epoch, made in the order of `training.augment`.

    Attributes:
        crop: shift by up to this many pixels each way: pad with black, crop at random; 0: none.
        flip: mirror left to right with probability 1/2.
        rotation: turn by an angle between minus and plus this many degrees, bilinearly, black outside; 0: none.
        jitter: strength s of changes of brightness, contrast and saturation, each times a factor between max(0, 1 - s)
            and 1 + s; 0: none.
        cutout: side in pixels of a square at a random place that is set to the mean colour (DeVries & Taylor 2017);
            0: none.
    """

    crop: Annotated[int, Field(ge=0, le=512)] = 0
    flip: bool = False
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0
    rotation: Annotated[Number, Field(ge=0, le=180)] = 0.0
    jitter: Annotated[Number, Field(ge=0, le=10)] = 0.0


MOST_OUTPUTS = 70_000
"""Numbers that a record may keep of outputs: 187 kB as base64 of float16."""


class DeclaredOutputs(Strict):
    """What the record of a training keeps of the network's logits, for pictures: of test images, over the epochs.

    Attributes:
        classes: of so many classes; where there are more, of some that are evenly spaced among them.
        per_class: test images of each of these classes, or as many as there are.
        epochs: after so many epochs, evenly spaced, the first and the last one among them.
    """

    classes: Annotated[int, Field(ge=3, le=1000)] = 10
    per_class: Count = 20
    epochs: Annotated[int, Field(ge=2, le=1000)] = 11

    @model_validator(mode="after")
    def _records_stay_small(self) -> DeclaredOutputs:
        numbers = self.classes**2 * self.per_class * self.epochs
        if numbers > MOST_OUTPUTS:
            what = f"classes^2 x per_class x epochs = {numbers} numbers in every record"
            raise ValueError(f"`outputs` keeps {what}: more than {MOST_OUTPUTS} are too many, lower one of the three")
        return self


HELD_OUT = 0.1
"""Share of the training images that tells the best epoch of robust training, whose last one is worse."""
TUNED = ("lr", "weight_decay")
"""Keys of an optimiser in which models of a pair may differ: what suits one objective need not suit another."""
WITHOUT_BEST = "`held_out` has no effect without `select: best`: leave it out"


class Training(Strict):
    """How every model of the suite is trained; only the objective differs between models.

    Attributes:
        limit: train on so many images only, as many of every class, drawn once and for all.
        select: which epoch's weights a training leaves: those of the `last`, or of the `best` on the held-out images.
            By default `last`; in a suite that trains a model against an adversary `best`, for all of its models.
        held_out: how many of the training images (of those that `limit` leaves) are not learned from, but tell which
            epoch is best: a share below 1, or a number of images; of each class its share, the same for every model.
            By default `HELD_OUT`, where `best` is the default.
        outputs: what records keep for pictures; no weight depends on it, so that cells do not declare it.
    """

    epochs: Count
    batch_size: Annotated[int, Field(ge=2, le=10_000_000)]
    optimizer: AnyOptimizer
    schedule: AnySchedule = Constant(name="constant")
    augmentation: Augmentation = Augmentation()
    limit: Annotated[int, Field(ge=2, le=10_000_000)] | None = None
    select: Literal["last", "best"] | None = None
    held_out: Positive | None = None
    outputs: DeclaredOutputs | None = None

    @model_validator(mode="after")
    def _held_out_images_are_those_that_select(self) -> Training:
        if self.select == "best" and self.held_out is None:
            raise ValueError("`select: best` needs `held_out`, a share of the training images such as 0.1, or a number")
        if self.held_out is not None and self.select == "last":
            raise ValueError(WITHOUT_BEST)
        if self.held_out is not None and self.held_out >= 1 and not self.held_out.is_integer():
            raise ValueError(f"`held_out` should be a share below 1 or a number of images, not {self.held_out:g}")
        if self.limit is not None and self.limit - self.held_out_images(self.limit) < 2:
            raise ValueError(f"`held_out` leaves fewer than two of the {self.limit} images of `limit` to learn from")
        return self

    def held_out_images(self, images: int) -> int:
        """How many of so many training images are held out: of a share at least one."""
        if self.held_out is None:
            return 0
        return int(self.held_out) or max(1, round(self.held_out * images))

    def steps_of_epoch(self, images: int) -> int:
        """Batches of so many images; a last batch of one image, which batch normalisation cannot take, is left out."""
        whole, rest = divmod(images, self.batch_size)
        return whole + (rest > 1)

    def steps(self, images: int, adversarial: bool = False) -> int:
        """Of the whole training, on those of so many images that are not held out; `adversarial`: as for `declared`."""
        by_default = adversarial and self.select is None and self.held_out is None
        whole = self.model_copy(update={"held_out": HELD_OUT}) if by_default else self
        return self.epochs * self.steps_of_epoch(max(0, images - whole.held_out_images(images)))

    def declared(self, adversarial: bool = False) -> dict[str, Any]:
        """What decides a training, as a cell declares it: plain data; what is optional only where it is asked for.

        `adversarial`: its suite trains a model against an adversary.
        """
        declared = self.model_dump(exclude_none=True, exclude={"outputs"})
        if self.select is None and adversarial:
            declared |= {"select": "best", "held_out": self.held_out or HELD_OUT}
        for key in ("rotation", "jitter"):
            if not declared["augmentation"][key]:
                del declared["augmentation"][key]
        if declared.get("select") == "last":
            del declared["select"]
        return declared
