"""`reproduce`: a suite is made anew and compared with its results."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cmic.cli.arguments import SuiteArgument, fail, load
from robustbench_cmic.cli.compare import _read
from robustbench_cmic.run import INTERRUPTED
from robustbench_cmic.suite.messages import UserError, os_error_reason

if TYPE_CHECKING:
    from robustbench_cmic.report.compare.certificate import Certificate
    from robustbench_cmic.run.options import Options
    from robustbench_cmic.run.reproduce import Reproduction
    from robustbench_cmic.suite import LoadedSuite


def reproduce(
    suite: SuiteArgument,
    against: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The recorded results; by default results/SUITE.")
    ] = None,
    fraction: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="F", help="Only this share of the evaluations: the same sample every time."),
    ] = 1.0,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A fresh folder to run in, or that of an interrupted reproduction. [reproductions/SUITE/TIME]",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the certificate goes; by default into the fresh folder.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="ROBUSTBENCH_DATA", metavar="DIR", help="Where data lies, see `run`.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N; by default what the records were made on."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Cells at a time, see `run`.")] = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Add a line to nightly.csv beside the recorded results.")
    ] = True,
) -> None:
    """Run a suite from scratch and certify, cell by cell, whether the recorded results come out again."""
    from robustbench_cmic.run.reproduce import certify, default_folder, make_task, open_folder, options_for

    loaded = load(suite)
    recorded = against or Path("results") / loaded.suite.suite
    if not fraction > 0:
        fail(f"--fraction: should be above 0 and at most 1, not {fraction:g}")
    task = make_task(loaded, _read(recorded), fraction)
    folder = results or default_folder(loaded.suite.suite)
    place = output or folder
    try:
        made = open_folder(folder, place, task, fraction)
    except OSError as error:
        fail(f"cannot write to {error.filename or folder}: {os_error_reason(error)}")
    for difference in task.inputs:
        print(f"not the recorded experiment: {difference.text()}", file=sys.stderr)
    began = time.time()
    _rerun(task, loaded, options_for(task, folder, device, data, jobs), suite, made)
    certificate = certify(task, loaded, folder, recorded, fraction, began)
    code = _file(certificate, folder, place, recorded if history else None)
    print(certificate.sentence)
    raise typer.Exit(code)


def _rerun(task: Reproduction, loaded: LoadedSuite, options: Options, suite: str, made: list[Path]) -> None:
    """Carry the task out; an interruption ends the command, and nothing is certified."""
    from rich.console import Console

    from robustbench_cmic.run.reproduce import clean_up, rerun

    try:
        code = rerun(task, loaded, options, Console(soft_wrap=True))
    except UserError:
        clean_up(options.results, made)
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        print(f"nothing is certified; to go on: reproduce {suite} --results {options.results}, other options as before")
        raise typer.Exit(INTERRUPTED)


def _file(certificate: Certificate, folder: Path, place: Path, recorded: Path | None) -> int:
    """Write the certificate, and the history if it is wanted; returns the certificate's exit code."""
    from robustbench_cmic.report.compare.certificate import write_certificate
    from robustbench_cmic.report.compare.certificate_text import certificate_text
    from robustbench_cmic.run.reproduce import mark_certified

    try:
        write_certificate(place, certificate, certificate_text(certificate))
        mark_certified(folder)
    except OSError as error:
        fail(f"cannot write to {place}: {os_error_reason(error)}")
    print(place / "certificate.md")
    print(place / "certificate.json")
    if recorded is not None:
        _remember(certificate, recorded)
    return certificate.exit_code


def _remember(certificate: Certificate, recorded: Path) -> None:
    """Add to the history and draw it; what stands in the way is told, and changes nothing in what was certified."""
    from robustbench_cmic.report.compare.history import HISTORY_FILE, append_night, history_row
    from robustbench_cmic.report.compare.trend import TREND_FILE, write_trend

    try:
        nights = append_night(recorded, history_row(certificate))
    except (OSError, ValueError) as error:
        print(f"{recorded / HISTORY_FILE} is left as it was: {error}", file=sys.stderr)
        return
    try:
        write_trend(recorded, certificate.suite, nights)
    except (OSError, ValueError) as error:
        print(f"{recorded / TREND_FILE} is not drawn: {error}", file=sys.stderr)
