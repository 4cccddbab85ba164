"""`run` and what comes before it: `plan`, `validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robustbench_cmic.cli.arguments import (
    DONE,
    INCOMPLETE,
    INTERRUPTED,
    LimitOption,
    OnlyOption,
    ResultsOption,
    SeedsOption,
    SuiteArgument,
    ToyOption,
    WorkOption,
    fail,
    load,
    parsed_seeds,
)
from robustbench_cmic.plan import SelectionError, make_plan, select


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
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write curves for TensorBoard, those of what is done, too.")
    ] = None,
    toy: ToyOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
) -> None:
    """Train, attack and measure a suite's models; go on where an earlier run stopped."""
    if dry_run:
        _show_plan(suite, results, work, seeds, only, limit, force, toy)
        return
    # Imported where they are used: the other commands answer without them in a fraction of a second.
    from rich.console import Console

    from robustbench_cmic.run import run_suite
    from robustbench_cmic.run_options import Options, RunError

    loaded = load(suite, toy)
    options = Options(
        results=results,
        work=work,
        seeds=parsed_seeds(seeds),
        only=only,
        limit=limit,
        jobs=jobs,
        device=device,
        batch_size=batch_size,
        data=data,
        memory=None if memory is None else int(memory * 1e9),
        deterministic=deterministic,
        force=force,
        tensorboard=tensorboard,
    )
    console = Console(soft_wrap=True)
    try:
        code = run_suite(loaded.suite, options, console)
    except (RunError, SelectionError) as error:
        fail(error)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    folder = results / loaded.suite.suite
    if code in (DONE, INCOMPLETE):
        for file in (folder / "leaderboard.md", folder / "results.csv"):
            if file.is_file():
                print(file)
    raise typer.Exit(code)


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

    whole = make_plan(load(suite, toy).suite, limit)
    try:
        selection = select(whole, parsed_seeds(seeds), only)
    except SelectionError as error:
        fail(error)
    forced = selection.asked if force else set()
    print(plan_table(selection.cells, results / whole.suite, work_folder(results, work) / whole.suite, forced))


def validate(suite: SuiteArgument) -> None:
    """Check a suite file and say everything that is wrong with it."""
    loaded = load(suite)
    cells = make_plan(loaded.suite).cells
    trainings = sum(cell.kind == "train" for cell in cells)
    print(f"{loaded.path}: valid: {trainings} trainings, {len(cells) - trainings} evaluations")
