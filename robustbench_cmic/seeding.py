"""Independent random seeds, derived from what they are for, and the samples of the bootstrap."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2^32) that depends on every part and on nothing else, on any machine and Python.

    >>> derive_seed("shuffle", 0, 1) != derive_seed("shuffle", 0, 2)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global generators of Python, numpy and torch (all devices) start from `seed`; after it, as before."""
    import torch  # reports draw samples without it

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries use the global one
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def resample_weights(n: int, resamples: int) -> Iterator[NDArray[np.intp]]:
    """How often each of n examples is drawn in each bootstrap sample: arrays (n,) with sum n.

    The k-th depends on n and k only: not on `resamples`, the model, the device, nor the version of numpy.
    """
    # The stream of RandomState is the same in every version of numpy, that of default_rng is not (NEP 19): records
    # that are compared may have been made by different ones.
    generator = np.random.RandomState(derive_seed("bootstrap", n))
    for _ in range(resamples):
        yield np.bincount(generator.randint(n, size=n, dtype=np.int32), minlength=n)
