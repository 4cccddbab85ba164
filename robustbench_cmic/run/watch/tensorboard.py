"""Curves for TensorBoard: a folder for every trained model, from what a run says and from what records hold.

Each run that is asked for them writes all that is known, and takes back what earlier runs wrote into the same folders:
a training that was interrupted shows as one curve, and a suite that was done long ago has its curves, too.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from robustbench_cmic.plan.cell import Cell
from robustbench_cmic.records.files import CorruptRecordError
from robustbench_cmic.records.schema import AnyRecord, AttackRecord, Epoch, TrainRecord
from robustbench_cmic.records.store import Store, read_record
from robustbench_cmic.run.watch.events import CellEnded, EpochDone, Event
from robustbench_cmic.suite.messages import UserError, os_error_reason

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Curves:
    """A listener that writes curves; what cannot be written is said once and never stops the run.

    Of every epoch it writes the learning rate, all loss terms, accuracy, CMI, separation and NCMI on the batches
    trained on; of every attack, at the step of the last epoch, accuracy and NCMI under `<attack>/<norm>/eps<eps>`; and
    as text what the training declares.

    Args:
        folder: of the suite; holds a folder `<model>.s<seed>` for every trained model.
        results: the suite's results folder.
        cells: that may run.
        say: told about what cannot be written.

    Raises:
        UserError: the folder cannot be written, or TensorBoard is not installed.
    """

    def __init__(self, folder: Path, results: Path, cells: Iterable[Cell], say: Callable[[str], None]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            hint = 'pip install "robustbench_cmic[tensorboard]"'
            raise UserError(f"--tensorboard: TensorBoard cannot be used: {error}; {hint}") from None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--tensorboard: cannot write to {folder}: {os_error_reason(error)}") from None
        # Everything from step 0 on, written by earlier runs, is taken back: what is known is written anew. TensorBoard
        # finds it after 10 s at most.
        self._open = functools.partial(SummaryWriter, purge_step=0, flush_secs=10)
        self._folder = folder
        self._store = Store(results)
        self._cells = {cell.id: cell for cell in cells}
        self._say = say
        self._failed = False
        self._writers: dict[str, SummaryWriter] = {}

    def __enter__(self) -> Curves:
        # Keeps the writers' own threads from printing what `_guarded` tells.
        self._hook = threading.excepthook
        threading.excepthook = self._swallow
        return self

    def __exit__(self, *exception: object) -> None:
        for writer in self._writers.values():
            self._guarded(writer.close)
        threading.excepthook = self._hook

    def add(self, records: Iterable[AnyRecord]) -> None:
        """Write what records hold."""
        for record in records:
            if isinstance(record, TrainRecord):
                for epoch in record.curve:
                    self._trained(record.cell, epoch)
            elif isinstance(record, AttackRecord) and record.status == "ok":
                self._attacked(record)

    def __call__(self, event: Event) -> None:
        """Write an epoch, or what the record of an attack holds that is done."""
        if isinstance(event, EpochDone):
            self._trained(self._cells[event.cell], event.numbers)
        elif isinstance(event, CellEnded) and event.status == "ok" and self._cells[event.cell].kind == "attack":
            # A run that is done with a record finds out by itself what is wrong with it.
            with contextlib.suppress(FileNotFoundError, CorruptRecordError):
                self.add([read_record(self._store.record(event.cell))])

    def _trained(self, cell: Cell, epoch: Epoch) -> None:
        names = ("lr", "accuracy", "cmi", "separation", "ncmi", "held_out")
        scalars: dict[str, float | None] = {f"train/{name}": getattr(epoch, name) for name in names}
        scalars |= {f"loss/{term}": value for term, value in epoch.loss.items()}
        self._write(cell, scalars, epoch.epoch)

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
        name = f"{cell.model}.s{cell.seed}"

        def write() -> None:
            if name not in self._writers:
                self._writers[name] = self._open(str(self._folder / name))
                declared = json.dumps(cell.network_declared, indent=2)
                self._writers[name].add_text("configuration", f"```json\n{declared}\n```", 0)
            for tag, value in scalars.items():
                if value is not None:
                    self._writers[name].add_scalar(tag, value, step)

        self._guarded(write)

    def _guarded(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            action()
        except OSError as error:
            self._failed = True
            self._say(f"warning: cannot write curves to {self._folder}: {os_error_reason(error)}; the run goes on")

    def _swallow(self, failure: threading.ExceptHookArgs) -> None:
        ours = type(failure.thread).__module__.startswith("tensorboard.") and isinstance(failure.exc_value, OSError)
        if not ours:
            self._hook(failure)
