"""The main path: a suite's plan is carried out, recorded and reported. This process does not import torch of itself."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
from rich.console import Console

from robustbench_cmic import provenance
from robustbench_cmic.cell import Cell
from robustbench_cmic.data import default_folder, load_data
from robustbench_cmic.data.base import DataError
from robustbench_cmic.execute import LocalProcesses, Outcome
from robustbench_cmic.plan import Selection, make_plan, select
from robustbench_cmic.progress import make_display
from robustbench_cmic.record import failed_record, record_path, write_json, write_record
from robustbench_cmic.record_schema import Timing
from robustbench_cmic.report import PLAN_FILE, ReportError, write_report
from robustbench_cmic.resume import ALTERED, blocked, file_sha256, product_file, set_aside, standings, to_run
from robustbench_cmic.settings import Settings, resume_file, work_folder
from robustbench_cmic.suite import Suite

DONE, INCOMPLETE, INTERRUPTED = 0, 1, 130


class RunError(Exception):
    """A run that cannot begin; the message says why."""


@dataclass(frozen=True)
class Options:
    """What the command line says about a run.

    Attributes:
        results: where results of all suites lie.
        work: where checkpoints and resume states lie; by default beside `results`, as `results.work`, so that two
            results folders never share any.
        seeds, only: which cells, see `plan.select`.
        limit: evaluate on this many examples; marked, never ranked.
        jobs: worker processes; None: one a core on the CPU, one on a GPU.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        batch_size: examples that a native attack has in memory at once; results do not depend on it. None: 256 on the
            CPU, 1024 on a GPU.
        data: where data lies and is downloaded to; None: the user's cache folder.
        memory: decoded images that take more bytes are streamed; None: half of the machine's memory.
        deterministic: on a GPU, only algorithms that give the same bits each time.
        force: redo the cells that were asked for, done or not.
    """

    results: Path = Path("results")
    work: Path | None = None
    seeds: Sequence[int] = ()
    only: Sequence[str] = ()
    limit: int | None = None
    jobs: int | None = None
    device: str = "auto"
    batch_size: int | None = None
    data: Path | None = None
    memory: int | None = None
    deterministic: bool = False
    force: bool = False


def run_suite(suite: Suite, options: Options, console: Console) -> int:
    """Carry out what is left of a suite and write its report.

    Returns:
        0 all selected cells are done; 1 some failed or diverged; 130 interrupted.

    Raises:
        RunError: the results folder or the device cannot be used, or another run is using the folder.
        SelectionError: `seeds` or `only` fit nothing.
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
        loaders=min(16, max(1, _cores() // _jobs(options, device))),
        deterministic=options.deterministic,
        weights=_given_weights(suite),
        provenance=provenance.collect(),
    )
    # Before any lock or file: data that is not there is the user's to see to.
    dataset_sha256 = _fingerprint(suite, settings, console)
    with _exclusive(*dict.fromkeys((settings.results, settings.work))):
        try:
            _tidy(settings)
            write_json(settings.results / PLAN_FILE, make_plan(suite).model_dump(mode="json"))
        except OSError as error:
            raise RunError(f"cannot write to {settings.results}: {error.strerror or error}") from None
        try:
            code = _Run(selection, settings, options, console, dataset_sha256).carry_out()
        except OSError as error:
            raise RunError(f"cannot write {error.filename or settings.work}: {error.strerror or error}") from None
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left to do is short, and must end whole
            console.print("interrupted: what is finished is kept; the same command goes on from here")
            code = INTERRUPTED
        try:
            write_report(settings.results)
        except (OSError, ReportError) as error:
            console.print(f"cannot write the report: {error}", markup=False)
            code = code or INCOMPLETE
    return code


def resolve_device(name: str) -> str:
    """`auto` is the first GPU where there is one, else the CPU.

    Raises:
        RunError: no such device on this machine.
    """
    if name == "cpu" or (name == "auto" and not Path("/dev/nvidiactl").exists()):
        return "cpu"
    import torch  # only where a GPU is asked for or likely: it takes seconds

    count = torch.cuda.device_count()
    if name == "auto":
        return "cuda:0" if count else "cpu"
    known = [f"cuda:{index}" for index in range(count)]
    device = "cuda:0" if name == "cuda" else name
    if device not in known:
        raise RunError(f"--device {name}: there is no such device here; choose from {', '.join(['cpu', *known])}")
    return device


@contextlib.contextmanager
def _exclusive(*folders: Path) -> Iterator[None]:
    """Create the folders and hold their locks; the operating system lets go of them when the process dies."""
    with contextlib.ExitStack() as stack:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(filelock.FileLock(folder / ".lock", timeout=0))
            except filelock.Timeout:
                raise RunError(f"another run is using {folder}; wait for it, or choose another --results") from None
            except OSError as error:
                raise RunError(f"cannot write to {folder}: {error.strerror or error}") from None
        yield


def _tidy(settings: Settings) -> None:
    """Remove the half-written temporary files of a run that was killed."""
    for folder in (settings.results, settings.work):
        for file in folder.glob(".*.tmp"):
            file.unlink(missing_ok=True)


class _Run:
    """One run over the selected cells of a plan."""

    def __init__(
        self, selection: Selection, settings: Settings, options: Options, console: Console, dataset_sha256: str
    ) -> None:
        self.cells = selection.cells
        self.asked = selection.asked
        self.settings = settings
        self.options = options
        self.console = console
        self.dataset_sha256 = dataset_sha256

    def carry_out(self) -> int:
        """Execute until nothing is left to do that was not tried."""
        if self.options.force:
            self._forget()
        outcomes: dict[str, Outcome] = {}
        while pending := [cell for cell in self._pending() if cell.id not in outcomes]:
            outcomes |= self._execute(pending)
            # A training done anew may have given other weights; the attacks on the old ones are pending then too.
        return self._conclude(outcomes)

    def _forget(self) -> None:
        """Move what was asked for out of the way."""
        for cell in self.cells:
            if cell.id in self.asked:
                work = self.settings.work
                for file in (record_path(self.settings.results, cell.id), product_file(cell, work)):
                    if file.exists():
                        set_aside(file, work)
                resume_file(work, cell.id).unlink(missing_ok=True)

    def _pending(self) -> list[Cell]:
        """The cells to run, in order; what cannot be trusted is set aside on the way."""
        found = standings(self.cells, self.settings.results, self.dataset_sha256)
        pending = to_run(self.cells, found, self.settings.work)
        for cell in self.cells:
            if found[cell.id].state == "unusable":
                self._set_aside(record_path(self.settings.results, cell.id), cell, found[cell.id].why)
            if cell.id in pending and pending[cell.id] == ALTERED.get(cell.kind):
                self._set_aside(product_file(cell, self.settings.work), cell, pending[cell.id])
        return [cell for cell in self.cells if cell.id in pending]

    def _set_aside(self, file: Path, cell: Cell, why: str) -> None:
        target = set_aside(file, self.settings.work)
        self._say(f"{cell.id}: {why}; set aside as {target}, to be done again")

    def _execute(self, pending: list[Cell]) -> dict[str, Outcome]:
        jobs = min(_jobs(self.options, self.settings.device), len(pending))
        self._say(
            f"{self.settings.suite}: {len(pending)} of {len(self.cells)} cells to run, {jobs} at a time, "
            f"on {self.settings.device}"
        )
        executor = LocalProcesses(
            jobs,
            "robustbench_cmic.worker:work",
            self.settings,
            self._record_death,
            # An error of CUDA stays with its process: whatever came after it would fail, too.
            renew_after_failure=self.settings.device.startswith("cuda"),
        )
        with make_display(self.console, pending, jobs) as display:
            return executor.run(pending, display)

    def _record_death(self, cell: Cell, reason: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        timing = Timing(started=now, seconds=0.0)
        record = failed_record(self.settings.suite, cell, reason, self.settings.provenance, timing)
        with contextlib.suppress(OSError):  # the outcome is told and counted all the same
            write_record(self.settings.results, record)

    def _conclude(self, outcomes: dict[str, Outcome]) -> int:
        found = standings(self.cells, self.settings.results, self.dataset_sha256)
        bad = [cell for cell in self.cells if found[cell.id].state != "done"]
        if not outcomes:
            done = f"all {len(self.cells)} cells are done" if not bad else "everything that can be done is done"
            self._say(f"{done} already: nothing to run (--force runs it anew)")
        for cell in bad:
            standing = found[cell.id]
            state = "skipped" if blocked(cell, found) or standing.state == "missing" else standing.state
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
        raise RunError(f"--data {settings.data}: is a file, not a folder")
    try:
        return load_data(suite.dataset.model_dump(), settings.data, settings.memory, say).sha256
    except DataError as error:
        raise RunError(str(error)) from None


def _given_weights(suite: Suite) -> dict[str, Path]:
    """The files of given weights, by their hash."""
    files = [model.weights_file(seed) for model in suite.models if model.weights for seed in suite.seeds]
    return {sha256: file for file in files if (sha256 := file_sha256(file)) is not None}


def _jobs(options: Options, device: str) -> int:
    """On the CPU one process a core with one thread each: cells are independent, threads of one cell are not."""
    return options.jobs or (1 if device.startswith("cuda") else _cores())


def _cores() -> int:
    """Cores this process may use, where the system says; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
