"""The harness: runs any attack on a model and judges what comes back. It trusts no attack.

Whatever an attack returns is checked, projected into ball and box and classified again, in float32, here. An attack
that crashes or returns nonsense raises `AttackError`, so that its cell fails; it never counts as robust.

Random numbers belong to fixed blocks of 256 examples, each seeded from (seed, attack with its parameters, block). So a
verdict does not depend on batch size, on the order of blocks or on what else was attacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robustbench_cmic.attacks.library import library_attack
from robustbench_cmic.attacks.pgd import Search, search_ball
from robustbench_cmic.attacks.threat import Threat
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.information import Information, InformationSums
from robustbench_cmic.plan import canonical_json
from robustbench_cmic.seeding import derive_seed, seeded

BLOCK = 256
MIN_ROWS = 16

Progress = Callable[[int, int], None]
"""Called with (examples done, examples in all)."""


class AttackError(Exception):
    """An attack or a model that gave no usable result; the message says what happened."""


class Target(nn.Module):
    """What an attack sees of a model: logits, counted, independent of how many examples come at once.

    Matrix products over very few rows take other paths in the numerical libraries and round differently. Batches
    below `MIN_ROWS` are therefore filled up with copies of their first row, and the copies' logits dropped.

    Attributes:
        rows: examples that go through the network together; more are split, and their activations computed again for
            the gradient instead of kept, so that the memory an attack needs does not depend on its batch.
        forwards: examples that went through the network.
        backwards: examples whose gradient went back through it.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = classes
        self.rows: int | None = None
        self.forwards = 0
        self.backwards = 0

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) images -> (N, classes) logits.

        Raises:
            AttackError: the model returned something else than (N, classes).
        """
        n = len(images)
        filled = torch.cat([images, images[:1].expand(MIN_ROWS - n, *images.shape[1:])]) if 0 < n < MIN_ROWS else images
        logits = self._logits(filled)
        if logits.shape != (len(filled), self.classes):
            expected = (len(filled), self.classes)
            raise AttackError(f"the model should return logits of shape {expected}, not {tuple(logits.shape)}")
        logits = logits[:n]
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

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@dataclass
class Verdict:
    """What an attack did to a set of examples, as judged here.

    Attributes:
        correct: (N,) truth values: still classified correctly.
        information: CMI, separation and NCMI on the examples that the attack returned.
        outside: examples returned outside ball or box, and projected back.
        forwards, backwards: examples through the network, by the attack alone.
    """

    correct: Tensor
    information: Information
    outside: int
    forwards: int
    backwards: int


@dataclass
class _Judged:
    """Results of consecutive batches, in order."""

    correct: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    outside: int = 0


def judge_attack(
    model: nn.Module,
    images: Tensor | Examples,
    labels: Tensor,
    *,
    classes: int,
    setting: dict[str, Any],
    threat: Threat | None,
    seed: int,
    batch_size: int = BLOCK,
    progress: Progress | None = None,
) -> Verdict:
    """Attack a model and judge the result.

    Args:
        model: returns logits for images in [0, 1]; put into eval mode here and restored afterwards.
        images: (N, C, H, W) float32 in [0, 1], on the model's device; or such images that are brought there in slices.
        labels: (N,) int64.
        classes: number of classes.
        setting: the attack's `name` (`none`, `FGSM`, `PGD` or `torchattacks.X`) and parameters, as a cell declares.
        threat: the ball; None for `none`, the clean evaluation.
        seed: of the cell; with the setting and the number of the block it decides all random numbers.
        batch_size: examples that a native attack has in memory at once; the verdict does not depend on it. Library
            attacks draw from the global generators and always run on whole blocks.
        progress: told about every finished batch.

    Where the memory of the device does not suffice, fewer and fewer examples go through the network together.

    Raises:
        AttackError: the attack crashed, or its result or the model's logits are unusable.
        torch.OutOfMemoryError: not even a few times `MIN_ROWS` examples fit.
    """
    target = Target(model, classes)
    target.training = False  # torchattacks puts a model back into the mode in which it found it
    judged = _Judged()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    library = setting["name"].startswith("torchattacks.")
    with frozen(model):
        for start, stop in _batches(len(images), BLOCK if library else batch_size):
            batch = images[start:stop]
            while True:
                counts = target.forwards, target.backwards
                try:
                    found = _guarded(target, batch, labels[start:stop], setting, threat, seed, start)
                    # An attack may have flipped the model's mode; what is judged is the model in eval mode.
                    model.eval()
                    _judge(target, batch, labels[start:stop], found, threat, judged)
                    break
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    rows = min(target.rows or len(batch), len(batch)) // 2
                    if rows < 2 * MIN_ROWS:  # the parts of a batch are at least half as large
                        raise
                    target.rows, target.forwards, target.backwards = rows, *counts
                    torch.cuda.empty_cache()
            if progress is not None:
                progress(stop, len(images))
    if any(not torch.equal(before[name], value) for name, value in model.state_dict().items()):
        raise AttackError("the attack changed the model's weights or statistics")
    sums = InformationSums.of(torch.cat(judged.logits), labels)
    return Verdict(torch.cat(judged.correct), sums.compute(), judged.outside, target.forwards, target.backwards)


def _guarded(target: Target, images: Tensor, labels: Tensor, *how: Any) -> Tensor:
    """`_attack`; whatever it raises becomes an `AttackError`, but for a lack of memory."""
    try:
        return _attack(target, images, labels, *how)
    except AttackError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise AttackError(f"the attack crashed: {type(error).__name__}: {error}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was lacking; for the CPU and for CUDA's libraries torch has no exception of its own."""
    words = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def _batches(n: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n, size):
        yield start, min(start + size, n)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and weights without gradients inside; every module's mode and every flag as before afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _attack(
    target: Target,
    images: Tensor,
    labels: Tensor,
    setting: dict[str, Any],
    threat: Threat | None,
    seed: int,
    start: int,
) -> Tensor:
    """What the attack returns for the examples from `start` on."""
    name = setting["name"]
    if threat is None:
        return images
    stream = (canonical_json(setting), threat.norm, repr(threat.eps), seed)
    if name == "FGSM":
        search = Search(threat.eps, steps=1, loss=setting["loss"])
        return search_ball(target, images, labels, threat, search, noise=None)
    if name == "PGD":
        own = ("alpha", "steps", "loss", "restarts", "early_stop")
        search = Search(**{key: setting[key] for key in own})

        def noise(restart: int) -> Tensor:
            return _block_noise(threat, images, start, (*stream, restart))

        return search_ball(target, images, labels, threat, search, noise if setting["random_start"] else None)
    block_seed = derive_seed(*stream, start // BLOCK)
    with seeded(block_seed):
        attack = library_attack(name, target, threat, target.classes, block_seed, setting)
        result: Tensor = attack(images.clone(), labels.clone())
    return result


def _block_noise(threat: Threat, images: Tensor, start: int, stream: tuple[str | int, ...]) -> Tensor:
    """Random starts for the examples from `start` on, sliced out of the whole blocks that they lie in."""
    stop = start + len(images)
    drawn = []
    for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
        with seeded(derive_seed(*stream, block)):
            noise = threat.noise(torch.Size((BLOCK, *images.shape[1:])))
        first = block * BLOCK
        drawn.append(noise[max(start - first, 0) : stop - first])
    return torch.cat(drawn).to(images)


def _judge(target: Target, images: Tensor, labels: Tensor, found: Any, threat: Threat | None, judged: _Judged) -> None:
    """Check, project and classify what an attack returned; design rules 2 and 3."""
    if not isinstance(found, Tensor) or found.shape != images.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise AttackError(f"the attack should return images of shape {tuple(images.shape)}, not {got}")
    found = found.detach().to(images)
    if not bool(torch.isfinite(found).all()):
        raise AttackError("the attack returned images with NaN or infinity")
    outside = 0
    if threat is not None:
        outside = int(threat.outside(images, found).sum())
        found = threat.project(images, found)
    judge = Target(target.model, target.classes)  # the judge's own passes are not the attack's
    judge.rows = target.rows
    with torch.no_grad():
        logits = judge(found).float()
        clean = logits if threat is None else judge(images).float()
    if not bool(torch.isfinite(logits).all() and torch.isfinite(clean).all()):
        raise AttackError("the model returned logits with NaN or infinity")
    judged.outside += outside
    judged.logits.append(logits)
    judged.correct.append((logits.argmax(1) == labels) & (clean.argmax(1) == labels))
