"""A training cell: trained with an objective, or loaded from given weights."""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from robustbench_cmic.data.base import Split
from robustbench_cmic.data.subset import choose
from robustbench_cmic.models.build import fit_weights
from robustbench_cmic.models.weights import CorruptCheckpointError, load_weights, save_weights
from robustbench_cmic.objectives import build_objective
from robustbench_cmic.records.schema import TrainRecord
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.training.adversary import build_adversary
from robustbench_cmic.training.checkpoint import load_state, save_state
from robustbench_cmic.training.loop import Acceleration, Training, build_optimizer, train


def run_training(job: Job) -> TrainRecord:
    """Train from the start, or from the stored state of a run that was killed."""
    cell, settings, data, clock = job.cell, job.settings, job.data, job.clock
    declared = cell.declared["training"]
    split = _chosen(data.train, declared.get("limit"))
    model = job.model(cell.declared)
    goal = dict(cell.declared["objective"])
    adversary = build_adversary(goal.pop("adversary", None))
    objective = build_objective(goal, data.classes, cell.seed).to(settings.device)
    training = Training(model, objective, build_optimizer(model, declared["optimizer"]), adversary)
    keeper = Checkpointer(training, settings.store.resume_state(cell.id), f"{cell.id} on {data.sha256}")
    clock.resumed = keeper.restore(job)
    notes = ProgressThrottle(job)
    for epoch in training.curve:
        job.trained(epoch, True)
        notes.accuracy = epoch.accuracy

    def after_epoch(training: Training) -> None:
        keeper.keep()
        job.trained(training.curve[-1], False)
        notes.accuracy = training.curve[-1].accuracy

    cuda = settings.device.startswith("cuda")
    # A user's own code may do what no graph can record.
    own = any(":" in name for name in (cell.declared["model"]["architecture"], cell.declared["objective"]["name"]))
    how = Acceleration(settings.loaders, reduced=cuda, graphed=cuda and not own)
    began, done = time.perf_counter(), len(training.curve)
    divergence = train(
        training,
        split,
        declared=declared,
        seed=cell.seed,
        how=how,
        after_epoch=after_epoch,
        after_step=notes.after_step,
    )
    examples = (len(training.curve) - done) * len(split.labels)
    clock.examples_per_second = round(examples / (time.perf_counter() - began), 1) if examples else None
    saved = None
    if divergence is None:
        saved = save_weights(settings.store.weights(cell.id), model.state_dict())
    return _record(job, model, saved).model_copy(
        update={
            "status": "diverged" if divergence else "ok",
            "reason": divergence.reason if divergence else "",
            "curve": training.curve,
            "last_finite": divergence.last_finite if divergence else None,
        }
    )


def _chosen(split: Split, limit: int | None) -> Split:
    """The training images, or as many of every class up to a limit."""
    if limit is None:
        return split
    rows = choose(split.labels, {"limit": limit, "per_class": True})
    return Split(split.images[rows], split.labels[rows])


def load_given_weights(job: Job) -> TrainRecord:
    """Given weights in place of a training: from a file, or timm's."""
    model = job.model(job.cell.declared)
    given = job.cell.declared["weights"]
    if given is not None:
        fit_weights(model, load_weights(job.settings.weights[given["sha256"]], given["sha256"]), given["file"])
    record = _record(job, model, save_weights(job.settings.store.weights(job.cell.id), model.state_dict()))
    untrained = record.provenance["determinism"] | {"training": None}
    return record.model_copy(update={"provenance": record.provenance | {"determinism": untrained}})


def _record(job: Job, model: nn.Sequential, saved: str | None) -> TrainRecord:
    return TrainRecord(
        **job.common(),
        status="ok",
        checkpoint_sha256=saved,
        parameters=sum(weight.numel() for weight in model.parameters()),
        mean=model.get_buffer("0.mean").flatten().tolist(),
        std=model.get_buffer("0.std").flatten().tolist(),
    )


class Checkpointer:
    """Stores a training's state between epochs, for at most a twentieth of the time that the training takes."""

    def __init__(self, training: Training, file: Path, identity: str) -> None:
        self._training = training
        self._file = file
        self._identity = identity
        self._due = 0.0

    def restore(self, job: Job) -> int | None:
        """Go on from the stored state; returns its epoch, or None where there is none."""
        try:
            state = load_state(self._file, self._identity)
        except CorruptCheckpointError as error:
            self._file.unlink()
            job.progress(0, 0, f"{error}: the training begins anew")
            return None
        if state is None:
            return None
        self._training.restore(state)
        return state.epoch

    def keep(self) -> None:
        """Store the state, if it is time to."""
        began = time.monotonic()
        if began >= self._due:
            save_state(self._file, self._training.state(), self._identity)
            took = time.monotonic() - began
            self._due = began + 20 * took


class ProgressThrottle:
    """Tells how far a training is, ten times a second at most."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._told = 0.0
        self.accuracy: float | None = None

    def after_step(self, done: int, total: int) -> None:
        """Tell it, if it is time to."""
        now = time.monotonic()
        if now - self._told > 0.1 or done == total:
            self._told = now
            self._job.progress(done, total, "steps", self.accuracy)
