"""What every process of a run knows besides the cells: folders, device, provenance. Nothing here imports torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Where and how cells are carried out; none of it decides a result.

    Attributes:
        suite: name of the suite.
        results: the suite's results folder, for records.
        work: the suite's work folder, for checkpoints and resume states.
        device: a torch device such as `cpu` or `cuda:0`.
        batch_size: examples that a native attack has in memory at once.
        data: the data folder.
        memory: decoded images that take more bytes are streamed; None: half of the machine's memory.
        loaders: processes of a training that read ahead, where images are streamed.
        deterministic: only algorithms that give the same bits each time; on the CPU they always do.
        pictured_seed: attacks on models of this seed leave pictures.
        weights: files of given weights, by their hash.
        provenance: what records say of code and machine.
    """

    model_config = ConfigDict(frozen=True)

    suite: str
    results: Path
    work: Path
    device: str
    batch_size: int
    data: Path
    memory: int | None
    loaders: int
    deterministic: bool
    pictured_seed: int
    weights: dict[str, Path]
    provenance: dict[str, Any]


def weights_file(work: Path, cell: str) -> Path:
    """Where the weights of a training lie in a suite's work folder."""
    return work / f"{cell}.safetensors"


def images_file(work: Path, cell: str) -> Path:
    """Where the adversarial examples of an attack lie that a larger ball takes over."""
    return work / f"{cell}.images.safetensors"


def resume_file(work: Path, cell: str) -> Path:
    """Where the resume state of an unfinished training lies."""
    return work / f"{cell}.state.safetensors"


def work_folder(results: Path, work: Path | None) -> Path:
    """`work`, or its default: beside the results folder, so that two results folders never share checkpoints."""
    place = Path(os.path.abspath(results))  # noqa: PTH100 - `resolve` would follow links
    return (work or place.parent / f"{place.name or 'results'}.work").absolute()
