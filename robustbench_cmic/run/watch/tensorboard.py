"""Curves for TensorBoard: a folder for every trained model, from what a run says and from what records hold.

Each run that is asked for them writes all that is known, and takes back what earlier runs wrote into the same folders:
a training that was interrupted shows as one curve, and a suite that was done long ago has its curves, too.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import CorruptRecordError
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, Epoch, TrainRecord
from robustbench_cmic.records.store import read_record, record_path
from robustbench_cmic.run.executors import Outcome
from robustbench_cmic.suite.messages import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


FLUSH_EVERY = 10
"""Seconds after which TensorBoard finds what was written, at most."""


def prepare(folder: Path) -> None:
    """Make the folder of the curves, and see that they can be written.

    Raises:
        UserError: the folder cannot be written, or TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'--tensorboard: TensorBoard cannot be used: {error}; pip install "robustbench_cmic[tensorboard]"'
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--tensorboard: cannot write to {folder}: {error.strerror or error}") from None


class Curves:
    """A listener of a run that writes curves; what cannot be written is said once and never stops the run.

    Of every epoch it writes the learning rate, all loss terms, accuracy, CMI, separation and NCMI on the batches
    trained on; of every attack, at the step of the last epoch, accuracy and NCMI under `<attack>/<norm>/eps<eps>`; and
    as text what the training declares.

    Args:
        folder: of the suite; holds a folder `<model>.s<seed>` for every trained model.
        results: the suite's results folder.
        say: told about what cannot be written.
    """

    def __init__(self, folder: Path, results: Path, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._results = results
        self._say = say
        self._failed = False
        self._writers: dict[str, SummaryWriter] = {}

    def __enter__(self) -> Curves:
        """Keep the writers' own threads from printing what `_guarded` tells."""
        self._hook = threading.excepthook
        threading.excepthook = self._swallow
        return self

    def __exit__(self, *exception: object) -> None:
        """Write to the end."""
        for writer in self._writers.values():
            self._guarded(writer.close)
        threading.excepthook = self._hook

    def known(self, records: Iterable[AnyRecord]) -> None:
        """Write what records hold."""
        for record in records:
            if isinstance(record, TrainRecord):
                for epoch in record.curve:
                    self.trained(record.cell, epoch, True)
            elif isinstance(record, AttackRecord) and record.status == "ok":
                self._attacked(record)

    def started(self, cell: Cell) -> None:
        """Nothing to draw yet."""

    def progressed(self, cell: Cell, done: int, total: int, text: str, accuracy: float | None = None) -> None:
        """Epochs are what is drawn."""

    def trained(self, cell: Cell, epoch: Epoch, restored: bool) -> None:  # noqa: ARG002
        """Write an epoch."""
        scalars = {"train/lr": epoch.lr, "train/accuracy": epoch.accuracy} | _information("train", epoch)
        scalars |= {f"loss/{term}": value for term, value in epoch.loss.items()}
        self._write(cell, scalars, epoch.epoch)

    def finished(self, cell: Cell, outcome: Outcome, reason: str, seconds: float) -> None:  # noqa: ARG002
        """Write what an attack's record holds."""
        if cell.kind == "attack" and outcome == "ok":
            try:
                record = read_record(record_path(self._results, cell.id))
            except (FileNotFoundError, CorruptRecordError):
                return  # a run that is done with a record finds out by itself
            self.known([record])

    def _attacked(self, record: AttackRecord) -> None:
        cell = record.cell
        ball = f"/{cell.norm}/eps{cell.eps:.5g}" if cell.norm else ""
        name = re.sub(r"[^\w.+-]", "_", cell.attack) + ball
        scalars = {f"accuracy/{name}": record.accuracy}
        if record.information is not None:
            scalars[f"ncmi/{name}"] = record.information.ncmi
        training = cell.declared["train"]["training"]
        self._write(cell, scalars, 0 if training is None else training["epochs"])

    def _write(self, cell: Cell, scalars: dict[str, float | None], step: int) -> None:
        def write() -> None:
            writer = self._writer(cell)
            for tag, value in scalars.items():
                if value is not None:
                    writer.add_scalar(tag, value, step)

        self._guarded(write)

    def _writer(self, cell: Cell) -> SummaryWriter:
        name = f"{cell.model}.s{cell.seed}"
        if name not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            # Everything from step 0 on, written by earlier runs, is taken back: what is known is written anew.
            writer = SummaryWriter(str(self._folder / name), purge_step=0, flush_secs=FLUSH_EVERY)
            self._writers[name] = writer
            writer.add_text("configuration", _configuration(cell), 0)
        return self._writers[name]

    def _guarded(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            action()
        except OSError as error:
            self._failed = True
            self._say(f"warning: cannot write curves to {self._folder}: {error.strerror or error}; the run goes on")

    def _swallow(self, failure: threading.ExceptHookArgs) -> None:
        ours = type(failure.thread).__module__.startswith("tensorboard.") and isinstance(failure.exc_value, OSError)
        if not ours:
            self._hook(failure)


def _information(group: str, epoch: Epoch) -> dict[str, float | None]:
    return {f"{group}/{name}": getattr(epoch, name) for name in ("cmi", "separation", "ncmi")}


def _configuration(cell: Cell) -> str:
    """What the training declares, as Markdown."""
    declared: dict[str, Any] = cell.declared.get("train", cell.declared)
    return f"```json\n{json.dumps(declared, indent=2)}\n```"
