"""Weights as people have them: safetensors files and PyTorch's, found in a checkpoint and fitted to an architecture.

A PyTorch file is a pickle, which may run anything when it is read. It is read with `weights_only=True` alone, which
makes tensors and plain containers and nothing else; what it refuses is refused here.
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from robustbench_cmic.models.outputs import ModelError
from robustbench_cmic.models.weights import CorruptCheckpointError
from robustbench_cmic.records.files import file_sha256
from robustbench_cmic.suite.files import open_regular
from robustbench_cmic.suite.messages import os_error_reason, printable

USUAL_KEYS = ("state_dict", "model", "model_state_dict", "net")
"""Under which training scripts keep weights in a checkpoint."""
PREFIXES = ("module.", "model.", "_orig_mod.")
"""Put before every name by `DataParallel`, Lightning and the like, and `torch.compile`."""

_ZIP, _PICKLE, _LFS = b"PK", b"\x80", b"version https://git-lfs"
_NAMED = 3  # keys of each kind that a message names
_DEPTH = 8  # prefixes taken off, one after another
_EXPORT = "torch.save(model.state_dict(), 'weights.pt')"


def read_given_weights(path: Path, sha256: str | None = None, key: str | None = None) -> dict[str, Tensor]:
    """The weights in a file that was trained elsewhere: .safetensors, or a state dict of PyTorch whatever its ending.

    Args:
        path: the file; its content tells what it is, but only a .safetensors file may be called one.
        sha256: hash (hex) that was recorded of it; None: not checked.
        key: where in a checkpoint they stand, with points between levels; None: at the top, under one of `USUAL_KEYS`,
            or under the only key that holds weights.

    Raises:
        CorruptCheckpointError: missing, not whole, or its hash is another.
        ModelError: it holds more than tensors and plain containers, or nothing or too much that could be meant.
    """
    try:
        with open_regular(path) as file:
            head, size = file.read(64), path.stat().st_size
    except OSError as error:
        raise CorruptCheckpointError(f"cannot read {path}: {os_error_reason(error)}") from None
    if sha256 is not None and file_sha256(path) != sha256:
        raise CorruptCheckpointError(f"{path} is not the recorded checkpoint: its hash differs")
    if head.startswith((_ZIP, _PICKLE)):
        if path.suffix == ".safetensors":  # torch.load goes by the ending here
            raise CorruptCheckpointError(
                f"{path} is no .safetensors file; if torch.save wrote it, let its name end in .pt"
            )
        return _found(_unpickled(path, zipped=head.startswith(_ZIP)), key, path)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        try:
            return _found(safetensors.torch.load_file(path), key, path)
        except SafetensorError:
            raise CorruptCheckpointError(f"{path} is no whole .safetensors file") from None
    if head.startswith(_LFS):
        raise CorruptCheckpointError(f"{path} is a pointer of Git LFS, not the file: fetch that with `git lfs pull`")
    raise CorruptCheckpointError(f"{path} is neither a whole .safetensors file nor one that torch.save wrote")


def _unpickled(path: Path, zipped: bool) -> Any:
    """What torch.save wrote, tensors and plain containers; the tensors of a zip are mapped, not copied."""
    broken = CorruptCheckpointError(f"{path} is no whole file of torch.save")
    if zipped:
        _check_archive(path, broken)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats: what matters is what comes out
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None and "nsupported" not in str(error):
            raise broken from None
        what = "Python objects" if found is None else short(found[1])
        raise ModelError(
            f"{path} holds {what} beside tensors, and is not read, since that can run anything: if you trust it, load "
            f"it yourself with `weights_only=False` and store its state dict alone, {_EXPORT}"
        ) from None
    except Exception:  # a damaged or hostile file may raise anything
        raise broken from None


def _check_archive(path: Path, broken: CorruptCheckpointError) -> None:
    """That a zip is one of torch.save, which compresses nothing: no small file unfolds into more than its size."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception:  # a damaged or hostile file may raise anything
        raise broken from None
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        hint = "torch.save(torch.jit.load(…).state_dict(), 'weights.pt')"
        raise ModelError(f"{path} is a program of TorchScript, not weights: store its state dict, {hint}")
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if "data.pkl" not in names or packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise broken


