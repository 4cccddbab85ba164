"""Pictures of what an attack did to its first victims."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from robustbench_cmic.attacks.judge import BrokenExample
from robustbench_cmic.records.pictures import Picture, Pictures, write_pictures
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.suite.messages import os_error_reason

SHOWN = 4  # examples of every attack
LARGEST = 64  # pixels on the longer side; larger images are shrunk


def room_for_pictures(job: Job) -> int:
    """How many pictures of a cell are wanted; those of an earlier attempt are removed, lest a failure leaves them.

    Attacks on one seed are enough to look at; a ball of radius 0 holds nothing to see. Rows of a table are no images.
    """
    cell, settings = job.cell, job.settings
    try:
        settings.store.pictures(cell.id).unlink(missing_ok=True)
    except OSError as error:
        job.progress(0, 0, f"cannot remove old pictures: {os_error_reason(error)}")
    seen = cell.seed == settings.pictured_seed and cell.norm and cell.eps > 0 and job.data.features is None
    return SHOWN if seen else 0


def keep_pictures(
    job: Job, broken: Sequence[BrokenExample], indices: npt.NDArray[np.int64], checkpoint_sha256: str
) -> None:
    """Write the pictures of a cell; where that fails it is said, and the cell is none the worse.

    `broken` are the first examples that it broke; `indices`, (N,), those of all that it evaluated, in the split.
    """
    cell = job.cell
    pictures = Pictures(
        suite=job.settings.suite,
        cell=cell.id,
        **cell.model_dump(include={"model", "seed", "attack", "norm", "eps"}),
        dataset_sha256=job.data.sha256,
        checkpoint_sha256=checkpoint_sha256,
        class_names=job.data.class_names,
        examples=[_picture(job, one, int(indices[one.place])) for one in broken],
    )
    try:
        write_pictures(job.settings.store.results, pictures)
    except OSError as error:
        job.progress(0, 0, f"cannot write pictures: {os_error_reason(error)}")


def _picture(job: Job, one: BrokenExample, index: int) -> Picture:
    before, after = int(one.clean_logits.argmax()), int(one.logits.argmax())
    delta = one.adversarial - one.clean
    scale = job.cell.eps if job.cell.norm == "linf" else float(delta.abs().max())
    return Picture(
        index=index,
        label=before,
        before=before,
        after=after,
        confidence_before=_confidence(one.clean_logits),
        confidence_after=_confidence(one.logits),
        clean=png(one.clean),
        adversarial=png(one.adversarial),
        perturbation=png(delta / (2 * scale) + 0.5),
    )


def _confidence(logits: Tensor) -> float:
    """The largest softmax probability; in float64, where a large lead is not rounded to 1."""
    return float(torch.softmax(logits.double(), 0).max())


def png(image: Tensor) -> str:
    """An image (C, H, W) in [0, 1], of one channel or three, as PNG in base64; equal images give equal bytes."""
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    picture = Image.fromarray((levels[..., 0] if levels.shape[2] == 1 else levels).numpy())
    if max(picture.size) > LARGEST:
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
