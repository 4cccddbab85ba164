"""A training cell: trained with an objective, or loaded from given weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from robustbench_cmic.attacks.model import frozen
from robustbench_cmic.data.base import Split
from robustbench_cmic.data.subset import choose
from robustbench_cmic.models.build import own_names, stays_in_training
from robustbench_cmic.models.given import fit_weights, read_given_weights
from robustbench_cmic.models.weights import CorruptCheckpointError, load_weights, save_weights
from robustbench_cmic.objectives import build_objective, build_robust_cmi
from robustbench_cmic.plan.cell import canonical_json
from robustbench_cmic.records.schema import Fingerprint, KeptOutputs, TrainRecord
from robustbench_cmic.run.jobs.context import Job
from robustbench_cmic.run.jobs.fidelity import judged_is_trained, lost_state, resume_check, resumed_differs
from robustbench_cmic.run.jobs.fit import fitted_model
from robustbench_cmic.suite.data import dataset_of
from robustbench_cmic.suite.objectives import objective_of
from robustbench_cmic.suite.training import Training
from robustbench_cmic.training.checkpoint import TrainingRun, load_state, save_state
from robustbench_cmic.training.loop import Acceleration, Divergence, train
from robustbench_cmic.training.optimizer import build_optimizer
from robustbench_cmic.training.outputs import OutputKeeper


def run_training(job: Job) -> TrainRecord:
    """Train from the start, or from the stored state of a run that was killed."""
    cell, settings = job.cell, job.settings
    declared = Training.model_validate(cell.declared["training"])
    goal = objective_of(cell.declared["objective"])
    split = _limited(job.data.train, declared.limit)

    def begin() -> TrainingRun:
        objective = build_objective(goal, job.data.classes, cell.seed)
        model = fitted_model(job, objective)
        _load_initial(job, model)
        objective.to(settings.device)
        optimizer = build_optimizer(model, declared.optimizer, objective)
        term = build_robust_cmi(goal.adversary, job.data.classes)
        return TrainingRun(model, objective, optimizer, goal.adversary, term and term.to(settings.device))

    keeper, identity = None, " ".join([f"{cell.id} on {job.data.sha256}", *job.begun_with.values()])
    if (asked := settings.outputs) is not None:
        keeper = OutputKeeper(asked, job.data, declared.epochs, settings.device)
        identity += f" with outputs {canonical_json(asked.model_dump())}"
    checkpointer = Checkpointer(job, settings.store.resume_state(cell.id), identity)
    training, job.stopwatch.resumed = checkpointer.take_up(begin)
    _warn_of_training_mode(job, training.model)
    _warn_of_objective(job, declared.steps(len(split.labels)))
    for epoch in training.curve:
        job.epoch(epoch, restored=True)

    def after_epoch(training: TrainingRun) -> None:
        if len(training.curve) == 1 < declared.epochs:  # rather than after hours
            _compare_with_new(job, training)
        if keeper is not None:
            keeper.note(training)
        checkpointer.keep(training)
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
    if keeper is not None and divergence is None and training.selected_epoch is not None:
        keeper.note(training, training.selected_epoch)  # whose weights are left, whether it was to be kept or not
    outputs = None if keeper is None else keeper.record(training)
    if stopped := _stopped(training):
        job.progress(0, 0, f"warning: {stopped}")
    return _record(job, training.model, training, divergence, outputs)


def _limited(split: Split, limit: int | None) -> Split:
    """So many images of a split, as many of every class; None: all."""
    if limit is None:
        return split
    rows = choose(split.labels, limit, per_class=True)
    return Split(split.images[rows], split.labels[rows])


def _stopped(training: TrainingRun | None) -> str:
    """Why a training ended before its last epoch without diverging; empty where it did not."""
    if training is None or training.fell is None:
        return ""
    before, after = (training.curve[epoch - 1].checked or 0.0 for epoch in (training.fell - 1, training.fell))
    what = f"accuracy under PGD with 5 steps on one training batch fell from {100 * before:.1f} to {100 * after:.1f} %"
    kept = f"the weights are those of epoch {training.selected_epoch}"
    return f"stopped after epoch {training.fell}, catastrophic overfitting: {what}; {kept}"


def load_given_weights(job: Job) -> TrainRecord:
    """Given weights in place of a training: from a file, or timm's."""
    declared, given = (job.cell.declared[part] for part in ("model", "weights"))
    if given is None:
        model = job.model(declared)
    else:
        weights = _read(job, given)
        model = job.model(declared, objective=job.head_owner(job.cell.declared, weights))
        fit_weights(model, weights, given["file"], normalized=declared["normalization"] is not None)
    _warn_of_training_mode(job, model)
    return _record(job, model)


def _read(job: Job, given: dict[str, str]) -> dict[str, Tensor]:
    """The weights of a file that a cell declares."""
    return read_given_weights(job.settings.weights[given["sha256"]], given["sha256"], given.get("key"))