def _found(held: Any, key: str | None, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file holds."""
    if key is not None:
        held = _under(held, key, path)
    if _is_state(held):
        return {name: _plain(name, value, path) for name, value in held.items()}
    where = f"{path}, under {short(key)}," if key is not None else f"{path}"
    if not isinstance(held, Mapping) or not held:
        what = "nothing" if isinstance(held, Mapping) else f"a {type(held).__name__}"
        raise ModelError(f"{where} holds {what} where a state dict should be: names and their tensors")
    inner = {name: value for name, value in held.items() if isinstance(name, str) and _is_state(value)}
    usual = [name for name in USUAL_KEYS if name in inner]
    chosen = usual[:1] if len(usual) == 1 else list(inner) if len(inner) == 1 else []
    if not inner:
        strange = next((name for name, value in held.items() if not isinstance(value, Tensor)), "")
        kind = type(held[strange]).__name__ if strange in held else "Tensor"
        raise ModelError(f"{where} holds no state dict, names and their tensors: {short(strange)} is of type {kind}")
    # An average of the weights (EMA), say, stands beside them under the same names, but for their prefixes.
    rivals = [name for name in inner if not chosen or _bare(inner[name]) == _bare(inner[chosen[0]])]
    if len(rivals) > 1:
        raise ModelError(f"{where} holds several state dicts: choose by `weights_key` among {_listed(rivals)}")
    return {name: _plain(name, value, path) for name, value in inner[chosen[0]].items()}


def _under(held: Any, key: str, path: Path) -> Any:
    """What stands under a key: as it is written, or level by level."""
    if isinstance(held, Mapping) and key in held:
        return held[key]
    for part in key.split("."):
        if not isinstance(held, Mapping) or part not in held or _is_state(held):
            known = [name for name in held if isinstance(name, str)] if isinstance(held, Mapping) else []
            raise ModelError(f"{path} holds nothing under {short(key)} (`weights_key`); it has {_listed(known)}")
        held = held[part]
    return held


def _is_state(held: Any) -> bool:
    return (
        isinstance(held, Mapping)
        and len(held) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in held.items())
    )


def _plain(name: str, value: Tensor, path: Path) -> Tensor:
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        kind = "quantized" if value.is_quantized else "without values" if value.is_meta else "sparse"
        raise ModelError(f"{path}: {short(name)} is {kind}; weights should be plain tensors")
    return value.detach()


def fit_weights(model: nn.Sequential, weights: Mapping[str, Tensor], source: str, normalized: bool = False) -> None:
    """Load given weights: of the network behind the normalisation, or of the whole classifier (`0.mean`, `1.…`).

    Prefixes of `PREFIXES` that all names share are taken off, and `n_averaged`, the count of `AveragedModel`. Counts of
    batches, which no model in eval mode reads, may be missing, as in older files, or fractions, as averages make them.

    Args:
        model: `Normalize` and a network.
        weights: by name.
        source: what messages call them.
        normalized: the suite declares a normalisation, which that of a whole classifier must not contradict.

    Raises:
        ModelError: names or shapes that do not fit, or weights that are not finite; the message names them.
    """
    target, fitting = _best_fit(model, weights)
    wanted = target.state_dict()
    whole = {name for name, value in fitting.items() if not value.is_floating_point()}
    counts = {name: wanted[name] for name in wanted.keys() - whole if name.endswith("num_batches_tracked")}
    complete = {**fitting, **counts}
    lacking, further = sorted(wanted.keys() - complete.keys()), sorted(complete.keys() - wanted.keys())
    if lacking or further:
        parts = [f"lacks {_listed(lacking)}"] if lacking else []
        parts += [f"holds {_listed(further)}, which the architecture has not"] if further else []
        raise ModelError(f"{source} {' and '.join(parts)}")
    parameters = {name for name, _ in target.named_parameters()}
    for name, value in complete.items():
        # A buffer may hold the -infinity with which classes are masked.
        finite = value if name in parameters or value.is_complex() else value[~value.isneginf()]
        _check_tensor(name, value, finite, wanted[name], source)
    for name in ("0.mean", "0.std") if normalized and target is model else ():
        if not torch.allclose(complete[name].float(), wanted[name].cpu(), rtol=1e-3, atol=1e-4):
            own, ours = ([round(v, 4) for v in each.flatten().tolist()] for each in (complete[name], wanted[name]))
            raise ModelError(f"{source} holds a normalisation of its own: {name} is {own}, not {ours} as declared")
    target.load_state_dict(complete)


def _check_tensor(name: str, value: Tensor, finite: Tensor, wanted: Tensor, source: str) -> None:
    """That a tensor has the wanted shape and type, and that the part of it which has to be is finite."""
    if value.shape != wanted.shape:
        shapes = f"{tuple(value.shape)}, not {tuple(wanted.shape)}"
        raise ModelError(f"{source}: {short(name)} has shape {shapes} as in the architecture")
    if value.is_floating_point() != wanted.is_floating_point():
        raise ModelError(f"{source}: {short(name)} is of type {value.dtype}, not {wanted.dtype}")
    if not bool(torch.isfinite(finite.to(wanted.dtype)).all()):  # 1e300, say, is no float32
        raise ModelError(f"{source}: {short(name)} is not finite everywhere")


def _best_fit(model: nn.Sequential, weights: Mapping[str, Tensor]) -> tuple[nn.Module, Mapping[str, Tensor]]:
    """The network, or the whole classifier, and the names under which most of the weights fit it."""
    best: tuple[float, nn.Module, Mapping[str, Tensor]] = (-math.inf, model[1], weights)
    for named in _without_prefixes(weights):
        for target in (model[1], model):
            wanted = target.state_dict().keys()
            misfits = len(wanted ^ named.keys())
            if -misfits > best[0]:
                best = (-misfits, target, named)
    return best[1], best[2]


def _without_prefixes(weights: Mapping[str, Tensor]) -> Iterator[Mapping[str, Tensor]]:
    """The weights as they are named, then with one prefix less each time; at last without any mark of compilation."""
    yield weights
    # `AveragedModel` of torch counts the models in the average beside their weights.
    named: Mapping[str, Tensor] = {name: value for name, value in weights.items() if name != "n_averaged"}
    for _ in range(_DEPTH):
        yield named
        prefix = next((each for each in PREFIXES if all(name.startswith(each) for name in named)), None)
        if prefix is None:
            break
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    # A part of a model that was compiled, or spread over devices, alone.
    inner = {name.replace("_orig_mod.", "").replace(".module.", "."): value for name, value in named.items()}
    if len(inner) == len(named):
        yield inner


def _bare(weights: Mapping[str, Tensor]) -> set[str]:
    """Their names without all prefixes."""
    *_, last = _without_prefixes(weights)
    return set(last)


def short(name: object) -> str:
    """A name from a file, fit to be shown: it may hold anything."""
    return printable(str(name), 80)


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(short, names[:_NAMED])) or "nothing"
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
