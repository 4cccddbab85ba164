"""`run`: the main path."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

import robustbench_cmic.cli.arguments as arguments
from robustbench_cmic.cli.plan import show_plan
from robustbench_cmic.run import DONE, INCOMPLETE
from robustbench_cmic.run.console import show
from robustbench_cmic.run.options import Options
from robustbench_cmic.suite import Suite

JobsOption = Annotated[
    int | None,
    typer.Option(
        parser=arguments.whole_number, metavar="N", help="Cells at a time; by default one a core, on a GPU one."
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        parser=arguments.whole_number,
        metavar="N",
        help="Examples attacked at once; results do not depend on it. [256; GPU: 1024]",
    ),
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        parser=arguments.number_to(1e6, "16"),
        metavar="GB",
        help="Stream images that take more than this; by default half of the memory.",
    ),
]
ExecutorOption = Annotated[
    str, typer.Option(metavar="local|ray", help="What carries out cells: processes here, or a cluster of Ray.")
]
AddressOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Of the cluster: ray://HOST:PORT, HOST:PORT, local or auto. [auto]"),
]
GpusOption = Annotated[
    float, typer.Option(min=0.01, metavar="F", help="On a cluster: what a cell takes of a GPU, such as 0.5.")
]


def run(
    suite: arguments.SuiteArgument,
    results: arguments.ResultsOption = Path("results"),
    work: arguments.WorkOption = None,
    seeds: arguments.SeedsOption = "",
    only: arguments.OnlyOption = [],  # noqa: B006 - typer's way to say "none given"
    shard: arguments.ShardOption = None,
    settings: arguments.SetOption = [],  # noqa: B006
    name_as: arguments.AsOption = None,
    limit: arguments.LimitOption = None,
    jobs: JobsOption = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: BatchSizeOption = None,
    data: arguments.DataOption = None,
    memory: MemoryOption = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="On a GPU: the same bits each time, more slowly.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Redo what was asked for, done or not.")] = False,
    timeout: arguments.TimeoutOption = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write curves for TensorBoard, those of what is done, too.")
    ] = None,
    executor: ExecutorOption = "local",
    address: AddressOption = None,
    gpus_per_cell: GpusOption = 1.0,
    toy: arguments.ToyOption = False,
    quiet: arguments.QuietOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and write nothing.")] = False,
) -> None:
    """Train, attack and measure a suite's models; go on where an earlier run stopped."""
    place = arguments.data_folder(data) if dry_run else None  # what is not there a run says itself
    loaded = arguments.load(suite, toy, place, settings, name_as, quiet)
    options = Options(
        results=results,
        work=work,
        seeds=arguments.parsed_seeds(seeds),
        only=only,
        shard=arguments.parsed_shard(shard),
        limit=limit,
        jobs=jobs,
        device=device,
        batch_size=batch_size,
        data=data,
        memory=None if memory is None else int(memory * 1e9),
        deterministic=deterministic,
        force=force,
        timeout=arguments.parsed_time(timeout),
        tensorboard=tensorboard,
        file=loaded.path,
        executor=_executor(executor, address, gpus_per_cell),
        address=address,
        gpus_per_cell=gpus_per_cell,
    )
    if dry_run:
        show_plan(loaded.suite, options)
    else:
        with loaded.locating():
            code = _carried_out(loaded.suite, options, quiet)
        raise typer.Exit(code)


def _executor(name: str, address: str | None, gpus: float) -> str:
    """The executor of a command line; exit 2 where there is none of the name, or options for another."""
    if name not in ("local", "ray"):
        arguments.fail(f"--executor: should be local or ray, not '{name}'")
    if name == "local" and (address is not None or gpus != 1):
        arguments.fail("--address and --gpus-per-cell are of a cluster: say --executor ray, too")
    if gpus > 1 and gpus != int(gpus):
        arguments.fail(f"--gpus-per-cell: should be a part of a GPU or a whole number of them, not {gpus:g}")
    return name


def _carried_out(suite: Suite, options: Options, quiet: bool) -> int:
    """Run, and end with the answer and the files that hold it; returns the exit code."""
    # Imported where they are used: the other commands answer without them in a fraction of a second.
    from rich.console import Console

    from robustbench_cmic.report.formats.terminal import print_board
    from robustbench_cmic.run.runner import run_suite

    console = Console(soft_wrap=True, quiet=quiet)
    problems = Console(soft_wrap=True, stderr=True) if quiet else console
    code = run_suite(suite, options, console, problems, lambda summary: print_board(summary, console))
    if code in (DONE, INCOMPLETE):
        folder = options.results / suite.suite
        if not quiet:
            show(f"as a page: robustbench-cmic report {folder.name}{_results_option(options.results)} --format html")
        for name in ("leaderboard.md", "results.csv", "models.csv"):
            if (file := folder / name).is_file():
                show(file)
    return code


def _results_option(results: Path) -> str:
    """What names the folder on a command line; nothing where it is the usual one."""
    return "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
