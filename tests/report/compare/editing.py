"""Recorded results altered so that they stay sound: checksums and everything that follows from outcomes fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustbench_cmic.records.files import read_json, write_json
from robustbench_cmic.records.packing import pack_outcomes, unpack_outcomes
from robustbench_cmic.statistics import wilson_interval


def edit(folder: Path, pattern: str, **changes: object) -> None:
    """Change keys of one record of a results folder."""
    (file,) = folder.glob(pattern)
    write_json(file, read_json(file) | changes)


def flip(folder: Path, pattern: str, places: Sequence[int]) -> list[bool]:
    """Flip recorded outcomes of one attack; returns all of its outcomes as they are then."""
    (file,) = folder.glob(pattern)
    record = read_json(file)
    n = record["n"]
    correct = [bool(value) for value in unpack_outcomes(record["outcomes"], n)]
    for place in places:
        correct[place] = not correct[place]
    low, high = wilson_interval(sum(correct), n)
    changes = {"outcomes": pack_outcomes(correct), "accuracy": sum(correct) / n, "ci_low": low, "ci_high": high}
    write_json(file, record | changes)
    return correct
