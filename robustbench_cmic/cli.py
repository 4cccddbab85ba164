"""The command line: parses, calls one function, turns its answer into an exit code.

Exit codes: 0 all done; 1 some cell failed or diverged; 2 the suite or the command line is wrong; 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from robustbench_cmic import __version__
from robustbench_cmic.plan import SelectionError, make_plan, select
from robustbench_cmic.record import write_atomically
from robustbench_cmic.report import ReportError, flag_table, write_report
from robustbench_cmic.suite import LoadedSuite, SuiteError, find_suite, load_suite
from robustbench_cmic.toy import toy as toy_size

DONE, INCOMPLETE, USAGE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="robustbench-cmic",
    help="Does training with CMIC-DL make classifiers more accurate and more robust than cross entropy?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite file, or the name of one that comes along.")
]
ResultsOption = Annotated[Path, typer.Option("--results", metavar="DIR", help="Where results of suites lie.")]
WorkOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where checkpoints lie; by default beside the results, DIR.work.")
]
SeedsOption = Annotated[str, typer.Option(metavar="0,1", help="Only these seeds of the suite.")]
OnlyOption = Annotated[
    list[str], typer.Option(metavar="NAME", help="Only this model, attack or cell (* and ? allowed); repeatable.")
]
ToyOption = Annotated[
    bool, typer.Option("--toy", help="Cut everything down to seconds, in a folder of its own: see that it runs.")
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Evaluate on N examples only; marked, never ranked.")
]


def main() -> None:
    """Entry point of the console script and of `python -m robustbench_cmic`."""
    signal.signal(signal.SIGTERM, _interrupt)
    app()


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _fail(message: object) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(USAGE)


def _load(name: str, at_toy_size: bool = False) -> LoadedSuite:
    """The suite, its warnings told; exit 2 with every problem where it is wrong."""
    try:
        loaded = load_suite(find_suite(name))
    except SuiteError as error:
        _fail(error)
    for problem in loaded.warnings:
        print(f"warning: {problem.text(str(loaded.path))}", file=sys.stderr)
    return replace(loaded, suite=toy_size(loaded.suite)) if at_toy_size else loaded


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        _fail(f"--seeds: should be whole numbers such as 0,1,2, not '{text}'")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    work: WorkOption = None,
    seeds: SeedsOption = "",
    only: OnlyOption = [],  # noqa: B006 - typer's way to say "none given"
    limit: LimitOption = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Cells at a time; by default one a core, on a GPU one.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Examples attacked at once; results do not depend on it. [256; GPU: 1024]"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            envvar="ROBUSTBENCH_DATA",
            metavar="DIR",
            help="Where data lies and is downloaded to; by default in your cache folder.",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0, max=1e6, metavar="GB", help="Stream images that take more than this; by default half of the memory."
        ),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU: the same bits each time, more slowly.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Redo what was asked for, done or not.")] = False,
    toy: ToyOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
) -> None:
    """Train, attack and measure a suite's models; go on where an earlier run stopped."""
    if dry_run:
        _show_plan(suite, results, work, seeds, only, limit, force, toy)
        return
    # Imported where they are used: the other commands answer without them in a fraction of a second.
    from rich.console import Console

    from robustbench_cmic.run import Options, RunError, run_suite

    loaded = _load(suite, toy)
    options = Options(
        results=results,
        work=work,
        seeds=_seeds(seeds),
        only=only,
        limit=limit,
        jobs=jobs,
        device=device,
        batch_size=batch_size,
        data=data,
        memory=None if memory is None else int(memory * 1e9),
        deterministic=deterministic,
        force=force,
    )
    console = Console(soft_wrap=True)
    try:
        code = run_suite(loaded.suite, options, console)
    except (RunError, SelectionError) as error:
        _fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    folder = results / loaded.suite.suite
    if code in (DONE, INCOMPLETE):
        print(f"{folder / 'leaderboard.md'}")
        print(f"{folder / 'results.csv'}")
    raise typer.Exit(code)


@app.command()
def plan(
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    work: WorkOption = None,
    seeds: SeedsOption = "",
    only: OnlyOption = [],  # noqa: B006
    limit: LimitOption = None,
    toy: ToyOption = False,
) -> None:
    """Show a suite's cells: what is done and what a run would do."""
    _show_plan(suite, results, work, seeds, only, limit, force=False, toy=toy)


def _show_plan(
    suite: str, results: Path, work: Path | None, seeds: str, only: list[str], limit: int | None, force: bool, toy: bool
) -> None:
    from robustbench_cmic.plan_table import plan_table
    from robustbench_cmic.settings import work_folder

    whole = make_plan(_load(suite, toy).suite, limit)
    try:
        selection = select(whole, _seeds(seeds), only)
    except SelectionError as error:
        _fail(error)
    forced = selection.asked if force else set()
    print(plan_table(selection.cells, results / whole.suite, work_folder(results, work) / whole.suite, forced))


@app.command()
def validate(suite: SuiteArgument) -> None:
    """Check a suite file and say everything that is wrong with it."""
    loaded = _load(suite)
    cells = make_plan(loaded.suite).cells
    trainings = sum(cell.kind == "train" for cell in cells)
    print(f"{loaded.path}: valid: {trainings} trainings, {len(cells) - trainings} evaluations")


@app.command()
def report(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite file, or the name of a suite with results.")],
    results: ResultsOption = Path("results"),
) -> None:
    """Write a suite's tables anew, from its records alone."""
    folder = results / suite
    if not os.path.isdir(folder):  # noqa: PTH112 - a name too long is no folder either, where Path raises
        folder = results / _load(suite).suite.suite
    try:
        found = write_report(folder)
    except ReportError as error:
        _fail(error)
    except OSError as error:
        _fail(f"cannot write to {folder}: {error.strerror or error}")
    for problem in found.problems:
        print(problem, file=sys.stderr)
    print(f"{folder / 'leaderboard.md'}")
    print(f"{folder / 'results.csv'}")
    raise typer.Exit(INCOMPLETE if found.problems else DONE)


@app.command()
def audit(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RECORDS", help="Results folders of suites, such as results/digits.")
    ],
) -> None:
    """Judge stored results again: which numbers are not to be believed, and why. Writes their tables anew, too."""
    problems: list[str] = []
    for folder in folders:
        try:
            found = write_report(folder)
        except ReportError as error:
            _fail(error)
        except OSError as error:
            _fail(f"cannot write to {folder}: {error.strerror or error}")
        print(flag_table(found))
        problems += found.problems
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(INCOMPLETE if problems else DONE)


@app.command(name="list")
def list_() -> None:
    """List what suites may name: suites that come along, data sets, architectures, objectives, attacks."""
    from robustbench_cmic.plan_table import name_table

    print(name_table())


@app.command()
def schema(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file instead of the terminal.")
    ] = None,
) -> None:
    """Print the JSON Schema of suite files, for editors."""
    from robustbench_cmic.suite.json_schema import suite_json_schema

    text = suite_json_schema()
    if output is None:
        print(text, end="")
        return
    try:
        write_atomically(output, text.encode())
    except OSError as error:
        _fail(f"cannot write {output}: {error.strerror or error}")
