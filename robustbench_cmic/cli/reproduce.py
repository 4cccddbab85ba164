"""`reproduce`: a suite is made anew and compared with its results."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_cmic.cli.arguments import SuiteArgument, fail, load, number_to, tell, whole_number
from robustbench_cmic.cli.compare import read_folder
from robustbench_cmic.plan.command import name_given
from robustbench_cmic.records.files import write_atomically, write_json
from robustbench_cmic.report.constraints import constraints_text
from robustbench_cmic.run import INTERRUPTED
from robustbench_cmic.run.console import show, show_text
from robustbench_cmic.suite.messages import os_error_reason

if TYPE_CHECKING:
    from robustbench_cmic.plan.cell import Plan
    from robustbench_cmic.report.compare.certificate import Certificate
    from robustbench_cmic.suite import LoadedSuite


FractionOption = Annotated[
    float,
    typer.Option(
        parser=number_to(1, "0.1"),
        metavar="F",
        help="Only this share of the evaluations: the same sample every time.",
    ),
]


def reproduce(
    suite: SuiteArgument,
    against: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The recorded results; by default results/SUITE.")
    ] = None,
    fraction: FractionOption = 1.0,
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
    jobs: Annotated[
        int | None, typer.Option(parser=whole_number, metavar="N", help="Cells at a time, see `run`.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Add a line to nightly.csv beside the recorded results.")
    ] = True,
    constraints: Annotated[
        bool, typer.Option("--constraints", help="Only print the versions behind the records, for pip or uv.")
    ] = False,
) -> None:
    """Run a suite, changed as it was when recorded, from scratch; certify whether its results come out again."""
    from robustbench_cmic.report.compare.history import add_to_history
    from robustbench_cmic.run import reproduce as run

    if not fraction > 0:
        fail(f"--fraction: should be above 0 and at most 1, not {fraction:g}")
    recorded = against or Path("results") / load(suite, quiet=True).suite.suite
    results_there = read_folder(recorded)
    if constraints:
        show_text(constraints_text(results_there))
        return
    loaded = load_as_recorded(suite, results_there.plan)
    reproduction = run.plan_reproduction(loaded, results_there, fraction)
    began = datetime.datetime.now(datetime.UTC)
    folder = results or Path("reproductions") / loaded.suite.suite / began.strftime("%Y%m%dT%H%M%SZ")
    place = output or folder
    if run.rerun(reproduction, folder, place, device, data, jobs):
        show(f"nothing is certified; to go on: reproduce {suite} --results {folder}, other options as before")
        raise typer.Exit(INTERRUPTED)
    certificate = run.certify(reproduction, folder, began)
    _write(certificate, place, when_safe=lambda: run.mark_certified(folder, reproduction))
    if history:
        tell(add_to_history(certificate, recorded))
    show(certificate.sentence)
    raise typer.Exit(certificate.exit_code)


def load_as_recorded(suite: str, plan: Plan) -> LoadedSuite:
    """The suite as a recorded plan says that the command line had changed it.

    Raises:
        UserError: see `arguments.load`, or the file has no longer what was changed of it.
    """
    return load(suite, settings=plan.changes, name_as=name_given(plan))


def _write(certificate: Certificate, place: Path, when_safe: Callable[[], None]) -> None:
    """Write a certificate into a folder and print where; `when_safe` is done as soon as it is."""
    from robustbench_cmic.report.compare.text import certificate_text

    try:
        write_json(place / "certificate.json", certificate.model_dump(mode="json"))
        write_atomically(place / "certificate.md", certificate_text(certificate).encode())
        when_safe()
    except OSError as error:
        fail(f"cannot write to {place}: {os_error_reason(error)}")
    show(place / "certificate.md", place / "certificate.json")
