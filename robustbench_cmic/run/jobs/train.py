"""A training cell: trained with an objective, or loaded from given weights."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from robustbench_cmic.data.base import Split
from robustbench_cmic.data.subset import choose
from robustbench_cmic.models.build import fit_weights
from robustbench_cmic.models.weights import CorruptCheckpointError, load_weights, save_weights
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.suite.data import dataset_of
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.training import Training
from robustbench_cmic.training.checkpoint import TrainingRun, load_state, save_state
from robustbench_cmic.training.loop import Acceleration, Divergence, build_optimizer, train


def run_training(job: Job) -> TrainRecord:
    """Train from the start, or from the stored state of a run that was killed."""
    cell, settings = job.cell, job.settings
    declared = Training.model_validate(cell.declared["training"])
    goal = objective_of(cell.declared["objective"])
    split = job.data.train
    if declared.limit is not None:
        rows = choose(split.labels, declared.limit, per_class=True)
        split = Split(split.images[rows], split.labels[rows])
    model = job.model(cell.declared["model"])
    objective = build_objective(goal, job.data.classes, cell.seed).to(settings.device)
    training = TrainingRun(model, objective, build_optimizer(model, declared.optimizer), goal.adversary)
    checkpointer = Checkpointer(training, settings.store.resume_state(cell.id), f"{cell.id} on {job.data.sha256}")
    job.stopwatch.resumed = checkpointer.restore(job)
    if dataset_of(cell.declared["dataset"]).images_to_train_on is None:  # else `validate` has said it
        for _, sentence in goal.warnings(declared.epochs * declared.steps_of_epoch(len(split.labels))):
            job.progress(0, 0, f"warning: {sentence}")
    for epoch in training.curve:
        job.epoch(epoch, restored=True)

    def after_epoch(training: TrainingRun) -> None:
        checkpointer.keep()
        job.epoch(training.curve[-1], restored=False)

    cuda = settings.device.startswith("cuda")
    # A user's own code may do what no graph can record.
    custom = any(":" in name for name in (cell.architecture, cell.objective))
    began, done = time.perf_counter(), len(training.curve)
    divergence = train(
        training,
        split,
        declared=declared,
        seed=cell.seed,
        acceleration=Acceleration(settings.loaders, reduced=cuda, graphed=cuda and not custom),
        after_epoch=after_epoch,
        after_step=job.step,
    )
    images = len(split.labels)
    examples = (len(training.curve) - done) * (images - declared.held_out_images(images))
    job.stopwatch.examples_per_second = round(examples / (time.perf_counter() - began), 1) if examples else None
    return _record(job, model, training, divergence)


def load_given_weights(job: Job) -> TrainRecord:
    """Given weights in place of a training: from a file, or timm's."""
    model = job.model(job.cell.declared["model"])
    given = job.cell.declared["weights"]
    if given is not None:
        fit_weights(model, load_weights(job.settings.weights[given["sha256"]], given["sha256"]), given["file"])
    return _record(job, model)


def _record(
    job: Job, model: nn.Sequential, training: TrainingRun | None = None, divergence: Divergence | None = None
) -> TrainRecord:
    """Store the weights, unless the training diverged, and say what became of them."""
    saved = save_weights(job.settings.store.weights(job.cell.id), model.state_dict()) if divergence is None else None
    common = job.common()
    if training is None:
        common["provenance"]["determinism"]["training"] = None
    return TrainRecord(
        **common,
        status="ok" if divergence is None else "diverged",
        reason="" if divergence is None else divergence.reason,
        checkpoint_sha256=saved,
        parameters=sum(weight.numel() for weight in model.parameters()),
        mean=model.get_buffer("0.mean").flatten().tolist(),
        std=model.get_buffer("0.std").flatten().tolist(),
        curve=[] if training is None else training.curve,
        selected_epoch=None if training is None or divergence is not None else training.selected_epoch,
        last_finite=None if divergence is None else divergence.last_finite,
    )


@dataclass
class Checkpointer:
    """Stores a training's state between epochs, for at most a twentieth of the time that the training takes."""

    training: TrainingRun
    file: Path
    identity: str
    due: float = 0.0

    def restore(self, job: Job) -> int | None:
        """Go on from the stored state; returns its epoch, or None where there is none."""
        try:
            state = load_state(self.file, self.identity)
        except CorruptCheckpointError as error:
            self.file.unlink()
            job.progress(0, 0, f"{error}: the training begins anew")
            return None
        if state is None:
            return None
        self.training.restore(state)
        return state.epoch

    def keep(self) -> None:
        """Store the state, if it is time to."""
        began = time.monotonic()
        if began >= self.due:
            save_state(self.file, self.training.state(), self.identity)
            self.due = began + 20 * (time.monotonic() - began)
