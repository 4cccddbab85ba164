"""What an attack sees of a model: logits, counted, in eval mode, and as little of its memory as there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robustbench_cmic.attacks.threat import l2_norms
from robustbench_cmic.models.layout import row_major
from robustbench_cmic.suite.messages import UserError

MIN_ROWS = 16
VANISHED = 1e-30
"""Entries of a gradient below this are lost in float32 products with weights and activations."""
Result = TypeVar("Result")


class AttackError(UserError):
    """An attack or a model that gave no usable result; the message says what happened."""


class GradientWatch:
    """How often each example's gradient was too small for the attack that asked for it.

    Passes of some of the examples only are not counted: nobody knows whose gradients they are.

    Attributes:
        examples: how many are attacked together.
        addend: what the attack adds to the length of a gradient before it divides by it.
    """

    def __init__(self, examples: int, addend: float) -> None:
        self.examples = examples
        self.addend = addend
        self._seen = 0
        self._lost: Tensor | int = 0

    def note(self, gradient: Tensor) -> None:
        """Look at the gradients in the images, (N, C, H, W): lost are those shorter than the addend, and zeros."""
        if len(gradient) == self.examples:
            gradient = gradient.detach().float()
            lost = (gradient.flatten(1).abs().amax(1) < VANISHED) | (l2_norms(gradient).flatten() < self.addend)
            self._seen, self._lost = self._seen + 1, self._lost + lost.long()

    def mostly_lost(self, examples: Tensor) -> int | None:
        """For how many of the examples, (N,) truth values, most gradients were lost; None where none was seen."""
        return int(((2 * self._lost > self._seen) & examples).sum()) if self._seen else None


class CountedModel(nn.Module):
    """What an attack sees of a model: logits, counted, independent of how many examples come at once.

    Matrix products over very few rows take other paths in the numerical libraries and round differently. Batches
    below `MIN_ROWS` are therefore filled up with copies of their first row, and the copies' logits dropped.

    Attributes:
        rows: examples that go through the network together; more are split, and their activations computed again for
            the gradient instead of kept, so that the memory an attack needs does not depend on its batch.
        forwards, backwards: examples that went through the network, and whose gradient went back through it.
        watch: set for attacks of other people's: gradients are noted there, and are handed back row by row in memory,
            however the model is laid out.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.rows: int | None = None
        self.forwards = 0
        self.backwards = 0
        self.watch: GradientWatch | None = None

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images -> (N, classes) logits.

        Raises:
            AttackError: the model returned something else than (N, classes).
        """
        n = len(images)
        if self.watch is not None:
            images = row_major(images)
            if images.requires_grad:
                images.register_hook(self._hand_back)  # type: ignore[no-untyped-call]
        filled = torch.cat([images, images[:1].expand(MIN_ROWS - n, *images.shape[1:])]) if 0 < n < MIN_ROWS else images
        logits, expected = self._logits(filled), (len(filled), self.classes)
        if not isinstance(logits, Tensor):
            raise AttackError(f"the model should return logits, not a {type(logits).__name__}")
        if logits.shape != expected:
            raise AttackError(f"the model should return logits of shape {expected}, not {tuple(logits.shape)}")
        logits = logits[:n] if self.watch is None else row_major(logits[:n])
        self.forwards += n
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits

    def _logits(self, images: Tensor) -> Tensor:
        if self.rows is None or len(images) <= self.rows:
            logits: Tensor = self.model(images)
            return logits
        # Parts of nearly equal size: a last one of a few rows would round differently.
        parts = images.tensor_split(-(-len(images) // self.rows))
        return torch.cat([checkpoint(self.model, part, use_reentrant=False) for part in parts])

    def _hand_back(self, gradient: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch.note(gradient)
        return row_major(gradient)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class Expectation(nn.Module):
    """A randomised model's mean logits over `samples` draws: expectation over transformation (Athalye et al. 2018).

    The gradient of a loss is averaged in `pgd.loss_and_gradient`, draw by draw, so that memory holds one of them.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        super().__init__()
        self.model = model
        self.samples = samples
        self.training = model.training

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images -> (N, classes) logits."""
        total: Tensor = self.model(images)
        for _ in range(self.samples - 1):
            total = total + self.model(images)
        return total / self.samples


def expectation(model: nn.Module, samples: int) -> nn.Module:
    """`Expectation`; of one draw the model itself."""
    return model if samples == 1 else Expectation(model, samples)


def usable(logits: Tensor) -> bool:
    """Whether logits (N, C) decide: no NaN, no infinity but -infinity, with which a model may mask some classes."""
    return bool(torch.isfinite(logits.amax(1)).all())


def misclassified(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """A verdict, `in_float32`: (N,) truth values, for images (N, C, H, W) and labels (N,)."""
    with in_float32():
        return seems_misclassified(model, images, labels)


def seems_misclassified(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """`misclassified` as precisely as the search goes: for the steps of one, of which there are many."""
    if len(images) == 0:  # which many networks do not take
        return torch.zeros_like(labels, dtype=torch.bool)
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1) != labels)


def searching() -> AbstractContextManager[None]:
    """Inside, GPUs round the factors of matrix products and convolutions to TF32: 10 bits, and several times faster.

    On Ampere and later PyTorch's convolutions are TF32 by default, and so are the field's AutoAttack verdicts. Here
    only the search is: what it finds is judged `in_float32`. CPUs know no TF32.
    """
    return _tf32(True)


def in_float32() -> AbstractContextManager[None]:
    """Inside, GPUs compute in float32, without TF32: verdicts, measurements, and all that is no search."""
    return _tf32(False)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """The one place that sets the precision of GPUs; afterwards it is as before."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def is_of_inference_mode(model: nn.Module) -> bool:
    """Any of its weights was made under `torch.inference_mode`: no gradient passes through those."""
    return any(value.is_inference() for value in chain(model.parameters(), model.buffers()))


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and weights without gradients inside; every module's mode and every flag as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:  # one by one, as a scripted module takes it
            parameter.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking; for the CPU and for CUDA's libraries torch has no exception of its own."""
    words = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    by_type = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return by_type or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def with_less_memory(target: CountedModel, rows: int, action: Callable[[], Result]) -> Result:
    """Do an action that passes so many rows at once; with half as many, as often as memory does not suffice.

    The target's `rows` shrink, and what it counted in vain is forgotten.

    Raises:
        RuntimeError, MemoryError: not even a few times `MIN_ROWS` examples fit.
    """
    while True:
        counts = target.forwards, target.backwards
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fewer = min(target.rows or rows, rows) // 2
            if fewer < 2 * MIN_ROWS:  # the parts of a batch are at least half as large
                raise
            target.rows, target.forwards, target.backwards = fewer, *counts
            torch.cuda.empty_cache()