def _load_initial(job: Job, model: nn.Sequential) -> None:
    """The weights that a training begins with, if it declares any; what is in front of the network stays."""
    given = job.cell.declared.get("initial_weights")
    if given is None:
        return
    if job.cell.source is None:
        fit_weights(model, _read(job, given), given["file"], normalized=True)
        return
    weights = load_weights(job.settings.store.weights(job.cell.source), job.begun_with[job.cell.source])
    fit_weights(model, weights, f"the training {job.cell.source}", normalized=True)


def _warn_of_training_mode(job: Job, model: nn.Sequential) -> None:
    with frozen(model):
        stuck = stays_in_training(model)
    if stuck is not None:
        job.progress(0, 0, f"warning: {job.cell.architecture} {stuck}: what is judged is not what is deployed")


def _warn_of_objective(job: Job, steps: int) -> None:
    """What so many steps are too few for, where `validate` could not know how many there are."""
    declared = job.cell.declared
    if dataset_of(declared["dataset"]).images_to_train_on is not None:
        return
    goal = objective_of(declared["objective"])
    term = None if goal.adversary is None else goal.adversary.robust_cmi
    found = [*goal.warnings(steps, "initial_weights" in declared), *(term.warnings(steps) if term else ())]
    for _, sentence in found:
        job.progress(0, 0, f"warning: {sentence}")


def _compare_with_new(job: Job, training: TrainingRun) -> None:
    """Raises a `ModelError` where a model built anew from a model's state dict is another one."""
    anew = job.model(job.cell.declared["model"] | {"pretrained": False}, objective=training.objective)
    anew.load_state_dict(training.model.state_dict())
    judged_is_trained(job.cell.architecture, training.model, anew, job.checked_images)


def _fingerprint(job: Job, model: nn.Sequential, saved: str) -> Fingerprint | None:
    """The fingerprint of a model whose weights are stored, as it is when it is built anew from them."""
    anew = job.stored_model(job.cell.id, saved, job.cell.declared)
    found = judged_is_trained(job.cell.architecture, model, anew, job.checked_images)
    if found is None:
        what = f"warning: {job.cell.architecture} answers otherwise in every pass"
        job.progress(0, 0, f"{what}: whether the model that is judged is the one that was trained cannot be told")
    return found


def _record(
    job: Job,
    model: nn.Sequential,
    training: TrainingRun | None = None,
    divergence: Divergence | None = None,
    outputs: KeptOutputs | None = None,
) -> TrainRecord:
    """Store the weights, unless the training diverged, and say what became of them."""
    saved = save_weights(job.settings.store.weights(job.cell.id), model.state_dict()) if divergence is None else None
    fingerprint = None if saved is None else _fingerprint(job, model, saved)
    common = job.common()
    if training is None:
        common["provenance"]["determinism"]["training"] = None
    return TrainRecord(
        **common,
        status="ok" if divergence is None else "diverged",
        reason="" if divergence is None else divergence.reason,
        checkpoint_sha256=saved,
        inputs=job.begun_with,
        left_out=list(job.data.left_out),
        parameters=sum(weight.numel() for weight in model.parameters()),
        mean=model.get_buffer("0.mean").flatten().tolist(),
        std=model.get_buffer("0.std").flatten().tolist(),
        image_shape=job.data.image_shape,
        classes=job.data.classes,
        features=job.data.features,
        curve=[] if training is None else training.curve,
        selected_epoch=None if training is None or divergence is not None else training.selected_epoch,
        stopped=_stopped(training) if divergence is None else "",
        last_finite=None if divergence is None else divergence.last_finite,
        outputs=outputs,
        fingerprint=fingerprint,
    )


@dataclass
class Checkpointer:
    """Stores a training's state between epochs, for at most a twentieth of the time that the training takes."""

    job: Job
    file: Path
    identity: str
    due: float = 0.0

    def take_up(self, begin: Callable[[], TrainingRun]) -> tuple[TrainingRun, int | None]:
        """A training that goes on from the stored state, and its epoch; or a new one and None, where none is usable.

        A state is not where the model, built anew, is another than the one that was stored: what it held outside its
        state dict is lost.
        """
        training = begin()
        try:
            state = load_state(self.file, self.identity)
        except CorruptCheckpointError as error:
            return self._anew(training, str(error))
        if state is None:
            return training, None
        training.restore(state)
        lost = own_names(lost_state(state.outside, training.model))
        name, said = self.job.cell.architecture, ", ".join(lost[:5]) or "something"
        if resumed_differs(training.model, self.job.checked_images, state.answers) or (lost and not state.answers):
            return self._anew(begin(), f"{name} holds {said} outside its state dict, which an interruption loses")
        if lost:
            self.job.progress(0, 0, f"warning: {name} goes on with {said} as new: not in its state dict")
        return training, state.epoch

    def _anew(self, training: TrainingRun, why: str) -> tuple[TrainingRun, None]:
        self.file.unlink()
        self.job.progress(0, 0, f"warning: {why}: the training begins anew")
        return training, None

    def keep(self, training: TrainingRun) -> None:
        """Store the state, if it is time to."""
        began = time.monotonic()
        if began >= self.due:
            state = training.state()
            state.answers, state.outside = resume_check(training.model, self.job.checked_images)
            save_state(self.file, state, self.identity)
            self.due = began + 20 * (time.monotonic() - began)
