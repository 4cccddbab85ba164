"""The main path: a suite's plan is carried out, recorded and reported. This process does not import torch of itself."""

from __future__ import annotations

import contextlib
import datetime
import signal
from pathlib import Path

from rich.console import Console

from robustbench_cmic import __version__
from robustbench_cmic.data import default_folder, load_data
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, runs_custom_code
from robustbench_cmic.plan.select import Selection, select
from robustbench_cmic.records import provenance
from robustbench_cmic.records.files import file_sha256, unwritten, write_json
from robustbench_cmic.records.locks import exclusive
from robustbench_cmic.records.pictures import pictures_folder
from robustbench_cmic.records.schema import Timing
from robustbench_cmic.records.state import cell_states, is_blocked
from robustbench_cmic.records.store import (
    failed_record,
    product_file,
    quarantine,
    record_path,
    resume_file,
    work_folder,
    write_record,
)
from robustbench_cmic.report import PLAN_FILE, ReportError, write_report
from robustbench_cmic.run.executors import Listeners, Outcome
from robustbench_cmic.run.executors.local import LocalProcesses
from robustbench_cmic.run.options import Options, Settings, cores, jobs_at_once, resolve_device
from robustbench_cmic.run.resume import ALTERED, pending_cells
from robustbench_cmic.run.watch.estimate import cell_estimate
from robustbench_cmic.run.watch.event_log import EventLog
from robustbench_cmic.run.watch.events import EVENTS_FILE
from robustbench_cmic.run.watch.progress import make_display
from robustbench_cmic.run.watch.tensorboard import Curves, prepare
from robustbench_cmic.suite import Suite
from robustbench_cmic.suite.messages import UserError

DONE, INCOMPLETE, USAGE, INTERRUPTED = 0, 1, 2, 130


