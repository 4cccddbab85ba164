"""Is the model that is judged the model that was trained?

A model is built anew for every attack, and gets the weights that its training has left. What it holds outside its state
dict (plain attributes, buffers that are not persistent, orders drawn when it is built) is not among them. So its logits
for a few training images are compared with those of the model that was trained.

Within a process the comparison is bit for bit, and so it is between processes on one CPU with one set of versions,
where equal bits are promised. Elsewhere (another processor, a GPU, whose libraries choose their kernels by what memory
is free) logits may differ by rounding: far less than a state that was lost changes them.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_cmic.attacks.model import MIN_ROWS, frozen
from robustbench_cmic.data.base import Data
from robustbench_cmic.data.feed import Examples
from robustbench_cmic.models.build import own_names
from robustbench_cmic.models.outputs import ModelError
from robustbench_cmic.records.packing import pack_replicates, unpack_replicates
from robustbench_cmic.records.schema import Fingerprint
from robustbench_cmic.seeding import derive_seed, seeded

IMAGES = 64
RECORDED_CLASSES = 16
"""Classes whose logits a record holds: no lost state shows in the others alone."""
ROUNDING = 1e-3
"""Of the spread of an image's logits: above what other processors' rounding does."""
FLIPPED = 1 / 8
"""Of the images may differ by more: where a network rounds to steps, the processor's rounding decides which step."""
NAMES = 200
"""Attributes that a record names at most, arrays before numbers."""
_DEPTH = 4
"""Levels of lists, dictionaries and objects in which state is looked for."""


def checked_images(data: Data, device: str) -> Tensor:
    """64 training images (fewer where there are fewer), evenly spaced, on the device."""
    size = len(data.train.labels)
    positions = np.arange(min(IMAGES, size), dtype=np.int64) * size // min(IMAGES, size)
    return Examples(data.train.images, positions, device)[:]


def logits_of(model: nn.Module, images: Tensor, training: bool = False) -> Tensor:
    """Float32 logits (N, C) on the CPU, in eval mode or in training mode; the same random numbers at every call.

    Modes, weights and global generators are left as they were; in training mode statistics move, use a copy.
    """
    cudnn = torch.backends.cudnn
    flags = {"enabled": cudnn.enabled, "benchmark": False, "deterministic": True, "allow_tf32": False}
    with frozen(model), torch.no_grad(), seeded(derive_seed("fingerprint")), cudnn.flags(**flags):
        model.train(training)
        return torch.cat([model(rows).float().cpu() for rows in torch.split(images, MIN_ROWS)])


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Equal bit for bit, NaN included."""
    return first.shape == second.shape and torch.equal(first.view(torch.int32), second.view(torch.int32))


def differing(first: Tensor, second: Tensor) -> int:
    """For how many images logits (N, C) differ by more than rounding does; NaN and infinities have to be the same."""
    finite = torch.isfinite(first)
    least, largest = (first.nan_to_num(0, 0, 0).amin(1), first.nan_to_num(0, 0, 0).amax(1))
    allowed = ROUNDING * (largest - least).clamp(min=1e-12)
    near = (first - second).abs() <= allowed[:, None]
    alike = torch.where(finite, near, (first == second) | (first.isnan() & second.isnan()))
    return int((~alike.all(1)).sum())


def judged_is_trained(name: str, trained: nn.Module, anew: nn.Module, images: Tensor) -> Fingerprint | None:
    """The fingerprint of a trained model; None of one whose logits are others in every pass: nothing can tell.

    Args:
        name: of its architecture.
        trained: as its training has left it.
        anew: built anew, with the weights that were stored.
        images: what `checked_images` returns.

    Raises:
        ModelError: the two are not the same.
    """
    logits = logits_of(trained, images)
    again = logits_of(trained, images)
    repeatable = same_bits(logits, again)
    if differing(logits, again) > 0:
        return None
    found = logits_of(anew, images)
    outside = outside_state(trained)
    recorded = sorted(_worth_recording(trained), key=lambda each: not each[1])[:NAMES]
    if not same_bits(logits, found) if repeatable else differing(logits, found) > 0:
        changed = sum(not same_bits(one, other) for one, other in zip(logits, found, strict=True))
        raise _other_model(name, changed, len(images), outside, anew)
    return Fingerprint(
        images=len(images),
        logits=pack_replicates(logits[:, :RECORDED_CLASSES].flatten().tolist()),
        outside={key: outside[key] for key, _ in recorded if key in outside} if ":" in name else {},
        repeatable=repeatable,
    )


def check_fingerprint(name: str, model: nn.Module, images: Tensor, stored: Fingerprint, same_machine: bool) -> None:
    """Compare a model that was built anew with what its training has recorded, for what `checked_images` returns.

    Where both were made on the same machine, one CPU with one set of versions, bits have to be equal.

    Raises:
        ModelError: it is another model.
    """
    expected = torch.tensor(unpack_replicates(stored.logits)).reshape(stored.images, -1)
    found = logits_of(model, images)[:, :RECORDED_CLASSES]
    if same_machine and stored.repeatable:
        equal = same_bits(expected, found)
        changed = sum(not same_bits(one, other) for one, other in zip(expected, found, strict=True))
    else:
        changed = differing(expected, found)
        equal = changed <= FLIPPED * stored.images
    if not equal:
        raise _other_model(name, changed, stored.images, stored.outside, model)


def _other_model(name: str, changed: int, images: int, outside: Mapping[str, str], anew: nn.Module) -> ModelError:
    suspects = own_names(lost_state(outside, anew))
    guilty = "nothing that it holds itself differs: look for globals, files and generators of your own"
    if suspects:
        more = f" and {len(suspects) - 5} more" if len(suspects) > 5 else ""
        what = "differ" if len(suspects) > 1 else "differs"
        guilty = f"{', '.join(suspects[:5])}{more} {what}: keep such state in persistent buffers (`register_buffer`)"
    return ModelError(
        f"{name} built anew with its stored weights is not the model that was trained: the logits of {changed} of "
        f"{images} images differ; outside its state dict {guilty}"
    )


def lost_state(outside: Mapping[str, str], model: nn.Module) -> list[str]:
    """Names of what `outside_state` has found in another model, and is not the same in this one."""
    own = outside_state(model)
    return [name for name, digest in outside.items() if own.get(name) != digest]


def outside_state(model: nn.Module, depth: int = _DEPTH) -> dict[str, str]:
    """Name -> digest of all that a model holds in attributes and its state dict does not: numbers, arrays, generators.

    What is neither of them nor made of them is left out.
    """
    digests = ((name, _digest(value, depth)) for _, name, value in _attributes(model))
    return {name: hashlib.sha256(digest).hexdigest()[:16] for name, digest in digests if digest}


def _worth_recording(model: nn.Module) -> Iterator[tuple[str, bool]]:
    """Names of attributes, and whether each is an array or a generator; torch's own layers are made of numbers."""
    for module, name, value in _attributes(model):
        bulk = isinstance(value, Tensor | np.ndarray | torch.Generator | np.random.Generator | random.Random)
        if bulk or not type(module).__module__.startswith("torch."):
            yield name, bulk


