"""The main path: a suite's plan is carried out, recorded and reported. This process does not import torch of itself."""

from __future__ import annotations

import contextlib
import datetime
import os
import pkgutil
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from robustbench_cmic import __version__
from robustbench_cmic.data import load_data
from robustbench_cmic.plan.build import make_plan
from robustbench_cmic.plan.cell import Cell, Plan
from robustbench_cmic.plan.select import select
from robustbench_cmic.records.files import NewerFileError, unwritten, write_json
from robustbench_cmic.records.schema import Status
from robustbench_cmic.records.state import (
    ALTERED,
    CellState,
    blocked_cells,
    cell_states,
    forced_cells,
    foreseen,
    pending_cells,
)
from robustbench_cmic.records.store import Store
from robustbench_cmic.report import ReportError, Summary, of_own_making, write_report
from robustbench_cmic.report.folder import claimed
from robustbench_cmic.run import DONE, INCOMPLETE, INTERRUPTED, USAGE
from robustbench_cmic.run.console import OutputError, sayer
from robustbench_cmic.run.executors import EXECUTORS, Executor
from robustbench_cmic.run.options import Options, make_settings
from robustbench_cmic.run.preflight import may_misfit, misfit_problems
from robustbench_cmic.run.watch.estimate import cell_estimate, duration
from robustbench_cmic.run.watch.event_log import EventLog
from robustbench_cmic.run.watch.events import Emit, Event, RunEnded, RunStarted
from robustbench_cmic.run.watch.progress import display
from robustbench_cmic.run.watch.tensorboard import Curves
from robustbench_cmic.suite import Suite, SuiteError
from robustbench_cmic.suite.messages import UserError, os_error_reason


def run_suite(
    suite: Suite,
    options: Options,
    console: Console,
    problems: Console | None = None,
    show: Callable[[Summary], None] | None = None,
) -> int:
    """Carry out what is left of a suite and write its report.

    Args:
        suite: what to run.
        options: of the command line.
        console: where progress is told.
        problems: where it is told what went wrong; by default there, too.
        show: is given what the report was made of, where the run came to its end.

    Returns:
        0 all selected cells are done; 1 some failed or diverged; 130 interrupted.

    Raises:
        UserError: the results folder, the data or the device cannot be used, another run is using the folder, it holds
            results of another suite of this name or a plan of a newer version, or `seeds` or `only` fit nothing.
        SuiteError: objectives that do not fit the networks that they are to train, at their places in `suite`, which
            `LoadedSuite.locating` gives their lines.
        OutputError: standard output takes no more; what is finished is kept.
    """
    runner = Runner(suite, options, console, problems or console, show)
    store = runner.store
    with store.exclusive():
        try:
            store.remove_temporary_files()
            write_json(store.plan, _claimed_plan(suite, options, store).model_dump(mode="json"))
        except OSError as error:
            raise UserError(f"cannot write to {store.results}: {os_error_reason(error)}") from None
        return runner.run()


def _claimed_plan(suite: Suite, options: Options, store: Store) -> Plan:
    """The suite's plan, see `claimed`; with `--force`, one of a newer version is set aside."""
    try:
        return claimed(store.results, make_plan(suite), options.file)
    except NewerFileError:
        if not options.force:
            raise
        store.quarantine(store.plan)
        return claimed(store.results, make_plan(suite), options.file)