def run_suite(suite: Suite, options: Options, console: Console) -> int:
    """Carry out what is left of a suite and write its report.

    Returns:
        0 all selected cells are done; 1 some failed or diverged; 130 interrupted.

    Raises:
        UserError: the results folder, the data or the device cannot be used, another run is using the folder, or
            `seeds` or `only` fit nothing.
    """
    plan = make_plan(suite, options.limit)
    selection = select(plan, options.seeds, options.only)
    device = resolve_device(options.device)
    settings = Settings(
        suite=plan.suite,
        results=options.results.absolute() / plan.suite,
        work=work_folder(options.results, options.work) / plan.suite,
        device=device,
        batch_size=options.batch_size or (1024 if device.startswith("cuda") else 256),
        data=(options.data or default_folder()).absolute(),
        memory=options.memory,
        loaders=min(16, max(1, cores() // jobs_at_once(options, device))),
        deterministic=options.deterministic,
        pictured_seed=min(suite.seeds),
        weights=_given_weights(suite),
        provenance=provenance.collect(),
    )
    if options.tensorboard is not None:
        prepare(options.tensorboard / plan.suite)
    # Before any lock or file: data that is not there is the user's to see to.
    dataset_sha256 = _fingerprint(suite, settings, console)
    run = _Run(plan.cells, selection, settings, options, console, dataset_sha256)
    with exclusive(*dict.fromkeys((settings.results, settings.work))):
        try:
            _tidy(settings)
            write_json(settings.results / PLAN_FILE, make_plan(suite).model_dump(mode="json"))
        except OSError as error:
            raise UserError(f"cannot write to {settings.results}: {error.strerror or error}") from None
        return run.whole()


def _tidy(settings: Settings) -> None:
    """Remove the half-written temporary files of a run that was killed."""
    for folder in (settings.results, pictures_folder(settings.results), settings.work):
        for file in folder.glob(".*.tmp"):
            file.unlink(missing_ok=True)


class _Run:
    """One run over the selected cells of a plan."""

    def __init__(
        self,
        planned: list[Cell],
        selection: Selection,
        settings: Settings,
        options: Options,
        console: Console,
        dataset_sha256: str,
    ) -> None:
        self.planned = planned
        self.cells = selection.cells
        self.asked = selection.asked
        self.settings = settings
        self.options = options
        self.console = console
        self.dataset_sha256 = dataset_sha256
        self.events = EventLog(settings.work / EVENTS_FILE, settings.results, self._say)
        self.curves: Curves | None = None
        if options.tensorboard is not None:
            self.curves = Curves(options.tensorboard / settings.suite, settings.results, self._say)

    def whole(self) -> int:
        """Carry out, report, and say how it ended; returns the exit code."""
        interrupted = False
        try:
            with self.curves or contextlib.nullcontext():
                code = self._carry_out()
        except OSError as error:
            reason = f"cannot write {error.filename or self.settings.work}: {error.strerror or error}"
            self.events.run_ended(USAGE, reason=reason)
            raise UserError(reason) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is short, and must end whole
            self._say("interrupted: what is finished is kept; the same command goes on from here")
            code, interrupted = INTERRUPTED, True
        try:
            write_report(self.settings.results)
        except (OSError, ReportError) as error:
            why = unwritten(error, self.settings.results) if isinstance(error, OSError) else error
            self._say(f"cannot write the report: {why}")
            code = code or INCOMPLETE
        self.events.run_ended(code, interrupted)
        return code

    def _carry_out(self) -> int:
        """Execute until nothing is left to do that was not tried."""
        if self.options.force:
            self._forget()
        outcomes: dict[str, Outcome] = {}
        pending = self._pending()
        self._announce(pending)
        while pending:
            outcomes |= self._execute(pending)
            # A training done anew may have given other weights; the attacks on the old ones are pending then too.
            pending = [cell for cell in self._pending() if cell.id not in outcomes]
        return self._conclude(outcomes)

    def _announce(self, pending: list[Cell]) -> None:
        """Tell those who watch what is to be done, and what is done already."""
        device = self.settings.device
        jobs = jobs_at_once(self.options, device)
        self.events.run_started(
            __version__,
            self.options.plain(),
            device,
            min(jobs, max(1, len(pending))),
            [cell_estimate(cell) for cell in pending],
        )
        if self.curves is not None:
            waiting = {cell.id for cell in pending}
            found = cell_states(self.planned, self.settings.results, self.dataset_sha256)
            settled = [one.record for cell, one in found.items() if one.is_final and cell not in waiting]
            self.curves.known(record for record in settled if record is not None)

    def _forget(self) -> None:
        """Move what was asked for out of the way."""
        for cell in self.cells:
            if cell.id in self.asked:
                work = self.settings.work
                for file in (record_path(self.settings.results, cell.id), product_file(cell, work)):
                    if file.exists():
                        quarantine(file, work)
                resume_file(work, cell.id).unlink(missing_ok=True)

    def _pending(self) -> list[Cell]:
        """The cells to run, in order; what cannot be trusted is set aside on the way."""
        found = cell_states(self.cells, self.settings.results, self.dataset_sha256)
        pending = pending_cells(self.cells, found, self.settings.work)
        for cell in self.cells:
            if found[cell.id].state == "unusable":
                self._set_aside(record_path(self.settings.results, cell.id), cell, found[cell.id].why)
            if cell.id in pending and pending[cell.id] == ALTERED.get(cell.kind):
                self._set_aside(product_file(cell, self.settings.work), cell, pending[cell.id])
        return [cell for cell in self.cells if cell.id in pending]

    def _set_aside(self, file: Path, cell: Cell, why: str) -> None:
        target = quarantine(file, self.settings.work)
        self._say(f"{cell.id}: {why}; set aside as {target}, to be done again")

    def _tainted(self, cell: Cell, outcome: Outcome) -> bool:
        """What went on in a process may stay in it and change the cells that come after."""
        # An error of CUDA makes whatever comes after it fail; a user's code may leave anything changed.
        return (outcome == "failed" and self.settings.device.startswith("cuda")) or runs_custom_code(cell)

    def _execute(self, pending: list[Cell]) -> dict[str, Outcome]:
        jobs = min(jobs_at_once(self.options, self.settings.device), len(pending))
        self._say(
            f"{self.settings.suite}: {len(pending)} of {len(self.cells)} cells to run, {jobs} at a time, "
            f"on {self.settings.device}"
        )
        executor = LocalProcesses(
            jobs,
            "robustbench_cmic.run.executors.worker:work",
            self.settings,
            self._record_death,
            self._tainted,
        )
        with make_display(self.console, pending, jobs) as display:
            also = () if self.curves is None else (self.curves,)
            return executor.run(pending, Listeners(self.events, *also, display))

    def _record_death(self, cell: Cell, reason: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        timing = Timing(started=now, seconds=0.0)
        record = failed_record(self.settings.suite, cell, reason, self.settings.provenance, timing)
        with contextlib.suppress(OSError):  # the outcome is told and counted all the same
            write_record(self.settings.results, record)

    def _conclude(self, outcomes: dict[str, Outcome]) -> int:
        found = cell_states(self.cells, self.settings.results, self.dataset_sha256)
        bad = [cell for cell in self.cells if found[cell.id].state != "done"]
        if not outcomes:
            done = f"all {len(self.cells)} cells are done" if not bad else "everything that can be done is done"
            self._say(f"{done} already: nothing to run (--force runs it anew)")
        for cell in bad:
            standing = found[cell.id]
            state = "skipped" if is_blocked(cell, found) or standing.state == "missing" else standing.state
            if state != "skipped":
                self._say(f"{state}: {cell.id}: {standing.why}")
        if bad:
            self._say(f"{len(bad)} of {len(self.cells)} cells have no result")
        return INCOMPLETE if bad else DONE

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _fingerprint(suite: Suite, settings: Settings, console: Console) -> str:
    """Load the data once here, so that what has to be downloaded or decoded is, and what is wrong with it is told."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    if settings.data.exists() and not settings.data.is_dir():
        raise UserError(f"--data {settings.data}: is a file, not a folder")
    return load_data(suite.dataset, settings.data, settings.memory, say).sha256


def _given_weights(suite: Suite) -> dict[str, Path]:
    """The files of given weights, by their hash."""
    files = [model.weights_file(seed) for model in suite.models if model.weights for seed in suite.seeds]
    return {sha256: file for file in files if (sha256 := file_sha256(file)) is not None}
