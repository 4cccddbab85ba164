"""Per-example outcomes, bootstrap replicates and logits as text: packed bits and floats in base64."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustbench_cmic.records.files import CorruptRecordError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def pack_outcomes(correct: Sequence[bool]) -> str:
    """Truth values -> base64 of packed bits, most significant first: about N / 6 characters."""
    bits = "".join("1" if value else "0" for value in correct)
    size = (len(bits) + 7) // 8
    return base64.b64encode(int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")).decode("ascii")


def unpack_outcomes(text: str, n: int) -> NDArray[np.bool_]:
    """The n outcomes that `pack_outcomes` packed: (n,) truth values, True where an example is classified correctly.

    Raises:
        CorruptRecordError: not n outcomes.
    """
    import numpy as np  # what only counts outcomes does without

    return np.unpackbits(np.frombuffer(_checked(text, n), np.uint8), count=n).astype(bool)


def count_correct(text: str, n: int) -> int:
    """How many of them are correct; raises what `unpack_outcomes` raises."""
    return int.from_bytes(_checked(text, n), "big").bit_count()


def _checked(text: str, n: int) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    padding = 8 * len(raw) - n
    if not 0 <= padding < 8 or int.from_bytes(raw, "big") & ((1 << padding) - 1):
        raise CorruptRecordError(f"the outcomes are not {n} packed bits")
    return raw


def pack_replicates(values: Sequence[float]) -> str:
    """Numbers -> base64 of little-endian float32 (5.3 kB for 1000), NaN included; beyond float32 they are infinite."""
    largest = (2 - 2**-23) * 2.0**127
    held = [math.copysign(math.inf, value) if abs(value) > largest else value for value in values]
    return base64.b64encode(struct.pack(f"<{len(held)}f", *held)).decode("ascii")


def unpack_replicates(text: str) -> list[float]:
    """What `pack_replicates` packed, to the precision of float32.

    Raises:
        ValueError: not base64 of whole float32 numbers.

    >>> unpack_replicates(pack_replicates([0.5, -2.0]))
    [0.5, -2.0]
    """
    try:
        return [value for (value,) in struct.iter_unpack("<f", base64.b64decode(text, validate=True))]
    except (ValueError, struct.error) as error:
        raise ValueError(f"no packed replicates: {error}") from None


def pack_logits(logits: NDArray[np.float16]) -> str:
    """Logits of any shape -> base64 of little-endian float16, the last axis the fastest."""
    return base64.b64encode(logits.astype("<f2").tobytes()).decode("ascii")


def unpack_logits(text: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """What `pack_logits` packed, of that shape.

    Raises:
        ValueError: not base64 of as many float16 numbers.
    """
    import numpy as np

    return np.frombuffer(base64.b64decode(text, validate=True), "<f2").reshape(shape).astype(np.float64)
