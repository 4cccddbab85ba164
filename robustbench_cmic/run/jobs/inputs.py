"""The model that a training has left, as attacks and audits need it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustbench_cmic.data.feed import Examples
from robustbench_cmic.data.subset import choose, subset_sha256
from robustbench_cmic.models.weights import load_weights
from robustbench_cmic.records.store import read_record
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.suite.data import evaluation_of
from robustbench_cmic.suite.messages import UserError
from robustbench_cmic.suite.models import model_of


def trained_model(job: Job, training: str, declared: dict[str, Any]) -> tuple[nn.Sequential, str]:
    """A model with the weights that a training has left, and their SHA-256.

    Args:
        job: the cell that needs it.
        training: the training's id.
        declared: what the training declares.

    Raises:
        UserError: there are no weights for this data.
    """
    store = job.settings.store
    record = read_record(store.record(training))
    if record.checkpoint_sha256 is None or record.dataset_sha256 != job.data.sha256:
        raise UserError(f"the training {training} has no weights for this data")
    # What is loaded replaces everything: the seed and timm's own weights play no part here.
    model = job.model(model_of(declared["model"] | {"pretrained": False}))
    model.load_state_dict(load_weights(store.weights(training), record.checkpoint_sha256))
    return model, record.checkpoint_sha256


def evaluated(job: Job) -> tuple[Examples, Tensor, str]:
    """The examples that a cell evaluates, their labels on the device, and the hash of their indices."""
    evaluation = evaluation_of(job.cell.declared["evaluation"])
    split = job.data.split(evaluation.split)
    chosen = choose(split.labels, evaluation.limit, evaluation.per_class)
    labels = torch.from_numpy(split.labels[chosen]).to(job.settings.device)
    return Examples(split.images, chosen, job.settings.device), labels, subset_sha256(chosen)
