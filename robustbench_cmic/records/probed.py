"""What the probes of an audit find of a model: parts of its record."""

from __future__ import annotations

from typing import Literal

from robustbench_cmic.suite.fields import Frozen


class Forward(Frozen):
    """How a model's forward pass behaves in eval mode; numbers of examples.

    An example counts where it happens to the clean image, to a random point of its ball, or to one that PGD returned;
    in older records, to the clean image.

    Attributes:
        repeat: logits changed when the same images were passed again, also after a pass back.
        companions: logits changed in a batch of other images or of another size (1, 7, 32, 256).
        training: names of layers that stay in training mode, or go back to it.
        companion_gradients: the gradient of the margin changed in a batch of other images and size.
        grad_mode: logits are others where gradients are asked for, or may be.
        copies: a copy of the model gives other logits.
    """

    repeat: int
    companions: int
    training: list[str]
    companion_gradients: int = 0
    grad_mode: int = 0
    copies: int = 0


class Outputs(Frozen):
    """What a model's outputs on clean images look like; numbers of examples."""

    probabilities: bool  # all outputs are at least 0 and each example's add up to 1
    saturated: int  # float32 softmax rounds the largest probability to 1
    at_bound: int  # the largest output is the largest that any example has
    median_lead: float  # of the largest over the second logit


class Gradients(Frozen):
    """Gradients of a loss in the clean images that are classified correctly; numbers of examples.

    Attributes:
        zero: the gradient is 0 everywhere, or so small that float32 products with it are lost (below 1e-30).
        unhelpful: the margin does not rise along the gradient's signs, by a step of a tenth of the smallest ball.
        astray: of cross entropy: what float32 leaves of the gradient gives a step that raises the loss clearly less
            than the exact gradient's does; None for other losses, and in records from before it was measured.
    """

    loss: Literal["ce", "margin"]
    n: int
    zero: int = 0
    bad: int = 0  # it is NaN or infinite
    unhelpful: int = 0
    astray: int | None = None
    error: str = ""  # why there is no gradient at all


class Derivatives(Frozen):
    """Gradients of the margin against finite differences, at one place; numbers of examples.

    Attributes:
        place: the clean images, random points of their balls, or what PGD makes of these; all moved by 0.001 at most.
        wrong: along some direction the gradient tells another slope than the differences do.
        stairs: differences of small steps are exactly 0 in all directions, and a large step changes the loss.
        unhelpful: a small step along the gradient's signs raises the margin no more than random signs move it.
        typical_error: relative error of the slopes that nine in ten examples stay below.
        single: the differences are those of float32, since the model cannot compute in float64.
    """

    place: Literal["clean", "random", "attacked"]
    n: int
    wrong: int = 0
    stairs: int = 0
    unhelpful: int = 0
    typical_error: float = 0.0
    single: bool = False
    error: str = ""  # why there are none