class Runner:
    """One run over the selected cells of a suite; see `run_suite`."""

    def __init__(
        self,
        suite: Suite,
        options: Options,
        console: Console,
        problems: Console,
        show: Callable[[Summary], None] | None,
    ) -> None:
        self.options, self.console, self.show = options, console, show
        self.say, self.complain = sayer(console, soft_wrap=True), sayer(problems, soft_wrap=True)
        self.plan = make_plan(suite, options.limit)
        self.cells, self.asked = select(self.plan, options.seeds, options.only, options.shard)
        self.executor: type[Executor] = pkgutil.resolve_name(EXECUTORS[options.executor])
        device, self.jobs = self.executor.place(options)
        self.settings = make_settings(suite, options, device)
        self.store = self.settings.store
        self.listeners: list[Emit] = [EventLog(self.store.events, self.complain)]
        self.curves: Curves | None = None
        if options.tensorboard is not None:
            self.curves = Curves(options.tensorboard / suite.suite, self.store.results, self.plan.cells, self.complain)
            self.listeners.append(self.curves)
        data = self.settings.data
        if data.exists() and not data.is_dir():
            raise UserError(f"--data {data}: is a file, not a folder")
        # Once here, before any lock or file: it is downloaded and decoded then, and what is wrong with it is told.
        loaded = load_data(suite.dataset, data, options.memory, self.say, options.force)
        self.dataset_sha256 = loaded.sha256
        if misfits := misfit_problems(suite, self._trainings_to_try(), self.settings, loaded):
            raise SuiteError(options.file or suite.suite, misfits)

    def _trainings_to_try(self) -> list[Cell]:
        """Pending trainings of which only a trial tells that objective and network fit; nothing is set aside for it."""
        if not any(map(may_misfit, self.cells)):
            return []
        _, pending = foreseen(
            self.cells, self.asked, self.store, force=self.options.force, outputs=self.settings.outputs is not None,
            dataset_sha256=self.dataset_sha256,
        )  # fmt: skip
        return [cell for cell in self.cells if cell.id in pending and may_misfit(cell)]

    def run(self) -> int:
        """Run what is pending, report, and tell how it ended; returns the exit code."""
        try:
            return self._run_and_report()
        except OutputError as error:
            self._emit(RunEnded(exit_code=INCOMPLETE, reason=str(error)))
            raise

    def _run_and_report(self) -> int:
        interrupted = False
        try:
            with self.curves or contextlib.nullcontext():
                statuses = self._run_pending()
            code = self._conclude(statuses)
        except OSError as error:
            reason = f"cannot write {error.filename or self.store.work}: {os_error_reason(error)}"
            self._emit(RunEnded(exit_code=USAGE, reason=reason))
            raise UserError(reason) from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is short, and must end whole
            self.complain("interrupted: what is finished is kept; the same command goes on from here")
            code, interrupted = INTERRUPTED, True
        try:
            summary = write_report(self.store.results)
            if self.show is not None and not interrupted:
                with of_own_making(self.store.results):
                    self.show(summary)
        except (OSError, ReportError) as error:
            why = unwritten(error, self.store.results) if isinstance(error, OSError) else error
            self.complain(f"cannot write the report: {why}")
            code = code or INCOMPLETE
        self._emit(RunEnded(exit_code=code, interrupted=interrupted))
        return code

    def _emit(self, event: Event, *further: Emit) -> None:
        """Tell all listeners, with the time at which it was heard here: clocks of workers may differ."""
        heard = event.model_copy(update={"time": datetime.datetime.now(datetime.UTC)})
        for listener in (*self.listeners, *further):
            listener(heard)

    def _states(self, cells: list[Cell]) -> dict[str, CellState]:
        return cell_states(cells, self.store.results, self.dataset_sha256)

    def _run_pending(self) -> dict[str, Status]:
        """Run until nothing is left to do that was not tried; returns how the cells ended that were."""
        if self.options.force:
            for cell in forced_cells(self.cells, self.asked, self._states(self.cells)):
                self.store.forget(cell)
        statuses: dict[str, Status] = {}
        pending = self._pending()
        self._announce(pending)
        while pending:
            statuses |= self._run_once(pending)
            # A training done anew may have given other weights; the attacks on the old ones are pending then too.
            pending = [cell for cell in self._pending() if cell.id not in statuses]
        return statuses

    def _pending(self) -> list[Cell]:
        """The cells to run, in order; what cannot be trusted is moved out of the way."""
        states = self._states(self.cells)
        pending = pending_cells(self.cells, states, self.store, self.settings.outputs is not None)
        for cell in self.cells:
            if states[cell.id].state == "unusable":
                self._quarantine(self.store.record(cell.id), cell, states[cell.id].why)
            if cell.id in pending and pending[cell.id] == ALTERED.get(cell.kind):
                self._quarantine(self.store.product(cell), cell, pending[cell.id])
        return [cell for cell in self.cells if cell.id in pending]

    def _quarantine(self, file: Path, cell: Cell, why: str) -> None:
        target = self.store.quarantine(file)
        self.complain(f"{cell.id}: {why}; set aside as {target}, to be done again")

    def _announce(self, pending: list[Cell]) -> None:
        """Tell those who watch what is to be done, and what is done already."""
        self._emit(
            RunStarted(
                version=__version__,
                pid=os.getpid(),
                host=socket.gethostname(),
                options=asdict(self.options),
                device=self.settings.device,
                jobs=min(self.jobs, max(1, len(pending))),
                cells=[cell_estimate(cell) for cell in pending],
            )
        )
        if self.curves is not None:
            states = self._states(self.plan.cells)
            done = (states[cell.id] for cell in self.plan.cells if cell not in pending)
            self.curves.add(state.record for state in done if state.is_final and state.record)

    def _run_once(self, pending: list[Cell]) -> dict[str, Status]:
        settings, jobs = self.settings, min(self.jobs, len(pending))
        what = f"{len(pending)} of {len(self.cells)} cells to run"
        limit = "" if settings.timeout is None else f", at most {duration(settings.timeout)} each"
        self.say(f"{settings.suite}: {what}, {jobs} at a time, on {settings.device}{limit}")
        executor = self.executor(settings, jobs)
        with display(self.console, pending, jobs) as show:
            return executor.run(pending, lambda event: self._emit(event, show))

    def _conclude(self, statuses: dict[str, Status]) -> int:
        """Say what has no result, and why; returns the exit code."""
        states = self._states(self.cells)
        blocked = blocked_cells(self.cells, states)
        bad = [cell for cell in self.cells if states[cell.id].state != "done"]
        if not statuses:
            done = f"all {len(self.cells)} cells are done" if not bad else "everything that can be done is done"
            self.say(f"{done} already: nothing to run (--force runs it anew)")
        if any(states[cell.id].state == "newer" for cell in bad):
            self.complain("what is from a newer version is kept: update robustbench_cmic (--force does it anew)")
        for cell in bad:
            state = states[cell.id]
            if state.state != "missing" and cell.id not in blocked:
                is_told = cell.id in statuses and not self.console.quiet  # as it ended
                self.complain(f"{state.state}: {cell.id}{', see above' if is_told else f': {state.why}'}")
        if bad:
            self.complain(f"{len(bad)} of {len(self.cells)} cells have no result")
        return INCOMPLETE if bad else DONE