def _attributes(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Of every module its attributes and buffers outside the state dict, with their full names."""
    usual = {"training", *vars(nn.Module())}
    for prefix, module in model.named_modules():
        values = {name: value for name, value in vars(module).items() if name not in usual}
        values |= {name: module._buffers[name] for name in sorted(module._non_persistent_buffers_set)}
        for name, value in values.items():
            yield module, f"{prefix}.{name}" if prefix else name, value


def _digest(value: Any, depth: int) -> bytes:
    """Bytes that differ where values do; empty for what has no value of its own, such as functions."""
    if isinstance(value, Tensor) and not nn.parameter.is_lazy(value):
        plain = value.detach().cpu().contiguous()
        return f"{plain.dtype}{tuple(plain.shape)}".encode() + plain.flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, torch.Generator):
        return _digest(value.get_state(), depth)
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{value.shape}".encode() + value.tobytes()
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state).encode()
    if isinstance(value, random.Random):
        return repr(value.getstate()).encode()
    if isinstance(value, bool | int | float | complex | str | bytes) or value is None:
        return repr(value).encode()
    if depth == 0 or isinstance(value, type) or inspect.isroutine(value):
        return b""
    if isinstance(value, nn.Module):  # in a plain list, where its parent does not know it
        held = [*value.state_dict().items(), *outside_state(value, depth - 1).items()]
        return b"".join(_digest(each, depth - 1) for pair in held for each in pair)
    if isinstance(value, Mapping):
        return b"{" + b"".join(_digest(each, depth - 1) for pair in value.items() for each in pair) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b"".join(_digest(each, depth - 1) + b"," for each in value) + b"]"
    if isinstance(value, set | frozenset):
        return b"(" + b",".join(sorted(_digest(each, depth - 1) for each in value)) + b")"
    return b"".join(_digest(each, depth - 1) for pair in getattr(value, "__dict__", {}).items() for each in pair)


def resume_check(model: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a training stores beside its weights, to see when it goes on whether it goes on with the same model.

    Returns:
        logits in eval and in training mode, of copies, so that the training does not notice (nothing where a model
        cannot be copied), and what `outside_state` finds.
    """
    outside = outside_state(model)
    logits = {}
    try:
        for mode in (False, True):
            logits["train" if mode else "eval"] = logits_of(copy.deepcopy(model), images, training=mode)
    except Exception:  # whatever a model's own code raises when it is copied
        logits = {}
    return logits, outside


def resumed_differs(model: nn.Module, images: Tensor, logits: Mapping[str, Tensor]) -> bool:
    """Whether a model that was built anew, with the weights of a stored state, is not the one that was stored."""
    for mode in ("eval", "train"):
        if mode in logits:
            found = logits_of(copy.deepcopy(model), images, training=mode == "train")
            if differing(logits[mode], found) > FLIPPED * len(images):
                return True
    return False
