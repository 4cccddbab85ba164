"""The schema's part on trainings: optimisers, schedules, augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from robustbench_cmic.suite.fields import Count, NonNegative, Number, Positive, Strict, UnitInterval


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
    """The learning rate stays as it is.

    Attributes:
        warmup_epochs: rise linearly from near zero over this many epochs first; here and in the schedules below.
    """

    name: Literal["constant"]
    warmup_epochs: NonNegative = 0.0


class OneCycle(Strict):
    """Up and down once along cosines (Smith & Topin 2018); momentum is left alone."""

    name: Literal["onecycle"]
    warmup: Annotated[Number, Field(gt=0, lt=1)] = 0.3


class Cosine(Strict):
    """Down to zero along a cosine (Loshchilov & Hutter 2017), over what the warm-up leaves."""

    name: Literal["cosine"]
    warmup_epochs: NonNegative = 0.0


class MultiStep(Strict):
    """Times `gamma` at the start of each epoch of `milestones`, counted from 0."""

    name: Literal["multistep"]
    milestones: Annotated[list[Count], Field(min_length=1)]
    gamma: Positive = 0.1
    warmup_epochs: NonNegative = 0.0


class Augmentation(Strict):
    """Random changes of training images, drawn anew for every image and epoch.

    Attributes:
        crop: shift by up to this many pixels each way: pad with black, crop at random; 0: none.
        flip: mirror left to right with probability 1/2.
        cutout: side in pixels of a square at a random place that is set to the mean colour (DeVries & Taylor 2017);
            0: none.
    """

    crop: Annotated[int, Field(ge=0, le=512)] = 0
    flip: bool = False
    cutout: Annotated[int, Field(ge=0, le=4096)] = 0


class Training(Strict):
    """How every model of the suite is trained; only the objective differs between models.

    Attributes:
        limit: train on this many images only, as many of every class, drawn once and for all; None: all.
    """

    epochs: Count
    batch_size: Annotated[int, Field(ge=2, le=10_000_000)]
    optimizer: Annotated[Sgd | AdamW, Field(discriminator="name")]
    schedule: Annotated[Constant | OneCycle | Cosine | MultiStep, Field(discriminator="name")] = Constant(
        name="constant"
    )
    augmentation: Augmentation = Augmentation()
    limit: Annotated[int, Field(ge=2, le=10_000_000)] | None = None
