"""What is made of records: `report`, `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import (
    AsOption,
    QuietOption,
    ResultsOption,
    SetOption,
    fail,
    results_folder,
    tell,
    writing,
)
from robustbench_cmic.report import (
    FORMATS,
    STANDARD,
    ReportError,
    Summary,
    check_name,
    folders_of,
    of_own_making,
    write_index,
    write_report,
)
from robustbench_cmic.run import DONE, INCOMPLETE, USAGE
from robustbench_cmic.run.console import show, show_text


def _format(name: str) -> str:
    if name not in FORMATS:
        raise typer.BadParameter(f"'{name}' is not one of {', '.join(map(repr, FORMATS))}.")
    return name


def report(
    suites: Annotated[
        list[str],
        typer.Argument(metavar="SUITE", help="Suite files, or names of suites with results; by default all."),
    ] = [],  # noqa: B006 - typer's way to say "none given"
    formats: Annotated[
        list[str],
        typer.Option(
            "--format",
            parser=_format,
            metavar=f"[{'|'.join(FORMATS)}]",
            help="What to write; repeatable. [md and csv]",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    results: ResultsOption = Path("results"),
    settings: SetOption = [],  # noqa: B006
    name_as: AsOption = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also draw figures for papers there, as SVG, PNG and PDF.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write suites' tables anew, from their records alone; of one suite that is named, print what it says.

    Of all, those that cannot be read are named (exit 1).
    """
    if (settings and not suites) or (name_as is not None and len(suites) != 1):
        fail("--set and --as change a suite: name its file")
    folders = [results_folder(suite, results, settings, name_as) for suite in suites] or folders_of(results)
    if not folders:
        fail(f"{results} holds no results of any suite; `run` one first")
    chosen = list(dict.fromkeys(formats)) or list(STANDARD)
    problems: list[str] = []
    reported = 0
    for folder in folders:
        try:
            check_name(folder)
            with writing(folder):
                summary = write_report(folder, chosen)
            if len(suites) == 1 and not quiet:
                _print(summary)
        except ReportError as error:
            if suites:
                raise
            problems.append(str(error))
            continue
        problems += summary.results.problems
        reported += 1
        show(*(folder / file for form in chosen for file in FORMATS[form]))
        if figures is not None:
            _draw(summary, figures, quiet)
    if "html" in formats and reported:
        with writing(results):
            index, left_out = write_index(results)
        show(index)
        problems += left_out
    tell(dict.fromkeys(problems))
    raise typer.Exit((INCOMPLETE if reported else USAGE) if problems else DONE)


def _draw(summary: Summary, figures: Path, quiet: bool) -> None:
    """Write a suite's figures, and say which it has not."""
    # Imported where it is used: matplotlib takes half a second.
    from robustbench_cmic.report.figures import write_figures

    with writing(figures):
        files, absent = write_figures(summary, figures)
    show(*files)
    if not quiet:
        tell(absent)


def _print(summary: Summary) -> None:
    """What a run ends with."""
    # Imported where it is used: of several suites nothing is printed.
    from rich.console import Console

    from robustbench_cmic.report.formats.terminal import print_board

    with of_own_making(summary.results.folder):
        print_board(summary, Console())


def audit(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RECORDS", help="Results folders of suites, such as results/digits.")
    ],
) -> None:
    """Judge stored results again: which numbers are not to be believed, and why. Writes their tables anew, too."""
    from robustbench_cmic.report.tables import flags_text  # which the other commands start without

    problems: list[str] = []
    for folder in folders:
        with writing(folder):
            summary = write_report(folder)
        show_text(flags_text(summary))
        problems += summary.results.problems
    tell(problems)
    raise typer.Exit(INCOMPLETE if problems else DONE)
