"""Per-example outcomes and bootstrap replicates as text: packed bits and floats in base64."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence

from robustbench_cmic.records.files import CorruptRecordError


def pack_outcomes(correct: Sequence[bool]) -> str:
    """Truth values -> base64 of packed bits, most significant first: about N / 6 characters."""
    bits = "".join("1" if value else "0" for value in correct)
    size = (len(bits) + 7) // 8
    return base64.b64encode(int(bits.ljust(8 * size, "0") or "0", 2).to_bytes(size, "big")).decode("ascii")


def outcome_bits(text: str, n: int) -> int:
    """The n outcomes that `pack_outcomes` packed, as the bits of one integer: `&` and `bit_count` do the rest.

    Raises:
        CorruptRecordError: not n outcomes.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    padding = 8 * len(raw) - n
    bits = int.from_bytes(raw, "big")
    if not 0 <= padding < 8 or bits & ((1 << padding) - 1):
        raise CorruptRecordError(f"the outcomes are not {n} packed bits")
    return bits >> padding


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
        raw = base64.b64decode(text, validate=True)
        return [value for (value,) in struct.iter_unpack("<f", raw)]
    except (ValueError, struct.error) as error:
        raise ValueError(f"no packed replicates: {error}") from None
